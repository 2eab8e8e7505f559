"""Training: first the ten-line loop of the lessons, then the full program of notebook 06.

python -m helpers.train --preset course-cpu --corpus plays
"""

import argparse
import contextlib
import dataclasses
import json
import math
import os
import platform
import signal
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn
from tqdm.auto import tqdm

from helpers.data import DATA_DIR, check_block_fits, get_batch, load_corpus, train_val_split
from helpers.generate import generate
from helpers.model import GPT, GPTConfig, count_parameters
from helpers.presets import PRESETS
from helpers.tokenizer import BytePairTokenizer, CharTokenizer

RUNS_DIR = DATA_DIR / "runs"

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
def evaluate(model, ids, block_size, batch_size=128):
    """Mean loss in nats per token over all of ids (N,): every target counts once, nothing is random.

    ids is cut into windows of block_size side by side; the rest at the end is a shorter window.
    Runs in evaluation mode, on the model's device, and leaves the mode as it was.
    """
    if len(ids) < 2:
        raise ValueError(f"{len(ids)} tokens are too few to evaluate on: at least 2 are needed.")
    device = next(model.parameters()).device
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
    losses = torch.stack([model(x.to(device), y.to(device))[1] for x, y in batches])
    model.train(was_training)
    targets = torch.tensor([y.numel() for _, y in batches]).double()
    return (losses.cpu().double() @ targets / targets.sum()).item()


# ---------------------------------------------------------------- where and how to compute


def pick_device(name=None):
    """The device to train on: `name`, else COURSE_DEVICE, else cuda, mps or cpu, the first there is."""
    name = name or os.environ.get("COURSE_DEVICE") or None
    if name is None:
        if torch.cuda.is_available():
            name = "cuda"
        else:
            name = "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError):
        raise ValueError(
            f"The device {name!r} is not there on this machine: use cpu, or leave it to be chosen."
        ) from None
    return device


