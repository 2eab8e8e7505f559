"""The folder of a training run: who may use it, its last checkpoints, and whether a run there goes on."""

import contextlib
import dataclasses
import hashlib
import re
import shutil
from pathlib import Path

import filelock
import torch
from tqdm.auto import tqdm

from helpers.checkpoint import (
    damaged,
    plain,
    read_file,
    restore,
    save_checkpoint,
    state_of,
    vocabulary,
    write_file,
)
from helpers.checks import shown
from helpers.device import barrier, pick_device, rank
from helpers.model import numbers_of, parameter_table
from helpers.train import begin, precision_of

BEST = "best.safetensors"


@contextlib.contextmanager
def run_folder(folder, model, tokenizer, config, device, train_ids, val_ids, fresh=False):
    """Keep a training run in `folder`: yields (history, save), both for `train`.

    history is None for a new run; else the model and the history are as they were at the last
    checkpoint. save(history) writes the next one; the last two are kept, and best.safetensors. Of
    several processes each calls it, and the first writes. A save that fails is announced and training
    goes on. fresh=True removes the run that is there and begins anew. Raises ValueError if another
    program trains in the folder, if the run there is of another model, text or setting, if its
    best.safetensors is somebody else's, or if the disk has no room for the run.
    """
    folder, model, device = Path(folder), plain(model), pick_device(device)
    identity = identity_of(model, tokenizer, config, device, train_ids, val_ids)
    with only_one(folder) if rank() == 0 else contextlib.nullcontext():
        if rank() == 0:  # only under the lock: these may be another program's
            check_best_is_ours(folder)
            remove_leftovers(folder)
            if fresh or not (folder / step_file(config.max_steps)).exists():  # an ended run writes nothing
                check_room(folder, bytes_needed(model.config, config))
            for old in [*checkpoints(folder), folder / BEST] if fresh else []:
                old.unlink(missing_ok=True)
        barrier()  # before any process looks what is there
        history = resume(folder, model, config, device, identity)
        best_saved = history.best_step if history and (folder / BEST).exists() else None

        def save(history):
            nonlocal best_saved
            tensors, header = state_of(model, history, device)  # with the random states of all processes
            if rank() != 0:
                return
            try:
                if history.best_step != best_saved:
                    about = {"val": history.best_val, "step": history.best_step, "saved_by": "run_folder"}
                    save_checkpoint(folder / BEST, model, tokenizer, history.best_weights, **about)
                    best_saved = history.best_step
                write_file(folder / step_file(history.step), tensors, header | identity)
                for old in checkpoints(folder)[2:]:
                    old.unlink(missing_ok=True)
            except (ValueError, OSError) as error:
                tqdm.write(f"{error} Training goes on; the checkpoint before stays.")

        yield history, save


def identity_of(model, tokenizer, config, device, train_ids, val_ids):
    """What makes a run this run and no other, as JSON values."""
    return {
        "model": dataclasses.asdict(model.config),
        "train": dataclasses.asdict(config),
        "tokenizer": vocabulary(tokenizer),
        "text": fingerprint(train_ids, val_ids),
        "precision": precision_of(config, device),
        "torch": torch.__version__,
    }


def fingerprint(*parts):
    """SHA-256 of token ids: does a run go on with the text that it began with?"""
    sha = hashlib.sha256()
    for ids in parts:
        sha.update(f"{len(ids)};".encode())
        for piece in ids.split(2**24):  # piece by piece: a large text need not fit into memory
            sha.update(piece.long().numpy())
    return sha.hexdigest()


