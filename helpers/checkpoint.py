"""Nothing is lost: a trained model in one file, and all that a run needs to go on as if never stopped.

All files are safetensors: plain numbers behind a JSON header, so no pickle and no code inside. A file is
there whole or not at all (files.py), and carries a SHA-256 of its contents, so that damage is noticed.
"""

import dataclasses
import hashlib
import json
import os

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from helpers.checks import check_kind, shown
from helpers.device import all_gather, pick_device, rank
from helpers.files import whole_file
from helpers.model import GPT, GPTConfig, numbers_of
from helpers.tokenizer import BytePairTokenizer, CharTokenizer

# ---------------------------------------------------------------- one file


def write_file(path, tensors, header):
    """Write tensors (a dict) and header (a dict of JSON values) to one safetensors file, whole or not at all.

    Raises ValueError if the file cannot be written; an older file of that name then stays as it is.
    """
    # clone: safetensors refuses tensors that share memory, as tied weights do
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    header = {key: json_of(key, value) for key, value in header.items()}
    header["sha256"] = digest(tensors, header)
    with whole_file(path) as partial:
        try:
            save_file(tensors, partial, metadata=header)
        except SafetensorError as error:
            raise OSError(str(error)) from None


def read_file(path):
    """The tensors and the header of a file that write_file wrote. Raises ValueError if it is damaged."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            header = file.metadata() or {}
            # clone: else they lie in the file, which Windows could then neither replace nor delete
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}
        expected = header.pop("sha256")
        if digest(tensors, header) != expected:
            raise ValueError("its contents do not match its SHA-256")
        return tensors, {key: json.loads(value) for key, value in header.items()}
    except FileNotFoundError:
        raise ValueError(f"There is no checkpoint {path}: train first, or check the path.") from None
    except PermissionError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}): see who may read it.") from None
    except MemoryError:
        raise
    except Exception as error:  # damage can surface anywhere in the reading, and is damage each time
        raise ValueError(damaged(path, error)) from None


def json_of(name, value):
    """value as JSON. Raises ValueError if it holds more than numbers, texts, lists and dicts."""
    try:
        return json.dumps(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}={shown(value)} is not JSON ({error}): give numbers and texts.") from None


def damaged(path, error):
    """The sentence for a file that cannot be what it should be."""
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return f"{path} is not a whole checkpoint of this course ({reason}): delete it and train again."


def digest(tensors, header):
    """SHA-256, in hexadecimal, of everything in a file: names, types, shapes, numbers and header."""
    sha = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(tensors):
        t = tensors[name]
        sha.update(f"{name} {t.dtype} {tuple(t.shape)}".encode())
        sha.update(t.reshape(-1).view(torch.uint8).numpy())
    return sha.hexdigest()


# ---------------------------------------------------------------- a trained model


def save_checkpoint(path, model, tokenizer, weights=None, **about):
    """Write model, tokenizer and what `about` says (JSON values) to one file, whole or not at all.

    weights: a state dict to save in place of the model's present one, such as History.best_weights.
    A compiled or distributed model is saved as the plain one inside. Raises ValueError if the file
    cannot be written.
    """
    check_kind("path", path, str | os.PathLike, 'a path, such as "model.safetensors"')
    model = plain(model)
    check_kind("model", model, GPT, "a GPT")
    header = {"config": dataclasses.asdict(model.config), "tokenizer": vocabulary(tokenizer), "about": about}
    write_file(path, weights or model.state_dict(), header)


def load_checkpoint(path, device="cpu"):
    """Read a file that save_checkpoint wrote: (model in evaluation mode, tokenizer, about).

    Raises ValueError if the file is missing, damaged or of another kind.
    """
    check_kind("path", path, str | os.PathLike, 'a path, such as "model.safetensors"')
    device = pick_device(device)
    weights, header = read_file(path)
    try:
        config = GPTConfig(**header["config"])
        # Before anything is built: a made-up header could ask for a model of any size.
        if numbers_of(config) > sum(w.numel() for w in weights.values()):
            raise ValueError("its config is of a larger model than its weights")
        with torch.random.fork_rng(devices=[]):  # the initialisation is overwritten: leave no trace
            model = GPT(config)
        model.load_state_dict(weights)
        tokens = header["tokenizer"]
        tokenizer = (
            CharTokenizer(tokens["chars"]) if "chars" in tokens else BytePairTokenizer(tokens["merges"])
        )
        about = header["about"]
        if tokenizer.vocab_size > config.vocab_size:
            raise ValueError("its vocabulary is larger than its model's")
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(damaged(path, error)) from None
    return model.to(device).eval(), tokenizer, about


def plain(model):
    """The model inside torch.compile and DistributedDataParallel, so that names are always the same."""
    for wrapper in ("_orig_mod", "module", "_orig_mod"):  # either can be the outer one
        model = getattr(model, wrapper, model)
    return model


def vocabulary(tokenizer):
    """What makes a tokenizer, as JSON values."""
    if isinstance(tokenizer, CharTokenizer):
        return {"chars": tokenizer.chars}
    return {"merges": [list(pair) for pair in tokenizer.merges]}


# ---------------------------------------------------------------- what a run needs to go on


def state_of(model, history, device):
    """Everything that the next step depends on, as tensors and JSON values."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    if history.best_step != history.step:  # else the best weights are the model's, and stand there once
        tensors |= {f"best.{name}": value for name, value in history.best_weights.items()}
    for i, optimizer in enumerate(history.optimizers):
        for number, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{number}.{key}": value for key, value in state.items()}
    tensors["losses"] = torch.tensor(history.losses, dtype=torch.float64)
    tensors["rng.batches"] = history.generator.get_state()
    # Each process draws its own dropout. (NCCL sends from GPU to GPU only.)
    states = {"dropout": torch.random.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    tensors |= {f"rng.{name}": all_gather(state.to(device)) for name, state in states.items()}
    names = ("step", "train_seconds", "evals", "samples", "best_val", "best_step")
    header = {name: getattr(history, name) for name in names}
    return tensors, {"history": header, "scaler": history.scaler.state_dict()}


def restore(model, history, device, tensors, header):
    """Set model, history and random states to what state_of wrote."""
    part = {}  # the tensors by the first word of their names
    for name, value in tensors.items():
        first, _, rest = name.partition(".")
        part.setdefault(first, {})[rest] = value
    model.load_state_dict(part["model"])
    for name, value in header["history"].items():
        setattr(history, name, value)
    history.best_weights = part["model" if history.best_step == history.step else "best"]
    history.losses = tensors["losses"].tolist()
    for i, optimizer in enumerate(history.optimizers):
        state = optimizer.state_dict()
        for name, value in part.get("optimizer", {}).items():
            which, number, key = name.split(".")
            if int(which) == i:
                state["state"].setdefault(int(number), {})[key] = value
        optimizer.load_state_dict(state)
    if history.scaler.is_enabled() and header["scaler"]:  # both in float16
        history.scaler.load_state_dict(header["scaler"])
    history.generator.set_state(part["rng"]["batches"])
    # clone: PyTorch reads a state from the beginning of its memory, where that of process 0 is.
    if rank() < len(part["rng"]["dropout"]):  # a process more than then has the state it began with
        torch.random.set_rng_state(part["rng"]["dropout"][rank()].clone())
        if device.type == "cuda" and "cuda" in part["rng"]:
            torch.cuda.set_rng_state(part["rng"]["cuda"][rank()].clone(), device)
