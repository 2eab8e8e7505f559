"""Bring README.md and docs/measurements.md up to date with what was measured: tables, results and picture.

    python tools/readme.py

The tables come from notebooks/ and data/runs/; the picture from data/runs/ and the model that
notebook 06 stored in build/ (it is left as it is if that model is not there).
"""

import json
import re
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from helpers.files import RUNS_DIR  # noqa: E402
from helpers.model import GPT, GPTConfig, count_parameters  # noqa: E402
from helpers.presets import PRESETS, SYSTEMS  # noqa: E402
from helpers.program.bench import HEADINGS, caption_of, line_of  # noqa: E402
from helpers.program.records import load_bench, load_record, load_records, record_of_system  # noqa: E402

PAGES = ROOT / "README.md", ROOT / "docs" / "measurements.md"
NOTEBOOKS = {
    "00_tensors_and_gradients": ("an optional warm-up: shapes, and gradients by your own engine", ""),
    "01_data_and_tokenization": ("a tokenizer, a split, batches", "unigram"),
    "02_bigram": ("the smallest language model, and the training loop", "bigram"),
    "03_attention_math": ("attention from an average: mask, softmax, query, key, value", "one head"),
    "04_multi_head_attention": ("many heads, by list, fused, and by the fast kernel", "multi-head"),
    "05_transformer_blocks": ("feed-forward, residuals, layer norm: the whole GPT", "deeper"),
    "06_full_training": ("the training program, and a model that writes verse", "full"),
    "07_fast_and_safe": ("a profile, Muon, a cache; runs stopped, killed and shared", ""),
    "08_tokens_and_gpt2": ("byte pairs; GPT-2's weights in our model, and ours in its form", ""),
}


def minutes(name):
    """Reading time of a page, questions and exercises apart: 150 words or one code cell a minute."""
    cells = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    end = next(i for i, c in enumerate(cells) if "".join(c["source"]).startswith("## Five questions"))
    cells = cells[:end]
    words = sum(len("".join(c["source"]).split()) for c in cells if c["cell_type"] == "markdown")
    code = sum(c["cell_type"] == "code" for c in cells)
    return max(5, 5 * round((words / 150 + code) / 5))


def notebook_table(ladder):
    rows = [
        "| notebook | what you build | minutes | rung reached | loss |",
        "| --- | --- | ---: | --- | ---: |",
    ]
    for name, (what, rung) in NOTEBOOKS.items():
        title = name.replace("_", " ")
        loss = f"{ladder[rung]:.2f}" if rung in ladder else ""
        rows.append(f"| [{title}](notebooks/{name}.ipynb) | {what} | {minutes(name)} | {rung} | {loss} |")
    return rows


def ladder_table(ladders):
    rows = ["| rung | " + " | ".join(ladders) + " |", "| --- |" + " ---: |" * len(ladders)]
    for rung in next(iter(ladders.values())):
        rows.append(f"| {rung} | " + " | ".join(f"{rungs[rung]:.3f}" for rungs in ladders.values()) + " |")
    return rows


