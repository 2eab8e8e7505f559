"""Everything that only a GPU can show, in one go: its tests, the recorded runs and the benchmark.

    python tools/gpu.py --out DIR [--nanogpt CHECKOUT] [--only NAME ...] [--quick]

Each job is a process of its own with a limit of time; one that fails does not stop the next. DIR gets a
log of each, the records, and report.json, which is written anew after every job. Copy the records of the
folder `runs` to data/runs/, then `make readme`. --quick takes the CPU and tiny sizes: a test of this script.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from helpers.presets import PRESETS, SYSTEMS  # noqa: E402

SEEDS = 1337, 1338, 1339
TINY = "--n_layer 1 --n_head 2 --n_embd 16 --block_size 16 --batch_size 4 --max_steps 2".split()


def jobs(out, device, checkout, quick):
    """{name: (limit in seconds, arguments of python)} in the order in which they run."""
    size = TINY if quick else []
    made = {"tests": (300, ["-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "tests/test_cuda.py"])}

    def training(name, preset, folder, *options):
        # Byte pairs are learned from one story, as the system does it; a quick run has no download.
        corpus = "plays" if quick or PRESETS[preset].tokenizer != "char" else "tinyshakespeare"
        places = ["--out", out / folder, "--checkpoints", out / "checkpoints" / name, "--fresh"]
        words = ["-m", "helpers", "train", "--preset", preset, "--corpus", corpus, "--device", device]
        made[name] = 600, [*words, *places, *size, *options]

    training("course-gpu", "course-gpu", "runs")
    for seed in SEEDS[1:]:
        training(f"course-gpu-{seed}", "course-gpu", f"seed-{seed}", "--seed", seed)
    # As on a T4, which has no bfloat16; Muon too, so that two optimizers share one scaler.
    training("float16", "course-gpu", "float16", "--precision", "float16", "--optimizer", "muon")
    for name in (*SYSTEMS, "nanogpt-char"):
        training(name, name, "runs")
    beside = ["--nanogpt", checkout] if checkout else []
    speed = ["-m", "helpers", "bench", "--device", device, "--out", out / "runs", *beside]
    made["bench"] = 1500, [*speed, *(["--quick", "--only", "encoding"] if quick else [])]
    return made


def run_job(arguments, limit, log):
    """Run python with the arguments: how it ended, in words, and its seconds. Its output goes to log."""
    start = time.perf_counter()
    with log.open("w", encoding="utf-8") as output:
        try:
            command = [sys.executable, *map(str, arguments)]
            done = subprocess.run(
                command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, timeout=limit,
                env=os.environ | {"PYTHONUTF8": "1"},
            )  # fmt: skip
            ended = "ok" if done.returncode == 0 else f"exit status {done.returncode}"
        except subprocess.TimeoutExpired:
            ended = f"stopped after {limit} s"
    return ended, round(time.perf_counter() - start, 1)


def summary(out):
    """What the records in a folder say of each run; and mean and spread of course-gpu over its seeds."""
    records = {path: json.loads(path.read_text(encoding="utf-8")) for path in sorted(out.glob("*/*.json"))}
    keys = "best_val", "best_step", "train_seconds", "tokens_per_second", "precision", "compiled"
    runs = {f"{p.parent.name}/{p.stem}": {k: r[k] for k in keys} for p, r in records.items() if "preset" in r}
    of_seeds = [run for run in runs if "/course-gpu-" in run and not run.startswith("float16/")]
    seeds = [runs[run]["best_val"] for run in of_seeds]
    told = {"runs": runs, "course-gpu": {"seeds": seeds}}
    if len(seeds) > 1:
        told["course-gpu"] |= dict(mean=statistics.mean(seeds), stdev=statistics.stdev(seeds))
    return told


def main(arguments=None):
    """The command line; ends with 1 if a job failed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of logs and records")
    parser.add_argument("--nanogpt", type=Path, help="a nanoGPT checkout to measure beside the course")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="some of the jobs")
    parser.add_argument("--quick", action="store_true", help="tiny sizes on the CPU: a test of this script")
    args = parser.parse_args(arguments)
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    todo = jobs(out, "cpu" if args.quick else "cuda", args.nanogpt and args.nanogpt.resolve(), args.quick)
    unknown = set(args.only or ()) - todo.keys()
    if unknown:
        parser.error(f"there is no {', '.join(sorted(unknown))}: choose among {', '.join(todo)}")
    report = {"jobs": {}}
    for name in args.only or todo:
        limit, words = todo[name]
        ended, seconds = run_job(words, limit, out / f"{name}.log")
        report["jobs"][name] = {"ended": ended, "seconds": seconds}
        report |= summary(out)
        (out / "report.json").write_text(json.dumps(report, indent=1), "utf-8", newline="\n")
        print(f"{name:18} {ended:20} {seconds:7.1f} s", flush=True)
    print(json.dumps(report["course-gpu"]))
    raise SystemExit(any(job["ended"] != "ok" for job in report["jobs"].values()))


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # what a terminal cannot show is no reason to end
    main()
