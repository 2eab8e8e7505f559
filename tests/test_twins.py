"""What a notebook builds in its cells and what helpers/ holds under the same name are the same.

Every class and function that stands in both needs a rule in RULES: a comparison of the two.
"""

import dataclasses
import importlib
import inspect

import pytest
import torch
from conftest import randomise
from notebook_files import NOTEBOOKS, definitions_of, load_definition
from runs_for_tests import CPU, TRAIN, VAL, short
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from helpers.generate import generate
from helpers.model import BigramLanguageModel, Block, GPTConfig, Head, LanguageModel
from helpers.optimizers import learning_rate_factor
from helpers.train import TrainConfig, train

HELPERS = [
    importlib.import_module(f"helpers.{n}") for n in "data tokenizer model train generate ladder".split()
]
PATHS = {path.stem[:2]: path for path in NOTEBOOKS}
# Pairs that must exist: the classes and functions that the course promises to build in cells.
EXPECTED = """
    01 CharTokenizer get_batch train_val_split
    02 BigramLanguageModel fit
    03 Head LanguageModel
    04 MultiHeadAttention CausalSelfAttention
    05 FeedForward Block GPT ResidualBlock sinusoidal_positions
"""
# Functions that only share a name with a helper.
NAMESAKES = {
    ("03", "measure"): "measures scores at a head size; the ladder's measures rungs",
    ("03", "attend"): "an exercise for one head; the model's knows several kernels",
}


def helper_of(name):
    """The class or function of this name that helpers/ defines, or None."""
    for module in HELPERS:
        thing = getattr(module, name, None)
        if (inspect.isclass(thing) or inspect.isfunction(thing)) and thing.__module__ == module.__name__:
            return thing
    return None


def twins():
    """(number of the notebook, name) for everything that stands in both."""
    return [
        (number, name)
        for number, path in PATHS.items()
        for name in definitions_of(path)
        if helper_of(name) and (number, name) not in NAMESAKES
    ]


# ---------------------------------------------------------------- rules: what "the same" means


def config(**changes):
    settings = dict(vocab_size=11, block_size=8, n_layer=2, n_head=4, n_embd=16) | changes
    return GPTConfig(**settings)


CONFIGS = [
    config(),
    config(n_head=1, bias=False, dropout=0.3, activation="gelu"),
    config(n_head=2, qkv_bias=True, dropout=0.2, activation="gelu_tanh"),
]
# Tied weights and positions as waves are left to the helpers' GPT.
GPT_CONFIGS = [*CONFIGS, config(head_bias=False, n_layer=1)]


def run(module, inputs, seed):
    """Outputs and gradients of one pass; equal seeds drop the same numbers."""
    module.zero_grad()
    leaves = [x.clone().requires_grad_() if x.is_floating_point() else x for x in inputs]
    torch.manual_seed(seed)
    out = module(*leaves)
    outs = out if isinstance(out, tuple) else (out,)
    loss = next((o for o in reversed(outs) if o is not None and o.dim() == 0), None)
    if loss is None:
        loss = (outs[0] * torch.linspace(-1, 1, outs[0].numel()).view_as(outs[0])).sum()
    loss.backward()
    gradients = {name: p.grad for name, p in module.named_parameters() if p.requires_grad}
    gradients |= {f"input {i}": x.grad for i, x in enumerate(leaves) if x.requires_grad}
    return outs, gradients


def same_module(mine, theirs, arguments, *inputs):
    """Same start from the same seed, same state_dict, same outputs, same gradients, in both modes."""
    modules = []
    for kind in (mine, theirs):
        torch.manual_seed(1337)
        modules.append(kind(*arguments()))
    mine, theirs = modules
    assert_close(mine.state_dict(), theirs.state_dict(), rtol=0, atol=0, msg="the same start from a seed")
    randomise(theirs)
    mine.load_state_dict(theirs.state_dict())
    for training in (True, False):
        outs = [run(module.train(training), inputs, seed=3) for module in modules]
        assert_close(outs[0], outs[1], rtol=1e-5, atol=1e-6)
    if hasattr(theirs, "weights"):
        assert_close(mine.weights(*inputs), theirs.weights(*inputs), rtol=1e-5, atol=1e-6)


