"""Bad input to everything public ends in one sentence: the argument, its value and the remedy.

TABLE is the list of bad calls. A call may fail with a ValueError only (SystemExit on the command
line), in one line that holds the given words, and may leave no file, no change and no open figure.
"""

import html
import re
import sys
import time
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch
from safetensors.torch import save_file

from helpers import (
    checkpoint,
    data,
    device,
    generate,
    ladder,
    large_text,
    model,
    optimizers,
    panels,
    plots,
    runs,
    train,
)
from helpers.checks import shown
from helpers.data import Corpus
from helpers.model import GPT, BigramLanguageModel, GPTConfig, Head, LanguageModel
from helpers.tokenizer import BytePairTokenizer, CharTokenizer
from helpers.train import History, TrainConfig

LETTERS = CharTokenizer("\nabcdefghij")  # 11 tokens
IDS = torch.arange(200) % 11
START = torch.zeros(1, 1, dtype=torch.int64)
CPU = torch.device("cpu")
CONFIG = GPTConfig(11, block_size=8, n_layer=1, n_head=2, n_embd=16)
OWN = Corpus("own", "a text that is long enough for a block. " * 20, "", "")
NAN, INF = float("nan"), float("inf")
# Values that are no count, no share, no number and no text, whatever is asked for.
NO_COUNT = (None, "3", 2.5, True, [3], 0, -1, NAN, INF)
NO_TENSOR = (None, "abc", 3, [1, 2])
FLOATS, ROW, CUBE = torch.zeros(2, 3), torch.zeros(3, dtype=torch.int64), torch.zeros(1, 2, 3).long()


def gpt(**changes):
    torch.manual_seed(0)
    return GPT(GPTConfig(**dict(vocab_size=11, block_size=8, n_layer=1, n_head=2, n_embd=16) | changes))


def frame():
    return LanguageModel(11, 8, 16, Head(16, 16, 8))


def config(**changes):
    return TrainConfig(**dict(batch_size=2, max_steps=1, eval_interval=1) | changes)


def train_it(net=None, train_ids=IDS, val_ids=IDS, settings=None, where=CPU, **others):
    settings = config() if settings is None else settings
    return train.train(
        gpt() if net is None else net, train_ids, val_ids, settings, where, progress=False, **others
    )


def write(net=None, idx=START, count=3, **others):
    return generate.generate(gpt() if net is None else net, idx, count, **others)


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


# --- models

for size in ("vocab_size", "block_size", "n_layer", "n_head", "n_embd"):
    each(size, NO_COUNT if size == "n_layer" else (0, "3"), lambda v, size=size: gpt(**{size: v}))
each("dropout", (None, "0.1", 1, -0.1, NAN, True), lambda v: gpt(dropout=v))
each("activation", (None, "swish", ["relu"], 3), lambda v: gpt(activation=v))
each("position", (None, "rotary"), lambda v: gpt(position=v))
each("tie_weights", (None, 1, "yes"), lambda v: gpt(tie_weights=v))
bad(lambda: gpt(n_embd=10, n_head=4), "n_embd=10", "n_head=4", "multiple")
bad(lambda: gpt(n_embd=9, n_head=3, position="sinusoidal"), "n_embd=9", "must be even")
for kind in (GPT, model.Block, model.FeedForward, model.CausalSelfAttention):
    each("config", (None, {"n_embd": 16}) if kind is GPT else (5,), kind)
for count in (model.parameter_table, model.activations_per_token, model.flops_per_token):
    each("config", (None,), count)
