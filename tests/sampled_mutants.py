"""Random mutants of the nine lesson files: what share of them do the tests kill? `make mutants SAMPLE=300`

python tests/sampled_mutants.py list NUMBER [--seed S]    with cosmic-ray (make sets up a place for it)
python tests/sampled_mutants.py judge FILE                with the course's packages; what `list` printed

cosmic-ray makes one small change at a time: another operator, a number that is one more or less, `not`
before a condition, a loop that never runs. Of all that it can make `list` draws some. `judge` asks, for
each, first the tests that run its lines, the quickest first; then the whole files nearest to the lesson,
and the tests that start programs, which coverage does not see. A mutant whose difference nobody could see
is listed in EQUIVALENT with the reason, and does not count. Verdicts are kept in build/, so that an
interrupted run goes on; what lived is judged again by the next one. Writes data/runs/mutants.json.
"""

import argparse
import ast
import difflib
import hashlib
import json
import math
import os
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "sampled_mutants"
RECORD = ROOT / "data" / "runs" / "mutants.json"
LESSONS = "device data tokenizer model generate optimizers train checkpoint presets".split()
NEAREST = {
    "device": "test_device.py test_train.py test_runs.py",
    "data": "test_data.py test_large_text.py test_bad_input.py",
    "tokenizer": "test_tokenizer.py test_data.py test_fuzz.py",
    "model": "test_model.py test_generate.py test_twins.py",
    "generate": "test_generate.py test_fuzz.py test_bad_input.py",
    "optimizers": "test_optimizers.py test_train.py",
    "train": "test_train.py test_optimizers.py test_resume.py test_runs.py",
    "checkpoint": "test_checkpoint.py test_resume.py test_fuzz.py test_runs.py",
    "presets": "test_runs.py test_model.py test_bad_input.py",
}
SECONDS = 240.0  # for one mutant's tests: none of them needs a third of it without a mutant

# (lesson, the line as it is, the line as it would be): why nobody could see the difference
EQUIVALENT = {
    (
        "model",
        "maps.append((w if w.dim() == 4 else w.unsqueeze(1)).float().cpu())",
        "maps.append((w if w.dim() >= 4 else w.unsqueeze(1)).float().cpu())",
    ): "attention weights have three or four dimensions",
    (
        "optimizers",
        "progress = (step - config.warmup_steps) / max(config.max_steps - config.warmup_steps, 1)",
        "progress = (step - config.warmup_steps) / max(config.max_steps - config.warmup_steps, 2)",
    ): "with one step after the warm-up, that step has the peak either way",
    (
        "model",
        'fixed = config.block_size * config.n_embd if config.position == "sinusoidal" else 0',
        'fixed = config.block_size * config.n_embd if config.position >= "sinusoidal" else 0',
    ): "a position is learned or sinusoidal, no other name passes",
    (
        "tokenizer",
        "size += sum(len(self.pieces[i]) for i in pair) if known else 0",
        "size += sum(len(self.pieces[i]) for i in pair) if known else -1",
    ): "an unknown pair is refused whatever its size",
    ("device", "if world_size() > 1:", "if world_size() != 1:"): "there is never less than one process",
    (
        "device",
        'if int(os.environ.get("WORLD_SIZE", 1)) == 1:',
        'if int(os.environ.get("WORLD_SIZE", 1)) <= 1:',
    ): "torchrun starts one process or more",
    (
        "generate",
        "if step == 0:  # once only: a GPU must wait for the answer",
        "if step <= 0:  # once only: a GPU must wait for the answer",
    ): "steps count from 0",
}


# ---------------------------------------------------------------- what cosmic-ray can make


