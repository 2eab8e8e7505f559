"""One recorded run: a preset on a corpus, kept in a folder while it trains and in a JSON file afterwards.

python -m helpers.train --preset course-cpu --corpus plays
torchrun --standalone --nproc_per_node=2 -m helpers.train --preset course-cpu --corpus plays
"""

import argparse
import dataclasses
import inspect
import json
import math
import os
import platform
import re
from pathlib import Path

import torch
from tqdm.auto import tqdm

from helpers.checkpoint import run_folder
from helpers.checks import check_ids, check_kind, check_number, shown
from helpers.data import DATA_DIR, Corpus, load_corpus, train_val_split, write_atomically
from helpers.device import hardware, pick_device, process_group, rank, the_first_goes_ahead, world_size
from helpers.generate import generate
from helpers.large_text import tokens_of_file
from helpers.model import GPT, GPTConfig, count_parameters, parameter_table
from helpers.presets import PRESETS
from helpers.tokenizer import BytePairTokenizer, CharTokenizer
from helpers.train import TrainConfig, check_run, machine_memory, precision_of, train

RUNS_DIR = DATA_DIR / "runs"
LARGE_TEXT_BYTES = 100_000_000  # a file from this size on is encoded once and then read from the disk
LARGEST_SWEEP = 1_000_000  # validation tokens that are kept of such a text

# ---------------------------------------------------------------- from a name to a model and a text


def build(preset_name, corpus, model_changes=None, train_changes=None):
    """Model, tokenizer, train_ids, val_ids and TrainConfig of a preset on a corpus."""
    preset = preset_of(preset_name)
    check_kind("corpus", corpus, Corpus, "what load_corpus returns")
    text = corpus.text[: preset.max_chars]
    if preset.tokenizer == "char":
        tokenizer = CharTokenizer.from_text(text)
    else:
        tokenizer = BytePairTokenizer.train(text, 1024)
    return _build(preset, tokenizer, tokenizer.encode(text), model_changes, train_changes)


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
    return _build(preset, tokenizer, ids[: preset.max_chars], model_changes, train_changes, val_fraction)


def _build(preset, tokenizer, ids, model_changes, train_changes, val_fraction=0.1):
    for name, changes in (("model_changes", model_changes), ("train_changes", train_changes)):
        check_kind(name, changes, dict | None, "a dict from setting to value, or None")
    settings = {"vocab_size": tokenizer.vocab_size} | preset.model | (model_changes or {})
    model_config = checked(GPTConfig, settings)
    config = checked(TrainConfig, preset.train | (train_changes or {}))
    train_ids, val_ids = train_val_split(ids, val_fraction)
    check_model_fits(model_config)
    torch.manual_seed(config.seed)
    return GPT(model_config), tokenizer, train_ids, val_ids, config


