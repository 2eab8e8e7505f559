"""What only a real GPU can show; where there is none, these tests are skipped.

Tests whose body says something about a CPU too run there as well: so the bodies stay in order on machines
without a GPU. What needs neither a GPU nor numbers is traced by tests/fake_cuda.py.
"""

import contextlib
import copy
import gc
import itertools

import pytest
import torch
from conftest import randomise
from runs_for_tests import CPU, TRAIN, VAL, assert_same_weights, short, weights_of
from torch.testing import assert_close

from helpers.generate import KVCache, generate
from helpers.model import GPT, GPTConfig
from helpers.program.folder import run_folder
from helpers.tokenizer import CharTokenizer
from helpers.train import Callbacks, batch_in_parts, begin, one_step, prepare, train

CUDA = torch.device("cuda", 0)
needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no GPU here: torch.cuda.is_available() is False"
)
EAGER_OR_COMPILED = [  # on a CPU a run is never compiled
    pytest.param(CPU, False, id="cpu"),
    pytest.param(CUDA, False, id="cuda-eager", marks=needs_gpu),
    pytest.param(CUDA, True, id="cuda-compiled", marks=needs_gpu),
]
cpu_and_gpu = pytest.mark.parametrize(
    "device", [pytest.param(CPU, id="cpu"), pytest.param(CUDA, id="cuda", marks=needs_gpu)]
)


def run_on(device, model, config, history=None, **callbacks):
    """train on a device, without a bar; callbacks by their names."""
    return train(model, TRAIN, VAL, config, device, history, Callbacks(**callbacks), progress=False)


# ---------------------------------------------------------------- compiled, and never waiting


@needs_gpu
def test_each_of_three_runs_is_compiled_once_and_replays_cuda_graphs(tiny_gpt):
    from torch._dynamo.utils import counters
    from torch._inductor.cudagraph_trees import get_manager

    for batch_size in (4, 8, 12):  # as in the panel: sizes that vary must not make PyTorch give up
        counters.clear()
        with torch._dynamo.config.patch(error_on_recompile=True):
            history = run_on(CUDA, tiny_gpt(dropout=0.1), short(compile=True, batch_size=batch_size))
        assert history.compiled.startswith("inductor") and "CUDA graphs" in history.compiled
        assert counters["stats"]["unique_graphs"] == 2, "the line on which it is tried, and the model"
        assert not counters["graph_break"]
        assert counters["inductor"]["cudagraph_skips"] == 0
        assert get_manager(0, create_if_none_exists=False) is not None, "graphs were recorded"


@contextlib.contextmanager
def never_waiting(device):
    """Inside, whatever makes the program wait for the GPU raises RuntimeError."""
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("device, compile", EAGER_OR_COMPILED)
@pytest.mark.parametrize("optimizer, precision", [("adamw", "float32"), ("muon", "bfloat16")])
def test_ten_steps_without_waiting_for_the_gpu(tiny_gpt, device, compile, optimizer, precision):
    model = tiny_gpt(dropout=0.1, tie_weights=True)
    config = short(optimizer=optimizer, precision=precision, compile=compile, accumulation_steps=1)
    history, text, losses = begin(model, config, device), TRAIN.to(device), []
    shared, loss_of = prepare(model, text, config, device, history)
    for step in range(11):  # the first one makes the states of the optimizers
        with never_waiting(device) if step else contextlib.nullcontext():
            batch = batch_in_parts(text, model, config, device, history)
            losses.append(one_step(shared, loss_of, batch, config, history))
    assert torch.stack(losses).isfinite().all() and history.step == 11
    if device.type == "cuda":  # and the guard works
        with pytest.raises(RuntimeError, match="synchroniz"), never_waiting(device):
            losses[-1].item()


# ---------------------------------------------------------------- float16


@cpu_and_gpu
@pytest.mark.parametrize("grad_clip", [0.0, 1.0])
@pytest.mark.parametrize("overflows", ["blocks.0.attn.qkv.weight", "lm_head.bias"])
def test_an_overflow_in_float16_skips_that_step_for_every_parameter(tiny_gpt, device, grad_clip, overflows):
    """One parameter of Muon or one of AdamW: either way neither of them may move."""
    model = tiny_gpt(head_bias=True)
    config = short(
        optimizer="muon", precision="float16", compile=False, grad_clip=grad_clip, accumulation_steps=1
    )
    history, text = begin(model, config, device), TRAIN.to(device)
    shared, loss_of = prepare(model, text, config, device, history)

    def step():
        """How the weights and the states of the optimizers were before, how the weights are, the loss."""
        states = copy.deepcopy([list(o.state.values()) for o in history.optimizers])
        before = weights_of(model)
        batch = batch_in_parts(text, model, config, device, history)
        return before, states, weights_of(model), one_step(shared, loss_of, batch, config, history)

    def moved(before):
        return {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}

    for _ in range(2):
        before, _, _, loss = step()
        assert moved(before) == before.keys() and loss.isfinite()
    scale = history.scaler.get_scale()
    hook = model.get_parameter(overflows).register_hook(lambda gradient: gradient * torch.inf)
    before, states, _, loss = step()
    hook.remove()
    assert moved(before) == set() and loss.isfinite()
    now = [list(o.state.values()) for o in history.optimizers]
    assert_close(now, states, rtol=0, atol=0)
    assert history.scaler.get_scale() == scale / 2 and history.step == 3
    for _ in range(3):
        before, _, _, loss = step()
        assert moved(before) == before.keys() and loss.isfinite()