@contextlib.contextmanager
def only_one(folder):
    """Hold the folder's lock. Raises ValueError if another program has it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / "lock", blocking=False)
        lock.acquire()
    except filelock.Timeout:
        raise ValueError(
            f"Another program is training in {folder}: wait for its end, or choose another folder."
        ) from None
    except OSError as error:
        raise ValueError(
            f"{folder} cannot be used for checkpoints ({error.strerror}): choose another folder."
        ) from None
    try:
        yield
    finally:
        lock.release()


def check_best_is_ours(folder):
    """Raise ValueError if a best.safetensors lies in the folder that no run of this course wrote."""
    if not (folder / BEST).exists():
        return
    with contextlib.suppress(ValueError):
        if read_file(folder / BEST)[1].get("about", {}).get("saved_by") == "run_folder":
            return
    raise ValueError(
        f"{folder / BEST} is not of a run in this folder, or damaged: move it away, or choose another folder."
    )


def remove_leftovers(folder):
    """Clear away what a killed program left half written here; see files.whole_file for the names."""
    for path in folder.glob("*.partial"):
        if re.fullmatch(r"(best|step-\d{8})\.safetensors\.[0-9a-f]{16}\.partial", path.name):
            path.unlink(missing_ok=True)


def step_file(step):
    """The name of the checkpoint after that many steps."""
    return f"step-{step:08d}.safetensors"


def checkpoints(folder):
    """The checkpoints of a run, the newest first."""
    paths = Path(folder).glob("step-*.safetensors")
    return sorted((path for path in paths if re.fullmatch(r"step-\d{8,}", path.stem)), reverse=True)


# ---------------------------------------------------------------- is there room?


def bytes_needed(model_config, config):
    """The most bytes that the files of a run take at one moment, within a few percent; nothing is built.

    At that moment the third checkpoint is being written beside two, with best.safetensors there. While
    that file is replaced, which comes before, there are two of it, but no third checkpoint.
    """
    parameters = sum(parameter_table(model_config).values())
    weights = numbers_of(model_config)
    if model_config.tie_weights:  # written under both names
        weights += model_config.vocab_size * model_config.n_embd
    moments = 2 * parameters  # AdamW's
    if config.optimizer == "muon":  # one for each matrix in the blocks
        moments -= model_config.n_layer * 12 * model_config.n_embd**2
    names = 1000 * (model_config.n_layer + 1)  # of the weights, in the header: about 100 each
    tokens = 16 * model_config.vocab_size  # as JSON, at most
    best = 4 * weights + names + tokens
    other = 5 * names + tokens + 8 * config.max_steps + 12_000  # losses, random states, settings
    checkpoint = 4 * (2 * weights + moments) + other
    return 3 * checkpoint + best


def check_room(folder, needed):
    """Raise ValueError unless so many bytes fit on the folder's disk; what they replace counts as free."""
    own = [path for path in (*checkpoints(folder), folder / BEST) if path.exists()]
    free = shutil.disk_usage(folder).free + sum(path.stat().st_size for path in own)
    if needed > free:
        raise ValueError(
            f"The checkpoints of this run need up to {in_units(needed)}, and the disk of {folder} has "
            f"{in_units(free)} for them: free some space, or choose a folder on another disk."
        )


def in_units(size):
    """A number of bytes in GB or, below one, in MB."""
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


# ---------------------------------------------------------------- does the run there go on?


def resume(folder, model, config, device, identity):
    """The History of the run in a folder, with model and random states as they were; None for a new run."""
    tensors, header = newest(folder)
    if tensors is None:
        return None
    check_same_run(header, identity, folder)
    history = begin(model, config, device)
    try:
        restore(model, history, device, tensors, header)
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(damaged(f"The newest checkpoint in {folder}", error)) from None
    return history


def newest(folder):
    """Tensors and header of the newest checkpoint that is whole; (None, None) if there is no run yet."""
    paths = checkpoints(folder)
    for path in paths:
        try:
            return read_file(path)
        except ValueError as error:
            tqdm.write(f"{error} The checkpoint before it is used.")
    if paths:
        raise ValueError(
            f"No checkpoint in {folder} can be used: choose another folder, or begin anew with fresh."
        )
    return None, None


def check_same_run(header, identity, folder):
    """Raise ValueError, naming what differs, unless a checkpoint belongs to this very run.

    Another precision or another PyTorch is announced and accepted: weights and moments are stored whole.
    """
    whole = all(isinstance(header.get(kind), dict) for kind in ("model", "train", "history"))
    if not whole or not {"tokenizer", "text", "torch", "scaler"} <= header.keys():
        raise ValueError(damaged(f"The newest checkpoint in {folder}", "it holds no training run"))
    differ = [
        f"{name}={shown(header[kind].get(name))} there, {shown(value)} here"
        for kind in ("model", "train")
        for name, value in identity[kind].items()
        if header[kind].get(name) != value and name != "precision"
    ]
    if header["tokenizer"] != identity["tokenizer"]:
        differ.append("another vocabulary")
    elif header["text"] != identity["text"]:
        differ.append("another text, or the file has changed")
    if differ:
        differ = differ[:5] + [f"and {len(differ) - 5} more"] * (len(differ) > 5)
        raise ValueError(
            f"The run in {folder} is not this one ({'; '.join(differ)}): "
            "go on with its settings, choose another folder, or begin anew with fresh."
        )
    for what, name in (("in", "precision"), ("with torch", "torch")):
        if header.get(name) != identity[name]:
            tqdm.write(
                f"This run began {what} {header.get(name)} and goes on {what} {identity[name]}: "
                "its losses will not be those of a run left alone."
            )