bad(lambda: model.training_memory({}, 8), "config={}")
each("batch_size", (0, "8"), lambda v: model.training_memory(CONFIG, v))
each("model", (None, CONFIG), model.count_parameters)
each("vocab_size", (0, None, 2.5), BigramLanguageModel)
each("n_embd", (0, "16"), lambda v: Head(v, 8, 8))
each("head_size", (0, None), lambda v: Head(16, v, 8))
each("dropout", (1.5,), lambda v: Head(16, 8, 8, v))
bad(lambda: model.MultiHeadAttention(10, 4, 8), "n_embd=10", "n_head=4", "multiple")
each("body", (None, Head), lambda v: LanguageModel(11, 8, 16, v))
each("block_size", (0,), lambda v: LanguageModel(11, v, 16, Head(16, 16, 8)))
each("n_embd", (7, 0), lambda v: model.sinusoidal_positions(8, v))
each("block_size", (2.5,), lambda v: model.sinusoidal_positions(v, 8))
for make in (gpt, frame, lambda: BigramLanguageModel(11)):
    each("idx", (*NO_TENSOR, FLOATS, ROW, CUBE, torch.ones(1, 2).bool()), lambda v, make=make: make()(v))
    each("targets", ("a", FLOATS, torch.zeros(1, 2).long()), lambda v, make=make: make()(START, v))
for make in (gpt, frame):
    bad(lambda make=make: make()(torch.zeros(1, 9).long()), "9 tokens", "block_size=8", "pass at most")
each("model", (None, "gpt"), lambda v: model.attention_maps(v, START))
each("idx", (None, FLOATS, torch.zeros(1, 0).long()), lambda v: model.attention_maps(gpt(), v))
bad(lambda: model.attention_maps(gpt(), START + 11), "idx", "11 to 11", "the model knows 0 to 10")

# --- training

each("batch_size", NO_COUNT, lambda v: config(batch_size=v))
each("learning_rate", (None, "fast", 0, -1.0, NAN, INF, True), lambda v: config(learning_rate=v))
each("warmup_steps", (-1, 0.5), lambda v: config(warmup_steps=v))
each("min_learning_rate_ratio", (1.5, -0.1), lambda v: config(min_learning_rate_ratio=v))
each("beta1", (1, -0.1), lambda v: config(beta1=v))
each("grad_clip", (-1, None), lambda v: config(grad_clip=v))
each("optimizer", (None, "sgd"), lambda v: config(optimizer=v))
each("precision", ("float64", 16), lambda v: config(precision=v))
each("compile", (1, "no"), lambda v: config(compile=v))
each("seed", (-1, 2**63, 0.5), lambda v: config(seed=v))
bad(lambda: config(batch_size=8, accumulation_steps=3), "batch_size=8", "accumulation_steps=3", "multiple")
each("model", (None, "gpt", CONFIG), lambda v: train_it(v) if v else train.fit(v, IDS, 8, 2, 1, 0.1))
bad(lambda: train_it(frame()), "model=LanguageModel", "give a GPT")
each("train_ids", (*NO_TENSOR, FLOATS), lambda v: train_it(train_ids=v))
each("val_ids", (None, ROW.float()), lambda v: train_it(val_ids=v))
bad(lambda: train_it(train_ids=IDS + 1), "train_ids", "1 to 11", "the model knows 0 to 10")
bad(lambda: train_it(val_ids=-IDS), "val_ids", "-10 to 0")
bad(lambda: train_it(val_ids=IDS[:8]), "split of 8 tokens", "block_size=8", "at most 7")
each("config", ({}, CONFIG, "fast"), lambda v: train_it(settings=v))
each("history", (5, []), lambda v: train_it(history=v))
each("on_step", (5,), lambda v: train_it(on_step=v))
each("should_stop", (True,), lambda v: train_it(should_stop=v))
bad(lambda: train_it(where="abacus"), "'abacus'", "use cpu")
bad(lambda: train_it(settings=config(batch_size=10**9)), f"batch_size={10**9}", "lower batch_size")
each("train_ids", (None, FLOATS), lambda v: train.fit(gpt(), v, 8, 2, 1, 0.1))
bad(lambda: train.fit(frame(), IDS + 1, 8, 2, 1, 0.1), "train_ids", "the model knows 0 to 10")
bad(lambda: train.fit(gpt(), IDS, 200, 2, 1, 0.1), "split of 200 tokens", "block_size=200", "at most 199")
each("block_size", (0, None), lambda v: train.fit(gpt(), IDS, v, 2, 1, 0.1))
each("batch_size", (0, "2"), lambda v: train.fit(gpt(), IDS, 8, v, 1, 0.1))
each("steps", (-1, 2.5, None), lambda v: train.fit(gpt(), IDS, 8, 2, v, 0.1))
each("learning_rate", (-1, NAN, None), lambda v: train.fit(gpt(), IDS, 8, 2, 1, v))
each("seed", ("1", -1), lambda v: train.fit(gpt(), IDS, 8, 2, 1, 0.1, seed=v))
each("model", (None, 3), lambda v: train.evaluate(v, IDS, 8))
each("ids", (*NO_TENSOR, FLOATS), lambda v: train.evaluate(gpt(), v, 8))
each("block_size", (0, "8", None), lambda v: train.evaluate(gpt(), IDS, v))
each("batch_size", (0, 2.5), lambda v: train.evaluate(gpt(), IDS, 8, v))
bad(lambda: train.evaluate(gpt(), IDS[:1], 8), "1 tokens", "at least 2")
for make in (gpt, frame, lambda: BigramLanguageModel(11)):
    bad(lambda make=make: train.evaluate(make(), IDS + 1, 8), "ids from 1 to 11", "the model knows 0 to 10")
