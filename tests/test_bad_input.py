"""Bad input at every entry ends in one sentence: what is wrong, its value and the remedy.

Entries are configurations, the command line, what loads files, generation and the panels; further inside
the code trusts its callers. TABLE is the list of bad calls. A call may fail with a ValueError only
(SystemExit for the command line), in one line with the given words, and may leave no file, change or figure.
"""

import html
import re
import time

import matplotlib.pyplot as plt
import pytest
import torch
from safetensors.torch import save_file

from helpers import checkpoint, data, device, generate
from helpers.__main__ import main as command_line
from helpers.checks import shown
from helpers.data import Corpus
from helpers.files import RUNS_DIR
from helpers.model import GPT, BigramLanguageModel, GPTConfig, Head, LanguageModel
from helpers.pictures import (
    notebook_00,
    notebook_01,
    notebook_02,
    notebook_03,
    notebook_04,
    notebook_05,
    notebook_06,
    panel,
)
from helpers.program.build import build, build_from_file
from helpers.program.folder import run_folder
from helpers.program.large_text import tokens_of_file
from helpers.tokenizer import BytePairTokenizer, CharTokenizer
from helpers.train import TrainConfig

LETTERS = CharTokenizer("\nabcdefghij")  # 11 tokens
IDS = torch.arange(200) % 11
START = torch.zeros(1, 1, dtype=torch.int64)
CPU = torch.device("cpu")
OWN = Corpus("own", "a text that is long enough for a block. " * 20, "", "")
NAN, INF = float("nan"), float("inf")


def gpt(**changes):
    torch.manual_seed(0)
    return GPT(GPTConfig(**dict(vocab_size=11, block_size=8, n_layer=1, n_head=2, n_embd=16) | changes))


def config(**changes):
    return TrainConfig(**dict(batch_size=2, max_steps=1, eval_interval=1) | changes)


def write(idx=START, count=3, net=None, **others):
    return generate.generate(net or gpt(), idx, count, **others)


def damaged(wrong):
    net = gpt()
    with torch.no_grad():
        net.lm_head.bias[3] = wrong
    return net


def text(**changes):
    settings = dict(model=gpt(), tokenizer=LETTERS, prompt="a", max_new_tokens=3) | changes
    return list(generate.stream_text(**settings))


# ---------------------------------------------------------------- the table

TABLE = []  # (name, call, words that the sentence must hold)


def bad(call, *words):
    """One row."""
    TABLE.append((" ".join(words)[:60], call, words))


def each(name, values, call):
    """A row for each value: call(value) must be refused, naming the argument and the value."""
    for value in values:
        bad(lambda value=value: call(value), f"{name}={shown(value)}")


# --- configurations: each kind of setting with each kind of value that is none, and each limit

each("n_layer", (None, "3", 2.5, True, [3], 0, NAN, INF), lambda v: gpt(n_layer=v))
each("dropout", (None, "0.1", True, 1, -0.1, NAN), lambda v: gpt(dropout=v))
each("activation", ("swish", ["relu"]), lambda v: gpt(activation=v))
each("position", ("rotary",), lambda v: gpt(position=v))
each("tie_weights", (1, "yes"), lambda v: gpt(tie_weights=v))
for size in ("vocab_size", "block_size", "n_head", "n_embd"):
    each(size, (0,), lambda v, size=size: gpt(**{size: v}))
bad(lambda: gpt(n_embd=10, n_head=4), "n_embd=10", "n_head=4", "multiple")
bad(lambda: gpt(n_embd=9, n_head=3, position="sinusoidal"), "n_embd=9", "must be even")
for name, value in [
    ("batch_size", 0), ("accumulation_steps", 0), ("max_steps", 1.5), ("eval_interval", True),
    ("learning_rate", 0), ("learning_rate", INF), ("muon_learning_rate", 0),
    ("min_learning_rate_ratio", 1.1),
    ("warmup_steps", -1), ("weight_decay", NAN), ("grad_clip", -1), ("beta1", 1.0), ("beta2", -0.1),
    ("optimizer", "sgd"), ("precision", "float64"), ("compile", "no"), ("seed", -1), ("seed", 2**63),
]:  # fmt: skip
    each(name, (value,), lambda v, name=name: config(**{name: v}))