def same_from_config(mine, theirs, load, configs=CONFIGS):
    for c in configs:
        same_module(mine, theirs, lambda c=c: (c,), torch.randn(2, 8, 16))
        same_module(mine, theirs, lambda c=c: (c,), torch.randn(1, 3, 16))


def same_fused(mine, theirs, load):
    same_from_config(mine, theirs, load, [dataclasses.replace(c, dropout=0.0) for c in CONFIGS])


def same_gpt(mine, theirs, load):
    for c in GPT_CONFIGS:
        x, y = torch.randint(11, (2, 2, 8)).unbind(0)
        same_module(mine, theirs, lambda c=c: (c,), x, y)
        same_module(mine, theirs, lambda c=c: (c,), x[:, :5])


def same_head(mine, theirs, load):
    for arguments in ((16, 4, 8), (16, 16, 8)):  # without dropout, which notebook 05 explains
        same_module(mine, theirs, lambda a=arguments: a, torch.randn(2, 8, 16))
        same_module(mine, theirs, lambda a=arguments: a, torch.randn(1, 5, 16))


def same_heads(mine, theirs, load):
    for arguments in ((16, 4, 8), (16, 1, 8), (16, 2, 8)):  # without dropout, which notebook 05 explains
        same_module(mine, theirs, lambda a=arguments: a, torch.randn(2, 8, 16))


def same_frame(mine, theirs, load):
    x, y = torch.randint(11, (2, 2, 8)).unbind(0)
    for body in (lambda: Head(16, 16, 8), lambda: nn.Sequential(Block(config()), nn.LayerNorm(16))):
        same_module(mine, theirs, lambda body=body: (11, 8, 16, body()), x, y)
        same_module(mine, theirs, lambda body=body: (11, 8, 16, body()), x[:, :3])
    assert mine(11, 8, 16, nn.Identity()).block_size == 8


def same_bigram(mine, theirs, load):
    x, y = torch.randint(11, (2, 2, 8)).unbind(0)
    same_module(mine, theirs, lambda: (11,), x, y)
    same_module(mine, theirs, lambda: (11,), x)


def same_tokenizer(mine, theirs, load):
    text = "To be, or not to be: é😀\n"
    one, other = mine.from_text(text), theirs.from_text(text)
    assert (one.chars, one.vocab_size) == (other.chars, other.vocab_size)
    ids = one.encode("be not\n")
    assert_close(ids, other.encode("be not\n"))
    assert one.decode(ids) == other.decode(ids) == one.decode(ids.tolist()) == "be not\n"
    assert_close(one.encode(""), other.encode(""))
    assert one.decode(one.encode("")) == ""
    assert mine(["b", "a"]).encode("ab").tolist() == theirs(["b", "a"]).encode("ab").tolist() == [1, 0]


def same_split(mine, theirs, load):
    for n in (40, 1001, 1178):
        ids = torch.arange(n)
        assert_close(mine(ids), theirs(ids))
        assert_close(mine(ids, 0.25), theirs(ids, val_fraction=0.25))


def same_batches(mine, theirs, load):
    ids = torch.randint(65, (500,))
    for block_size, batch_size in ((1, 1), (8, 4), (499, 3)):
        one, other = (
            f(ids, block_size, batch_size, generator=torch.Generator().manual_seed(7)) for f in (mine, theirs)
        )
        assert_close(one, other)


def same_fit(mine, theirs, load):
    ids, results = torch.randint(11, (300,)), []
    for f in (mine, theirs):
        torch.manual_seed(1337)
        model = BigramLanguageModel(11)
        losses = f(model, ids, block_size=8, batch_size=4, steps=20, learning_rate=0.1, seed=5)
        results.append((losses, f(model, ids, 8, 4, 3, 0.1), model.state_dict()))
    assert_close(*results)