def check_folder(purpose, path):
    """Raise ValueError unless path is a folder that can be written to, or one can be made there."""
    there = next(p for p in (path, *path.absolute().parents) if p.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise ValueError(
            f"{path} cannot be used for {purpose}, as {there} cannot be written to: choose another folder."
        )


def check_model_fits(config):
    """Raise ValueError if the weights of GPT(config) alone need more memory than the machine has."""
    if 4 * sum(parameter_table(config).values()) > machine_memory():
        raise ValueError(
            f"A model of vocab_size={config.vocab_size}, n_layer={config.n_layer}, n_embd={config.n_embd}, "
            f"block_size={config.block_size} does not fit into the memory: lower the largest of them."
        )


def preset_of(name):
    """The preset of that name. Raises ValueError with the choice if there is none."""
    if not isinstance(name, str) or name not in PRESETS:
        raise ValueError(f"There is no preset {shown(name)}: choose one of {', '.join(PRESETS)}.")
    return PRESETS[name]


def checked(kind, settings):
    """kind(**settings), a config. Raises ValueError with the choice for a name that it does not have."""
    names = [f.name for f in dataclasses.fields(kind)]
    for name in settings:
        if name not in names:
            raise ValueError(f"There is no setting {name!r}: choose among {', '.join(names)}.")
    return kind(**settings)


# ---------------------------------------------------------------- records


def record_of(preset_name, corpus_name, model, tokenizer, val_ids, config, history, device):
    """A run as a dictionary for JSON: settings, versions, hardware, curve, times, samples."""
    tokens = len(history.losses) * config.batch_size * model.config.block_size
    return {
        "preset": preset_name,
        "corpus": corpus_name,
        "device": device.type,
        "hardware": hardware(device),
        "processes": world_size(),
        "precision": precision_of(config, device),
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


def bits_per_character(nats_per_token, tokenizer, ids):
    """A loss on ids in bits per character: the one unit in which all tokenizers can be compared."""
    check_number("nats_per_token", nats_per_token)
    check_ids("ids", ids)
    if not len(ids):
        raise ValueError(f"ids={shown(ids)} holds no token: give those of a text.")
    characters = len(ids) if isinstance(tokenizer, CharTokenizer) else len(tokenizer.decode(ids))
    return nats_per_token / math.log(2) * len(ids) / characters


def load_records(corpus_name):
    """The recorded runs in data/runs/ on a corpus, in the order of PRESETS; see record_of."""
    paths = sorted(p for name in PRESETS for p in RUNS_DIR.glob(f"{name}-{corpus_name}-*.json"))
    records = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    return sorted(records, key=lambda r: (list(PRESETS).index(r["preset"]), r["device"]))


def load_bench(device_type="cpu"):
    """The last record of helpers.bench on a kind of device, a dict; None if there is none."""
    path = RUNS_DIR / f"bench-{device_type}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


# ---------------------------------------------------------------- the program


def main():
    parser = argparse.ArgumentParser(
        prog="python -m helpers.train",
        description="Train one preset and keep a record of the run. An interrupted run goes on when the "
        "same command is given again.",
    )
    parser.add_argument("--preset", default="course-cpu", help=", ".join(PRESETS))
    parser.add_argument("--corpus", default=None, help="plays, tinyshakespeare or a path")
    parser.add_argument("--device", default=None, help="cpu, cuda or mps; chosen if not given")
    parser.add_argument("--out", type=Path, default=RUNS_DIR, help="folder of the JSON record")
    parser.add_argument("--checkpoints", type=Path, default=None, help="folder of the run's checkpoints")
    parser.add_argument("--fresh", action="store_true", help="begin anew, even if the run could go on")
    parser.add_argument("--sample", type=int, default=300, help="characters written at every sweep")
    for title, kind in (("model", GPTConfig), ("training", TrainConfig)):
        group = parser.add_argument_group(title, "default: the preset's value")
        for f in dataclasses.fields(kind):
            convert = true_or_false if f.type is bool else f.type
            group.add_argument(f"--{f.name}", type=convert, help=explanations(kind).get(f.name))
    args = parser.parse_args()
    try:
        device = pick_device(args.device)
        with process_group(device):
            path, record = train_and_record(args, device)
            reports = rank() == 0
    except (ValueError, FloatingPointError, OSError) as error:
        raise SystemExit(str(error)) from None
    if record is None:
        stopped = f"stopped, and kept in {path}: the same command goes on from there."
        raise SystemExit(stopped if reports else 1)
    if reports:
        print(
            f"best validation loss {record['best_val']} at step {record['best_step']}, "
            f"{record['train_seconds']} s, {record['tokens_per_second']:,} tokens/s -> {path}"
        )


def explanations(kind):
    """The comments beside the fields of a config, by name: they are the help of the command line."""
    lines = re.findall(r"^    (\w+): .*?  # (.*)$", inspect.getsource(kind), re.MULTILINE)
    return {name: comment.replace("%", "%%") for name, comment in lines}


def true_or_false(word):
    """The value of a yes-or-no option of the command line."""
    if word.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{word!r} must be true or false")
    return word.lower() == "true"


def train_and_record(args, device):
    """Train as the command line says: (path of the record, record), or (folder, None) if stopped."""

    def given(kind):
        named = {f.name: getattr(args, f.name) for f in dataclasses.fields(kind)}
        return {k: v for k, v in named.items() if v is not None}

    if args.sample < 0:
        raise ValueError(f"sample={args.sample} must be at least 0.")
    changes = given(GPTConfig), given(TrainConfig)
    name = args.corpus or os.environ.get("COURSE_CORPUS") or "plays"
    if Path(name).is_file() and Path(name).stat().st_size >= LARGE_TEXT_BYTES:
        corpus_name = Path(name).name
        with the_first_goes_ahead():  # who finds the ids there, and does not encode once more
            model, tokenizer, train_ids, val_ids, config = build_from_file(args.preset, name, *changes)
    else:
        corpus = load_corpus(name)
        corpus_name = corpus.name
        model, tokenizer, train_ids, val_ids, config = build(args.preset, corpus, *changes)
    name = f"{args.preset}-{corpus_name}-{device.type}"
    folder = args.checkpoints or DATA_DIR.parent / "build" / "runs" / name
    # All that can be refused is refused before anything is written, or removed for --fresh.
    check_run(model, train_ids, val_ids, config, device)
    check_folder("records", args.out)
    check_folder("checkpoints", Path(folder))
    args.out.mkdir(parents=True, exist_ok=True)

    def on_eval(model, history):
        if rank() != 0:
            return
        point = history.evals[-1]
        tqdm.write(f"step {point['step']:5d}: train {point['train']:.4f}, val {point['val']:.4f}")
        generator = torch.Generator(device).manual_seed(config.seed)
        start = train_ids[:1].view(1, 1).long().to(device)
        idx = generate(model, start, args.sample, top_p=0.95, generator=generator)[0]
        idx = idx[idx < tokenizer.vocab_size]  # a vocab_size above the tokenizer's has ids without a text
        history.samples.append({"step": point["step"], "text": tokenizer.decode(idx)})

    report = tqdm.write if rank() == 0 else lambda line: None
    report(f"{args.preset} on {corpus_name}: {count_parameters(model):,} parameters, {hardware(device)}")
    place = folder, model, tokenizer, config, device, train_ids, val_ids
    with run_folder(*place, fresh=args.fresh) as (history, save):
        if history is not None:
            report(f"{folder} has this run up to step {history.step}: it goes on from there.")
        history = train(model, train_ids, val_ids, config, device, history, on_eval=on_eval, on_save=save)
    if history.stopped:
        return folder, None
    record = record_of(args.preset, corpus_name, model, tokenizer, val_ids, config, history, device)
    path = args.out / f"{name}.json"
    if rank() == 0:
        write_atomically(path, (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode())
    return path, record