bad(lambda: config(batch_size=8, accumulation_steps=3), "batch_size=8", "accumulation_steps=3", "multiple")
for name in ("abacus", "cuda:99", ["cpu"]):
    bad(lambda name=name: device.pick_device(name), shown(name), "use cpu")

# --- presets and the command line

for name in ("gpt-5", ["course-cpu"]):
    bad(lambda name=name: build(name, OWN), f"no preset {shown(name)}", "choose one of course-cpu")
bad(lambda: build("course-cpu", OWN, {"num_heads": 3}), "no setting 'num_heads'", "choose among")
bad(lambda: build("course-cpu", OWN, None, {"lr": 3}), "no setting 'lr'", "choose among")
bad(lambda: build("course-cpu", OWN, {"n_embd": 10**7}), "n_embd=10000000", "lower the largest")
bad(lambda: build("course-cpu", Corpus("own", "ab", "", "")), "2 tokens cannot be split", "longer text")
bad(lambda: build_from_file("gpt2-style", "text.txt"), "gpt2-style", "choose a character preset")


def command(*arguments):
    """The program as called from a command line, with a small run that would work."""
    given = "train --preset nanogpt-cpu --n_layer 1 --n_head 2 --n_embd 16 --block_size 8 --max_steps 1"
    folders = "--device cpu --corpus text.txt --out out --checkpoints kept"
    command_line([*given.split(), *folders.split(), *arguments])


for arguments, *words in [
    ("--preset gpt-5", "no preset 'gpt-5'", "choose one of"),
    ("--corpus nowhere.txt", "nowhere.txt", "cannot be read"),
    ("--device abacus", "'abacus'", "use cpu"),
    ("--n_head 3", "n_embd=16", "n_head=3", "multiple"),
    ("--n_layer two", "--n_layer", "'two'"),
    ("--vocab_size 5", "train_ids", "the model knows 0 to 4"),
    ("--block_size 80", "split of 80 tokens", "block_size=80", "at most 79"),
    (
        "--batch_size 1000000000000 --fresh",
        "batch_size=1000000000000",
        "lower batch_size",
    ),  # "kept" has a run
    ("--bias perhaps", "--bias", "'perhaps'", "true or false"),
    ("--sample -1", "sample=-1", "must be"),
    ("--num_heads 3", "--num_heads"),
    ("--out text.txt", "text.txt", "choose another folder"),
    ("--checkpoints text.txt", "text.txt", "choose another folder"),
]:
    bad(lambda arguments=arguments: command(*arguments.split()), *words)
bad(lambda: command_line(["ladder", "nowhere.txt"]), "nowhere.txt", "cannot be read", "give")

# --- texts and tokens

each("chars", ("", "aa", ["ab", "c"], [1, 2]), CharTokenizer)
bad(lambda: BytePairTokenizer([(1, 2, 3)]), "(1, 2, 3)", "learn them by train")
bad(lambda: BytePairTokenizer([(97, 256)]), "(97, 256)", "learn them by train")
bad(lambda: BytePairTokenizer([(97, -1)]), "(97, -1)", "learn them by train")
bad(
    lambda: BytePairTokenizer([(97, 97), *((i, i) for i in range(256, 300))]), "merges", "learn them by train"
)
each("name_or_path", (3,), data.load_corpus)
for load in (data.load_corpus, tokens_of_file):
    for name in ("nowhere.txt", "folder", "nu\0ll"):
        bad(lambda load=load, name=name: load(name), name, "cannot be read", "give")
    bad(lambda load=load: load("latin.txt"), "latin.txt", "byte 3", "save it as UTF-8")
    bad(lambda load=load: load("empty.txt"), "empty.txt", "is empty", "give")
    bad(lambda load=load: load("one.txt"), "one.txt", "'a'", "more characters")
bad(
    lambda: tokens_of_file("text.txt", "empty.txt"), "empty.txt", "cannot be written", "choose another folder"
)
each("val_fraction", ("half", 0, 1), lambda v: data.train_val_split(IDS, v))
bad(lambda: data.train_val_split(IDS[:3]), "3 tokens", "val_fraction=0.1", "longer text")
bad(lambda: data.train_val_split(IDS[:3], 0.6), "3 tokens", "val_fraction=0.6", "longer text")