bad(lambda: train.evaluate(gpt(), IDS, 9), "9 tokens", "block_size=8", "pass at most")
each("model", (None,), lambda v: optimizers.make_optimizers(v, config()))
each("step", (None, -1, NAN), lambda v: optimizers.learning_rate_factor(v, config()))
each("matrices", (None, FLOATS, CUBE), optimizers.orthogonalise)
for name in ("abacus", 5, "cuda:99", ["cpu"], True):
    bad(lambda name=name: device.pick_device(name), shown(name), "use cpu")
each("device", (None, "cpu"), device.bf16_is_fast)
each("device", ("cpu",), device.hardware)
each("precision", ("float64", None), lambda v: device.precision_context(CPU, v))

# --- presets and the command line

for name in ("gpt-5", None, ["course-cpu"], ""):
    bad(lambda name=name: runs.build(name, OWN), f"no preset {shown(name)}", "choose one of course-cpu")
each("corpus", (None, "plays"), lambda v: runs.build("course-cpu", v))
each("model_changes", ([1], "n_embd"), lambda v: runs.build("course-cpu", OWN, v))
bad(lambda: runs.build("course-cpu", OWN, {"num_heads": 3}), "no setting 'num_heads'", "choose among")
bad(lambda: runs.build("course-cpu", OWN, None, {"lr": 3}), "no setting 'lr'", "choose among")
bad(lambda: runs.build("course-cpu", OWN, {"n_embd": 10**7}), "n_embd=10000000", "lower the largest")
bad(lambda: runs.build("course-cpu", Corpus("own", "ab", "", "")), "2 tokens cannot be split", "longer text")
bad(lambda: runs.build_from_file("gpt2-style", "text.txt"), "gpt2-style", "choose a character preset")
each("nats_per_token", (None, NAN), lambda v: runs.bits_per_character(v, LETTERS, IDS))
each("ids", (None, ROW[:0]), lambda v: runs.bits_per_character(1.0, LETTERS, v))


def command(*arguments):
    """The program as called from a command line, with a small run that would work."""
    given = "--preset nanogpt-cpu --n_layer 1 --n_head 2 --n_embd 16 --block_size 8 --max_steps 1".split()
    given += "--device cpu --corpus text.txt --out out --checkpoints kept".split()
    old, sys.argv = sys.argv, ["train", *given, *map(str, arguments)]
    try:
        runs.main()
    finally:
        sys.argv = old


