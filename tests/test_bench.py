"""The benchmark: that both sides compute the same, that its arithmetic is right, and that it runs whole."""

import json
import math
import statistics
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import randomise
from torch import nn
from torch.testing import assert_close

import helpers.train
from helpers.data import Corpus, get_batch
from helpers.generate import generate
from helpers.optimizers import orthogonalise
from helpers.program import bench
from helpers.program.bench import (
    CLASSES,
    QUICK,
    ROWS,
    Bench,
    alternate,
    caption_of,
    class_of,
    line_of,
    peak_rates,
    processor,
    row_of,
    with_target,
)
from helpers.program.nanogpt import NANOGPT_FILES, nanogpt_copy, nanogpt_log, nanogpt_rate, nanogpt_seconds
from helpers.program.plain import (
    plain_generate,
    plain_orthogonalise,
    plain_train,
    stacked_batch,
    with_list_of_heads,
)
from helpers.train import TrainConfig, evaluate, train
from tools.readme import bench_table

ROOT = Path(__file__).resolve().parent.parent
CPU = torch.device("cpu")
IDS = torch.randint(11, (600,), generator=torch.Generator().manual_seed(5))
LINUX = Path("/proc/self/clear_refs").exists()


def main(*arguments):
    bench.main(["--quick", "--device", "cpu", *map(str, arguments)])


@pytest.fixture
def quick(text):
    """A Bench of the smallest sizes on a short text; the machine's peak is made up."""
    machine = {"peaks": {"float32": 1e9, "bfloat16": 4e9}}
    return Bench(Corpus("short", text, "", ""), CPU, quick=True, machine=machine)


# ---------------------------------------------------------------- both sides compute the same


@pytest.mark.parametrize("bias", [True, False])
def test_lists_of_heads_are_the_same_function_with_as_many_parameters(tiny_gpt, bias):
    model, twin = (tiny_gpt(bias=bias) for _ in range(2))
    twin.load_state_dict(randomise(model).state_dict())
    with_list_of_heads(twin)
    x, y = get_batch(IDS, 8, 4)
    for got, expected in zip(twin(x, y), model(x, y)):
        assert_close(got, expected)
    assert sum(p.numel() for p in twin.parameters()) == sum(p.numel() for p in model.parameters())
    assert not any("qkv" in name for name, _ in twin.named_parameters())


def test_lists_of_heads_refuse_biases_that_they_do_not_have(tiny_gpt):
    with pytest.raises(ValueError, match=r"qkv_bias=True .* use False"):
        with_list_of_heads(tiny_gpt(qkv_bias=True))


def test_a_plain_script_has_the_dropout_of_pytorch(tiny_gpt):
    plain = with_list_of_heads(tiny_gpt(dropout=0.3))
    kinds = [(type(module), module.p) for module in plain.modules() if isinstance(module, nn.Dropout)]
    assert len(kinds) > 5 and set(kinds) == {(nn.Dropout, 0.3)}


def test_stacked_batches_are_the_gathered_ones():
    stacked, gathered = (
        draw(IDS, 8, 5, torch.Generator().manual_seed(3)) for draw in (stacked_batch, get_batch)
    )
    assert torch.equal(stacked[0], gathered[0]) and torch.equal(stacked[1], gathered[1])


@pytest.mark.parametrize("plain", [dict(), dict(draw=get_batch, fused=True)])
def test_the_plain_loop_trains_as_the_trainer_of_the_course_does(tiny_gpt, plain):
    config = TrainConfig(
        batch_size=4, max_steps=12, learning_rate=3e-3, min_learning_rate_ratio=0.1, warmup_steps=3,
        weight_decay=0.1, beta2=0.9, grad_clip=0.5, precision="float32", seed=7, accumulation_steps=1,
    )  # fmt: skip
    ours, theirs = tiny_gpt(), tiny_gpt()
    theirs.load_state_dict(ours.state_dict())
    before = evaluate(ours, IDS, 8)
    train(ours, IDS, IDS, config, CPU, progress=False)
    assert plain_train(theirs, IDS, config, CPU, 12, **plain) > 0
    assert abs(evaluate(ours, IDS, 8) - before) > 1e-3
    for got, expected in zip(theirs.parameters(), ours.parameters()):
        assert_close(got, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 12, 5), (3, 5, 12), (2, 6, 6)])