def bf16_is_fast(device):
    """Has the device bfloat16 arithmetic in hardware? Without it bfloat16 is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        # A limit set from outside counts too, so that one machine can stand in for an older one.
        limits = os.environ.get("ATEN_CPU_CAPABILITY", ""), os.environ.get("ONEDNN_MAX_CPU_ISA", "")
        older = limits[0] in ("default", "avx2") or limits[1] in ("SSE41", "AVX", "AVX2")
        try:
            return torch.cpu._is_avx512_bf16_supported() and not older
        except AttributeError:  # a build of torch for another kind of processor
            return False
    return False


def precision_context(device, precision):
    """The autocast context for "bfloat16", or a context that does nothing for "float32"."""
    if precision == "bfloat16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()


# ---------------------------------------------------------------- the full program


@dataclass(frozen=True)
class TrainConfig:
    """Everything about a training run but the model. Checked when it is made."""

    batch_size: int = 64  # sequences a step
    max_steps: int = 5000
    learning_rate: float = 3e-4  # AdamW's peak
    min_learning_rate_ratio: float = 1.0  # where the cosine ends, as a share of the peak; 1: no decay
    warmup_steps: int = 0
    weight_decay: float = 0.01  # on matrices only
    beta1: float = 0.9
    beta2: float = 0.999
    grad_clip: float = 0.0  # largest gradient norm; 0 is off
    optimizer: str = "adamw"  # or muon: Muon for the matrices of the blocks, AdamW for the rest
    muon_learning_rate: float = 0.02
    precision: str = "auto"  # bfloat16 where the hardware has it, else float32
    compile: bool = True  # torch.compile, on CUDA only
    eval_interval: int = 500  # steps between validation sweeps
    seed: int = 1337

    def __post_init__(self):
        for name in ("batch_size", "max_steps", "eval_interval"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name}={value!r} must be a whole number of at least 1.")
        for name in ("learning_rate", "muon_learning_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}={getattr(self, name)!r} must be above 0.")
        for name in ("warmup_steps", "weight_decay", "grad_clip"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}={getattr(self, name)!r} must be 0 or more.")
        if not 0 <= self.min_learning_rate_ratio <= 1:
            raise ValueError(
                f"min_learning_rate_ratio={self.min_learning_rate_ratio!r} must lie between 0 and 1."
            )
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)!r} must be at least 0 and below 1.")
        if self.optimizer not in ("adamw", "muon"):
            raise ValueError(f"optimizer={self.optimizer!r} must be adamw or muon.")
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise ValueError(f"precision={self.precision!r} must be auto, float32 or bfloat16.")


def learning_rate_factor(step, config):
    """What the peak learning rate is multiplied with at a step: linear warm-up, then half a cosine.

    Source: Loshchilov and Hutter 2017 (arXiv:1608.03983), equation 5, without restarts.
    """
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    floor = config.min_learning_rate_ratio
    progress = (step - config.warmup_steps) / max(config.max_steps - config.warmup_steps, 1)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(progress, 1)))


def orthogonalise(grad, ns_coefficients, ns_steps, eps):
    """Muon's Newton-Schulz iteration on a matrix, in float32: nearly the same directions, all near 1 strong.

    PyTorch's own runs in bfloat16, which is many times slower on a CPU without such arithmetic.
    """
    a, b, c = ns_coefficients
    x = grad.float().T if grad.size(0) > grad.size(1) else grad.float()
    x = x / x.norm().clamp(min=eps)
    for _ in range(ns_steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if grad.size(0) > grad.size(1) else x


def make_optimizers(model, config):
    """The optimizers of a run, a list of one or two; each group remembers its peak as "peak_lr".

    Matrices decay, vectors (biases, layer norms) do not. With optimizer="muon" the matrices of the
    blocks go to Muon (Jordan 2024), whose update has every singular value near 1; embeddings and
    the final layer are look-up tables rather than maps, and stay with AdamW.
    """
    params = {n: p for n, p in model.named_parameters() if p.requires_grad}
    in_blocks = {n for n, p in params.items() if p.dim() == 2 and n.startswith("blocks.")}
    muon = [params[n] for n in params if n in in_blocks] if config.optimizer == "muon" else []
    rest = [p for n, p in params.items() if not (muon and n in in_blocks)]
    groups = [
        {"params": [p for p in rest if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in rest if p.dim() < 2], "weight_decay": 0.0},
    ]
    device = next(model.parameters()).device
    optimizers = [
        torch.optim.AdamW(
            groups, config.learning_rate, (config.beta1, config.beta2), fused=device.type != "mps"
        )
    ]
    if muon:
        if device.type == "cpu" and not bf16_is_fast(device):
            # There is no public way to choose the precision of torch.optim.Muon.
            torch.optim._muon._zeropower_via_newtonschulz = orthogonalise
        optimizers.append(
            torch.optim.Muon(muon, config.muon_learning_rate, weight_decay=config.weight_decay, momentum=0.95)
        )
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers


@dataclass
class History:
    """What a run has done so far, and what it needs to go on. Times in seconds, losses in nats."""

    step: int = 0
    train_seconds: float = 0.0  # without evaluation and compilation
    losses: list = field(default_factory=list)  # of every step, on its own batch
    evals: list = field(default_factory=list)  # dicts: step, train, val, seconds
    best_val: float = math.inf
    best_step: int = 0
    best_weights: dict = field(default_factory=dict, repr=False)  # on the CPU
    stopped: bool = False  # asked to stop before max_steps
    optimizers: list = field(default_factory=list, repr=False)
    generator: torch.Generator = field(default=None, repr=False)  # of the batches


@contextlib.contextmanager
def asking_to_stop():
    """Inside, the stop button and Ctrl-C ask instead of breaking off: yields a function that tells.

    So no step is left half done. Only the main thread receives signals; elsewhere nothing changes.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = signal.signal(signal.SIGINT, lambda *_: asked.set())
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)