def list_mutants(number, seed):
    """Print `number` mutants drawn from all that cosmic-ray makes of the lesson files, as JSON lines."""
    from importlib.metadata import version

    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator, operator_names

    population = []
    for lesson in LESSONS:
        nodes = list(ast_nodes(get_ast((ROOT / "helpers" / f"{lesson}.py").read_text(encoding="utf-8"))))
        for name in sorted(operator_names()):
            operator = get_operator(name)
            if operator.arguments() or name == "core/NoOp":
                continue
            places = [place for node in nodes for place in operator().mutation_positions(node)]
            population += [(lesson, name, i, place[0][0]) for i, place in enumerate(places)]
    about = {"tool": f"cosmic-ray {version('cosmic-ray')}", "mutants": len(population), "seed": seed}
    random.Random(seed).shuffle(population)
    for lesson, name, occurrence, line in population:
        source = (ROOT / "helpers" / f"{lesson}.py").read_text(encoding="utf-8")
        mutant = mutate_code(source, get_operator(name)(), occurrence)
        try:
            if ast.dump(ast.parse(mutant)) == ast.dump(ast.parse(source)):
                continue
        except SyntaxError:  # cosmic-ray takes a star or a minus for an operator where it is none
            continue
        print(json.dumps({"lesson": lesson, "operator": name, "line": line, "source": mutant, **about}))
        number -= 1
        if number == 0:
            return


def changed(old, new):
    """The lines of two sources that differ: (old, new), each joined and without indentation."""
    lines = list(difflib.ndiff(old.splitlines(), new.splitlines()))
    return tuple(" ".join(line[2:].strip() for line in lines if line[0] == sign) for sign in "-+")


# ---------------------------------------------------------------- who runs which line


def coverage_of(folder):
    """Which tests run which lines: ({(lesson, line): {test}}, {test: seconds}). Fails where a test fails."""
    import subprocess
    import xml.etree.ElementTree as ET

    import coverage
    from mutants import OTHERS

    state = hashlib.sha256()
    for path in sorted([*(ROOT / "tests").glob("*.py"), *(ROOT / "helpers").rglob("*.py")]):
        state.update(path.read_bytes())
    stored, times = (BUILD / f"{name}-{state.hexdigest()[:16]}" for name in ("coverage", "times.xml"))
    if not times.exists():
        print("once: which test runs which line (minutes)", flush=True)
        config = folder / "coverage.cfg"
        config.write_text(f"[run]\nsource = helpers\ndynamic_context = test_function\ndata_file = {stored}\n")
        asked = [f"tests/{test}" if not test.startswith("-") else test for test in OTHERS]
        command = [sys.executable, "-m", "coverage", "run", f"--rcfile={config}", "-m", "pytest", "-q", "-x"]
        command += [
            "-p",
            "no:cacheprovider",
            "--tb=short",
            "-m",
            "not faults",
            f"--junitxml={folder / 'times.xml'}",
            *asked,
        ]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"Without any mutant a test fails:\n{done.stdout[-2000:]}{done.stderr[-1000:]}")
        (folder / "times.xml").rename(times)
    seconds = defaultdict(float)
    for case in ET.parse(times).iter("testcase"):
        seconds[f"{case.get('classname')}.{case.get('name').partition('[')[0]}"] += float(case.get("time"))
    data = coverage.CoverageData(basename=str(stored))
    data.read()
    runs = defaultdict(set)
    for path in data.measured_files():
        if Path(path).stem in LESSONS and Path(path).parent.name == "helpers":
            for line, contexts in data.contexts_by_lineno(path).items():
                runs[Path(path).stem, line] = {c if c in seconds else f"tests.{c}" for c in contexts if c}
    return runs, seconds


def tests_for(mutant, runs, seconds):
    """The tests that run the mutant's line, or its function, or its file; the quickest first."""
    lesson, line = mutant["lesson"], mutant["line"]
    tree = ast.parse((ROOT / "helpers" / f"{lesson}.py").read_text(encoding="utf-8"))
    functions = [
        n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.lineno <= line <= n.end_lineno
    ]
    inner = max(functions, key=lambda f: f.lineno, default=None)
    spans = [range(line, line + 1)]
    spans += [range(inner.lineno, inner.end_lineno + 1)] if inner else []
    for span in [*spans, range(10**5)]:
        found = {
            test for (name, at), tests in runs.items() if name == lesson and at in span for test in tests
        }
        found &= seconds.keys()
        if found:
            break
    return [
        f"{name.split('.')[1]}.py::{name.split('.')[2]}"
        for name in sorted(found, key=lambda t: (seconds[t], t))
    ]


# ---------------------------------------------------------------- judging