def test_the_written_polynomial_is_that_of_muon(shape):
    matrices = torch.randn(shape, dtype=torch.float64)
    assert_close(plain_orthogonalise(matrices), orthogonalise(matrices))


def test_plain_generation_writes_what_cached_generation_writes(tiny_gpt):
    model = randomise(tiny_gpt(dropout=0.5, bias=False, head_bias=False), std=1.0)
    model.lm_head.weight.data *= 1e4  # so sure of itself that sampling has no choice
    start = torch.arange(11).unsqueeze(1)
    written = generate(model, start, 7, top_k=1)
    assert len(written[:, 1:].unique()) > 5, "not the same token again and again"
    assert torch.equal(plain_generate(model, start, 7), written)
    assert plain_generate(model, start, 20).shape == (11, 21)  # past the end of the block


# ---------------------------------------------------------------- the arithmetic


def test_ratios_are_of_medians():
    row = row_of("x", "s", [1.0, 100.0, 2.0], [6.0, 4.0, 5.0])
    assert (row["plain_median"], row["course_median"], row["ratio"]) == (2, 5, 2.5)
    row |= dict(plain_share=0.123, course_share=0.456, target="at least 2.5x", met=True)
    line = "| x, s | 2 (1 to 100) | 5 (4 to 6) | 2.5x | 12% and 46% | at least 2.5x | yes |"
    assert line_of(row) == line
    assert bench.HEADINGS.count("|") == 2 * line.count("|")


@pytest.mark.parametrize(
    "target, met",
    [
        (("ratio", "at least", 0.51), False),
        (("ratio", "at least", 0.5), True),
        (("ratio", "at most", 0.5), True),
        (("ratio", "at most", 0.49), False),
        (("course_median", "at most", 1.0), True),
        (("course_median", "at most", 0.9), False),
    ],
)
def test_targets(target, met):
    assert with_target(row_of("x", "s", [2.0], [1.0]), target, CLASSES[0])["met"] is met


def test_a_goal_that_was_not_reached_has_no_ratio_and_meets_no_target():
    row = with_target(row_of("x", "s", [2.0], [1.0, None, 1.0]), ("ratio", "at most", 0.6), CLASSES[0])
    assert (row["ratio"], row["met"]) == (None, False)
    assert line_of(row) == "| x, s | 2 | not reached |  |  | at most 0.6x | no |"


@pytest.mark.parametrize(
    "machine_class, target, met",
    [
        ("Zen 4", "at most 0.5x", True),
        ("Zen 5", "at most 0.333x", False),
        ("no bfloat16", "none without bfloat16", None),
    ],
)
def test_a_target_is_that_of_the_class_of_the_machine(machine_class, target, met):
    row = with_target(row_of("x", "s", [2.0], [1.0]), ("ratio", "at most", 1 / 2, 1 / 3), machine_class)
    assert (row["target"], row["met"]) == (target, met)


@pytest.mark.parametrize(
    "bfloat16, precision, expected",
    [
        (411, "bfloat16", "Zen 4"),
        (581, "bfloat16", "Zen 4"),
        (582, "bfloat16", "Zen 5"),
        (600, "float32", "no bfloat16"),
    ],
)
def test_three_times_as_fast_in_bfloat16_makes_a_class(bfloat16, precision, expected):
    assert class_of({"float32": 194, "bfloat16": bfloat16}, precision) == expected


