"""From a preset's name and a text to a model, its tokens and its settings; what cannot work is refused."""

import dataclasses
import math
import os

import torch

from helpers.checks import shown
from helpers.data import check_block_fits, train_val_split
from helpers.device import world_size
from helpers.model import GPT, GPTConfig, check_in_vocabulary, numbers_of, training_memory
from helpers.presets import PRESETS
from helpers.program.large_text import tokens_of_file
from helpers.tokenizer import BytePairTokenizer, CharTokenizer
from helpers.train import TrainConfig, parts_of

LARGEST_SWEEP = 1_000_000  # validation tokens that are kept of a text larger than memory
BYTE_PAIRS = 1024  # the vocabulary of presets with a byte-pair tokenizer


def build(preset_name, corpus, model_changes=None, train_changes=None):
    """Model, tokenizer, train_ids (N,), val_ids (M,) and TrainConfig of a preset on a Corpus.

    The changes are dicts from setting to value. Raises ValueError, in one sentence, for names that do not
    exist, values that are not allowed, and what does not fit together or into memory.
    """
    preset = preset_of(preset_name)
    text = corpus.text[: preset.max_chars]
    if preset.tokenizer == "char":
        tokenizer = CharTokenizer.from_text(text)
    else:
        tokenizer = BytePairTokenizer.train(text, BYTE_PAIRS)
    return assemble(preset, tokenizer, tokenizer.encode(text), 0.1, model_changes, train_changes)


def build_from_file(preset_name, path, model_changes=None, train_changes=None):
    """As build, for a text too large for memory: its ids are on the disk. Character presets only."""
    preset = preset_of(preset_name)
    if preset.tokenizer != "char":
        raise ValueError(
            f"The byte pairs of {preset_name} are learned in memory, and {path} is too large for that: "
            "choose a character preset, or give a part of the text."
        )
    tokenizer, ids = tokens_of_file(path)
    # A tenth of a large text would take longer to sweep than to train on.
    val_fraction = min(0.1, LARGEST_SWEEP / max(len(ids), 1))
    return assemble(preset, tokenizer, ids[: preset.max_chars], val_fraction, model_changes, train_changes)


def assemble(preset, tokenizer, ids, val_fraction, model_changes, train_changes):
    """What build returns, from the ids (N,) of a whole text."""
    settings = {"vocab_size": tokenizer.vocab_size} | preset.model | (model_changes or {})
    model_config = configured(GPTConfig, settings)
    config = configured(TrainConfig, preset.train | (train_changes or {}))
    train_ids, val_ids = train_val_split(ids, val_fraction)
    check_model_fits(model_config)
    torch.manual_seed(config.seed)
    model = GPT(model_config)
    check_run(model, train_ids, val_ids, config)
    return model, tokenizer, train_ids, val_ids, config


def preset_of(name):
    """The preset of that name. Raises ValueError with the choice if there is none."""
    if not isinstance(name, str) or name not in PRESETS:
        raise ValueError(f"There is no preset {shown(name)}: choose one of {', '.join(PRESETS)}.")
    return PRESETS[name]


def configured(kind, settings):
    """kind(**settings), a config. Raises ValueError with the choice for a name that it does not have."""
    names = [f.name for f in dataclasses.fields(kind)]
    for name in settings:
        if name not in names:
            raise ValueError(f"There is no setting {name!r}: choose among {', '.join(names)}.")
    return kind(**settings)


# ---------------------------------------------------------------- what cannot work


def check_model_fits(config):
    """Raise ValueError if the weights of GPT(config) alone need more memory than the machine has."""
    if 4 * numbers_of(config) > machine_memory():
        raise ValueError(
            f"A model of vocab_size={config.vocab_size}, n_layer={config.n_layer}, n_embd={config.n_embd}, "
            f"block_size={config.block_size} does not fit into the memory: lower the largest of them."
        )


def check_run(model, train_ids, val_ids, config):
    """Raise ValueError if the texts do not suit the model, or a batch not the processes."""
    for name, ids in (("train_ids", train_ids), ("val_ids", val_ids)):
        check_block_fits(ids, model.config.block_size)
        check_in_vocabulary(name, ids[: 2**24], model)  # not all of a text larger than memory
    if config.batch_size % (world_size() * (config.accumulation_steps or 1)):
        raise ValueError(
            f"batch_size={config.batch_size} does not divide among {world_size()} processes and "
            f"accumulation_steps={config.accumulation_steps or 1}: choose a multiple of both."
        )


def check_batch_fits(model, config, device):
    """Raise ValueError if a batch needs more memory than the machine of a CPU has."""
    # That memory is promised first and found missing later, when it is too late for a sentence. A GPU's
    # is refused at once.
    part = config.batch_size // (world_size() * parts_of(config, model.config, device))
    needed = sum(training_memory(model.config, part).values()) / 2  # in bfloat16, at the least
    needed += 8 * config.batch_size * (model.config.block_size + 1)  # the ids of the whole batch
    if device.type == "cpu" and needed > machine_memory():
        raise ValueError(too_large(model, config, device))


def too_large(model, config, device):
    """The sentence for a batch that needs more memory than there is."""
    parts = parts_of(config, model.config, device)
    return (
        f"A batch of batch_size={config.batch_size} in accumulation_steps={parts} with "
        f"block_size={model.config.block_size} does not fit into the memory: "
        "raise accumulation_steps, or lower batch_size or block_size."
    )


def machine_memory():
    """Bytes of memory of this machine; no limit where the system does not tell."""
    if not hasattr(os, "sysconf"):
        return math.inf
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
