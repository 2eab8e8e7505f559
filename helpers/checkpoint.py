"""Nothing is lost: a trained model in one file, and runs that go on where they were interrupted.

All files are safetensors: plain numbers behind a JSON header, so no pickle and no code inside. A file
is written under another name, flushed and renamed, so that it is there whole or not at all, and it
carries a SHA-256 of its contents, so that damage is noticed.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
from pathlib import Path

import filelock
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tqdm.auto import tqdm

from helpers.checks import check_ids, check_kind, shown
from helpers.device import of_all_processes, pick_device, rank, wait_for_all
from helpers.model import GPT, GPTConfig, parameter_table
from helpers.tokenizer import BytePairTokenizer, CharTokenizer
from helpers.train import TrainConfig, begin

# ---------------------------------------------------------------- one file


def write_file(path, tensors, header):
    """Write tensors (a dict) and header (a dict of JSON values) to one safetensors file, whole or not at all.

    Raises ValueError if the file cannot be written; an older file of that name then stays as it is.
    """
    path = path_of(path)
    # clone: safetensors refuses tensors that share memory, as tied weights do
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    header = {key: json_of(key, value) for key, value in header.items()}
    header["sha256"] = digest(tensors, header)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, partial, metadata=header)
        flush(partial)  # on the disk before it gets its name: a power cut leaves no empty file
        partial.replace(path)
        if os.name == "posix":
            flush(path.parent)
    except (OSError, SafetensorError, ValueError) as error:  # ValueError: a null character in the path
        raise ValueError(
            f"The checkpoint {path} cannot be written ({error}): free some space or choose another folder."
        ) from None
    finally:
        with contextlib.suppress(OSError, ValueError):
            partial.unlink(missing_ok=True)


def read_file(path):
    """The tensors and the header of a file that write_file wrote. Raises ValueError if it is damaged."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        expected = header.pop("sha256")
        if digest(tensors, header) != expected:
            raise ValueError("its contents do not match its SHA-256")
        return tensors, {key: json.loads(value) for key, value in header.items()}
    except FileNotFoundError:
        raise ValueError(f"There is no checkpoint {path}: train first, or check the path.") from None
    except Exception as error:  # damage can surface anywhere in the reading, and is damage each time
        raise ValueError(damaged(path, error)) from None


def json_of(name, value):
    """value as JSON. Raises ValueError if it holds more than numbers, texts, lists and dicts."""
    try:
        return json.dumps(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}={shown(value)} is not JSON ({error}): give numbers and texts.") from None


def path_of(path):
    """path as a Path. Raises ValueError if it is none."""
    check_kind("path", path, str | os.PathLike, 'a path, such as "model.safetensors"')
    return Path(path)


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