def test_the_peak_is_that_of_the_best_round(monkeypatch):
    """Three rounds, of which the second is the best for one dtype and the last for the other."""
    seconds = iter([4.0, 2.0, 1.0, 2.0, 4.0, 1.0])
    now = iter([0.0, 1.0, 2.0, 3.0])
    monkeypatch.setattr(bench, "rate_of", lambda work, amount, device: lambda: amount / next(seconds))
    monkeypatch.setattr(bench, "best_precision", lambda device: "bfloat16")
    monkeypatch.setattr(bench.time, "perf_counter", lambda: next(now))
    assert peak_rates(CPU, 10, seconds=3.0) == {"float32": 2000.0, "bfloat16": 2000.0}


def test_shares_are_of_the_peak_of_the_dtype_of_each_side(quick):
    model = quick.build("course-cpu")[0]  # 12 x 16 x 16 weights in its block, and 16 a character behind it
    flops = 6 * (3072 + 16 * model.config.vocab_size) + 12 * 16 * 16
    rates = (lambda: 1e9 / flops), (lambda: 1e9 / flops)
    row = quick.training_row("x", rates, "", model, ("float32", "bfloat16"))
    assert (row["plain_share"], row["course_share"]) == pytest.approx((1.0, 0.25))
    assert "| 1x | 100% and 25% |" in line_of(row)


ZEN_4 = """processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 17
model name\t: AMD EPYC
flags\t\t: fpu vme avx avx2 avx512f avx512dq avx512_bf16 clzero
bugs\t\t: sysret_ss_attrs null_seg
power management:

processor\t: 1
vendor_id\t: another
model name\t: another: one
"""
SAPPHIRE_RAPIDS = """processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 143
model name\t: Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz
flags\t\t: fpu avx2 avx512f avx512_bf16 avx512_fp16 amx_bf16 amx_tile
"""


@pytest.mark.parametrize(
    "cpuinfo, expected",
    [
        (ZEN_4, ("AuthenticAMD", "25", "17", "AMD EPYC", ["avx2", "avx512f", "avx512_bf16"])),
        (
            SAPPHIRE_RAPIDS,
            ("GenuineIntel", "6", "143", "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz", [*bench.FLAGS]),
        ),
        ("", (None, None, None, "of Python", [])),
    ],
)
def test_the_processor_is_read(monkeypatch, cpuinfo, expected):
    monkeypatch.setattr(bench.platform, "processor", lambda: "of Python")
    assert tuple(processor(cpuinfo).values()) == expected


ROW = row_of("x", "s", [2.0], [1.0])
NEW = dict(
    hardware="a machine", torch="2.0", corpus="plays", rows=[ROW],
    machine=processor(ZEN_4) | {"peaks": {"float32": 194.4e9}, "class": "Zen 4"},
)  # fmt: skip


def test_a_record_makes_a_table():
    caption, blank, headings, row = bench_table(NEW)
    assert (caption, blank, headings) == (caption_of(NEW), "", bench.HEADINGS)
    assert row == "| x, s | 2 | 1 | 0.5x |  |  |  |"
    assert caption_of(NEW) == (
        "a machine, torch 2.0, corpus plays; AMD EPYC (family 25, model 17, class Zen 4). "
        "Products of matrices: 194 Gflop/s in float32."
    )


@pytest.mark.parametrize("corpus, target", [("tinyshakespeare", "at most 1.52"), ("plays", None)])
def test_a_run_of_full_size_has_targets(monkeypatch, corpus, target):
    row = row_of("x", "nats", [2.0], [1.5])
    monkeypatch.setattr(bench, "bench_at_hand", lambda *args: Bench(Corpus(corpus, "", "", ""), CPU))
    monkeypatch.setattr(bench, "measured_machine", lambda *args: NEW["machine"] | {"class": "Zen 5"})
    monkeypatch.setitem(ROWS, "loss-in-time", lambda of: [row])
    record = bench.run(["loss-in-time"], CPU)
    assert record["machine"]["class"] == "Zen 5" and record["rows"][0]["target"] == target
    assert row["target"] is None or record["rows"][0]["met"]