def same_evaluate(mine, theirs, load):
    model = randomise(LanguageModel(11, 8, 16, Head(16, 16, 8, 0.5))).train()
    for n in (2, 9, 17, 50):
        ids = torch.randint(11, (n,))
        assert mine(model, ids, 8) == pytest.approx(theirs(model, ids, 8), abs=1e-5)
    assert model.training


def same_generate(mine, theirs, load):
    model, idx = randomise(BigramLanguageModel(11)), torch.randint(11, (3, 2))
    for settings in ({}, {"temperature": 0.5}):
        one, other = (
            f(model, idx, 20, **settings, generator=torch.Generator().manual_seed(2)) for f in (mine, theirs)
        )
        assert_close(one, other)


def same_maps(mine, theirs, load):
    body = load("AttentionStack")(dataclasses.replace(config(), n_layer=3))
    model = randomise(LanguageModel(11, 8, 16, body)).eval()
    idx = torch.randint(11, (2, 6))
    assert_close(mine(model, idx), theirs(model, idx))


def same_positions(mine, theirs, load):
    for block_size, n_embd in ((1, 2), (8, 16), (100, 6)):
        assert_close(mine(block_size, n_embd), theirs(block_size, n_embd), rtol=0, atol=0)


RULES = {
    "CharTokenizer": same_tokenizer,
    "train_val_split": same_split,
    "get_batch": same_batches,
    "BigramLanguageModel": same_bigram,
    "fit": same_fit,
    "evaluate": same_evaluate,
    "generate": same_generate,
    "Head": same_head,
    "LanguageModel": same_frame,
    "MultiHeadAttention": same_heads,
    "CausalSelfAttention": same_fused,
    "attention_maps": same_maps,
    "FeedForward": same_from_config,
    "ResidualBlock": same_from_config,
    "Block": same_from_config,
    "sinusoidal_positions": same_positions,
    "GPT": same_gpt,
}


# ---------------------------------------------------------------- the tests


@pytest.mark.parametrize("number, name", twins(), ids=lambda value: value)
def test_notebook_and_helpers_agree(number, name, tmp_path, monkeypatch):
    # The notebooks drop by PyTorch's own function; that the helpers' way drops as often is tested apart.
    monkeypatch.setattr("helpers.model.fast_dropout", F.dropout)
    if name not in RULES:
        pytest.fail(f"{name} stands in notebook {number} and in helpers/: add a rule to tests/test_twins.py")

    def load(wanted):
        return load_definition(PATHS[number], wanted, tmp_path)

    mine, theirs = load(name), helper_of(name)
    assert mine is not theirs and mine.__module__.startswith("notebook_")
    names = [list(inspect.signature(thing).parameters) for thing in (mine, theirs)]
    assert [n for n in names[1] if n in names[0]] == names[0], (
        "parameters have the same names, in the same order"
    )
    RULES[name](mine, theirs, load)


@pytest.mark.parametrize("line", EXPECTED.split("\n")[1:-1], ids=lambda line: line.split()[0])
def test_what_the_course_promises_to_build_is_built(line):
    number, *names = line.split()
    missing = set(names) - set(definitions_of(PATHS[number]))
    assert not missing, f"notebook {number} does not define {', '.join(sorted(missing))}"
    assert all((number, name) in twins() for name in names)


def test_namesakes_are_still_there():
    for number, name in NAMESAKES:
        assert name in definitions_of(PATHS[number]) and helper_of(name), "remove it from NAMESAKES"


# ---------------------------------------------------------------- page 00, whose names are its own


def formula(a, b, c):
    """Of numbers or tensors: every operation of the engine, and parts that are used early and late."""
    early = a * b
    late = (early * early + c.exp()).log() - early * (b - a)
    return late * early + late - c