# ---------------------------------------------------------------- memory


def bytes_in_use(device):
    """Of all tensors on a device, after what is unreachable has gone."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize()
        return torch.cuda.memory_allocated(device)
    # Only true tensors: asking anything else for its class wakes what torch loads lazily.
    return sum(t.nbytes for t in gc.get_objects() if type(t) in (torch.Tensor, torch.nn.Parameter))


@pytest.mark.parametrize("device, compile", EAGER_OR_COMPILED)
def test_memory_is_level_over_five_runs_in_one_process(device, compile):
    levels = []
    for _ in range(5):
        model = GPT(GPTConfig(vocab_size=11, block_size=8, n_layer=2, n_head=2, n_embd=64, dropout=0.1))
        weights = sum(p.nbytes for p in model.parameters())
        history = run_on(device, model, short(compile=compile, optimizer="muon", max_steps=4))
        assert len(history.losses) == 4
        del model, history
        levels.append(bytes_in_use(device))
    # The first run may leave a workspace behind that the next ones use again.
    assert max(levels[1:]) - levels[1] < weights / 4, levels


# ---------------------------------------------------------------- stopped and continued


def trained(folder, device, config, stop_after=None):
    """Train in a folder, or go on there; with stop_after, as if a button was pressed. Weights and losses."""
    torch.manual_seed(1)
    model = GPT(GPTConfig(vocab_size=11, block_size=8, n_layer=2, n_head=2, n_embd=16, dropout=0.2))
    torch.manual_seed(99)  # another program: its chance is in another state
    asked = itertools.count(1)
    with run_folder(folder, model, CharTokenizer("abcdefghijk"), config, device, TRAIN, VAL) as (
        history,
        save,
    ):
        history = run_on(
            device, model, config, history, on_save=save, should_stop=lambda: next(asked) == stop_after
        )
    assert history.stopped == (stop_after is not None)
    return weights_of(model) | {"losses": torch.tensor(history.losses)}


@cpu_and_gpu
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_stopped_and_continued_is_the_same_to_the_bit_in_float32(tmp_path, device, optimizer):
    config = short(optimizer=optimizer, compile=False, accumulation_steps=1)
    alone = trained(tmp_path / "alone", device, config)
    assert_same_weights(alone, trained(tmp_path / "again", device, config))  # or nothing can be compared
    trained(tmp_path / "stopped", device, config, stop_after=5)
    assert_same_weights(alone, trained(tmp_path / "stopped", device, config))


@cpu_and_gpu
def test_stopped_and_continued_is_nearly_the_same_in_bfloat16_and_compiled(tmp_path, device):
    """Within 0.001, where other dropout makes 0.05: a compiled step may add up in another order, no more."""
    config = short(optimizer="muon", compile=True, precision="bfloat16", accumulation_steps=1)
    alone = trained(tmp_path / "alone", device, config)
    trained(tmp_path / "stopped", device, config, stop_after=5)
    assert_close(trained(tmp_path / "stopped", device, config), alone, rtol=0, atol=1e-3)


# ---------------------------------------------------------------- generation


@cpu_and_gpu
@pytest.mark.parametrize("precision, tolerance", [("float32", 1e-4), ("bfloat16", 0.05)])
@torch.no_grad()
def test_logits_with_the_cache_are_those_without(tiny_gpt, device, precision, tolerance):
    """One prompt of three tokens, then one token, two, one, one: each way in which a cache is used."""
    model, idx = randomise(tiny_gpt()).eval().to(device), torch.randint(11, (5, 8)).to(device)
    cache, parts = KVCache(8), []
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        without = model(idx)[0]
        for tokens in idx.split([3, 1, 2, 1, 1], dim=1):
            parts.append(model(tokens, cache=cache)[0])
    assert without.std() > 0.5
    assert_close(torch.cat(parts, dim=1), without, rtol=0, atol=tolerance)


@cpu_and_gpu
def test_greedy_text_with_the_cache_is_that_without(tiny_gpt, device):
    model, idx = randomise(tiny_gpt()).to(device), torch.randint(11, (5, 3)).to(device)
    with_cache, without = (generate(model, idx, 40, top_k=1, use_cache=use) for use in (True, False))
    assert torch.equal(with_cache, without) and with_cache.shape == (5, 43)
    assert len(with_cache.unique()) > 3, "not one token for ever"
    on_cpu = generate(model.to(CPU), idx.to(CPU), 40, top_k=1)
    assert torch.equal(with_cache.to(CPU), on_cpu), "and as on a CPU"