@pytest.mark.parametrize("name", ["precision", "fused-attention"])
def test_one_part_is_compared_with_batches_in_one_part(monkeypatch, quick, name):
    configs = []
    monkeypatch.setattr(bench, "course_rate", lambda *args: configs.append(args[2]) or (lambda: 1.0))
    next(ROWS[name](quick))
    assert [config.accumulation_steps for config in configs] == [1, 1]


def test_the_real_size_is_trained_in_few_steps_beside_lists_of_heads(monkeypatch, quick):
    calls, trained = [], []
    monkeypatch.setattr(bench, "in_a_fresh_process", lambda f, of, *args: calls.append(args) or 1.0)
    quick.quick = False
    (row,) = bench.training_real_size(quick)
    assert calls == [("gpt-from-scratch", "heads", 1), ("gpt-from-scratch", "course", 2)] * 2
    assert "batch 64, dropout 0.2" in row["note"] and row["plain_share"]
    quick.quick = True
    monkeypatch.setattr(bench, "plain_train", lambda model, *args: trained.append(model) or 1.0)
    bench.preset_rate(quick, "gpt-from-scratch", "heads", 1)
    assert [hasattr(model.blocks[0].attn, "heads") for model in trained] == [True, True]


def test_programs_take_turns_and_the_first_pair_warms_up():
    calls = []

    def program(name):
        def measure():
            calls.append(name)
            return len(calls)

        return measure

    assert alternate(program("A"), program("B"), 3) == ([3, 5, 7], [4, 6, 8])
    assert "".join(calls) == "ABABABAB"
    assert alternate(program("A"), program("B"), 1, warm_up=0) == ([9], [10])


@pytest.mark.parametrize(
    "goal, expected", [(1.85, (2.0, 10)), (1.8, (2.0, 10)), (4.0, (0.0, 0)), (1.0, (None, 15))]
)
def test_time_to_a_loss_is_that_of_the_first_sweep_at_it(monkeypatch, quick, goal, expected):
    sweeps = [(0, 0.0, 4.0), (5, 1.0, 1.9), (10, 2.0, 1.8), (15, 3.0, 1.7)]  # step, seconds, loss

    def made_up(*args, callbacks, progress):
        """As train does: asks after a step, and sweeps once more if that was due."""
        history = SimpleNamespace(evals=[], step=0, stopped=False)
        for step, seconds, val in sweeps:
            history.stopped = step > 0 and callbacks.should_stop()
            history.evals.append(dict(step=step, seconds=seconds, val=val))
            callbacks.on_eval(None, history)
            if history.stopped:
                break
        stops.append(history.evals[-1]["step"])
        return history

    stops = []
    monkeypatch.setattr(bench, "train", made_up)
    assert bench.until(goal, quick, "course-cpu") == expected
    assert stops == [min(expected[1] + 5, 15)], "no more steps than are needed"