# --- sampling

each("temperature", ("hot", 0, 1e-30), lambda v: write(temperature=v))
each("top_k", (2.5, 0, 12), lambda v: write(top_k=v))
each("top_p", ("all", 0, 1.01), lambda v: write(top_p=v))
each("max_new_tokens", (2.5, -1), lambda v: write(count=v))
each("idx", (None, torch.zeros(2, 3), START[0], START[:, :0]), lambda v: write(v))
for make in (gpt, lambda: LanguageModel(11, 8, 16, Head(16, 16, 8)), lambda: BigramLanguageModel(11)):
    bad(lambda make=make: write(START + 11, net=make()), "11 to 11", "the model knows 0 to 10", "encode")
for wrong in (NAN, INF):  # in one weight
    bad(lambda wrong=wrong: write(net=damaged(wrong)), "logits are not finite", "load a good checkpoint")
each("prompt", (None, ""), lambda v: text(prompt=v))
bad(lambda: text(prompt="abz"), "'z'", "position 2", "remove it")
each("stop", ("",), lambda v: text(stop=v))

# --- checkpoints


def keep(folder):
    with run_folder(folder, gpt(), LETTERS, config(), CPU, IDS, IDS):
        raise AssertionError("the folder was taken")


each("path", (3,), lambda v: checkpoint.save_checkpoint(v, gpt(), LETTERS))
each("model", ("gpt",), lambda v: checkpoint.save_checkpoint("new", v, LETTERS))
bad(lambda: checkpoint.save_checkpoint("new", gpt(), LETTERS, val=START), "val", "not JSON", "give numbers")
bad(lambda: checkpoint.save_checkpoint("folder", gpt(), LETTERS), "folder", "choose another folder")
each("path", (3,), checkpoint.load_checkpoint)
bad(lambda: checkpoint.load_checkpoint("nowhere"), "nowhere", "train first")
for name in ("folder", "text.txt", "other.safetensors", "run.safetensors"):
    bad(lambda name=name: checkpoint.load_checkpoint(name), name, "not a whole checkpoint", "train again")
bad(lambda: checkpoint.load_checkpoint("model.safetensors", "abacus"), "'abacus'", "use cpu")
bad(lambda: keep("text.txt"), "text.txt", "choose another folder")
bad(lambda: keep("kept"), "holds no training run", "train again")

# --- panels, and what a slider or a typed text can make wrong

MAPS = [torch.ones(1, 2, 3, 3)] * 2
each("draw", ("line",), lambda v: panel.panel(v))
each("height", (3,), lambda v: panel.panel(lambda height: None, height=v))
bad(lambda: panel.int_slider(1, 0, None, "height"), "high of 'height'=None", "must be")
bad(lambda: panel.int_slider(10, 0, 9, "height"), "value of 'height'=10", "at most 9")
bad(lambda: panel.float_slider(NAN, 0.0, 1.0, "share"), "value of 'share'=nan", "must be")
bad(lambda: panel.log_slider(1.0, -5, -1, "rate"), "value of 'rate'=1.0", "at most 0.1")
each("value", (7,), lambda v: panel.choice([1, 2], v, "menu"))
each("options", (3,), lambda v: panel.choice(v, 1, "menu"))
each("value", (3,), lambda v: panel.text_field(v, "prompt"))
each("rows_left", (0, 5, 2.5), lambda v: notebook_00.draw_broadcast(v, 1, 1, 1))
each("block_size", (0, 2.5), lambda v: notebook_01.draw_random_batch(IDS, LETTERS, v, 2))
each("batch_size", (0,), lambda v: notebook_01.draw_random_batch(IDS, LETTERS, 8, v))
each("start", (-1, 6), lambda v: notebook_01.plot_leak("abcdefgh", v, 3, [True] * 9, "title"))
bad(lambda: notebook_01.draw_random_batch(IDS, LETTERS, 300, 2), "200 tokens", "block_size=300", "199")
each("temperature", (0, NAN), lambda v: notebook_02.plot_next_token(torch.zeros(3), v, "abc", "title"))
each("temperature", (0, "hot"), lambda v: notebook_03.draw_fresh_head("abc", v))
each("head_size", (0, 513), lambda v: notebook_03.draw_fresh_head("abc", head_size=v))
each("divisor", (2, "n_embd"), lambda v: notebook_03.draw_fresh_head("abc", divisor=v))
each("layer", (-1, 2), lambda v: notebook_04.draw_attention_explorer(MAPS, "abc", v, 0))
each("head", (-1, 2), lambda v: notebook_04.draw_attention_explorer(MAPS, "abc", 0, v))
bad(lambda: notebook_05.draw_counts(2, 3, 100, 64), "n_embd=100", "n_head=3", "multiple")
each("batch_size", (0,), lambda v: notebook_05.draw_counts(2, 2, 64, 64, batch_size=v))
each("temperature", (0, NAN), lambda v: notebook_06.draw_sampling(gpt(), LETTERS, "a", v))
each("top_k", (None, 0), lambda v: notebook_06.draw_sampling(gpt(), LETTERS, "a", top_k=v))
each("top_p", (0, 2), lambda v: notebook_06.draw_sampling(gpt(), LETTERS, "a", top_p=v))
each("length", (-1, None), lambda v: notebook_06.draw_sampling(gpt(), LETTERS, "a", length=v))
bad(lambda: notebook_06.panel_of_training("abacus"), "'abacus'", "use cpu")


