"""`python -m helpers train`: one preset on a text, kept in a folder while it trains, and recorded at its end.

python -m helpers train --preset course-cpu --corpus plays
torchrun --standalone --nproc_per_node=2 -m helpers train --preset course-cpu --corpus plays
"""

import argparse
import dataclasses
import os
from pathlib import Path

import torch
from tqdm.auto import tqdm

from helpers.checks import check_whole, out_of_memory_as
from helpers.data import NAMED, load_corpus, name_of_own
from helpers.device import end_at_once, hardware, pick_device, process_group, rank, rank_0_first
from helpers.files import DATA_DIR, RUNS_DIR
from helpers.generate import generate
from helpers.model import GPTConfig, count_parameters
from helpers.presets import PRESETS
from helpers.program.build import build, build_from_file, check_batch_fits, too_large
from helpers.program.folder import run_folder
from helpers.program.records import record_of, write_record
from helpers.train import Callbacks, TrainConfig, train

LARGE_TEXT_BYTES = 100_000_000  # a file from this size on is encoded once and then read from the disk


def main(arguments=None):
    """The subcommand; arguments is a list of words, by default those of the command line."""
    args = parser().parse_args(arguments)
    try:
        device = pick_device(args.device)
        with process_group(device):
            stopped, report = train_and_record(args, device)
    except (ValueError, FloatingPointError, OSError) as error:
        raise SystemExit(str(error)) from None
    if stopped:
        raise SystemExit(report or 1)
    if report:
        print(report)
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        end_at_once()


def parser():
    """Every setting of a model and of its training is an option; their help stands beside them."""
    made = argparse.ArgumentParser(
        prog="python -m helpers train",
        description="Train one preset and keep a record of the run. An interrupted run goes on when the "
        "same command is given again.",
    )
    made.add_argument("--preset", default="course-cpu", help=", ".join(PRESETS))
    made.add_argument("--corpus", default=None, help="plays, tinyshakespeare or a path")
    made.add_argument("--device", default=None, help="cpu, cuda or mps; chosen if not given")
    made.add_argument("--out", type=Path, default=RUNS_DIR, help="folder of the JSON record")
    made.add_argument("--checkpoints", type=Path, default=None, help="folder of the run's checkpoints")
    made.add_argument("--fresh", action="store_true", help="begin anew, even if the run could go on")
    made.add_argument("--sample", type=int, default=300, help="tokens written at every sweep")
    for title, kind in (("model", GPTConfig), ("training", TrainConfig)):
        group = made.add_argument_group(title, "default: the preset's value")
        for f in dataclasses.fields(kind):
            convert = {bool: true_or_false, int | None: int}.get(f.type, f.type)
            choices = f.metadata["choices"]
            explained = f.metadata["help"] + (f" ({', '.join(choices)})" if choices else "")
            group.add_argument(f"--{f.name}", type=convert, help=explained.replace("%", "%%"))
    return made


def true_or_false(word):
    """The value of a yes-or-no option of the command line."""
    if word.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{word!r} must be true or false")
    return word.lower() == "true"


def train_and_record(args, device):
    """Train as the command line says: (was it stopped?, a last line to report, empty but in process 0)."""
    check_whole("sample", args.sample, least=0)
    corpus_name, parts = build_from_arguments(args)
    model, tokenizer, train_ids, val_ids, config = parts
    name = f"{args.preset}-{corpus_name}-{device.type}"
    folder = args.checkpoints or DATA_DIR.parent / "build" / "runs" / name
    # All that can be refused is refused before anything is written, or removed for --fresh.
    check_batch_fits(model, config, device)
    check_folder("records", args.out)
    check_folder("checkpoints", folder)
    report = tqdm.write if rank() == 0 else lambda line: None
    report(f"{args.preset} on {corpus_name}: {count_parameters(model):,} parameters, {hardware(device)}")

    def on_eval(model, history):
        point = history.evals[-1]
        report(f"step {point['step']:5d}: train {point['train']:.4f}, val {point['val']:.4f}")
        if rank() == 0:
            text = sample(model, tokenizer, train_ids, args.sample, config.seed, device)
            history.samples.append({"step": point["step"], "text": text})

    run = folder, model, tokenizer, config, device, train_ids, val_ids
    with run_folder(*run, fresh=args.fresh) as (history, save):
        if history is not None:
            report(f"{folder} has this run up to step {history.step}: it goes on from there.")
        callbacks = Callbacks(on_eval=on_eval, on_save=save)
        with out_of_memory_as(too_large(model, config, device)):
            history = train(model, train_ids, val_ids, config, device, history, callbacks)
    if rank() != 0:
        return history.stopped, ""
    if history.stopped:
        return True, f"stopped, and kept in {folder}: the same command goes on from there."
    record = record_of(args.preset, corpus_name, model, tokenizer, val_ids, config, history, device)
    path = args.out / f"{name}.json"
    write_record(path, record)
    return False, (
        f"best validation loss {record['best_val']} at step {record['best_step']}, "
        f"{record['train_seconds']} s, {record['tokens_per_second']:,} tokens/s -> {path}"
    )


def build_from_arguments(args):
    """The name of the text, and what build makes of preset, text and options."""

    def given(kind):
        named = {f.name: getattr(args, f.name) for f in dataclasses.fields(kind)}
        return {k: v for k, v in named.items() if v is not None}

    changes = given(GPTConfig), given(TrainConfig)
    text = os.path.expanduser(args.corpus or os.environ.get("COURSE_CORPUS") or "plays")
    own = text not in NAMED and Path(text).is_file()
    if own and Path(text).stat().st_size >= LARGE_TEXT_BYTES:
        with rank_0_first():  # the others then find the ids, and do not encode once more
            return name_of_own(text), build_from_file(args.preset, text, *changes)
    corpus = load_corpus(text)
    return corpus.name, build(args.preset, corpus, *changes)


def check_folder(purpose, path):
    """Raise ValueError unless path is a folder that can be written to, or one can be made there."""
    folders = (path, *path.absolute().parents)
    there = next((p for p in folders if p.exists()), path)  # Windows may have no such drive
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise ValueError(
            f"{path} cannot be used for {purpose}, as {there} cannot be written to: choose another folder."
        )


def sample(model, tokenizer, train_ids, length, seed, device):
    """What the model writes now, from the first token of the text on: a str."""
    start = train_ids[:1].view(1, 1).long().to(device)
    generator = torch.Generator(device).manual_seed(seed)
    idx = generate(model, start, length, top_p=0.95, generator=generator)[0]
    return tokenizer.decode(idx[idx < tokenizer.vocab_size])  # the model may have ids without a text
