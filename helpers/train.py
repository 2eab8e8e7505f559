"""Training: first the ten-line loop of the lessons, then the full program of notebook 06.

python -m helpers.train --preset course-cpu --corpus plays
"""

import contextlib
import math
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from tqdm.auto import tqdm

from helpers.checks import check_choice, check_flag, check_ids, check_kind, check_number, check_whole, shown
from helpers.data import check_block_fits, get_batch
from helpers.device import (
    best_precision,
    keep_freed_memory,
    mean_over_processes,
    pick_device,
    precision_context,
    rank,
    world_size,
)
from helpers.model import check_in_vocabulary, check_model, training_memory
from helpers.optimizers import learning_rate_factor, make_optimizers

# ---------------------------------------------------------------- the loop of the lessons


def fit(model, train_ids, block_size, batch_size, steps, learning_rate, seed=1337):
    """Train by AdamW on random batches; returns the loss of each step, in nats. (Notebook 02)"""
    check_model(model)
    check_block_fits(train_ids, block_size, "train_ids")
    check_in_vocabulary("train_ids", train_ids, model)
    check_whole("steps", steps, least=0)
    check_number("learning_rate", learning_rate, least=0)
    check_whole("seed", seed, least=0, most=2**63 - 1)
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
    check_model(model)
    check_ids("ids", ids)
    check_whole("block_size", block_size)
    check_in_vocabulary("ids", ids, model)
    if len(ids) < 2:
        raise ValueError(f"{len(ids)} tokens are too few to evaluate on: at least 2 are needed.")
    device = next(model.parameters()).device
    if batch_size is None:  # enough to keep the device busy; more would only take more memory
        batch_size = max((65_536 if device.type == "cuda" else 8_192) // block_size, 1)
    check_whole("batch_size", batch_size)
    whole = (len(ids) - 1) // block_size * block_size
    batches = []
    if whole:
        x, y = ids[:whole].view(-1, block_size), ids[1 : whole + 1].view(-1, block_size)
        batches += zip(x.split(batch_size), y.split(batch_size))
    if whole < len(ids) - 1:
        batches.append((ids[None, whole:-1], ids[None, whole + 1 :]))
    was_training = model.training
    model.eval()
    # The losses stay on the device until all are there: reading a number waits for the GPU.
    # .long(): the ids of a large text are stored in 16 bits (large_text.py).
    losses = torch.stack([model(x.to(device).long(), y.to(device).long())[1] for x, y in batches])
    model.train(was_training)
    targets = torch.tensor([y.numel() for _, y in batches]).double()
    return (losses.cpu().double() @ targets / targets.sum()).item()


# ---------------------------------------------------------------- the full program


@dataclass(frozen=True)
class TrainConfig:
    """Everything about a training run but the model. Checked when it is made."""

    batch_size: int = 64  # sequences a step, over all processes
    accumulation_steps: int = 1  # parts in which a batch is computed, to save memory
    max_steps: int = 5000  # batches
    learning_rate: float = 3e-4  # AdamW's peak
    min_learning_rate_ratio: float = 1.0  # where the cosine ends, as a share of the peak; 1: no decay
    warmup_steps: int = 0  # steps in which the rate rises to its peak
    weight_decay: float = 0.01  # on matrices only
    beta1: float = 0.9  # AdamW's memory of gradients
    beta2: float = 0.999  # and of their squares
    grad_clip: float = 0.0  # largest gradient norm; 0 is off
    optimizer: str = "adamw"  # or muon: Muon for the matrices of the blocks, AdamW for the rest
    muon_learning_rate: float = 0.02  # Muon's peak
    precision: str = "auto"  # bfloat16 where it is fast, float16 on older GPUs, else float32
    compile: bool = True  # torch.compile, on CUDA only
    eval_interval: int = 500  # steps between validation sweeps
    seed: int = 1337  # of weights, batches and dropout

    def __post_init__(self):
        for name in ("batch_size", "accumulation_steps", "max_steps", "eval_interval"):
            check_whole(name, getattr(self, name))
        check_whole("warmup_steps", self.warmup_steps, least=0)
        check_whole("seed", self.seed, least=0, most=2**63 - 1)
        for name in ("learning_rate", "muon_learning_rate"):
            check_number(name, getattr(self, name), above=0)
        for name in ("weight_decay", "grad_clip"):
            check_number(name, getattr(self, name), least=0)
        check_number("min_learning_rate_ratio", self.min_learning_rate_ratio, least=0, most=1)
        for name in ("beta1", "beta2"):
            check_number(name, getattr(self, name), least=0, below=1)
        check_choice("optimizer", self.optimizer, ("adamw", "muon"))
        check_choice("precision", self.precision, ("auto", "float32", "bfloat16", "float16"))
        check_flag("compile", self.compile)
        if self.batch_size % self.accumulation_steps:
            raise ValueError(
                f"batch_size={self.batch_size} does not divide into accumulation_steps="
                f"{self.accumulation_steps} equal parts: choose a multiple."
            )


SAVE_SECONDS = 300.0  # the longest time between two calls of on_save


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


def compiled_if_possible(loss_of, device, x, y, **options):
    """torch.compile(loss_of, **options) after three passes there and back, or loss_of where that fails."""
    compiled = torch.compile(loss_of, **options)
    try:
        # Dropout draws here too; fork_rng leaves the run's own chance as it was.
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            for _ in range(3):  # compile, record a CUDA graph, replay it
                compiled(x, y).backward()
    except Exception as error:  # an old GPU, no C compiler, no Triton: many kinds, one remedy
        tqdm.write(f"torch.compile does not work here ({type(error).__name__}): training without it.")
        return loss_of
    return compiled


def train(
    model,
    train_ids,
    val_ids,
    config,
    device=None,
    history=None,
    on_step=None,
    on_eval=None,
    on_save=None,
    should_stop=None,
    progress=True,
):
    """Train `model` in place for config.max_steps and return a History.

    The stop button, Ctrl-C, SIGTERM or should_stop() -> True end it after the current step, with
    history.stopped=True; pass that history in again and it goes on from there. on_step(history)
    runs after each step (on a GPU after every 50), on_eval(model, history) after each validation
    sweep, on_save(history) after each sweep, every SAVE_SECONDS and at a stop. Under torchrun the
    processes share each batch. Raises ValueError for a text shorter than a block or a batch larger
    than memory, FloatingPointError if the loss is not finite.
    """
    check_model(model)
    if not hasattr(model, "config"):
        raise ValueError(f"model={shown(model)} has no config: give a GPT, or use fit.")
    check_kind("config", config, TrainConfig, "a TrainConfig, such as TrainConfig(max_steps=100)")
    check_kind("history", history, History | None, "what train returned, or None to begin")
    for name, called in (("on_step", on_step), ("on_eval", on_eval), ("on_save", on_save)):
        check_kind(name, called, Callable | None, "a function, or None")
    check_kind("should_stop", should_stop, Callable | None, "a function, or None")
    device = pick_device(device)
    check_run(model, train_ids, val_ids, config, device)
    block_size = model.config.block_size
    on_cuda = device.type == "cuda"
    precision = precision_of(config, device)
    if history is None:
        history = begin(model, config, device)
    history.stopped = False
    model.to(device).train()
    if train_ids.dtype == torch.int64:  # a text in memory moves over once, so that no batch has to
        train_ids = train_ids.to(device)
    together = model
    if world_size() > 1:
        together = DistributedDataParallel(model, device_ids=[device] if on_cuda else None)

    def loss_of(x, y):
        with precision_context(device, precision):
            return together(x, y)[1]

    def shares():
        """This process's part of the next batch, cut into accumulation_steps pairs (x, y)."""
        # Every process draws the whole batch and takes its rows, so the order of the data does not
        # depend on how many there are.
        x, y = get_batch(train_ids, block_size, config.batch_size, history.generator, device)
        x, y = x[rank() :: world_size()], y[rank() :: world_size()]
        return list(zip(x.chunk(config.accumulation_steps), y.chunk(config.accumulation_steps)))

    if device.type == "cpu":
        keep_freed_memory()
    if on_cuda:
        torch.set_float32_matmul_precision("high")  # TF32 for what stays in float32
        if config.compile:  # before the clock runs; the generator of the run stays as it is
            state = history.generator.get_state()
            # CUDA graphs replay a step with one launch; gradients that stay for a second part, or
            # travel between processes, do not fit into that.
            alone = config.accumulation_steps == world_size() == 1
            mode = "reduce-overhead" if alone else "default"
            loss_of = compiled_if_possible(loss_of, device, *shares()[0], mode=mode)
            history.generator.set_state(state)
            model.zero_grad(set_to_none=True)
            torch.cuda.synchronize()

    def one_step():
        factor = learning_rate_factor(history.step, config)
        for optimizer in history.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * factor
        parts, total = shares(), 0.0
        for i, (x, y) in enumerate(parts, start=1):
            # Gradients of several parts add up; only after the last one do the processes share them.
            alone = world_size() > 1 and i < len(parts)
            with together.no_sync() if alone else contextlib.nullcontext():
                loss = loss_of(x, y) / len(parts)
                history.scaler.scale(loss).backward()
            total = total + loss.detach().clone()  # clone: a CUDA graph writes to the same place again
        if config.grad_clip:
            for optimizer in history.optimizers:
                history.scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip)
        for optimizer in history.optimizers:
            history.scaler.step(optimizer)
            optimizer.zero_grad(set_to_none=True)
        history.scaler.update()
        return total

    def not_finite(what):
        return (
            f"The {what} is no longer a finite number at step {history.step}: "
            f"start again with a learning_rate below {config.learning_rate}."
        )

    def sweep():
        with precision_context(device, precision):
            val = evaluate(model, val_ids, block_size)
            # As much of the training text as there is validation text: equally noisy curves.
            seen = evaluate(model, train_ids[: len(val_ids)], block_size)
        if not math.isfinite(val):
            raise FloatingPointError(not_finite("validation loss"))
        point = dict(step=history.step, train=seen, val=val, seconds=history.train_seconds)
        history.evals.append(point)
        if val < history.best_val:
            history.best_val, history.best_step = val, history.step
            history.best_weights = {k: v.cpu().clone() for k, v in model.state_dict().items()}
        if on_eval is not None:
            on_eval(model, history)

    every = 50 if on_cuda else 1  # reading a loss makes the GPU wait, so it is done now and then
    show = progress and rank() == 0
    bar = tqdm(total=config.max_steps, initial=history.step, unit="step", disable=not show, leave=False)
    with bar, asking_to_stop() as asked, clear_when_out_of_memory(config, block_size, device):
        if not history.evals:
            sweep()
        pending, clock, saved = [], time.perf_counter(), time.perf_counter()
        while history.step < config.max_steps and not history.stopped:
            pending.append(one_step())
            history.step += 1
            done = history.step == config.max_steps
            due = done or history.step % config.eval_interval == 0
            stop = asked() or (should_stop is not None and should_stop())
            if not (due or len(pending) == every or (stop and world_size() == 1)):
                continue
            late = time.perf_counter() - saved > SAVE_SECONDS
            # All processes must agree to stop or to save, so they add up their wishes with their losses.
            wishes = pending[-1].new_tensor([float(stop), float(late)])
            *losses, stop, late = mean_over_processes(torch.cat([torch.stack(pending), wishes])).tolist()
            history.losses += losses
            history.train_seconds += time.perf_counter() - clock
            bar.update(len(losses))
            rate = len(history.losses) * config.batch_size * block_size / max(history.train_seconds, 1e-9)
            bar.set_postfix_str(f"loss {losses[-1]:.3f}, {rate:,.0f} tokens/s")
            if not all(map(math.isfinite, losses)):
                raise FloatingPointError(not_finite("loss"))
            history.stopped = stop > 0 and not done
            if due:
                sweep()
            if on_step is not None:
                on_step(history)
            if on_save is not None and (due or history.stopped or late):
                on_save(history)
                saved = time.perf_counter()
            pending, clock = [], time.perf_counter()
    return history