def flush(path):
    """Wait until a file, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# ---------------------------------------------------------------- a trained model


def save_checkpoint(path, model, tokenizer, weights=None, **about):
    """Write model, tokenizer and what `about` says (JSON values) to one file, whole or not at all.

    weights: a state dict to save in place of the model's present one, such as History.best_weights.
    A compiled or distributed model is saved as the plain one inside. Raises ValueError if the file
    cannot be written.
    """
    model = plain(model)
    check_kind("model", model, GPT, "a GPT")
    check_kind("weights", weights, dict | None, "a state dict of the model, or None")
    if weights and weights.keys() != model.state_dict().keys():
        raise ValueError(f"weights={shown(weights)} are of another model: give the state dict of this one.")
    header = {"config": dataclasses.asdict(model.config), "tokenizer": vocabulary(tokenizer), "about": about}
    write_file(path, weights or model.state_dict(), header)


def load_checkpoint(path, device="cpu"):
    """Read a file that save_checkpoint wrote: (model in evaluation mode, tokenizer, about).

    Raises ValueError if the file is missing, damaged or of another kind.
    """
    device = pick_device(device)
    weights, header = read_file(path_of(path))
    try:
        config = GPTConfig(**header["config"])
        # Before anything is built: a made-up header could ask for a model of any size.
        if sum(parameter_table(config).values()) > sum(w.numel() for w in weights.values()):
            raise ValueError("its config is of a larger model than its weights")
        with torch.random.fork_rng(devices=[]):  # the initialisation is overwritten: leave no trace
            model = GPT(config)
        model.load_state_dict(weights)
        kind = header["tokenizer"]
        if "chars" in kind:
            tokenizer = CharTokenizer(kind["chars"])
        else:
            tokenizer = BytePairTokenizer(kind["merges"])
        about = header["about"]
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(damaged(path, error)) from None
    if tokenizer.vocab_size > config.vocab_size:
        raise ValueError(damaged(path, "its vocabulary is larger than its model's"))
    return model.to(device).eval(), tokenizer, about


def plain(model):
    """The model inside torch.compile and DistributedDataParallel, so that names are always the same."""
    model = getattr(model, "_orig_mod", model)
    return getattr(model, "module", model)


def vocabulary(tokenizer):
    """What makes a tokenizer, as JSON values."""
    example = "a CharTokenizer or a BytePairTokenizer"
    check_kind("tokenizer", tokenizer, CharTokenizer | BytePairTokenizer, example)
    if isinstance(tokenizer, CharTokenizer):
        return {"chars": tokenizer.chars}
    return {"merges": [list(pair) for pair in tokenizer.merges]}


# ---------------------------------------------------------------- a run that can be interrupted


@contextlib.contextmanager
def run_folder(folder, model, tokenizer, config, device, train_ids, val_ids, fresh=False):
    """Keep a training run in `folder`: yields (history, save), both for `train`.

    history is None for a new run; else the model and the history are as they were at the last
    checkpoint. save(history) writes the next one; the last two are kept, and best.safetensors. Of
    several processes each calls it, and the first writes.
    fresh=True removes what is there and begins anew. A save that fails is announced and training goes
    on. Raises ValueError if another program trains in the folder, or the run there is of another model,
    text or setting.
    """
    folder = path_of(folder)
    model = plain(model)
    check_kind("model", model, GPT, "a GPT")
    check_kind("config", config, TrainConfig, "a TrainConfig, such as TrainConfig(max_steps=100)")
    check_ids("train_ids", train_ids)
    check_ids("val_ids", val_ids)
    device = pick_device(device)
    fixed = {
        "model": dataclasses.asdict(model.config),
        "train": dataclasses.asdict(config),
        "tokenizer": vocabulary(tokenizer),
        "text": fingerprint(train_ids, val_ids),
        "torch": torch.__version__,
    }
    with only_one(folder) if rank() == 0 else contextlib.nullcontext():
        if fresh and rank() == 0:  # only under the lock: these may be another program's
            for old in [*checkpoints(folder), folder / "best.safetensors"]:
                old.unlink(missing_ok=True)
        wait_for_all()  # before any process looks what is there
        found = newest(folder)
        history = restore(model, config, device, *found, fixed, folder) if found else None
        best_saved = history.best_step if history else None

        def save(history):
            nonlocal best_saved
            tensors, header = state_of(model, history, device)  # with the chance of every process
            if rank() != 0:
                return
            try:
                if history.best_step != best_saved:
                    about = {"val": history.best_val, "step": history.best_step}
                    save_checkpoint(
                        folder / "best.safetensors", model, tokenizer, history.best_weights, **about
                    )
                    best_saved = history.best_step
                write_file(folder / f"step-{history.step:08d}.safetensors", tensors, header | fixed)
                for old in checkpoints(folder)[2:]:
                    old.unlink(missing_ok=True)
            except (ValueError, OSError) as error:
                tqdm.write(f"{error} Training goes on; the checkpoint before stays.")

        yield history, save


@contextlib.contextmanager
def only_one(folder):
    """Hold the folder's lock, and clear away what a killed program left half written."""
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
        for partial in folder.glob("*.partial"):
            partial.unlink(missing_ok=True)
        yield
    finally:
        lock.release()


def checkpoints(folder):
    """The checkpoints of a run, the newest first."""
    return sorted(Path(folder).glob("step-*.safetensors"), reverse=True)


def newest(folder):
    """(tensors, header) of the newest checkpoint that is whole, or None if there is no run yet."""
    there = checkpoints(folder)
    for path in there:
        try:
            return read_file(path)
        except ValueError as error:
            tqdm.write(f"{error} The checkpoint before it is used.")
    if there:
        raise ValueError(f"No checkpoint in {folder} is whole: delete the folder and start again.")
    return None