# ---------------------------------------------------------------- the tests


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with good and bad files, from which all calls are made."""
    here = tmp_path_factory.mktemp("here")
    (here / "text.txt").write_text(OWN.text, encoding="utf-8")
    (here / "latin.txt").write_bytes("caf\u00e9".encode("latin-1"))
    (here / "empty.txt").write_bytes(b" \n")
    (here / "one.txt").write_bytes(b"aaaa")
    (here / "folder").mkdir()
    checkpoint.save_checkpoint(here / "model.safetensors", gpt(), LETTERS)
    checkpoint.save_checkpoint(here / "kept" / "step-00000001.safetensors", gpt(), LETTERS)
    save_file({"weight": torch.zeros(3)}, here / "other.safetensors")
    checkpoint.write_file(here / "run.safetensors", {"losses": torch.zeros(1)}, {"history": {}})
    return here


def state_of(folder):
    paths = [path for path in sorted(folder.rglob("*")) if path.name != "lock"]  # some systems remove it
    return {path: path.read_bytes() if path.is_file() else None for path in paths}


def records():
    return sorted(RUNS_DIR.iterdir())


@pytest.mark.parametrize("name, call, words", TABLE, ids=[f"{i}: {row[0]}" for i, row in enumerate(TABLE)])
def test_a_bad_call_is_one_sentence_and_leaves_nothing(name, call, words, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    before, kept = state_of(folder), records()
    with pytest.raises((ValueError, SystemExit)) as caught:
        call()
    sentence = str(caught.value)
    if isinstance(caught.value, SystemExit) and caught.value.code == 2:  # argparse writes what is wrong
        sentence = capsys.readouterr().err.strip().splitlines()[-1]
    else:
        assert sentence.endswith(".") or isinstance(caught.value, SystemExit), sentence
        assert re.search(r"\bmust\b|[:;] \w+", sentence), f"no remedy: {sentence}"
    assert "\n" not in sentence and len(sentence) < 400, sentence
    for word in words:
        assert word in sentence, sentence
    assert state_of(folder) == before and records() == kept, "nothing is written, nothing is lost"
    assert plt.get_fignums() == [], "no half-drawn figure is left"


# ---------------------------------------------------------------- panels


def controls_of(made):
    """The controls of a panel by their label."""
    rows = made.children[0].children
    widgets = [widget for row in rows for widget in (row, *getattr(row, "children", []))]
    return {getattr(widget, "description", ""): widget for widget in widgets}


def message_of(made):
    """What a panel says, as text; nothing else in it may look like a traceback."""
    assert "Traceback" not in made.message.value
    return html.unescape(made.message.value)


def pressed(made, button, seconds=60):
    """Click a button of the panel of training and wait until its thread is done; gives its message."""
    controls = controls_of(made)
    controls[button].click()
    end = time.monotonic() + seconds
    while controls["Train"].disabled:
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)
    return message_of(made)


@pytest.mark.parametrize(
    "error",
    [ValueError("too <b>: x"), FloatingPointError("nan"), MemoryError(), torch.OutOfMemoryError("a\nb")],
)
def test_a_panel_says_what_is_wrong_and_keeps_its_picture(error):
    def draw(height):
        if height:
            raise error
        return plt.subplots(figsize=(2, 2))[0]

    made = panel.panel(draw, height=panel.int_slider(0, 0, 9, "height"))
    before = bytes(made.image.value)
    controls_of(made)["height"].value = 1
    reason = panel.first_line(error)
    assert f"Not possible: {reason}" in message_of(made) and "\n" not in message_of(made) and reason
    assert "<b>:" not in made.message.value, "as text, not as HTML"
    assert bytes(made.image.value) == before
    controls_of(made)["height"].value = 0
    assert message_of(made) == ""


def test_the_panel_of_counts_tells_of_impossible_shapes():
    made = notebook_05.panel_of_counts()
    controls = controls_of(made)
    heads = next(c for label, c in controls.items() if label.startswith("n_head"))
    heads.value = 7
    assert "n_embd=384 does not divide into n_head=7" in message_of(made)
    heads.value = 6
    assert message_of(made) == ""


@pytest.mark.parametrize("prompt, words", [("", "empty"), ("a?", "'?' at position 1"), ("\0", "position 0")])
def test_the_panel_of_sampling_tells_of_prompts_that_cannot_be_encoded(prompt, words):
    made = notebook_06.panel_of_sampling(gpt(), LETTERS, "abc")
    controls_of(made)["prompt"].value = prompt
    assert words in message_of(made)
    controls_of(made)["prompt"].value = "cab"
    assert message_of(made) == ""


@pytest.mark.parametrize(
    "corpus, changes, words",
    [
        (OWN, {"n_head": 3, "n_embd": 32}, "n_embd=32 does not divide into n_head=3"),
        (Corpus("own", "a short text " * 4, "", ""), {}, "too short for block_size=8"),
        (Corpus("own", "ab", "", ""), {}, "longer text"),
        (ValueError("The corpus x cannot be read: give another."), {}, "cannot be read"),
        (OSError("the disk is gone"), {}, "the disk is gone"),
        (torch.OutOfMemoryError("CUDA out of memory"), {}, "out of memory"),
        (OWN, {"learning_rate": 0.1}, "start again with a learning_rate below"),
    ],
    ids=["heads", "short", "tiny", "unreadable", "disk", "memory", "nan"],
)
def test_the_panel_of_training_says_why_it_ended(monkeypatch, corpus, changes, words):
    def load(name):
        if isinstance(corpus, Exception):
            raise corpus
        return corpus

    monkeypatch.setattr(notebook_06, "load_corpus", load)
    made = notebook_06.panel_of_training(CPU)
    controls = {label.split(" ")[0]: control for label, control in controls_of(made).items()}
    small = {"n_layer": 1, "n_head": 1, "n_embd": 16, "block_size": 8, "batch_size": 4, "max_steps": 50}
    for label, value in (small | changes).items():
        controls[label].value = value
    if "learning_rate" in changes:  # weights that no step can bring back
        built = notebook_06.build
        monkeypatch.setattr(notebook_06, "build", lambda *a: spoiled(built(*a)))
    assert words in pressed(made, "Train")
    assert "\n" not in message_of(made)
    assert controls["Stop"].disabled and controls["Continue"].disabled


def spoiled(parts):
    with torch.no_grad():
        parts[0].lm_head.weight.fill_(NAN)
    return parts


def test_the_panel_of_training_refuses_a_batch_beyond_the_machine(monkeypatch):
    monkeypatch.setattr(notebook_06, "load_corpus", lambda name: OWN)
    monkeypatch.setattr("helpers.program.build.check_model_fits", lambda config: None)
    monkeypatch.setattr("helpers.program.build.machine_memory", lambda: 1000)
    monkeypatch.setattr(notebook_06, "train", lambda *args, **kwargs: pytest.fail("it was tried"))
    made = notebook_06.panel_of_training(CPU)
    assert "does not fit into the memory" in pressed(made, "Train")
