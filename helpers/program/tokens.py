"""What longer tokens buy: one GPT on characters and on byte pairs, recorded over several seeds.

python -m helpers tokens

Each vocabulary is tried twice: with the body of the character model, and with a narrower one, so that it
has as many parameters. All runs take the same number of operations, so larger vocabularies take fewer steps.
"""

import argparse
import dataclasses
import platform

import torch

from helpers.data import load_corpus, train_val_split
from helpers.device import hardware, pick_device
from helpers.files import RUNS_DIR
from helpers.generate import stream_text
from helpers.model import GPT, GPTConfig, flops_per_token, parameter_table
from helpers.presets import PRESETS
from helpers.program.records import bits_per_character, write_record
from helpers.tokenizer import BytePairTokenizer, CharTokenizer
from helpers.train import TrainConfig, precision_of, train

PIECES = 512, 2048, 8192  # sizes of the vocabularies beside the characters
PRESET = "course-sprint"
STEPS = 400  # of the character model
SEEDS = 1, 2, 3
SHAPE = PRESETS[PRESET].model | dict(tie_weights=True)  # as GPT-2 has it
BUDGETS = "equal compute", "equal parameters"


def tokenizers_of(text, train_text, pieces=PIECES):
    """A dict from a name to a tokenizer: characters, then byte pairs learned from train_text alone.

    The merges of a small vocabulary are the first ones of a large one, so one training is enough.
    """
    largest = BytePairTokenizer.train(train_text, max(pieces))
    cut = {f"{n:,} pieces": BytePairTokenizer(largest.merges[: n - 256]) for n in pieces}
    return {"characters": CharTokenizer.from_text(text)} | cut


def config_of(vocab_size, budget, characters, shape=SHAPE):
    """The GPTConfig for a vocabulary: with the body of the character model, or with as many parameters.

    characters: how many of them there are. Equal means nearest: the width is a multiple of the heads.
    """
    like = GPTConfig(vocab_size=characters, **shape)
    if budget == "equal compute":
        return dataclasses.replace(like, vocab_size=vocab_size)
    widths = range(like.n_head, like.n_embd + 1, like.n_head)
    narrower = [dataclasses.replace(like, vocab_size=vocab_size, n_embd=width) for width in widths]
    wanted = sum(parameter_table(like).values())
    return min(narrower, key=lambda config: abs(sum(parameter_table(config).values()) - wanted))


def steps_of(config, characters, steps=STEPS, shape=SHAPE):
    """The steps that take as many operations as `steps` of the character model."""
    like = GPTConfig(vocab_size=characters, **shape)
    return max(round(steps * flops_per_token(like) / flops_per_token(config)), 1)


def train_point(parts, tokenizer, config, steps, seed, device=None):
    """Train a GPT once on parts, (train_text, val_text): (model, what was measured, a dict)."""
    train_ids, val_ids = map(tokenizer.encode, parts)
    device = pick_device(device)
    plan = PRESETS[PRESET].train | dict(max_steps=steps, eval_interval=steps, seed=seed)
    plan["warmup_steps"] = min(plan["warmup_steps"], steps // 4)
    torch.manual_seed(seed)
    model = GPT(config)
    history = train(model, train_ids, val_ids, TrainConfig(**plan), device, progress=False)
    last, seen = history.evals[-1], train_ids[: len(val_ids)]  # what the trainer's sweep takes of it
    return model, {
        "seed": seed,
        "nats_per_token": round(last["val"], 4),
        "train_nats_per_token": round(last["train"], 4),
        "bits_per_character": round(bits_per_character(last["val"], tokenizer, val_ids), 4),
        "train_bits_per_character": round(bits_per_character(last["train"], tokenizer, seen), 4),
        "seconds": round(history.train_seconds, 1),
    }


def measure(corpus, steps=STEPS, seeds=SEEDS, pieces=PIECES, shape=SHAPE, device=None):
    """The record for a corpus, a dict: its rows are the points of the picture, each with all its seeds."""
    parts = train_val_split(corpus.text)
    tokenizers = tokenizers_of(corpus.text, parts[0], pieces)
    V = tokenizers["characters"].vocab_size
    rows = []
    for name, tokenizer in tokenizers.items():
        for budget in BUDGETS[: 1 if name == "characters" else 2]:
            config = config_of(tokenizer.vocab_size, budget, V, shape)
            row = row_of(name, budget, tokenizer, parts, config, steps_of(config, V, steps, shape))
            for seed in seeds:
                model, point = train_point(parts, tokenizer, config, row["steps"], seed, device)
                row["seeds"].append(point)
                print(f"{name}, {budget}: {point}", flush=True)
            row["sample"] = sample(model, tokenizer, parts[0], seeds[-1])
            rows.append(row)
    device, config = pick_device(device), TrainConfig(**PRESETS[PRESET].train)
    return {
        "corpus": corpus.name, "hardware": hardware(device), "precision": precision_of(config, device),
        "torch": torch.__version__, "python": platform.python_version(), "characters": V, "steps": steps,
        "rows": rows,
    }  # fmt: skip


def row_of(name, budget, tokenizer, parts, config, steps):
    """What is known of a row before anything is trained."""
    per_token = len(parts[1]) / len(tokenizer.encode(parts[1]))
    return {
        "name": name, "budget": budget, "vocab_size": config.vocab_size, "n_embd": config.n_embd,
        "steps": steps, "operations_per_token": flops_per_token(config),
        "parameters": sum(parameter_table(config).values()), "parts": parameter_table(config),
        "characters_per_token": round(per_token, 3), "sees": round(per_token * config.block_size),
        "seeds": [],
    }  # fmt: skip


def sample(model, tokenizer, text, seed, length=200):
    """The first `length` characters that the model writes after a line break, if its text has any: a str."""
    start, generator = "\n" if "\n" in text else text[0], torch.Generator().manual_seed(seed)
    written = "".join(stream_text(model, tokenizer, start, length, top_p=0.95, generator=generator))
    return written[:length]


def main(arguments=None):
    """The subcommand: measure one text after another and write the records that notebook 08 draws."""
    parser = argparse.ArgumentParser(prog="python -m helpers tokens", description="What longer tokens buy.")
    parser.add_argument("texts", nargs="*", default=["plays"], help="names or paths, by default the plays")
    try:
        for name in parser.parse_args(arguments).texts:
            corpus = load_corpus(name)
            path = RUNS_DIR / f"tokens-{corpus.name}.json"
            write_record(path, measure(corpus))
            print(path)
    except ValueError as error:
        raise SystemExit(str(error)) from None
