"""Saving and loading a trained model: one safetensors file, so no pickle and no code inside.

The file's header carries the settings of the model and its vocabulary as JSON, so that weights
never meet the wrong tokenizer.
"""

import dataclasses
import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from helpers.model import GPT, GPTConfig
from helpers.tokenizer import BytePairTokenizer, CharTokenizer


def save_checkpoint(path, model, tokenizer, weights=None, **about):
    """Write model, tokenizer and what `about` says (plain JSON values) to one file, whole or not at all.

    weights: a state dict to save in place of the model's present one, such as History.best_weights.
    Raises ValueError if the file cannot be written.
    """
    path = Path(path)
    # clone: safetensors refuses tensors that share memory, as tied weights do
    weights = {k: v.detach().cpu().clone() for k, v in (weights or model.state_dict()).items()}
    if isinstance(tokenizer, CharTokenizer):
        vocabulary = {"kind": "char", "chars": tokenizer.chars}
    else:
        vocabulary = {"kind": "byte-pair", "merges": tokenizer.merges}
    header = {
        "config": json.dumps(dataclasses.asdict(model.config)),
        "tokenizer": json.dumps(vocabulary),
        "about": json.dumps(about),
    }
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(weights, partial, metadata=header)
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"The checkpoint {path} cannot be written ({error}): free some space or choose another folder."
        ) from None
    finally:
        partial.unlink(missing_ok=True)


def load_checkpoint(path, device="cpu"):
    """Read a file that save_checkpoint wrote: (model in evaluation mode, tokenizer, about).

    Raises ValueError if the file is missing, damaged or of another kind.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            header = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}
        config = GPTConfig(**json.loads(header["config"]))
        vocabulary = json.loads(header["tokenizer"])
        if vocabulary["kind"] == "char":
            tokenizer = CharTokenizer(vocabulary["chars"])
        else:
            tokenizer = BytePairTokenizer(vocabulary["merges"])
        with torch.random.fork_rng(devices=[]):  # the initialisation is overwritten: leave no trace
            model = GPT(config)
        model.load_state_dict(weights)
        about = json.loads(header["about"])
    except FileNotFoundError:
        raise ValueError(f"There is no checkpoint {path}: train first, or check the path.") from None
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{path} is not a whole checkpoint of this course ({reason}): delete it and train again."
        ) from None
    return model.to(device).eval(), tokenizer, about