for arguments, *words in [
    ("--preset gpt-5", "no preset 'gpt-5'", "choose one of"),
    ("--corpus nowhere.txt", "nowhere.txt", "cannot be read"),
    ("--corpus folder", "folder", "cannot be read"),
    ("--corpus latin.txt", "latin.txt", "not UTF-8", "save it as UTF-8"),
    ("--corpus empty.txt", "empty.txt", "is empty"),
    ("--device abacus", "'abacus'", "use cpu"),
    ("--n_head 3", "n_embd=16", "n_head=3", "multiple"),
    ("--n_layer 0", "n_layer=0", "must be"),
    ("--n_layer two", "--n_layer", "'two'"),
    ("--n_embd 100000000", "n_embd=100000000", "lower the largest"),
    ("--vocab_size 5", "train_ids", "the model knows 0 to 4"),
    ("--block_size 5000", "block_size=5000", "at most"),
    ("--batch_size 0", "batch_size=0", "must be"),
    ("--batch_size 100000000", "batch_size=100000000", "lower batch_size"),
    ("--batch_size 100000000 --fresh", "batch_size=100000000", "lower batch_size"),
    ("--learning_rate nan", "learning_rate=nan", "must be"),
    ("--learning_rate -1", "learning_rate=-1.0", "must be"),
    ("--dropout 1", "dropout=1.0", "must be"),
    ("--bias perhaps", "--bias", "'perhaps'", "true or false"),
    ("--sample -1", "sample=-1", "must be"),
    ("--sample many", "--sample", "'many'"),
    ("--seed -1", "seed=-1", "must be"),
    ("--optimizer sgd", "optimizer='sgd'", "adamw"),
    ("--num_heads 3", "--num_heads"),
    ("--out text.txt", "text.txt"),
    ("--checkpoints text.txt", "text.txt", "choose another folder"),
]:
    bad(lambda arguments=arguments: command(*arguments.split()), *words)

# --- text and tokens

each("chars", (None, 3, ["ab", "c"], ["a", "a"], [1, 2], "aa"), CharTokenizer)
bad(lambda: CharTokenizer(""), "at least one character", "give a text")
each("text", (None, 3, ["a"], b"abc"), CharTokenizer.from_text)
each("text", (None, 3, ["a"]), LETTERS.encode)
bad(lambda: LETTERS.encode("abz"), "'z'", "position 2", "remove it")
each("ids", (None, "ab", 3, [[1], [2]], [0.5], [[1], [1, 2]], [True], FLOATS, CUBE), LETTERS.decode)
each("text", (None, 3), lambda v: BytePairTokenizer.train(v, 300))
each("vocab_size", (None, 255, "300", 2.5), lambda v: BytePairTokenizer.train("abc", v))
each("text", (None, b"abc"), BytePairTokenizer([]).encode)
each("ids", (None, [0.5]), BytePairTokenizer([]).decode)
bad(lambda: LETTERS.decode([0, 11]), "id 11", "0 to 10")
bad(lambda: BytePairTokenizer([]).decode([-1]), "id -1", "0 to 255")
each("merges", (None, 3, "ab"), BytePairTokenizer)
bad(lambda: BytePairTokenizer([(1, 2, 3)]), "(1, 2, 3)", "must be a pair")
bad(lambda: BytePairTokenizer([(97, 256)]), "256", "from 0 to 255")
bad(
    lambda: BytePairTokenizer([(97, 97), *((i, i) for i in range(256, 300))]),
    "merges=",
    "learn them by train",
)
each("name_or_path", (3, ["plays"], b"plays", False), data.load_corpus)
for load in (data.load_corpus, large_text.tokens_of_file):
    bad(lambda load=load: load("nowhere.txt"), "nowhere.txt", "cannot be read", "give")
    bad(lambda load=load: load("folder"), "folder", "cannot be read", "give")
    bad(lambda load=load: load("nu\0ll"), "nu", "cannot be read", "give")
    bad(lambda load=load: load("latin.txt"), "latin.txt", "byte 3", "save it as UTF-8")
    bad(lambda load=load: load("empty.txt"), "empty.txt", "is empty", "give")
    bad(lambda load=load: load("one.txt"), "one.txt", "'a'", "more characters")