def test_the_engine_of_page_00_is_autograd(tmp_path):
    value = load_definition(PATHS["00"], "Value", tmp_path)
    for numbers in torch.randn(5, 3, dtype=torch.float64).tolist():
        ours = [value(number) for number in numbers]
        theirs = [torch.tensor(number, dtype=torch.float64, requires_grad=True) for number in numbers]
        for times in (1, 2):  # the second time the gradients add up
            result, expected = formula(*ours), formula(*theirs)
            assert result.number == pytest.approx(expected.item())
            result.backward()
            expected.backward()
            assert [v.grad for v in ours] == pytest.approx([t.grad.item() for t in theirs]), times


@pytest.mark.parametrize("clear", [True, False])
def test_the_walk_of_page_00_is_plain_gradient_descent(tmp_path, clear):
    descend = load_definition(PATHS["00"], "descend", tmp_path)
    steepness = descend.__globals__["STEEPNESS"] = torch.tensor([1.0, 10.0])
    w = nn.Parameter(torch.tensor([4.0, 2.0]))
    optimizer = torch.optim.SGD([w], lr=0.03)
    for point in descend(0.03, 20, clear):
        assert_close(point, w.detach())
        if clear:
            optimizer.zero_grad()
        (0.5 * steepness * w**2).sum().backward()
        optimizer.step()


# ---------------------------------------------------------------- page 06, which has names of its own


@pytest.fixture
def on_page_06(tmp_path):
    return lambda name: load_definition(PATHS["06"], name, tmp_path)


def test_the_schedule_of_page_06_is_the_helpers(on_page_06):
    mine, c = (
        on_page_06("learning_rate"),
        TrainConfig(max_steps=50, warmup_steps=7, learning_rate=0.003, min_learning_rate_ratio=0.0),
    )
    rates = [mine(step, 0.003, 50, 7) for step in range(51)]
    assert rates == [0.003 * learning_rate_factor(step, c) for step in range(51)], "to the last bit"


def test_the_program_of_page_06_is_train_to_the_last_bit(on_page_06, tiny_gpt):
    c = short(
        optimizer="adamw", min_learning_rate_ratio=0.0, accumulation_steps=1, precision="auto", max_steps=10
    )
    ours, theirs = tiny_gpt(), tiny_gpt()
    theirs.load_state_dict(ours.state_dict())
    losses, best_val, best_weights = on_page_06("train_gpt")(ours, TRAIN, VAL, c, CPU)
    history = train(theirs, TRAIN, VAL, c, CPU, progress=False)
    assert losses == history.losses and best_val == history.best_val
    assert_close(best_weights, history.best_weights, rtol=0, atol=0)
    assert_close(ours.state_dict(), theirs.state_dict(), rtol=0, atol=0)


def test_adamw_and_clipping_by_hand_are_pytorchs(on_page_06):
    p = nn.Parameter(torch.randn(5, 3))
    optimizer = torch.optim.AdamW([p], lr=0.01, weight_decay=0.3)
    w, m, v = p.detach().clone(), 0, 0
    for t in range(1, 6):
        p.grad = torch.randn(5, 3) * 10.0 ** (t - 3)
        clipped = p.grad.clone()
        on_page_06("clip")([clipped], 0.5)
        nn.utils.clip_grad_norm_([p], 0.5)
        assert_close(clipped, p.grad)
        w, m, v = on_page_06("adamw")(w, p.grad, m, v, t, lr=0.01, decay=0.3)
        optimizer.step()
        assert_close(w, p.detach())


def test_page_06_writes_what_generate_writes(on_page_06, tiny_gpt):
    model, idx = randomise(tiny_gpt(block_size=8)), torch.randint(11, (3, 2))
    for dials in ({}, dict(temperature=0.3), dict(top_k=3), dict(top_p=0.6), dict(top_k=4, top_p=0.5)):
        mine = on_page_06("write")(model, idx, 6, torch.Generator().manual_seed(1), **dials)
        theirs = generate(model, idx, 6, generator=torch.Generator().manual_seed(1), use_cache=False, **dials)
        assert torch.equal(mine, theirs), "while the text fits into a block"