def judge(mutant, folder, runs, seconds):
    """Put a mutant into the copy, ask the tests and undo it: (killed, timed out or alive, by which test)."""
    from mutants import ask

    path = folder / "helpers" / f"{mutant['lesson']}.py"
    source = path.read_text(encoding="utf-8")
    path.write_text(mutant["source"], encoding="utf-8")
    programs = "test_runs.py test_resume.py test_device.py test_doctor.py".split()
    nearest = NEAREST[mutant["lesson"]].split()
    try:
        for asked in (tests_for(mutant, runs, seconds), list(dict.fromkeys(nearest + programs))):
            code, by, _ = ask(folder, asked, SECONDS)
            if code == "time ran out":
                return "timed out", ""
            # 2, or 4 with the name of a file: a file of tests cannot even be imported with the mutant in it.
            if code in (1, 2) or (code == 4 and by.endswith(".py")):
                return "killed", by
            if code != 0:
                raise SystemExit(f"pytest ended with {code}: {by}")
    finally:
        path.write_text(source, encoding="utf-8")
    return "alive", ""


def judge_all(mutants):
    """Judge those that have no verdict yet or lived, and write the record."""
    from mutants import SETTINGS, copy_to

    BUILD.mkdir(parents=True, exist_ok=True)
    os.environ.update(SETTINGS)
    kept = BUILD / "verdicts.jsonl"
    verdicts = {}
    for line in kept.read_text(encoding="utf-8").splitlines() if kept.exists() else []:
        verdict = json.loads(line)
        verdicts[verdict["sha256"]] = verdict
    results = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy_to(folder)
        runs, seconds = coverage_of(folder)
        for i, mutant in enumerate(mutants, 1):
            old, new = changed((folder / "helpers" / f"{mutant['lesson']}.py").read_text(), mutant["source"])
            digest = hashlib.sha256(mutant["source"].encode()).hexdigest()
            verdict = verdicts.get(digest, {})
            if (mutant["lesson"], old, new) in EQUIVALENT:
                verdict = {"verdict": "equivalent", "reason": EQUIVALENT[mutant["lesson"], old, new]}
            elif verdict.get("verdict") not in ("killed", "timed out"):
                begin = time.perf_counter()
                said, by = judge(mutant, folder, runs, seconds)
                took = round(time.perf_counter() - begin, 1)
                verdict = {"verdict": said, "by": by, "seconds": took, "sha256": digest}
                with kept.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(verdict) + "\n")
                print(f"{i:4} {said:9} {took:5} s  {mutant['lesson']}: {old} -> {new}  [{by}]", flush=True)
            results.append((verdict["verdict"], mutant["lesson"], old, new))
    write_record(mutants, results)


def write_record(mutants, results):
    """Write data/runs/mutants.json: the counts, the share killed with its 95 % interval, and what lived."""
    count = Counter(result[0] for result in results)
    killed = count["killed"] + count["timed out"]
    seen = len(results) - count["equivalent"]
    low, high = wilson(killed, seen)
    first = mutants[0]
    record = {
        "tool": first["tool"], "seed": first["seed"], "of": first["mutants"], "sample": len(results),
        **{name.replace(" ", "_"): count[name] for name in ("killed", "timed out", "alive", "equivalent")},
        "share": killed / seen, "low": low, "high": high,
        "lived": [f"{lesson}: {old} -> {new}" for said, lesson, old, new in results if said == "alive"],
    }  # fmt: skip
    RECORD.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{killed} of {seen} killed: {record['share']:.1%} ({low:.1%} to {high:.1%})")
    if record["share"] < 0.9:
        raise SystemExit("Fewer than nine of ten are noticed: see data/runs/mutants.json for what lived.")


def wilson(k, n, z=1.96):
    """Wilson's 95 % interval of a share k of n (Wilson 1927)."""
    p = k / n
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list", help="draw mutants, needs cosmic-ray")
    listing.add_argument("number", type=int)
    listing.add_argument("--seed", type=int, default=0)
    judging = commands.add_parser("judge", help="judge what `list` printed")
    judging.add_argument("file", type=Path)
    args = parser.parse_args()
    if args.command == "list":
        list_mutants(args.number, args.seed)
    else:
        judge_all([json.loads(line) for line in args.file.read_text(encoding="utf-8").splitlines()])


if __name__ == "__main__":
    main()