bad(lambda: large_text.tokens_of_file("text.txt", "empty.txt"), "empty.txt", "give a folder")
each("ids", (*NO_TENSOR, FLOATS), data.train_val_split)
each("val_fraction", (None, "half", 0, 1, -0.1, NAN, True), lambda v: data.train_val_split(IDS, v))
bad(lambda: data.train_val_split(IDS[:3]), "3 tokens", "val_fraction=0.1", "longer text")
each("ids", (*NO_TENSOR, FLOATS, CUBE), lambda v: data.get_batch(v, 8, 2))
each("block_size", NO_COUNT, lambda v: data.get_batch(IDS, v, 2))
each("batch_size", NO_COUNT, lambda v: data.get_batch(IDS, 8, v))
bad(lambda: data.get_batch(IDS, 200, 2), "200 tokens", "block_size=200", "at most 199")
each("generator", (1337, "seed"), lambda v: data.get_batch(IDS, 8, 2, v))
each("device", (5, True), lambda v: data.get_batch(IDS, 8, 2, None, v))
bad(lambda: data.get_batch(IDS, 8, 2, None, "abacus"), "'abacus'", "use cpu")
each("ids", (None, FLOATS), lambda v: data.WindowDataset(v, 8))
each("block_size", (0, "8"), lambda v: data.WindowDataset(IDS, v))
each("stride", (0, None, 1.5), lambda v: data.WindowDataset(IDS, 8, v))
each("raw", ("text", None), lambda v: data.write_atomically(Path("new.txt"), v))
bad(lambda: data.write_atomically(Path("nowhere/new.txt"), b""), "new.txt", "make the folder writable")

# --- sampling

each("temperature", (None, "hot", 0, -1, NAN, INF, True), lambda v: write(temperature=v))
each("top_k", ("all", 0, -1, 12, 2.5, True), lambda v: write(top_k=v))
each("top_p", ("all", 0, -0.1, 1.01, NAN, True), lambda v: write(top_p=v))
each("max_new_tokens", (None, "3", -1, 2.5, True), lambda v: write(count=v))
each("generator", (1337,), lambda v: write(generator=v))
each("use_cache", (None, "no"), lambda v: write(use_cache=v))
each("model", ("gpt", 3), lambda v: write(v))
each("model", (None,), lambda v: generate.generate(v, START, 3))
each("idx", NO_TENSOR, lambda v: write(idx=v))
bad(lambda: write(idx=FLOATS), "idx", "torch.float32", "encode a prompt")
bad(lambda: write(idx=ROW), "idx", "(3,)", "must be (B, T)")
bad(lambda: write(idx=START[:, :0]), "idx", "(1, 0)", "encode a prompt")
for make in (gpt, frame, lambda: BigramLanguageModel(11)):
    bad(lambda make=make: write(make(), START + 11), "11 to 11", "the model knows 0 to 10", "encode")
each("logits", (None, [0.5], ROW), generate.next_token_probs)
each("top_k", (4,), lambda v: generate.next_token_probs(FLOATS, top_k=v))
each("block_size", (0, None), generate.KVCache)
each("prompt", (None, "", 3, ["a"]), lambda v: text(prompt=v))
bad(lambda: text(prompt="abz"), "'z'", "position 2")
each("stop", ("", 3), lambda v: text(stop=v))
each("tokenizer", (None, "char"), lambda v: text(tokenizer=v))
each("model", (None,), lambda v: text(model=v))
each("max_new_tokens", (-1, None), lambda v: text(max_new_tokens=v))

# --- checkpoints


def keep(folder="kept", net=None, tokenizer=LETTERS, settings=None, ids=IDS):
    settings = config() if settings is None else settings
    with checkpoint.run_folder(folder, net or gpt(), tokenizer, settings, CPU, ids, ids):
        raise AssertionError("the folder was taken")