def check_run(model, train_ids, val_ids, config, device):
    """Raise ValueError if the two texts or the batch size do not suit the model and the device."""
    for name, ids in (("train_ids", train_ids), ("val_ids", val_ids)):
        check_block_fits(ids, model.config.block_size, name)
        check_in_vocabulary(name, ids[: 2**24], model)  # not all of a text larger than memory
    check_batch_fits(model, config, device)


def check_batch_fits(model, config, device):
    """Raise ValueError if a batch cannot be shared out, or needs more memory than the machine has."""
    share, rest = divmod(config.batch_size, config.accumulation_steps * world_size())
    if rest:
        raise ValueError(
            f"batch_size={config.batch_size} does not divide among {world_size()} processes and "
            f"accumulation_steps={config.accumulation_steps}: choose a multiple of both."
        )
    if device.type == "cpu":
        # A CPU's memory is promised first and found missing later, when it is too late for a sentence.
        needed = sum(training_memory(model.config, share).values()) / 2  # in bfloat16, at the least
        if needed > machine_memory():
            raise ValueError(too_large(config, model.config.block_size, device))


def machine_memory():
    """Bytes of memory of this machine; no limit where the system does not tell."""
    if not hasattr(os, "sysconf"):
        return math.inf
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@contextlib.contextmanager
def clear_when_out_of_memory(config, block_size, device):
    """Turns the errors of a full memory into a ValueError that names the settings to lower."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
        full = ("out of memory", "not enough memory", "can't allocate memory", "Cannot allocate memory")
        if not isinstance(error, MemoryError) and not any(words in str(error) for words in full):
            raise
        raise ValueError(too_large(config, block_size, device)) from None


def too_large(config, block_size, device):
    """The sentence for a batch that needs more memory than there is."""
    return (
        f"A batch of batch_size={config.batch_size} in accumulation_steps={config.accumulation_steps} with "
        f"block_size={block_size} does not fit into the memory of {device}: "
        "raise accumulation_steps, or lower batch_size or block_size."
    )


if __name__ == "__main__":
    from helpers.runs import main

    main()
