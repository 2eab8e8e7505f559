"""Training: the ten-line loop of the lessons, then the full program of notebook 06."""

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from tqdm.auto import tqdm

from helpers.checks import check_settings, setting
from helpers.data import get_batch
from helpers.device import (
    PRECISIONS,
    all_reduce_mean,
    any_process,
    best_precision,
    compiled_if_possible,
    keep_freed_memory,
    pick_device,
    precision_context,
    rank,
    tensor_floats,
    world_size,
)
from helpers.optimizers import learning_rate_factor, make_optimizers

# ---------------------------------------------------------------- the loop of the lessons


def fit(model, train_ids, block_size, batch_size, steps, learning_rate, seed=1337):
    """Train by AdamW on random batches; returns the loss of each step, in nats. (Notebook 02)"""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate)
    losses = []
    for _ in range(steps):
        x, y = get_batch(train_ids, block_size, batch_size, generator)
        _, loss = model(x, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@torch.no_grad()
def evaluate(model, ids, block_size, batch_size=None):
    """Mean loss in nats per token over all of ids (N,): every target counts once, nothing is random.

    ids is cut into windows of block_size side by side; the rest at the end is a shorter window.
    batch_size windows go through together, by default 8,192 tokens, or 65,536 on a GPU. Runs in
    evaluation mode, on the model's device, and leaves the mode as it was.
    """
    device = next(model.parameters()).device
    if batch_size is None:  # enough to keep the device busy; more would only take more memory
        batch_size = max((65_536 if device.type == "cuda" else 8_192) // block_size, 1)
    losses, targets = [], []
    was_training = model.training
    model.eval()
    try:
        for x, y in side_by_side(ids, block_size, batch_size):
            # .long(): the ids of a large text are stored in 16 bits (program/large_text.py).
            losses.append(model(x.to(device).long(), y.to(device).long())[1])
            targets.append(y.numel())
    finally:
        model.train(was_training)
    # The losses stay on the device until all are there: reading a number waits for the GPU.
    weights = torch.tensor(targets, dtype=torch.float64)
    return (torch.stack(losses).cpu().double() @ weights / weights.sum()).item()


def side_by_side(ids, block_size, batch_size):
    """Yield all of ids (N,) as batches x, y (batch_size or fewer, T); the rest is one shorter window."""
    whole = (len(ids) - 1) // block_size * block_size
    if whole:
        x, y = ids[:whole].view(-1, block_size), ids[1 : whole + 1].view(-1, block_size)
        yield from zip(x.split(batch_size), y.split(batch_size))
    if whole < len(ids) - 1:
        yield ids[None, whole:-1], ids[None, whole + 1 :]


# ---------------------------------------------------------------- what a run is told, and what it keeps


@dataclass(frozen=True)
class TrainConfig:
    """Everything about a training run but the model. Checked when it is made."""

    batch_size: int = setting(64, "sequences a step, over all processes")
    accumulation_steps: int | None = setting(None, "parts in which a batch is computed; parts_of chooses")
    max_steps: int = setting(5000, "batches")
    learning_rate: float = setting(3e-4, "AdamW's peak rate", above=0)
    min_learning_rate_ratio: float = setting(
        1.0, "the rate at the end, as a share of the peak", least=0, most=1
    )
    warmup_steps: int = setting(0, "steps in which the rate rises to its peak", least=0)
    weight_decay: float = setting(0.01, "on matrices only", least=0)
    beta1: float = setting(0.9, "AdamW's memory of gradients", least=0, below=1)
    beta2: float = setting(0.999, "and of their squares", least=0, below=1)
    grad_clip: float = setting(0.0, "largest gradient norm; 0 is off", least=0)
    optimizer: str = setting("adamw", "muon: Muon for the blocks' matrices, AdamW else", ("adamw", "muon"))
    muon_learning_rate: float = setting(0.02, "Muon's peak rate", above=0)
    precision: str = setting("auto", "auto: what best_precision says", ("auto", *PRECISIONS))
    compile: bool = setting(True, "torch.compile, on CUDA only")
    eval_interval: int = setting(500, "steps between validation sweeps")
    seed: int = setting(1337, "of weights, batches and dropout", least=0, most=2**63 - 1)

    def __post_init__(self):
        check_settings(self)
        if self.batch_size % (self.accumulation_steps or 1):
            raise ValueError(
                f"batch_size={self.batch_size} does not divide into accumulation_steps="
                f"{self.accumulation_steps} equal parts: choose a multiple."
            )


@dataclass
class History:
    """What a run has done so far, and what it needs to go on. Times in seconds, losses in nats."""

    step: int = 0
    train_seconds: float = 0.0  # without evaluation and compilation
    losses: list = field(default_factory=list)  # of every step, on its own batch
    evals: list = field(default_factory=list)  # dicts: step, train, val, seconds
    samples: list = field(default_factory=list)  # for texts written on the way
    best_val: float = math.inf
    best_step: int = 0
    best_weights: dict = field(default_factory=dict, repr=False)  # on the CPU
    stopped: bool = False  # asked to stop before max_steps
    optimizers: list = field(default_factory=list, repr=False)
    generator: torch.Generator = field(default=None, repr=False)  # of the batches, on the CPU
    scaler: torch.amp.GradScaler = field(default=None, repr=False)  # of float16's losses
    compiled: str = ""  # how torch.compile runs the model, if it does


@dataclass
class Callbacks:
    """What a run calls on its way."""

    on_step: Callable = lambda history: None  # after every step, on a GPU after every 50
    on_eval: Callable = lambda model, history: None  # after every validation sweep
    on_save: Callable = lambda history: None  # now and then, see SAVE_SECONDS; at the end and at a stop
    should_stop: Callable = lambda: False  # asked after every step, until it says True


SAVE_SECONDS = 300.0  # the longest time between two calls of on_save ...
SAVE_AT_MOST_EVERY = 60.0  # ... and the shortest: after a sweep it is called only if this has passed
PART_SIZE = 2**20  # numbers in a layer's output, for a part of a batch on a CPU
READ_EVERY = 50  # steps on a GPU between two readings of the losses: a reading makes the GPU wait

# ---------------------------------------------------------------- the full program


def train(model, train_ids, val_ids, config, device=None, history=None, callbacks=None, progress=True):
    """Train a GPT in place for config.max_steps on train_ids (N,), int64 or uint16; returns a History.

    The stop button, Ctrl-C, SIGTERM or callbacks.should_stop() end it after the current step, with
    history.stopped=True; pass that history in again and it goes on from there. Under torchrun the
    processes share each batch. Raises ValueError for a text shorter than a block, FloatingPointError if
    the loss is not finite. What else can be wrong is checked where a run is set up: program/build.py.
    """
    device, callbacks = pick_device(device), callbacks or Callbacks()
    history = history or begin(model, config, device)
    history.stopped = False
    if train_ids.dtype == torch.int64:  # a text in memory moves over once, so that no batch has to
        train_ids = train_ids.to(device)
    last_save = time.perf_counter()
    with (
        tensor_floats(device), progress_bar(history, config, progress) as bar, asking_to_stop() as asked,
    ):  # fmt: skip
        shared, loss_of = prepare(model, train_ids, config, device, history)
        if not history.evals:
            sweep(model, train_ids, val_ids, config, device, history)
            callbacks.on_eval(model, history)
        while history.step < config.max_steps and not history.stopped:
            losses, stop, started = [], False, time.perf_counter()
            for _ in range(steps_to_the_next_reading(history, config, device)):
                batch = batch_in_parts(train_ids, model, config, device, history)
                losses.append(one_step(shared, loss_of, batch, config, history))
                stop = stop or asked() or callbacks.should_stop()
                if stop and world_size() == 1:
                    break
            read_losses(losses, started, config, history)
            show_progress(bar, model, config, history)
            since = time.perf_counter() - last_save
            stop, rested, late = any_process(device, stop, since > SAVE_AT_MOST_EVERY, since > SAVE_SECONDS)
            ended = history.step == config.max_steps
            history.stopped = stop and not ended
            due = ended or history.step % config.eval_interval == 0
            if due:
                sweep(model, train_ids, val_ids, config, device, history)
                callbacks.on_eval(model, history)
            callbacks.on_step(history)
            if ended or history.stopped or late or (due and rested):
                callbacks.on_save(history)
                last_save = time.perf_counter()
    return history


def begin(model, config, device):
    """The History of a run that has not made a step yet. Moves the model to the device."""
    model.to(device)
    device_type = device.type if device.type == "cuda" else "cpu"
    # float16 has so little range that small gradients vanish: the loss is scaled up, the gradients
    # are scaled down again (Micikevicius et al. 2018, arXiv:1710.03740). Otherwise it does nothing.
    scaler = torch.amp.GradScaler(device_type, enabled=precision_of(config, device) == "float16")
    torch.manual_seed(config.seed + rank())  # for dropout, which each process draws for itself
    return History(
        optimizers=make_optimizers(model, config),
        generator=torch.Generator().manual_seed(config.seed),
        scaler=scaler,
    )


def precision_of(config, device):
    """The precision of a run: the config's, or the best of the device for "auto"."""
    return best_precision(device) if config.precision == "auto" else config.precision


def prepare(model, train_ids, config, device, history):
    """Make ready for fast steps: (the model as the processes share it, loss_of(x, y) -> a tensor ())."""
    model.to(device).train()
    shared = model
    if world_size() > 1:
        shared = DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)
    precision = precision_of(config, device)

    def loss_of(x, y):
        with precision_context(device, precision):
            return shared(x, y)[1]

    if device.type == "cpu":
        keep_freed_memory()
    if device.type == "cuda" and config.compile:
        state = history.generator.get_state()
        batch = batch_in_parts(train_ids, model, config, device, history)
        history.generator.set_state(state)  # the run draws this batch again
        loss_of, history.compiled = compiled_if_possible(loss_of, model, batch, device)
        torch.cuda.synchronize(device)
    return shared, loss_of


def steps_to_the_next_reading(history, config, device):
    """How many steps to make before the losses are read. On a GPU many: it must wait for every reading."""
    to_the_end = config.max_steps - history.step
    to_the_sweep = config.eval_interval - history.step % config.eval_interval
    return min(READ_EVERY if device.type == "cuda" else 1, to_the_sweep, to_the_end)


def batch_in_parts(train_ids, model, config, device, history):
    """This process's share of the next batch, cut into parts: pairs x, y (B, T)."""
    # Every process draws the whole batch and takes its rows, so the order of the data does not
    # depend on how many there are.
    x, y = get_batch(train_ids, model.config.block_size, config.batch_size, history.generator, device)
    x, y = x[rank() :: world_size()], y[rank() :: world_size()]
    parts = parts_of(config, model.config, device)
    return list(zip(x.chunk(parts), y.chunk(parts)))


def parts_of(config, model_config, device):
    """In how many parts a process computes its share of a batch: config.accumulation_steps, or the best."""
    if config.accumulation_steps is not None:
        return config.accumulation_steps
    share = config.batch_size // world_size()
    if device.type != "cpu":
        return 1
    # What a layer hands on should fit into a processor's cache, or it waits for the memory.
    wished = -(-share * model_config.block_size * model_config.n_embd // PART_SIZE)  # rounded up
    return min(wished, share)


def one_step(shared, loss_of, batch, config, history):
    """Learn from one batch, a list of parts x, y (B, T); returns its loss, which stays on the device."""
    factor = learning_rate_factor(history.step, config)
    for optimizer in history.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor
    total, rows = 0.0, sum(len(x) for x, _ in batch)
    for i, (x, y) in enumerate(batch, start=1):
        # Gradients of several parts add up; only after the last one do the processes share them.
        keep_apart = world_size() > 1 and i < len(batch)
        with shared.no_sync() if keep_apart else contextlib.nullcontext():
            loss = loss_of(x, y) * (len(x) / rows)
            history.scaler.scale(loss).backward()
        total = total + loss.detach().clone()  # clone: a CUDA graph writes to the same place again
    # The scaler of float16 skips a step whose gradients overflowed. It sees the optimizers as one, so
    # that it skips the step of all of them or of none.
    groups = [group for optimizer in history.optimizers for group in optimizer.param_groups]
    together = SimpleNamespace(param_groups=groups, step=lambda: [o.step() for o in history.optimizers])
    if config.grad_clip:
        history.scaler.unscale_(together)
        nn.utils.clip_grad_norm_(shared.parameters(), config.grad_clip)
    history.scaler.step(together)
    history.scaler.update()
    shared.zero_grad(set_to_none=True)
    history.step += 1
    return total


def read_losses(losses, started, config, history):
    """Write the losses of the last steps, tensors (), into the history, and the time since they started."""
    losses = all_reduce_mean(torch.stack(losses)).tolist()
    history.losses += losses
    history.train_seconds += time.perf_counter() - started
    if not all(map(math.isfinite, losses)):
        raise FloatingPointError(not_finite("loss", config, history))


def sweep(model, train_ids, val_ids, config, device, history):
    """Measure both texts, and keep the model's weights if they are the best so far."""
    block_size = model.config.block_size
    with precision_context(device, precision_of(config, device)):
        val = evaluate(model, val_ids, block_size)
        # As much of the training text as there is validation text: equally noisy curves.
        seen = evaluate(model, train_ids[: len(val_ids)], block_size)
    if not math.isfinite(val):
        raise FloatingPointError(not_finite("validation loss", config, history))
    history.evals.append(dict(step=history.step, train=seen, val=val, seconds=history.train_seconds))
    if val < history.best_val:
        history.best_val, history.best_step = val, history.step
        history.best_weights = {k: v.cpu().clone() for k, v in model.state_dict().items()}


def not_finite(what, config, history):
    """The sentence for a run that left the range of numbers."""
    rates = f"learning_rate below {config.learning_rate}"
    if config.optimizer == "muon":
        rates += f" and a muon_learning_rate below {config.muon_learning_rate}"
    return f"The {what} is no longer a finite number at step {history.step}: start again with a {rates}."


# ---------------------------------------------------------------- who watches, and who may interrupt


@contextlib.contextmanager
def asking_to_stop():
    """Inside, the stop button, Ctrl-C and SIGTERM ask instead of breaking off: yields a function that tells.

    So no step is left half done. Only the main thread receives signals; elsewhere nothing changes.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = {s: signal.signal(s, lambda *_: asked.set()) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def progress_bar(history, config, progress):
    """A bar over all steps, for process 0 and if progress is true."""
    hide = not progress or rank() != 0
    return tqdm(total=config.max_steps, initial=history.step, unit="step", disable=hide, leave=False)


def show_progress(bar, model, config, history):
    """Move the bar to where the run is, with its loss and its tokens a second."""
    tokens = len(history.losses) * config.batch_size * model.config.block_size
    rate = tokens / max(history.train_seconds, 1e-9)
    bar.update(history.step - bar.n)
    bar.set_postfix_str(f"loss {history.losses[-1]:.3f}, {rate:,.0f} tokens/s")