each("path", (None, 3, ["a"]), lambda v: checkpoint.save_checkpoint(v, gpt(), LETTERS))
each("model", (None, "gpt"), lambda v: checkpoint.save_checkpoint("new", v, LETTERS))
bad(lambda: checkpoint.save_checkpoint("new", frame(), LETTERS), "model=LanguageModel", "give a GPT")
each("tokenizer", (None, "char"), lambda v: checkpoint.save_checkpoint("new", gpt(), v))
each("weights", ([1], {"a": 1}), lambda v: checkpoint.save_checkpoint("new", gpt(), LETTERS, v))
bad(lambda: checkpoint.save_checkpoint("new", gpt(), LETTERS, val=START), "val", "not JSON", "give numbers")
bad(lambda: checkpoint.save_checkpoint("folder", gpt(), LETTERS), "folder", "choose another folder")
bad(lambda: checkpoint.save_checkpoint("text.txt/new", gpt(), LETTERS), "new", "choose another folder")
bad(lambda: checkpoint.save_checkpoint("nu\0ll", gpt(), LETTERS), "nu", "choose another folder")
each("path", (None, 3), checkpoint.load_checkpoint)
bad(lambda: checkpoint.load_checkpoint("nowhere"), "nowhere", "train first")
for name in ("folder", "text.txt", "empty.txt", "other.safetensors", "run.safetensors"):
    bad(lambda name=name: checkpoint.load_checkpoint(name), name, "not a whole checkpoint", "train again")
bad(lambda: checkpoint.load_checkpoint("model.safetensors", "abacus"), "'abacus'", "use cpu")
each("path", (None, 3), keep)
bad(lambda: keep("text.txt"), "text.txt", "choose another folder")
bad(lambda: keep("model folder"), "holds no training run", "train again")
each("config", ({}, 3), lambda v: keep(settings=v))
each("train_ids", (None, FLOATS), lambda v: keep(ids=v))
bad(lambda: keep(net=frame()), "model=LanguageModel", "give a GPT")
each("tokenizer", (None,), lambda v: keep(tokenizer=v))

# --- the ladder

each("rung", (None, "trigram", "full", 3), lambda v: ladder.build_rung(v, 11))
each("vocab_size", (0, None), lambda v: ladder.build_rung("one head", v))
each("train_ids", (None, FLOATS, ROW[:0], IDS), lambda v: ladder.unigram_loss(v, IDS, 10))
each("corpus", (None, "plays"), ladder.measure)
each("corpus", (None, 3), ladder.load_ladder)
each("measured", (None, {}, 2.4), lambda v: ladder.climb(OWN, v))
bad(lambda: ladder.climb(OWN, {"trigram": 2.0}), "'trigram'", "must be one of")
bad(lambda: ladder.climb(OWN, {"bigram": NAN}), "bigram=nan", "must be a number")

# --- pictures and panels

