"""The code behind the course: each file is one subject and reads from top to bottom.

the lessons
    data.py          corpora, train/validation split, batches               (notebook 01)
    tokenizer.py     characters and byte pairs to integers and back         (notebook 01)
    model.py         from the bigram table to the GPT                       (notebooks 02-05)
    train.py         the ten-line loop, then the full training program      (notebooks 02, 06)
    optimizers.py    learning-rate schedule, AdamW and Muon                 (notebook 06)
    device.py        where to compute, how exactly, in how many processes   (notebook 06)
    generate.py      sampling text: temperature, top-k, top-p, cache        (notebooks 02, 06)
    checkpoint.py    trained models and interrupted runs, without pickle    (notebook 06)
    presets.py       named configurations, the five systems among them      (notebook 06)
    runs.py          a preset on a text, recorded; the command line         (notebook 06)
    ladder.py        the rungs: one validation loss per idea, one budget    (all notebooks)
    exercises.py     check(...): is an exercise solved, and if not, why?    (all notebooks)
    slow.py          the exercises as slow code, which says what is wanted
    mistakes.py      their random cases, and what often goes wrong
what carries them
    plots.py         pictures                                               (all notebooks)
    panels.py        sliders over pictures                                  (all notebooks)
    large_text.py    texts larger than memory
    bench.py         the course beside plain programs, side by side
    checks.py        bad input in one sentence
    doctor.py        is this machine ready for the course?
"""
