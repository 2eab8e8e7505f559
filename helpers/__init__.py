"""The code behind the course: each file is one subject and reads from top to bottom.

data.py          corpora, train/validation split, batches               (notebook 01)
tokenizer.py     characters and byte pairs to integers and back         (notebook 01)
model.py         from the bigram table to the GPT                       (notebooks 02-05)
train.py         the ten-line loop, then the full training program      (notebooks 02, 06)
generate.py      sampling text: temperature, top-k, top-p, cache        (notebooks 02, 06)
checkpoint.py    saving and loading a trained model without pickle      (notebook 06)
presets.py       named configurations, the five systems among them      (notebook 06)
ladder.py        the rungs: one validation loss per idea, one budget    (all notebooks)
plots.py         pictures                                               (all notebooks)
panels.py        sliders over pictures                                  (all notebooks)
"""