MAPS = [torch.ones(1, 2, 3, 3)] * 2
each("fig", (None, "picture"), plots.to_png)
each("token", (None, 3), plots.visible)
each("values", (None, [1], ["a", "b"], [[1], [2, 3]]), lambda v: plots.plot_bars("ab", v, "title", "y"))
each(
    "matrix", (None, [1, 2], torch.zeros(2), "ab", torch.zeros(0, 2)), lambda v: plots.plot_matrix(v, "title")
)
each("xticks", ("abc", 3), lambda v: plots.plot_matrix(torch.eye(2), "title", xticks=v))
each("weights", (None, torch.eye(2)), lambda v: plots.plot_attention(v, "abc", "title"))
each("tokens", ("", None), lambda v: plots.plot_attention(torch.eye(3), v, "title"))
each("maps", (None, []), lambda v: plots.plot_attention_grid(v, "abc", "title"))
bad(lambda: plots.plot_attention_grid([FLOATS], "abc", "title"), "maps", "(2, 3)", "attention_maps")
each("tokens", ("ab",), lambda v: plots.plot_attention_grid(MAPS, v, "title"))
each("names", (["one"],), lambda v: plots.plot_attention_row([torch.eye(3)] * 2, "abc", v, "title"))
each("curves", (None, {}, [1.0]), lambda v: plots.plot_losses(v, "title"))
each("curves['run']", ([], None, ["a"]), lambda v: plots.plot_losses({"run": v}, "title"))
each("smooth", (0,), lambda v: plots.plot_losses({"run": [1.0]}, "title", smooth=v))
each("evals", (None, [], [1.0], [{"step": 1}]), lambda v: plots.plot_evals(v, "title"))
each("rungs", (None, {}), lambda v: plots.plot_ladder(v, "title"))
each("rungs['bigram']", (None, NAN), lambda v: plots.plot_ladder({"bigram": v}, "title"))
each("y", ("a", None), lambda v: plots.plot_examples("ab", v, "title"))
each("cuts", (None, {}), lambda v: plots.plot_pieces(v, "title"))
each("start", (-1, 99), lambda v: plots.plot_leak("abcdefgh", v, 3, [True] * 6, "title"))
each("measures", (None, {}), lambda v: plots.plot_against_head_size([4, 16], v, "title"))
each("tables", (None, {}), lambda v: plots.plot_bigram_tables(v, "abc", "title", "label"))
each("tables['a']", (torch.eye(2),), lambda v: plots.plot_bigram_tables({"a": v}, "abc", "title", "label"))
each("temperature", (0, None, NAN), lambda v: plots.plot_next_token(torch.zeros(3), v, "abc", "title"))
each("logits", (None, torch.zeros(2)), lambda v: plots.plot_next_token(v, 1.0, "abc", "title"))
each("functions['f']", (None, 3), lambda v: plots.plot_functions({"f": v}, "title"))
each("curves", ({}, None), lambda v: plots.plot_by_layer(v, "title", "y"))
each("tables['a']", (None, torch.zeros(3)), lambda v: plots.plot_positions({"a": v}, "title"))
each("rows", (None, [], [3]), lambda v: plots.plot_gains(v, "title"))
each("draw", (None, "line"), lambda v: panels.panel(v))
each("height", (None, 3), lambda v: panels.panel(lambda height: None, height=v))
bad(lambda: panels.int_slider(10, 0, 9, "height"), "value of 'height'=10", "at most 9")
bad(lambda: panels.float_slider(NAN, 0.0, 1.0, "share"), "value of 'share'=nan", "must be")
bad(lambda: panels.int_slider(None, 0, 9, "height"), "value of 'height'=None", "must be")
each("value", (7,), lambda v: panels.choice([1, 2], v, "menu"))
each("options", (None, 3), lambda v: panels.choice(v, 1, "menu"))
each("value", (None, 3), lambda v: panels.text_field(v, "prompt"))
each("block_size", (0, 2.5), lambda v: panels.draw_batch(IDS, LETTERS, v, 2))
bad(lambda: panels.draw_batch(IDS, LETTERS, 300, 2), "200 tokens", "block_size=300", "at most 199")
each("seed", ("a", -1), lambda v: panels.draw_batch(IDS, LETTERS, 8, 2, v))
each("tokens", ("", None), panels.draw_fresh_head)
each("temperature", (0, "hot"), lambda v: panels.draw_fresh_head("abc", v))
each("head_size", (0, 513), lambda v: panels.draw_fresh_head("abc", head_size=v))
each("divisor", (2, "n_embd"), lambda v: panels.draw_fresh_head("abc", divisor=v))
bad(lambda: panels.draw_counts(2, 3, 100, 64), "n_embd=100", "n_head=3", "multiple")
each("batch_size", (0, None), lambda v: panels.draw_counts(2, 2, 64, 64, batch_size=v))
each("history", (None, []), lambda v: panels.draw_progress(v, config()))
each("config", (None, {}), lambda v: panels.draw_progress(History(), v))
each("model", (None, 3), lambda v: panels.draw_sampling(v, LETTERS, "a"))
each("tokenizer", (None,), lambda v: panels.panel_of_sampling(gpt(), v, "a"))
each("temperature", (0, NAN), lambda v: panels.draw_sampling(gpt(), LETTERS, "a", v))
each("top_p", (0, 2), lambda v: panels.draw_sampling(gpt(), LETTERS, "a", top_p=v))
each("length", (-1, None), lambda v: panels.draw_sampling(gpt(), LETTERS, "a", length=v))
bad(lambda: panels.panel_of_training("abacus"), "'abacus'", "use cpu")
each("layer", (-1, 2, None), lambda v: panels.draw_attention_explorer(MAPS, "abc", v, 0))
each("head", (2, 0.5), lambda v: panels.draw_attention_explorer(MAPS, "abc", 0, v))


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
    checkpoint.save_checkpoint(here / "model folder" / "step-00000001.safetensors", gpt(), LETTERS)
    (here / "model folder" / "lock").touch()
    save_file({"weight": torch.zeros(3)}, here / "other.safetensors")
    checkpoint.write_file(here / "run.safetensors", {"losses": torch.zeros(1)}, {"history": {}})
    return here


