"""The code behind the course. A file imports only from files that stand above it in this list.

below everything
    checks.py                  bad input in one sentence; settings of a configuration
    files.py                   where the files are, how they are written, the one download
the GPT: nine lessons, in the order in which to read them
    device.py                  where to compute, how exactly, in how many processes   (notebooks 06, 07)
    data.py                    corpora, train/validation split, batches               (notebook 01)
    tokenizer.py               characters and byte pairs to integers and back         (notebook 01)
    model.py                   from the bigram table to the GPT                       (notebooks 02-05)
    generate.py                sampling text: temperature, top-k, top-p, cache        (notebooks 02, 06, 07)
    optimizers.py              learning-rate schedule, AdamW and Muon                 (notebooks 06, 07)
    train.py                   the ten-line loop, then the full training program      (notebooks 02, 06)
    checkpoint.py              trained models and interrupted runs, without pickle    (notebooks 06, 07)
    presets.py                 named configurations, the five systems among them      (notebooks 06, 07)
the ladder
    ladder.py                  one validation loss per idea, one budget               (all notebooks)
the programs around it
    program/large_text.py      texts larger than memory
    program/build.py           a preset and a text become a model; what cannot work is refused
    program/folder.py          the folder of a run: its checkpoints, and who may use it
    program/records.py         what is kept of a run and of the benchmark
    program/run.py             python -m helpers train
    program/plain.py           a GPT script as most are written, to compare with
    program/gpt2.py            GPT-2's form: out of a Hugging Face folder, and into one (notebook 08)
    program/nanogpt.py         a nanoGPT checkout, run as it is, to compare with
    program/tokens.py          python -m helpers tokens
    program/bench.py           python -m helpers bench
    program/pace.py            how fast is this machine, and what can it train in two minutes?
    program/setup.py           python -m helpers setup | lab | test: .venv, and what runs in it
    program/doctor.py          python -m helpers doctor: is this machine ready?
the pictures
    pictures/style.py          colours, sizes, letters
    pictures/shared.py         what several notebooks draw: attention maps, losses, the ladder
    pictures/structure.py      a batch, a head, a block, the whole GPT, the training loop
    pictures/panel.py          the frame of a panel: sliders over a picture
    pictures/notebook_00.py    what notebook 00 alone draws; and so on
    pictures/notebook_01.py
    pictures/notebook_02.py
    pictures/notebook_03.py
    pictures/notebook_04.py
    pictures/notebook_05.py
    pictures/notebook_06.py
    pictures/notebook_07.py
    pictures/notebook_08.py
the exercises
    exercises/exercise.py      what an exercise is made of
    exercises/notebook_00.py   the exercises of notebook 00: slow code, random cases, typical mistakes
    exercises/notebook_01.py
    exercises/notebook_02.py
    exercises/notebook_03.py
    exercises/notebook_04.py
    exercises/notebook_05.py
    exercises/notebook_06.py
    exercises/notebook_07.py
    exercises/notebook_08.py
    exercises/check.py         check(...): is an exercise solved, and if not, why?
the command line
    __main__.py                python -m helpers setup | lab | test | train | bench | ladder | tokens | doctor
"""