def test_ctrl_c_in_a_training_ends_the_benchmark(monkeypatch, tmp_path, quick):
    stopped = SimpleNamespace(stopped=True, evals=[dict(step=0, val=4.0, seconds=0.0)])
    monkeypatch.setattr(bench, "train", lambda *args, **kwargs: stopped)
    with pytest.raises(KeyboardInterrupt):
        bench.until(1.0, quick, "course-cpu")
    with pytest.raises(SystemExit, match="stopped: nothing was recorded"):
        main("--only", "precision", "--out", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kept", [True, False])
def test_freed_memory_is_kept_on_one_side_alone(monkeypatch, quick, kept):
    calls = []
    monkeypatch.setattr(helpers.train, "keep_freed_memory", lambda: calls.append("kept"))
    assert bench.preset_rate(quick, "course-cpu", "course", 1, kept) > 0
    assert bool(calls) == kept


def test_a_loss_counts_only_within_the_time(quick):
    quick.recipe, quick.trainer_rate = (1e-6, 2.0, "made up"), 1.0
    (row,) = bench.loss_in_time(quick)
    assert row["course"] == [None]
    quick.recipe, quick.trainer_rate = (1000.0, 2.0, "made up"), 0.1
    (row,) = bench.loss_in_time(quick)
    assert row["plain"] == [2.0] and 3 < row["course"][0] < 5


@pytest.mark.skipif(not LINUX, reason="only Linux tells a process its peak")
def test_memory_is_the_peak_after_the_start():
    code = (
        "import torch\n"
        "from types import SimpleNamespace\n"
        "from helpers.program import bench as b\n"
        "def take(kind, settings, batch_size, steps):  # more MiB for the tiny model, which must not count\n"
        "    torch.ones(2**18 * (400 if settings['n_layer'] == 1 else 256))\n"
        "b.train_and_evaluate = take\n"
        "print(b.training_peak(SimpleNamespace(sizes=dict(model={})), 'plain'))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert abs(float(done.stdout) - 256) < 8, done.stderr


# ---------------------------------------------------------------- a nanoGPT checkout

LOG = """found vocab_size = 65 (inside data/shakespeare_char/meta.pkl)
step 0: train loss 4.1676, val loss 4.1648
iter 0: loss 4.1828, time 1000.00ms, mfu -100.00%
iter 1: loss 4.1381, time 30.00ms, mfu -100.00%
iter 2: loss 4.0940, time 20.00ms, mfu 0.03%
step 3: train loss 3.5, val loss 3.6123
saving checkpoint to out-shakespeare-char
iter 3: loss 4.0407, time 900.00ms, mfu 0.03%
iter 4: loss 4.0, time 40.00ms, mfu 0.03%
"""


def test_the_log_of_nanogpt_is_read():
    times, evals = nanogpt_log(LOG)
    assert times == {0: 1000.0, 1: 30.0, 2: 20.0, 3: 900.0, 4: 40.0}
    assert evals == {0: 4.1648, 3: 3.6123}
    # Iterations 0 and 3 begin with an evaluation: the median of the others, 25 ms, stands in for 0.
    assert nanogpt_seconds(times, evals, 3) == pytest.approx(0.075)
    with pytest.raises(ValueError, match=r"no iterations or no losses"):
        nanogpt_log("Initializing a new model from scratch\n")


def nanogpt_names():
    """Pairs (nanoGPT's name, ours) of all parameters of a model of one layer, as its model.py has them."""
    return [
        ("transformer.wte.weight", "token_embedding.weight"),
        ("transformer.wpe.weight", "position_embedding.weight"),
        ("transformer.h.0.ln_1.weight", "blocks.0.ln_1.weight"),
        ("transformer.h.0.attn.c_attn.weight", "blocks.0.attn.qkv.weight"),
        ("transformer.h.0.attn.c_proj.weight", "blocks.0.attn.proj.weight"),
        ("transformer.h.0.ln_2.weight", "blocks.0.ln_2.weight"),
        ("transformer.h.0.mlp.c_fc.weight", "blocks.0.ffwd.widen.weight"),
        ("transformer.h.0.mlp.c_proj.weight", "blocks.0.ffwd.narrow.weight"),
        ("transformer.ln_f.weight", "ln_f.weight"),
        ("lm_head.weight", "lm_head.weight"),
    ]


def test_queries_keys_and_values_lie_as_in_nanogpt(tiny_gpt):
    """There c_attn's output is cut in three of C channels each, and each of these into heads."""
    attention = randomise(tiny_gpt().blocks[0].attn)
    x = torch.randn(1, 5, 16)
    for third, got in zip(attention.qkv(x).chunk(3, dim=-1), attention.split_heads(x)):
        for h in range(2):
            assert_close(got[:, h], third[..., 8 * h : 8 * h + 8])


@pytest.fixture
def checkout(tmp_path, quick):
    """A stand-in for a nanoGPT checkout: it copies a finished checkpoint and prints a log."""
    model = randomise(quick.build("nanogpt-cpu")[0])
    weights = {theirs: model.state_dict()[ours] for theirs, ours in nanogpt_names()}
    folder = tmp_path / "checkout"
    for name in NANOGPT_FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    torch.save({"model": weights}, folder / "ckpt.pt")
    (folder / "data/shakespeare_char/prepare.py").write_text(
        "from pathlib import Path\n"
        "here = Path(__file__).parent\n"
        "(here / 'train.bin').write_text((here / 'input.txt').read_text())\n"
    )
    (folder / "train.py").write_text(
        "import os, shutil\n"
        "assert len(open('data/shakespeare_char/train.bin').read()) == 20_000\n"
        "os.makedirs('out-shakespeare-char', exist_ok=True)\n"
        f"shutil.copy({str(folder / 'ckpt.pt')!r}, 'out-shakespeare-char')\n"
        "print('step 0: train loss 4.1, val loss 4.1')\n"
        "for i, ms in enumerate([20] * 4 + [1000] * 6 + [40, 60]):\n"
        "    print(f'iter {i}: loss 4.1, time {ms}.00ms, mfu -100.00%')\n"
        "print('step 4: train loss 4.0, val loss 3.9')\n"
    )
    return SimpleNamespace(folder=folder, model=model)


def test_a_checkout_is_run_in_a_copy_and_its_checkpoint_swept(quick, checkout, monkeypatch):
    quick.checkout = checkout.folder
    build = bench.build
    monkeypatch.setattr(
        bench, "build", lambda name, corpus, *changes: build(name, corpus, quick.sizes["model"])
    )
    before = sorted(checkout.folder.rglob("*"))
    seconds, loss, what = first = bench.recipe_run(quick)
    assert seconds == pytest.approx(0.08)
    assert "3.9000" in what and "checkout" in what
    val_ids = quick.build("nanogpt-cpu")[3]
    assert loss == evaluate(checkout.model, val_ids, 16)
    assert sorted(checkout.folder.rglob("*")) == before, "the corpus goes into the copy alone"
    assert bench.recipe_run(quick) is first, "it runs once"


def test_the_rate_of_a_checkout_is_without_its_first_iterations(quick, checkout):
    with nanogpt_copy(checkout.folder, quick.corpus.text) as folder:
        assert nanogpt_rate(folder, 2) == pytest.approx(2 * 12 * 64 / 0.1)  # 40 and 60 ms
        said = (checkout.folder / "train.py").read_text()
        (Path(folder) / "train.py").write_text(
            said + "import sys\nassert '--device=cuda' in sys.argv and '--n_layer=4' not in sys.argv\n"
        )
        assert nanogpt_rate(folder, 2, "cuda") == pytest.approx(2 * 64 * 256 / 0.1), "its own size"


def test_a_folder_that_is_no_checkout_is_refused_and_nothing_is_written(checkout, tmp_path):
    (checkout.folder / "configurator.py").unlink()
    with pytest.raises(SystemExit, match=r"has no configurator.py: give the folder of a nanoGPT checkout"):
        main("--only", "training", "--nanogpt", checkout.folder, "--out", tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_checkout_that_fails_is_reported(checkout, quick):
    (checkout.folder / "data/shakespeare_char/prepare.py").write_text("raise RuntimeError('no such thing')")
    with pytest.raises(ValueError, match=r"prepare.py ended with an error \(RuntimeError: no such thing\)"):
        with nanogpt_copy(checkout.folder, quick.corpus.text):
            pass


# ---------------------------------------------------------------- the whole program


def not_a_number(name):
    raise AssertionError(f"{name} is no JSON")


def test_a_quick_run_writes_every_row_to_table_and_record(monkeypatch, capsys, tmp_path):
    real = bench.in_a_fresh_process

    def in_this_process(function, of, *arguments):
        """Twenty processes would take a minute to start: one that measures memory shows that it works."""
        if function is bench.training_peak:
            return real(function, of, *arguments) if arguments == ("plain",) else 1.0
        return function(of, *arguments)

    monkeypatch.setattr(bench, "in_a_fresh_process", in_this_process)
    monkeypatch.setattr(helpers.train, "keep_freed_memory", helpers.train.keep_freed_memory)  # put back later
    monkeypatch.setattr(bench, "DATA_DIR", tmp_path)  # no Tiny Shakespeare there
    main("--out", tmp_path / "runs")
    record = json.loads((tmp_path / "runs" / "bench-cpu.json").read_text(), parse_constant=not_a_number)
    assert (
        record["corpus"] == "plays" and record["quick"] and {"hardware", "torch", "python"} <= record.keys()
    )
    left_out = set() if LINUX else {"memory"}
    assert {row["row"] for row in record["rows"]} == ROWS.keys() - left_out
    assert (
        set(record["machine"]["peaks"]) >= {"float32", "bfloat16"} and record["machine"]["class"] in CLASSES
    )
    out = capsys.readouterr().out
    assert caption_of(record) in out
    for row in record["rows"]:
        assert line_of(row) in out and row["note"]
        assert row["target"] is None and row["met"] is None, "tiny sizes meet no goal"
        for side in ("plain", "course"):
            assert (row[f"{side}_share"] or 0) > 0 if row["unit"] == "tokens/s" else not row[f"{side}_share"]
            figures = row[side]
            # 0 seconds: four steps of the plain side can leave it worse than the course is before its first.
            assert figures and all(x is None or 0 <= x < math.inf for x in figures)
            assert row[f"{side}_median"] == (None if None in figures else statistics.median(figures))
        if row["ratio"] is not None:
            assert row["ratio"] == row["course_median"] / row["plain_median"]
    several = [row for row in record["rows"] if row["row"] in ("training", "generation", "precision")]
    assert all(len(row["plain"]) == len(row["course"]) == QUICK["rounds"] for row in several)


def test_only_the_named_rows_are_run(tmp_path):
    main("--only", "encoding", "--out", tmp_path)
    record = json.loads((tmp_path / "bench-cpu.json").read_text())
    assert [row["row"] for row in record["rows"]] == ["encoding"]
    main("--only", "byte-pairs", "generation", "--out", tmp_path)
    main("--only", "byte-pairs", "--out", tmp_path)
    joined = json.loads((tmp_path / "bench-cpu.json").read_text())
    rows = "generation", "encoding", "byte-pairs", "byte-pairs"  # each once, in the order of the table
    assert tuple(row["row"] for row in joined["rows"]) == rows
    assert joined["rows"][1] == record["rows"][0] and joined["seconds"] > record["seconds"]
    for change in (
        {"machine": record["machine"] | {"name": "another"}}, {"torch": "0"},
        {"sizes": record["sizes"] | {"steps": 1}},
    ):  # fmt: skip
        assert bench.with_earlier_rows(record, joined | change) == record
    gone = joined | {"rows": [joined["rows"][0] | {"row": "gone"}]}
    assert bench.with_earlier_rows(record, gone)["rows"] == record["rows"]


def test_tiny_shakespeare_is_used_where_a_copy_is(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(bench, "load_corpus", asked.append)
    monkeypatch.setattr(bench, "DATA_DIR", tmp_path)
    bench.bench_at_hand(CPU)
    (tmp_path / "tinyshakespeare.txt").touch()
    bench.bench_at_hand(CPU)
    monkeypatch.setattr(bench, "DATA_DIR", tmp_path / "elsewhere")
    monkeypatch.setenv("TINYSHAKESPEARE_PATH", "somewhere")
    bench.bench_at_hand(CPU)
    assert asked == ["plays", "tinyshakespeare", "tinyshakespeare"]