def fingerprint(*parts):
    """SHA-256 of token ids: does a run go on with the text that it began with?"""
    sha = hashlib.sha256()
    for ids in parts:
        sha.update(f"{len(ids)};".encode())
        for piece in ids.split(2**24):  # piece by piece: a large text need not fit into memory
            sha.update(piece.long().numpy())
    return sha.hexdigest()


def state_of(model, history, device):
    """Everything that the next step depends on, as tensors and JSON values."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"best.{name}": value for name, value in history.best_weights.items()}
    for i, optimizer in enumerate(history.optimizers):
        for number, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{number}.{key}": value for key, value in state.items()}
    tensors["losses"] = torch.tensor(history.losses, dtype=torch.float64)
    tensors["chance.batches"] = history.generator.get_state()
    # Each process draws its own dropout. (NCCL sends from GPU to GPU only.)
    states = {"dropout": torch.random.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    tensors |= {f"chance.{name}": of_all_processes(state.to(device)) for name, state in states.items()}
    names = ("step", "train_seconds", "evals", "samples", "best_val", "best_step")
    header = {name: getattr(history, name) for name in names}
    return tensors, {"history": header, "scaler": history.scaler.state_dict()}


def restore(model, config, device, tensors, header, fixed, folder):
    """The History of a stopped run; model and random numbers are set to what they were then."""
    check_same_run(header, fixed, folder)
    history = begin(model, config, device)
    try:
        put_back(model, history, device, tensors, header)
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(damaged(f"The newest checkpoint in {folder}", error)) from None
    return history


def put_back(model, history, device, tensors, header):
    """Set model, history and random numbers to what state_of wrote."""
    part = {}  # the tensors by the first word of their names
    for name, value in tensors.items():
        first, _, rest = name.partition(".")
        part.setdefault(first, {})[rest] = value
    model.load_state_dict(part["model"])
    history.best_weights = part.get("best", {})
    for name, value in header["history"].items():
        setattr(history, name, value)
    history.losses = tensors["losses"].tolist()
    for i, optimizer in enumerate(history.optimizers):
        state = optimizer.state_dict()
        for name, value in part.get("optimizer", {}).items():
            which, number, key = name.split(".")
            if int(which) == i:
                state["state"].setdefault(int(number), {})[key] = value
        optimizer.load_state_dict(state)
    history.scaler.load_state_dict(header["scaler"])
    history.generator.set_state(part["chance"]["batches"])
    # clone: PyTorch reads a state from the beginning of its memory, where that of process 0 is.
    if rank() < len(part["chance"]["dropout"]):  # a process more than then has the chance it began with
        torch.random.set_rng_state(part["chance"]["dropout"][rank()].clone())
        if device.type == "cuda" and "cuda" in part["chance"]:
            torch.cuda.set_rng_state(part["chance"]["cuda"][rank()].clone(), device)


def check_same_run(header, fixed, folder):
    """Raise ValueError, naming what differs, unless a checkpoint belongs to this very run."""
    whole = all(isinstance(header.get(kind), dict) for kind in ("model", "train", "history"))
    if not whole or not {"tokenizer", "text", "torch", "scaler"} <= header.keys():
        raise ValueError(damaged(f"The newest checkpoint in {folder}", "it holds no training run"))
    differ = [
        f"{name}={shown(header[kind].get(name))} there, {shown(value)} here"
        for kind in ("model", "train")
        for name, value in fixed[kind].items()
        if header[kind].get(name) != value
    ]
    if header["tokenizer"] != fixed["tokenizer"]:
        differ.append("another vocabulary")
    elif header["text"] != fixed["text"]:
        differ.append("another text, or the file has changed")
    if differ:
        differ = differ[:5] + [f"and {len(differ) - 5} more"] * (len(differ) > 5)
        raise ValueError(
            f"The run in {folder} is not this one ({'; '.join(differ)}): "
            "go on with its settings, or choose another folder."
        )
    if header["torch"] != fixed["torch"]:
        tqdm.write(
            f"This run began with torch {header['torch']}; with {fixed['torch']} its last digits may differ."
        )