def compiled_if_possible(loss_of, x, y):
    """torch.compile(loss_of) after a first forward and backward pass, or loss_of where that fails."""
    compiled = torch.compile(loss_of)
    try:
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
    should_stop=None,
    progress=True,
):
    """Train `model` in place for config.max_steps and return a History.

    The stop button, Ctrl-C or should_stop() -> True end it after the current step, with
    history.stopped=True; pass that history in again and it goes on from there. on_step(history)
    runs after each step (on a GPU after every 50), on_eval(model, history) after each validation
    sweep. Raises ValueError for a text shorter than a block, FloatingPointError if the loss is not finite.
    """
    block_size = model.config.block_size
    check_block_fits(train_ids, block_size)
    check_block_fits(val_ids, block_size)
    device = device or pick_device()
    on_cuda = device.type == "cuda"
    precision = config.precision
    if precision == "auto":
        precision = "bfloat16" if bf16_is_fast(device) else "float32"
    model.to(device).train()
    train_ids = train_ids.to(device)  # the whole text at once: no batch has to cross the bus later
    if history is None:
        history = History(
            optimizers=make_optimizers(model, config),
            generator=torch.Generator(device).manual_seed(config.seed),
        )
        torch.manual_seed(config.seed)  # for dropout
    history.stopped = False

    def loss_of(x, y):
        with precision_context(device, precision):
            return model(x, y)[1]

    if on_cuda:
        torch.set_float32_matmul_precision("high")  # TF32 for what stays in float32
        if config.compile:  # before the clock runs; the generator of the run is not touched
            batch = get_batch(train_ids, block_size, config.batch_size, torch.Generator(device))
            loss_of = compiled_if_possible(loss_of, *batch)
            model.zero_grad(set_to_none=True)
            torch.cuda.synchronize()

    def one_step():
        factor = learning_rate_factor(history.step, config)
        for optimizer in history.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * factor
        loss = loss_of(*get_batch(train_ids, block_size, config.batch_size, history.generator))
        loss.backward()
        if config.grad_clip:
            nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip)
        for optimizer in history.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return loss.detach()

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
    bar = tqdm(total=config.max_steps, initial=history.step, unit="step", disable=not progress, leave=False)
    with bar, asking_to_stop() as asked:
        if not history.evals:
            sweep()
        pending, clock = [], time.perf_counter()
        while history.step < config.max_steps and not history.stopped:
            pending.append(one_step())
            history.step += 1
            done = history.step == config.max_steps
            due = done or history.step % config.eval_interval == 0
            history.stopped = not done and (asked() or (should_stop is not None and should_stop()))
            if due or history.stopped or len(pending) == every:
                losses = torch.stack(pending).tolist()
                history.losses += losses
                history.train_seconds += time.perf_counter() - clock
                bar.update(len(losses))
                bar.set_postfix_str(f"loss {losses[-1]:.3f}")
                if not all(map(math.isfinite, losses)):
                    raise FloatingPointError(not_finite("loss"))
                if due:
                    sweep()
                if on_step is not None:
                    on_step(history)
                pending, clock = [], time.perf_counter()
    return history


# ---------------------------------------------------------------- one recorded run


def build(preset_name, corpus, model_changes=None, train_changes=None):
    """Model, tokenizer, train_ids, val_ids and TrainConfig of a preset on a corpus."""
    preset = PRESETS.get(preset_name)
    if preset is None:
        raise ValueError(f"There is no preset {preset_name!r}: choose one of {', '.join(PRESETS)}.")
    text = corpus.text[: preset.max_chars]
    if preset.tokenizer == "char":
        tokenizer = CharTokenizer.from_text(text)
    else:
        tokenizer = BytePairTokenizer.train(text, 1024)
    settings = {"vocab_size": tokenizer.vocab_size} | preset.model | (model_changes or {})
    config = TrainConfig(**preset.train | (train_changes or {}))
    torch.manual_seed(config.seed)
    model = GPT(GPTConfig(**settings))
    train_ids, val_ids = train_val_split(tokenizer.encode(text))
    return model, tokenizer, train_ids, val_ids, config