def runs_table(corpora):
    rows = [
        "| preset | text | parameters | claimed | measured | bits per character | training | hardware |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for corpus in corpora:
        for r in load_records(corpus):
            # Claims are about Tiny Shakespeare.
            claimed = PRESETS[r["preset"]].claimed_val if corpus == "tinyshakespeare" else None
            rows.append(
                f"| `{r['preset']}` | {corpus} | {r['parameters']:,} | {claimed or ''} | {r['best_val']:.3f} "
                f"| {r['bits_per_character']:.2f} | {r['train_seconds']:.0f} s | {r['hardware']} |"
            )
    return rows


def systems_table():
    """For each of the systems that the course follows: its claims, and what was measured here."""
    rows = [
        "| system | parameters claimed | counted | loss claimed | measured | recipe | training | on |",
        "| --- | ---: | ---: | --- | ---: | --- | ---: | --- |",
    ]
    for name in SYSTEMS:
        preset, run = PRESETS[name], record_of_system(name)
        with torch.device("meta"):
            counted = count_parameters(GPT(GPTConfig(**{"vocab_size": 65} | preset.model)))
        said = f"{preset.claimed_parameters:,.0f}" if preset.claimed_parameters else "none"
        claim = f"{preset.claim} (on {preset.claimed_on})" if preset.claim else "none"
        cells = [f"[{name}]({preset.address})" if preset.address else name, said, f"{counted:,}", claim]
        if run is None:
            cells += ["not yet", "", "", ""]
        else:
            recipe = "its own" if run["preset"] == name else f"the course's: `{run['preset']}`"
            minutes = f"{run['train_seconds'] / 60:.1f} min"
            cells += [f"{run['best_val']:.3f} on {run['corpus']}", recipe, minutes, run["hardware"]]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def tries_table():
    """The tries in which the recipe of course-long was looked for: what varied, and what came out."""
    varied = dict(
        model=("n_layer", "n_head", "n_embd", "block_size", "dropout"),
        train=("batch_size", "max_steps", "muon_learning_rate", "learning_rate", "weight_decay"),
    )
    names = [name for group in varied.values() for name in group]
    headings = ["try", *names, "loss", "at step", "training", "on"]
    rows = [f"| {' | '.join(headings)} |", "|" + " ---: |" * len(headings)]
    for path in sorted((RUNS_DIR / "tries").glob("*.json"), key=lambda p: int(p.stem)):
        r = json.loads(path.read_text(encoding="utf-8"))
        settings = [f"{r[group][name]:g}" for group, chosen in varied.items() for name in chosen]
        minutes = f"{r['train_seconds'] / 60:.1f} min"
        found = [f"{r['best_val']:.4f}", r["best_step"], minutes, r["hardware"]]
        rows.append(f"| {' | '.join(map(str, [path.stem, *settings, *found]))} |")
    return rows


def tokens_table(record):
    """What longer tokens buy, as it stands in data/runs/tokens-plays.json."""
    if record is None:
        return ["Not measured yet: `python -m helpers tokens`."]
    rows = [
        "| tokens | equal | width | parameters | in tables | steps | characters a token | sees "
        "| nats a token | bits a character | seeds | in training |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- | ---: |",
    ]
    for r in record["rows"]:
        nats, bits = ([p[k] for p in r["seeds"]] for k in ("nats_per_token", "bits_per_character"))
        tables = (r["parts"]["token embedding"] + r["parts"]["position embedding"]) / r["parameters"]
        cells = [
            r["name"], r["budget"].removeprefix("equal "), r["n_embd"], f"{r['parameters']:,}",
            f"{tables:.0%}", r["steps"], f"{r['characters_per_token']:.2f}", f"{r['sees']} characters",
            f"{sum(nats) / len(nats):.2f}", f"{sum(bits) / len(bits):.3f}",
            f"{min(bits):.3f} to {max(bits):.3f}",
            f"{sum(p['train_bits_per_character'] for p in r['seeds']) / len(bits):.3f}",
        ]  # fmt: skip
        rows.append(f"| {' | '.join(map(str, cells))} |")
    return rows


def bench_table(record):
    """The benchmark's machine and rows as they stand in data/runs/bench-cpu.json."""
    if record is None:
        return ["Not measured yet: `make bench`."]
    return [caption_of(record), "", HEADINGS, *(line_of(row) for row in record["rows"])]


def mutants_line():
    """One sentence on the random mutants, from data/runs/mutants.json."""
    path = RUNS_DIR / "mutants.json"
    if not path.exists():
        return ["Not measured yet: `make mutants SAMPLE=300`."]
    m = json.loads(path.read_text(encoding="utf-8"))
    seen = m["sample"] - m["equivalent"]
    return [
        f"Of {m['of']:,} small faults that {m['tool']} can put into the nine lesson files, {m['sample']} "
        f"were drawn (seed {m['seed']}). {m['equivalent']} of them change nothing that could be seen, and "
        f"do not count. The tests noticed {m['killed'] + m['timed_out']} of the other {seen}, "
        f"{m['timed_out']} of these by never coming to an end: **{m['share']:.1%}** "
        f"(95 % interval {m['low']:.1%} to {m['high']:.1%})."
    ]


def results(ladder):
    """A few lines of what was measured; a line without a record is left out."""
    lines = [
        f"- **What each idea is worth** on the bundled plays: from {ladder['uniform']:.2f} nats per "
        f"character, which is knowing nothing, through {ladder['bigram']:.2f} with a table of pairs and "
        f"{ladder['one head']:.2f} with one head of attention, down to {ladder['deeper']:.2f} with three "
        "small blocks."
    ]
    for run in load_records("plays"):
        if run["preset"] == "course-cpu":
            lines.append(
                f"- **The full run** ({run['hardware']}): a model of {run['parameters']:,} parameters, "
                f"trained in {run['train_seconds']:.0f} seconds, evaluation not counted, reaches "
                f"{run['best_val']:.2f} nats, which is {run['bits_per_character']:.2f} bits per character."
            )
    for run in load_records("tinyshakespeare"):
        if run["preset"] == "course-long":
            claimed = PRESETS["nanogpt-char"].claimed_val
            lines.append(
                f"- **Tiny Shakespeare without a GPU**, on such a machine: {run['best_val']:.3f} nats after "
                f"{run['train_seconds'] / 60:.0f} minutes; nanoGPT's recipe for a GPU claims {claimed}."
            )
    rows = (load_bench() or {"rows": []})["rows"]
    # A goal that was not reached has no ratio.
    ratios = {row["row"]: row["ratio"] for row in rows if row["ratio"]}
    if {"time-to-loss", "generation"} <= ratios.keys():
        lines.append(
            f"- **Beside published recipes**, both on one machine: the loss of nanoGPT's CPU recipe in "
            f"{ratios['time-to-loss']:.0%} of its time, by another model and optimizer; and "
            f"{ratios['generation']:.0f} times as many characters a second from the same model."
        )
    return lines


def updated(page):
    """The text of a page with each marked part written anew."""
    ladders = {
        p.stem[7:]: json.loads(p.read_text(encoding="utf-8")) for p in sorted(RUNS_DIR.glob("ladder-*.json"))
    }
    tables = {
        "notebooks": notebook_table(ladders["plays"]),
        "results": results(ladders["plays"]),
        "ladder": ladder_table(ladders),
        "runs": runs_table(ladders),
        "systems": systems_table(),
        "tries": tries_table(),
        "tokens": tokens_table(load_record("tokens-plays")),
        "bench": bench_table(load_bench("cpu")),
        "mutants": mutants_line(),
    }
    for mark, rows in tables.items():
        block = f"<!-- {mark}: written by tools/readme.py -->\n" + "\n".join(rows) + "\n<!-- end -->"
        page = re.sub(rf"<!-- {mark}\b.*?<!-- end -->", lambda _, b=block: b, page, flags=re.S)
    return page


def picture():
    """Loss curve and attention map of the bundled text, side by side, as docs/course.png."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    from helpers.checkpoint import load_checkpoint
    from helpers.data import load_corpus
    from helpers.model import attention_maps
    from helpers.pictures.shared import draw_attention
    from helpers.pictures.style import BLUE, ORANGE

    model, tokenizer, about = load_checkpoint(ROOT / "build" / "my_gpt.safetensors")
    if about.get("corpus") != "plays":  # notebook 06 ran last on another text, as in make test-corpus
        return
    run = next(r for r in load_records("plays") if r["preset"] == "course-cpu")
    line = max(load_corpus("plays").text[-30_000:].split("\n"), key=len)[:24]
    maps = attention_maps(model, tokenizer.encode(line).view(1, -1))
    # The head that moves its attention most between rows says most in a picture.
    heads = [head[0, h] for head in maps for h in range(head.shape[1])]
    head = max(heads, key=lambda w: w[8:, :8].std(0).sum().item())
    fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), width_ratios=[1.15, 1])
    steps = [p["step"] for p in run["evals"]]
    left.plot(steps, [p["train"] for p in run["evals"]], "o-", color=BLUE, ms=4, label="training text")
    left.plot(steps, [p["val"] for p in run["evals"]], "s-", color=ORANGE, ms=4, label="validation text")
    left.set_title(f"{run['train_seconds']:.0f} s on two CPU cores: down to {run['best_val']:.2f}")
    left.set(xlabel="step", ylabel="loss (nats per character)")
    left.legend()
    draw_attention(right, head.numpy(), line)
    right.set_title("what one of its heads looks at")
    (ROOT / "docs").mkdir(exist_ok=True)
    fig.savefig(ROOT / "docs" / "course.png", dpi=100)


def main():
    for path in PAGES:
        path.write_text(updated(path.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")
    if (ROOT / "build" / "my_gpt.safetensors").exists():
        picture()


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # what a terminal cannot show is no reason to end
    main()