def state_of(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


def records():
    return sorted(runs.RUNS_DIR.iterdir())


@pytest.mark.parametrize("name, call, words", TABLE, ids=[f"{i}: {row[0]}" for i, row in enumerate(TABLE)])
def test_a_bad_call_is_one_sentence_and_leaves_nothing(name, call, words, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    before, kept = state_of(folder), records()
    with pytest.raises((ValueError, SystemExit)) as caught:
        call()
    said = str(caught.value)
    if isinstance(caught.value, SystemExit) and caught.value.code == 2:  # argparse writes what is wrong
        said = capsys.readouterr().err.strip().splitlines()[-1]
    else:
        assert said.endswith(".") or isinstance(caught.value, SystemExit), said
        assert re.search(r"\bmust\b|[:;] \w+", said), f"no remedy: {said}"
    assert "\n" not in said and len(said) < 400, said
    for word in words:
        assert word in said, said
    assert state_of(folder) == before and records() == kept, "nothing is written, nothing is lost"
    assert plt.get_fignums() == [], "no half-drawn figure is left"


def test_the_table_has_at_least_150_calls(capsys):
    with capsys.disabled():
        print(f" {len(TABLE)} bad calls ", end="")
    assert len(TABLE) >= 150


# ---------------------------------------------------------------- panels


def controls_of(made):
    """The controls of a panel by their label."""
    found = {}
    for child in made.children[0].children:
        for widget in [child, *getattr(child, "children", [])]:
            found[getattr(widget, "description", "")] = widget
    return found


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

    made = panels.panel(draw, height=panels.int_slider(0, 0, 9, "height"))
    before = bytes(made.image.value)
    controls_of(made)["height"].value = 1
    said = panels.first_line(error)
    assert f"Not possible: {said}" in message_of(made) and "\n" not in message_of(made) and said
    assert "<b>:" not in made.message.value, "as text, not as HTML"
    assert bytes(made.image.value) == before
    controls_of(made)["height"].value = 0
    assert message_of(made) == ""


def test_impossible_shapes_are_said_by_the_panel_of_counts():
    made = panels.panel_of_counts()
    controls = controls_of(made)
    heads = next(c for label, c in controls.items() if label.startswith("n_head"))
    heads.value = 7
    assert "n_embd=384 does not divide into n_head=7" in message_of(made)
    heads.value = 6
    assert message_of(made) == ""


@pytest.mark.parametrize("prompt, words", [("", "empty"), ("a?", "'?' at position 1"), ("\0", "position 0")])
def test_prompts_that_cannot_be_encoded_are_said_by_the_panel_of_sampling(prompt, words):
    made = panels.panel_of_sampling(gpt(), LETTERS, "abc")
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

    monkeypatch.setattr(panels, "load_corpus", load)
    made = panels.panel_of_training(CPU)
    controls = {label.split(" ")[0]: control for label, control in controls_of(made).items()}
    small = {"n_layer": 1, "n_head": 1, "n_embd": 16, "block_size": 8, "batch_size": 4, "max_steps": 50}
    for label, value in (small | changes).items():
        controls[label].value = value
    if "learning_rate" in changes:  # weights that no step can bring back
        built = panels.build
        monkeypatch.setattr(panels, "build", lambda *a: spoiled(built(*a)))
    assert words in pressed(made, "Train")
    assert "\n" not in message_of(made)
    assert controls["Stop"].disabled and controls["Continue"].disabled


def spoiled(parts):
    with torch.no_grad():
        parts[0].lm_head.weight.fill_(NAN)
    return parts