def hardware(device):
    """One line that names what a run was computed on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    flag = "with" if bf16_is_fast(device) else "without"
    return f"{device.type}, {platform.machine()}, {torch.get_num_threads()} threads, {flag} bfloat16"


def record_of(preset_name, corpus, model, config, history, device, samples):
    """A run as a dictionary for JSON: settings, versions, hardware, curve, times, samples."""
    tokens = len(history.losses) * config.batch_size * model.config.block_size
    return {
        "preset": preset_name,
        "corpus": corpus.name,
        "device": device.type,
        "hardware": hardware(device),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "parameters": count_parameters(model),
        "model": dataclasses.asdict(model.config),
        "train": dataclasses.asdict(config),
        "evals": [{k: round(v, 4) for k, v in point.items()} for point in history.evals],
        "best_val": round(history.best_val, 4),
        "best_step": history.best_step,
        "train_seconds": round(history.train_seconds, 2),
        "tokens_per_second": round(tokens / max(history.train_seconds, 1e-9)),
        "samples": samples,
    }


def load_records(corpus_name):
    """The recorded runs in data/runs/ on a corpus, in the order of PRESETS; see record_of."""
    paths = sorted(RUNS_DIR.glob(f"*-{corpus_name}-*.json"))
    records = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    return sorted(records, key=lambda r: (list(PRESETS).index(r["preset"]), r["device"]))


def main():
    parser = argparse.ArgumentParser(description="Train one preset and keep a record of the run.")
    parser.add_argument("--preset", default="course-cpu", choices=list(PRESETS))
    parser.add_argument("--corpus", default=None, help="plays, tinyshakespeare or a path")
    parser.add_argument("--device", default=None, help="cpu, cuda or mps; chosen if not given")
    parser.add_argument("--out", type=Path, default=RUNS_DIR, help="folder of the JSON record")
    parser.add_argument("--sample", type=int, default=300, help="characters written at every sweep")
    for title, kind in (("model", GPTConfig), ("training", TrainConfig)):
        group = parser.add_argument_group(title, "default: the preset's value")
        for f in dataclasses.fields(kind):
            group.add_argument(f"--{f.name}", type=true_or_false if f.type is bool else f.type)
    args = parser.parse_args()
    try:
        path, record = train_and_record(args)
    except (ValueError, FloatingPointError, OSError) as error:
        raise SystemExit(str(error)) from None
    print(
        f"best validation loss {record['best_val']} at step {record['best_step']}, "
        f"{record['train_seconds']} s, {record['tokens_per_second']:,} tokens/s -> {path}"
    )


def true_or_false(word):
    """The value of a yes-or-no option of the command line."""
    if word.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{word!r} must be true or false")
    return word.lower() == "true"


def train_and_record(args):
    """Train as the command line says, and write the record: its path and the record."""

    def given(kind):
        named = {f.name: getattr(args, f.name) for f in dataclasses.fields(kind)}
        return {k: v for k, v in named.items() if v is not None}

    args.out.mkdir(parents=True, exist_ok=True)  # a folder that cannot be made is noticed now
    corpus = load_corpus(args.corpus)
    model, tokenizer, train_ids, val_ids, config = build(
        args.preset, corpus, given(GPTConfig), given(TrainConfig)
    )
    device = pick_device(args.device)
    samples = []

    def on_eval(model, history):
        point = history.evals[-1]
        tqdm.write(f"step {point['step']:5d}: train {point['train']:.4f}, val {point['val']:.4f}")
        generator = torch.Generator(device).manual_seed(config.seed)
        start = train_ids[:1].view(1, 1).to(device)
        idx = generate(model, start, args.sample, top_p=0.95, generator=generator)
        samples.append({"step": point["step"], "text": tokenizer.decode(idx[0])})

    print(f"{args.preset} on {corpus.name}: {count_parameters(model):,} parameters, {hardware(device)}")
    history = train(model, train_ids, val_ids, config, device, on_eval=on_eval)
    record = record_of(args.preset, corpus, model, config, history, device, samples)
    path = args.out / f"{args.preset}-{corpus.name}-{device.type}.json"
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path, record


if __name__ == "__main__":
    main()
