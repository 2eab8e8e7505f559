"""The record of a run: everything that a table or a picture says about it later, as JSON in data/runs/."""

import dataclasses
import json
import math
import platform

import torch

from helpers.device import hardware, world_size
from helpers.files import RUNS_DIR, write_whole
from helpers.model import GPTConfig, count_parameters, true_dropout
from helpers.presets import PRESETS
from helpers.tokenizer import CharTokenizer
from helpers.train import precision_of


def record_of(preset_name, corpus_name, model, tokenizer, val_ids, config, history, device):
    """A run as a dictionary for JSON: settings, versions, hardware, curve, times, samples."""
    tokens = len(history.losses) * config.batch_size * model.config.block_size
    return {
        "preset": preset_name,
        "corpus": corpus_name,
        "part_of_corpus": part_of_corpus(PRESETS[preset_name]),
        "device": device.type,
        "hardware": hardware(device),
        "processes": world_size(),
        "precision": precision_of(config, device),
        "dropout": true_dropout(model.config.dropout, device),
        "compiled": history.compiled,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "parameters": count_parameters(model),
        "model": dataclasses.asdict(model.config),
        "train": dataclasses.asdict(config),
        "evals": [{k: round(v, 4) for k, v in point.items()} for point in history.evals],
        "best_val": round(history.best_val, 4),
        "best_step": history.best_step,
        "perplexity": round(math.exp(history.best_val), 3),  # per token
        "bits_per_character": round(bits_per_character(history.best_val, tokenizer, val_ids), 4),
        "train_seconds": round(history.train_seconds, 2),
        "tokens_per_second": round(tokens / max(history.train_seconds, 1e-9)),
        "samples": history.samples,
    }


def part_of_corpus(preset):
    """What a preset reads of a corpus, in words."""
    if preset.max_chars is None:
        return "all of it"
    pairs = ", and its byte pairs are learned from all of them" if preset.tokenizer != "char" else ""
    return f"the first {preset.max_chars:,} characters: it trains and validates on these alone{pairs}"


def bits_per_character(nats_per_token, tokenizer, ids):
    """A loss on ids (N,) in bits per character: the one unit in which all tokenizers can be compared."""
    characters = len(ids) if isinstance(tokenizer, CharTokenizer) else len(tokenizer.decode(ids))
    return nats_per_token / math.log(2) * len(ids) / characters


def write_record(path, record):
    """Write a record, whole or not at all. Raises ValueError if it cannot be written."""
    text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    write_whole(path, text.encode("utf-8", "replace"))  # a text's file may have a name that is no Unicode


def load_record(name):
    """The record of that name in data/runs/, without .json: a dict; None if there is none."""
    path = RUNS_DIR / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def load_bench(device_type="cpu"):
    """The last record of the benchmark on a kind of device, a dict; None if there is none."""
    return load_record(f"bench-{device_type}")


def load_records(corpus_name):
    """The recorded runs in data/runs/ on a corpus, in the order of PRESETS; see record_of."""
    names = [path.stem for preset in PRESETS for path in RUNS_DIR.glob(f"{preset}-{corpus_name}-*.json")]
    # A text of the reader's own can be called plays-2.txt.
    records = [r for r in map(load_record, sorted(names)) if r["corpus"] == corpus_name]
    return sorted(records, key=lambda r: (list(PRESETS).index(r["preset"]), r["device"]))


def record_of_system(name):
    """Of the recorded runs of a system's model, by whatever recipe, the one of the lowest loss, else None."""
    corpus = "tinyshakespeare" if PRESETS[name].claimed_on == "Tiny Shakespeare" else "plays"

    def is_its_model(record):
        size = {"vocab_size": record["model"]["vocab_size"]}
        return GPTConfig(**size | PRESETS[name].model) == GPTConfig(**record["model"])

    return min(filter(is_its_model, load_records(corpus)), key=lambda r: r["best_val"], default=None)
