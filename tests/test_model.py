"""From the bigram table to the GPT: helpers/model.py."""

import dataclasses
import json
import math

import pytest
import torch
from conftest import randomise
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from helpers import ladder
from helpers.model import (
    GPT,
    BigramLanguageModel,
    Block,
    CausalSelfAttention,
    FeedForward,
    GPTConfig,
    Head,
    LanguageModel,
    MultiHeadAttention,
    activations_per_token,
    attend,
    attention_maps,
    attention_weights,
    causal_mask,
    count_parameters,
    fast_dropout,
    flops_per_token,
    next_token_loss,
    parameter_table,
    sinusoidal_positions,
    training_memory,
    true_dropout,
)
from helpers.presets import PRESETS
from helpers.train import TrainConfig


def config(**changes):
    return GPTConfig(**dict(vocab_size=11, block_size=8, n_layer=2, n_head=2, n_embd=16) | changes)


def by_hand(x, w_q, w_k, w_v):
    """One causal head for x (T, C), position by position in float64: weights (T, T), output (T, D)."""
    x, w_q, w_k, w_v = (t.detach().double() for t in (x, w_q, w_k, w_v))
    q, k, v = x @ w_q.T, x @ w_k.T, x @ w_v.T
    T, D = q.shape
    weights = torch.zeros(T, T, dtype=torch.float64)
    for t in range(T):
        powers = [math.exp(float(q[t] @ k[s]) / math.sqrt(D)) for s in range(t + 1)]
        for s in range(t + 1):
            weights[t, s] = powers[s] / sum(powers)
    return weights, weights @ v


# ---------------------------------------------------------------- causality

BODIES = {
    "Head": lambda c: Head(c.n_embd, c.n_embd, c.block_size, c.dropout),
    "MultiHeadAttention": lambda c: MultiHeadAttention(c.n_embd, c.n_head, c.block_size, c.dropout),
    "CausalSelfAttention": CausalSelfAttention,
    "CausalSelfAttention in bfloat16": lambda c: CausalSelfAttention(c).bfloat16(),
    "Block": Block,
    "ResidualBlock": ladder.ResidualBlock,
}


@pytest.mark.parametrize("name", BODIES)
def test_the_future_changes_nothing_and_the_past_does(name):
    @given(n_head=st.integers(1, 3), head_size=st.integers(1, 5), T=st.integers(2, 9), data=st.data())
    def check(n_head, head_size, T, data):
        t = data.draw(st.integers(1, T - 1))
        c = config(n_head=n_head, n_embd=n_head * head_size, block_size=9)
        torch.manual_seed(t)
        body = randomise(BODIES[name](c), std=1.0).eval()
        dtype = next(body.parameters()).dtype
        x = torch.randn(2, T, c.n_embd, dtype=dtype)
        changed = x.clone()
        changed[:, t:] = torch.randn(2, T - t, c.n_embd, dtype=dtype)
        y, y_changed = body(x), body(changed)
        assert_close(y_changed[:, :t], y[:, :t], rtol=0, atol=2e-5 if dtype == torch.float32 else 0.02)
        if c.n_embd > 1:
            assert (y_changed[:, -1] != y[:, -1]).any(), "what was changed must be seen"

    check()


@pytest.mark.parametrize("name", BODIES)
def test_no_gradient_reaches_back_from_the_future(name):
    @given(n_head=st.integers(1, 3), T=st.integers(1, 9), data=st.data())
    def check(n_head, T, data):
        t = data.draw(st.integers(0, T - 1))
        c = config(n_head=n_head, n_embd=4 * n_head, block_size=9)
        torch.manual_seed(T)
        body = randomise(BODIES[name](c), std=0.4)
        x = torch.randn(1, T, c.n_embd, dtype=next(body.parameters()).dtype, requires_grad=True)
        body(x)[:, t].float().square().sum().backward()
        assert (x.grad[:, t + 1 :] == 0).all(), "the future"
        assert (x.grad[:, : t + 1] != 0).any(-1).all(), "every position of the past, and itself"

    check()


@given(
    n_layer=st.integers(1, 3),
    n_head=st.integers(1, 3),
    T=st.integers(2, 8),
    position=st.sampled_from(["learned", "sinusoidal"]),
    data=st.data(),
)
def test_gpt_is_causal(n_layer, n_head, T, position, data):
    t = data.draw(st.integers(1, T - 1))
    model = GPT(config(n_layer=n_layer, n_head=n_head, n_embd=4 * n_head, position=position))
    randomise(model).eval()
    idx = torch.randint(11, (2, T))
    changed = idx.clone()
    changed[:, t:] = (idx[:, t:] + 1) % 11
    logits, after = model(idx)[0], model(changed)[0]
    assert_close(after[:, :t], logits[:, :t], rtol=1e-5, atol=2e-5)
    assert (after[:, t:] != logits[:, t:]).any(-1).all()


@pytest.mark.parametrize("rung", ladder.RUNGS[2:-1])
def test_every_rung_of_the_ladder_is_causal(rung):
    model = randomise(ladder.build_rung(rung, 11)).eval()
    idx = torch.randint(11, (2, 12))
    changed = idx.clone()
    changed[:, 7:] = (idx[:, 7:] + 3) % 11
    logits, after = model(idx)[0], model(changed)[0]
    assert logits.shape == (2, 12, 11)
    assert_close(after[:, :7], logits[:, :7], rtol=1e-5, atol=5e-5)
    assert (after[:, 7:] != logits[:, 7:]).any(-1).all()


def test_position_zero_sees_only_itself():
    body = randomise(MultiHeadAttention(8, 2, 8))
    x = torch.randn(1, 8, 8)
    assert_close(body(x)[:, :1], body(x[:, :1]))


def test_causal_mask_also_for_positions_after_cached_ones():
    assert causal_mask(3, 3).tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    assert causal_mask(2, 4).tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]


# ---------------------------------------------------------------- attention by hand, and in three forms


@given(head_size=st.integers(1, 8), T=st.integers(1, 8))
def test_one_head_equals_the_formula(head_size, T):
    head = randomise(Head(6, head_size, 8), std=1.0)
    x = torch.randn(2, T, 6)
    for b in range(2):
        weights, out = by_hand(x[b], head.query.weight, head.key.weight, head.value.weight)
        assert_close(head.weights(x)[b].double(), weights, rtol=1e-4, atol=1e-5)
        assert_close(head(x)[b].double(), out, rtol=1e-4, atol=1e-4)


@given(n_head=st.integers(1, 4), head_size=st.integers(1, 6), T=st.integers(1, 8))
def test_fused_attention_equals_the_formula(n_head, head_size, T):
    C = n_head * head_size
    c = config(n_head=n_head, n_embd=C, qkv_bias=False)
    attn = randomise(CausalSelfAttention(c), std=0.7)
    x = torch.randn(1, T, C)
    outs = []
    for h in range(n_head):
        w_q, w_k, w_v = (w[h * head_size : (h + 1) * head_size] for w in attn.qkv.weight.split(C))
        weights, out = by_hand(x[0], w_q, w_k, w_v)
        assert_close(attn.weights(x)[0, h].double(), weights, rtol=1e-4, atol=1e-4)
        outs.append(out)
    expected = torch.cat(outs, -1) @ attn.proj.weight.detach().double().T + attn.proj.bias.detach().double()
    assert_close(attn(x)[0].double(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("head_size", [4, 64])
def test_scores_of_unit_variance_have_unit_variance(head_size):
    # Through the softmax: log-ratios of weights within a row are differences of scores.
    q, k = torch.randn(2, 500, 1, 64, head_size).unbind(0)
    spread = attention_weights(q, k)[:, 0, -1].log().var(-1).mean()
    assert 0.9 < spread < 1.1, "q k^T of unit inputs has variance D; times D ** -0.5 it is 1"
    head = Head(head_size, head_size, 64)
    nn.init.eye_(head.query.weight)
    nn.init.eye_(head.key.weight)
    spread = head.weights(torch.randn(500, 64, head_size))[:, -1, :-1].log().var(-1).mean()
    assert 0.9 < spread < 1.1


def copy_heads(heads, fused):
    """Load a list of heads into the fused form."""
    with torch.no_grad():
        for part, weight in zip(("query", "key", "value"), fused.qkv.weight.chunk(3)):
            weight.copy_(torch.cat([getattr(head, part).weight for head in heads.heads]))
    fused.proj.load_state_dict(heads.proj.state_dict())


@given(n_head=st.integers(1, 4), head_size=st.integers(1, 6), T=st.integers(1, 8), B=st.integers(1, 3))
def test_list_of_heads_equals_fused_in_outputs_and_gradients(n_head, head_size, T, B):
    C = n_head * head_size
    heads = randomise(MultiHeadAttention(C, n_head, 8), std=0.5)
    fused = CausalSelfAttention(config(n_head=n_head, n_embd=C))
    copy_heads(heads, fused)
    x = torch.randn(B, T, C)
    grad_out = torch.randn(B, T, C)
    x_heads, x_fused = x.clone().requires_grad_(), x.clone().requires_grad_()
    y_heads, y_fused = heads(x_heads), fused(x_fused)
    assert_close(y_heads, y_fused, rtol=1e-4, atol=1e-5)
    assert_close(heads.weights(x), fused.weights(x), rtol=1e-4, atol=1e-5)
    y_heads.backward(grad_out)
    y_fused.backward(grad_out)
    assert_close(x_heads.grad, x_fused.grad, rtol=1e-3, atol=1e-4)
    parts = [torch.cat([getattr(h, p).weight.grad for h in heads.heads]) for p in ("query", "key", "value")]
    assert_close(torch.cat(parts), fused.qkv.weight.grad, rtol=1e-3, atol=1e-4)
    assert_close(heads.proj.weight.grad, fused.proj.weight.grad, rtol=1e-3, atol=1e-4)


# Queries, keys and type: attend computes them in four ways, each of which some of these take.
SHAPES = {
    "a block": (7, 7, torch.float32),
    "a block in bfloat16": (7, 7, torch.bfloat16),
    "a block of one": (1, 1, torch.float32),
    "one after cached ones": (1, 7, torch.float32),
    "one after cached ones in bfloat16": (1, 7, torch.bfloat16),
    "some after cached ones": (3, 7, torch.float32),
    "some after cached ones in bfloat16": (3, 7, torch.bfloat16),
}


def attend_by_hand(q, k, v):
    """attend, query by query in float64."""
    q, k, v = q.double(), k.double(), v.double()
    outs, past = [], k.shape[2] - q.shape[2]
    for t in range(q.shape[2]):
        seen = slice(0, past + t + 1)
        scores = (k[:, :, seen] @ q[:, :, t, :, None]).squeeze(-1) / math.sqrt(q.shape[-1])  # (B, H, seen)
        outs.append((scores.softmax(-1)[..., None] * v[:, :, seen]).sum(2))
    return torch.stack(outs, 2)


@pytest.mark.parametrize("shape", SHAPES)
def test_all_ways_of_attend_are_one_function_in_outputs_and_gradients(shape):
    T_q, T_k, dtype = SHAPES[shape]
    leaves = [torch.randn(2, 3, T, 4).to(dtype).requires_grad_() for T in (T_q, T_k, T_k)]
    grad_out = torch.randn(2, 3, T_q, 4).to(dtype)
    results = []
    for function in (attend, attend_by_hand):
        out = function(*leaves)
        results.append([out.detach(), *torch.autograd.grad(out, leaves, grad_out.to(out.dtype))])
    assert results[0][0].dtype == dtype
    # bfloat16 has 8 bits of precision: the largest error is some 2 ** -7 of the largest value.
    share = 1e-5 if dtype == torch.float32 else 0.03
    for ours, exact in zip(*results):
        assert (ours.double() - exact.double()).abs().max() <= share * exact.abs().max()


@pytest.mark.parametrize("shape", SHAPES)
def test_all_ways_of_attend_drop_weights_and_raise_the_rest(shape):
    T_q, T_k, dtype = SHAPES[shape]
    q, k = torch.randn(1, 50, T_q, 8).to(dtype), torch.randn(1, 50, T_k, 8).to(dtype)
    v = torch.eye(T_k, dtype=dtype).expand(1, 50, T_k, T_k)  # so that attend returns its weights
    whole, dropped = attend(q, k, v).float(), attend(q, k, v, dropout_p=0.25).float()
    gone = (dropped == 0) & (whole > 0)
    assert 0.1 < gone.sum() / (whole > 0).sum() < 0.4
    assert_close(dropped[~gone], whole[~gone] / 0.75, rtol=0.02, atol=1e-5)


def test_attention_in_autocast_equals_that_in_full_precision_in_outputs_and_gradients():
    attn = randomise(CausalSelfAttention(config(n_head=4, n_embd=32, block_size=24)), std=0.2)
    x, grad_out = torch.randn(2, 24, 32), torch.randn(2, 24, 32)

    def run(dtype):
        attn.zero_grad()
        leaf = x.clone().requires_grad_()
        with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            y = attn(leaf)
        y.float().backward(grad_out)
        return [y.detach().float(), leaf.grad, attn.qkv.weight.grad.clone(), attn.proj.weight.grad.clone()]

    for exact, rounded in zip(run(torch.float32), run(torch.bfloat16)):
        # bfloat16 has 8 bits of precision: the largest error is some 2 ** -7 of the largest value.
        assert (exact - rounded).abs().max() < 0.03 * exact.abs().max()


# ---------------------------------------------------------------- the parts of a block


def test_block_is_pre_norm_with_two_residuals():
    block = randomise(Block(config()))
    x = torch.randn(2, 8, 16)
    middle = x + block.attn(block.ln_1(x))
    assert_close(block(x), middle + block.ffwd(block.ln_2(middle)))
    for part in (block.attn.proj, block.ffwd.narrow):
        nn.init.zeros_(part.weight)
        nn.init.zeros_(part.bias)
    assert_close(block(x), x, msg="with both parts silent, the residual stream passes untouched")


def test_layer_norm_does_what_it_says():
    block = Block(config())
    x = 5 + 3 * torch.randn(2, 8, 16)
    for norm in (block.ln_1, block.ln_2):
        y = norm(x)
        assert_close(y.mean(-1), torch.zeros(2, 8), rtol=0, atol=1e-5)
        assert_close(y.var(-1, correction=0), torch.ones(2, 8), rtol=0, atol=1e-3)


def test_attention_hears_the_layer_norm_not_the_stream():
    block = randomise(Block(config())).eval()
    heard = []
    block.attn.register_forward_hook(lambda m, inputs, out: heard.append(out))
    x = torch.randn(1, 8, 16)
    block(x)
    block(10 * x)
    assert_close(*heard, rtol=1e-3, atol=1e-3, msg="ten times the stream, the same attention")


def test_feed_forward_thinks_position_by_position_and_is_four_times_as_wide():
    for activation, function in (("relu", F.relu), ("gelu", F.gelu)):
        part = randomise(FeedForward(config(activation=activation)))
        x = torch.randn(2, 8, 16)
        assert part.widen.weight.shape == (64, 16)
        assert_close(part(x), part.narrow(function(part.widen(x))))
        assert_close(part(x)[:, 3:4], part(x[:, 3:4]))
    tanh = FeedForward(config(activation="gelu_tanh")).activation
    assert_close(tanh(x), F.gelu(x, approximate="tanh"))


def test_sinusoidal_table_equals_the_formula():
    table = sinusoidal_positions(20, 6)
    assert table.shape == (20, 6)
    for t in range(20):
        for i in range(3):
            angle = t / 10000 ** (2 * i / 6)
            assert abs(table[t, 2 * i] - math.sin(angle)) < 1e-5
            assert abs(table[t, 2 * i + 1] - math.cos(angle)) < 1e-5


def test_sinusoidal_positions_are_used_and_never_trained(tiny_gpt):
    model = tiny_gpt(position="sinusoidal")
    assert_close(model.position_embedding.weight, sinusoidal_positions(8, 16))
    assert not model.position_embedding.weight.requires_grad
    assert count_parameters(tiny_gpt()) - count_parameters(model) == 8 * 16


@pytest.mark.parametrize("position", ["learned", "sinusoidal"])
def test_order_matters(tiny_gpt, position):
    model = randomise(tiny_gpt(position=position)).eval()
    idx = torch.tensor([[1, 2, 3]])
    assert not torch.allclose(model(idx)[0][:, -1], model(idx[:, [1, 0, 2]])[0][:, -1], atol=1e-3)
    same = torch.full((1, 4), 5)
    logits = model(same)[0]
    assert not torch.allclose(logits[:, 0], logits[:, 3], atol=1e-3), "the same token elsewhere"


# ---------------------------------------------------------------- whole models


def test_loss_at_the_start_is_that_of_a_uniform_guess():
    x, y = torch.randint(65, (2, 16, 32)).unbind(0)
    for model in (
        BigramLanguageModel(65),
        LanguageModel(65, 32, 64, Head(64, 64, 32)),
        GPT(config(vocab_size=65, block_size=32, n_embd=64, n_layer=4)),
        GPT(config(vocab_size=65, block_size=32, n_embd=64, tie_weights=True)),
    ):
        assert abs(model(x, y)[1].item() - math.log(65)) < 0.1


def test_depth_does_not_swell_the_residual_stream():
    def size(n_layer):
        torch.manual_seed(0)
        model = GPT(config(n_layer=n_layer, n_embd=64, n_head=4))
        seen = []
        model.ln_f.register_forward_pre_hook(lambda m, inputs: seen.append(inputs[0].std().item()))
        model(torch.randint(11, (8, 8)))
        return seen[0]

    assert abs(size(12) / size(2) - 1) < 0.25


def test_loss_is_the_mean_negative_log_probability_of_the_targets():
    logits, targets = torch.randn(2, 3, 5), torch.randint(5, (2, 3))
    logs = logits.double().log_softmax(-1)
    expected = -sum(logs[b, t, targets[b, t]] for b in range(2) for t in range(3)) / 6
    assert_close(next_token_loss(logits, targets).double(), expected, rtol=1e-5, atol=1e-6)
    assert next_token_loss(logits, None) is None


def test_bigram_logits_are_the_row_of_the_token():
    model = BigramLanguageModel(7)
    idx = torch.tensor([[3, 0], [6, 3]])
    logits, loss = model(idx)
    assert loss is None
    assert_close(logits[0, 0], model.next_token_logits.weight[3])
    assert_close(logits[0, 0], logits[1, 1])


def numbers_in(c):
    """The parameters of a GPT, counted from its configuration alone."""
    attention = 3 * c.n_embd * c.n_embd + c.n_embd * c.n_embd + 3 * c.n_embd * c.qkv_bias + c.n_embd * c.bias
    feed_forward = 2 * 4 * c.n_embd * c.n_embd + (4 * c.n_embd + c.n_embd) * c.bias
    norm = c.n_embd * (1 + c.bias)
    embeddings = c.n_embd * (c.vocab_size + (c.block_size if c.position == "learned" else 0))
    head = c.n_embd * c.vocab_size * (not c.tie_weights) + c.vocab_size * c.head_bias
    return embeddings + c.n_layer * (attention + feed_forward + 2 * norm) + norm + head


def test_the_number_that_the_systems_claim():
    c = GPTConfig(**{"vocab_size": 65} | PRESETS["gpt-from-scratch"].model)
    with torch.device("meta"):
        assert count_parameters(GPT(c)) == numbers_in(c) == 10_788_929


# name: (n_layer, n_head, n_embd, block_size, dropout), (batch_size, max_steps, learning_rate), parameters
# and validation loss as claimed, as the README or the code of each has them.
SOURCES = {
    "neurongpt": ((6, 6, 384, 256, 0.2), (64, 5000, 3e-4), 10.79e6, 1.49),
    "gpt2-style": ((12, 12, 768, 256, 0.1), (2, 90, 4e-4), 124e6, None),
    "gpt-from-scratch": ((6, 6, 384, 256, 0.2), (64, 5000, 3e-4), 10_788_929, 1.4734),
    "char-gpt": ((6, 6, 384, 256, 0.2), (64, 5000, 3e-4), None, None),
    "gptiny": ((3, 4, 384, 256, 0.2), (64, 5000, 3e-4), 10.8e6, None),
    "nanogpt-char": ((6, 6, 384, 256, 0.2), (64, 5000, 1e-3), None, 1.4697),
    "nanogpt-cpu": ((4, 4, 128, 64, 0.0), (12, 2000, 1e-3), None, 1.88),
}


def test_the_presets_of_others_are_as_their_sources_have_them():
    said = {}
    for name, preset in PRESETS.items():
        if not name.startswith("course"):
            model, run = GPTConfig(**{"vocab_size": 65} | preset.model), TrainConfig(**preset.train)
            shape = model.n_layer, model.n_head, model.n_embd, model.block_size, model.dropout
            steps = run.batch_size, run.max_steps, run.learning_rate
            said[name] = shape, steps, preset.claimed_parameters, preset.claimed_val
    assert said == SOURCES


@pytest.mark.parametrize("name", PRESETS)
def test_parameters_of_every_preset(name):
    c = GPTConfig(**{"vocab_size": 65} | PRESETS[name].model)
    with torch.device("meta"):  # shapes without memory
        assert count_parameters(GPT(c)) == numbers_in(c)
    assert sum(parameter_table(c).values()) == numbers_in(c)
    if name == "gptiny":
        assert numbers_in(c) < 0.55 * PRESETS[name].claimed_parameters, "three layers, not six"


@pytest.mark.parametrize("changes", [{}, {"qkv_bias": True}, {"bias": False}, {"head_bias": False}])
def test_each_bias_is_there_or_not(tiny_gpt, changes):
    model = tiny_gpt(**changes)
    assert count_parameters(model) == numbers_in(model.config)


def test_the_table_of_parameters_counts_each_part(tiny_gpt):
    for changes in ({}, {"bias": False, "qkv_bias": True}, {"position": "sinusoidal"}, {"tie_weights": True}):
        model, table = tiny_gpt(**changes), parameter_table(config(**changes))
        parts = {
            "token embedding": model.token_embedding,
            "position embedding": model.position_embedding,
            "attention": nn.ModuleList(block.attn for block in model.blocks),
            "feed-forward": nn.ModuleList(block.ffwd for block in model.blocks),
            "layer norms": nn.ModuleList([*(m for m in model.modules() if isinstance(m, nn.LayerNorm))]),
        }
        assert {name: count_parameters(part) for name, part in parts.items()} == {k: table[k] for k in parts}
        assert sum(table.values()) == count_parameters(model)
    from_a_file = json.loads(json.dumps(dataclasses.asdict(config())))  # its texts are equal, not the same
    assert parameter_table(GPTConfig(**from_a_file)) == parameter_table(config())


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_kept_activations_are_estimated_well(activation):
    c = config(vocab_size=65, block_size=32, n_layer=3, n_embd=32, activation=activation)
    model, kept = GPT(c), {}
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    idx = torch.randint(65, (4, 32))
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = model(idx, idx)[1]
    measured = sum(size for size, _ in kept.values()) / 4 / idx.numel()
    assert activations_per_token(c) == pytest.approx(measured, rel=0.15) and loss.requires_grad
    one, two = (activations_per_token(dataclasses.replace(c, n_layer=n)) for n in (1, 2))
    assert 2 * one - two == 2 * c.n_embd + c.vocab_size, "outside the blocks, whatever their number"
    memory = training_memory(c, 4)
    assert memory["activations"] == pytest.approx(4 * measured * idx.numel(), rel=0.15)
    n = count_parameters(model)
    assert (memory["weights"], memory["gradients"], memory["AdamW's two moments"]) == (4 * n, 4 * n, 8 * n)


def test_tied_weights_are_one_tensor_and_count_once(tiny_gpt):
    model = tiny_gpt(tie_weights=True)
    assert model.lm_head.weight is model.token_embedding.weight
    assert count_parameters(tiny_gpt()) - count_parameters(model) == 11 * 16
    idx = torch.randint(11, (2, 8))
    model(idx, idx)[1].backward()
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    assert_close(model.lm_head.weight, model.token_embedding.weight)


def test_flops_agree_with_a_count_of_the_matrix_products():
    c = config(vocab_size=65, n_embd=32, n_head=4, block_size=64)
    model, idx = GPT(c), torch.randint(65, (2, 64))
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(idx, idx)[1].backward()
    assert counter.get_total_flops() / idx.numel() == flops_per_token(c)


def test_configurations_cannot_be_changed_unchecked():
    c = config()
    with pytest.raises(dataclasses.FrozenInstanceError):
        c.n_head = 3
    with pytest.raises(ValueError, match="n_head=3"):
        dataclasses.replace(c, n_head=3)
    assert dataclasses.replace(c, n_head=4).head_size == 4


@pytest.mark.parametrize("name", [*BODIES, "FeedForward", "GPT", "LanguageModel"])
def test_dropout_works_in_training_and_is_off_in_evaluation(name):
    c = config(dropout=0.5)
    builders = BODIES | {
        "FeedForward": FeedForward,
        "GPT": GPT,
        "LanguageModel": lambda c: LanguageModel(11, 8, 16, Head(16, 16, 8, c.dropout)),
    }
    module = randomise(builders[name](c))
    if name in ("GPT", "LanguageModel"):
        x, call = torch.randint(11, (2, 8)), lambda: module(x)[0]
    else:
        x = torch.randn(2, 8, 16, dtype=next(module.parameters()).dtype)
        call = lambda: module(x)  # noqa: E731
    assert not torch.equal(call(), call()), "in training two passes differ"
    module.eval()
    assert torch.equal(call(), call())
    without = builders[name](config(dropout=0.0))
    without.load_state_dict(module.state_dict())
    evaluated, module = call(), without
    assert torch.equal(call(), evaluated), "in evaluation it is as if there were no dropout at all"


@pytest.mark.parametrize(
    "p, true", [(0.1, 26 / 256), (0.2, 51 / 256), (0.5, 0.5), (1e-9, 1 / 256), (0.999, 255 / 256)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fast_dropout_drops_as_often_as_it_says_and_keeps_the_mean(p, true, dtype):
    cpu, n = torch.device("cpu"), 999_999
    assert true_dropout(p, cpu) == true and true_dropout(p, torch.device("cuda")) == p
    x = torch.ones(3, n // 3, dtype=dtype, requires_grad=True)
    out = fast_dropout(x, p)
    kept = out != 0
    spread = 5 * math.sqrt(true * (1 - true) / n)
    assert (~kept).float().mean().item() == pytest.approx(true, abs=spread)
    assert (out[kept].float() == torch.tensor(1 / (1 - true)).to(dtype).float()).all()
    out.sum().backward()
    assert torch.equal(x.grad, out.detach()), "what is dropped gets no gradient"
    assert fast_dropout(x, p, training=False) is x and fast_dropout(x, 0.0) is x


def test_fast_dropout_is_drawn_anew_for_each_number_layer_and_step():
    """Neighbours share the 64 bits of one draw, and must still know nothing of each other."""
    ones = torch.ones(100_000)
    torch.manual_seed(5)
    masks = [fast_dropout(ones, 0.5) != 0 for _ in range(3)]
    torch.manual_seed(5)
    assert torch.equal(masks[0], fast_dropout(ones, 0.5) != 0), "equal seeds, equal masks"
    pairs = [(masks[0], masks[1]), (masks[1], masks[2])]
    pairs += [(masks[0][:-d], masks[0][d:]) for d in (1, 2, 7, 8, 64)]
    for one, other in pairs:
        assert (one == other).float().mean().item() == pytest.approx(0.5, abs=5 * 0.5 / math.sqrt(99_000))


def test_every_dropout_layer_is_passed_through_once(tiny_gpt):
    for model in (tiny_gpt(dropout=0.5), LanguageModel(11, 8, 16, MultiHeadAttention(16, 2, 8, 0.5))):
        used, layers = [], {m: name for name, m in model.named_modules() if isinstance(m, nn.Dropout)}
        for layer in layers:
            layer.register_forward_hook(lambda m, *_, used=used, layers=layers: used.append(layers[m]))
        model(torch.randint(11, (2, 8)))
        assert sorted(used) == sorted(layers.values()) and all(layer.p == 0.5 for layer in layers)


def test_attention_weights_are_dropped_in_training_alone():
    attn = randomise(CausalSelfAttention(config(dropout=0.5)))
    attn.dropout = nn.Identity()  # only the dropout inside attention is left
    x = torch.randn(1, 8, 16)
    assert not torch.equal(attn(x), attn(x))
    assert torch.equal(attn.eval()(x), attn(x))


@pytest.mark.parametrize("tie_weights", [False, True])
@pytest.mark.parametrize("autocast", [False, True])
def test_shapes_and_dtypes(tiny_gpt, tie_weights, autocast):
    model = tiny_gpt(tie_weights=tie_weights)
    idx = torch.randint(11, (3, 5))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        logits, loss = model(idx, idx)
    assert logits.shape == (3, 5, 11) and loss.shape == ()
    assert logits.dtype == (torch.bfloat16 if autocast else torch.float32)
    assert loss.dtype == torch.float32, "the loss is summed in full precision"
    loss.backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in model.parameters())
    assert model(idx)[1] is None


@pytest.mark.parametrize("autocast", [False, True])
def test_one_batch_can_be_learned_by_heart(tiny_gpt, autocast):
    model = tiny_gpt(n_embd=32)
    x = torch.randint(11, (2, 8))
    y = torch.randint(11, (2, 8))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(100):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            loss = model(x, y)[1]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05


def test_every_parameter_gets_a_gradient(tiny_gpt):
    model = randomise(tiny_gpt(qkv_bias=True))
    idx = torch.randint(11, (4, 8))
    model(idx, idx.roll(-1, 1))[1].backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or (p.grad == 0).all()]
    assert silent == []


# ---------------------------------------------------------------- attention maps


def check_maps(maps, T):
    for layer in maps:
        assert layer.shape[-2:] == (T, T) and layer.dtype == torch.float32 and not layer.requires_grad
        assert_close(layer.sum(-1), torch.ones(layer.shape[:-1]))
        assert (layer.triu(1) == 0).all(), "nothing above the diagonal"


@pytest.mark.parametrize("training", [True, False])
def test_attention_maps_of_a_gpt(tiny_gpt, training):
    model = randomise(tiny_gpt(dropout=0.4)).train(training)
    idx = torch.randint(11, (2, 6))
    maps = attention_maps(model, idx)
    assert [m.shape for m in maps] == [(2, 2, 6, 6)] * 2
    check_maps(maps, 6)
    assert model.training is training, "the mode is as before"
    assert all(not m._forward_pre_hooks for m in model.modules()), "no hook is left"
    model.eval()
    x = model.token_embedding(idx) + model.position_embedding(torch.arange(6))
    for block, layer in zip(model.blocks, maps):
        assert_close(block.attn.weights(block.ln_1(x)), layer)
        x = block(x)


def test_attention_maps_of_single_heads_and_lists():
    idx = torch.randint(11, (2, 6))
    head = LanguageModel(11, 8, 16, Head(16, 16, 8))
    (layer,) = attention_maps(head, idx)
    assert layer.shape == (2, 1, 6, 6)
    x = head.token_embedding(idx) + head.position_embedding(torch.arange(6))
    weights, _ = by_hand(x[1], head.body.query.weight, head.body.key.weight, head.body.value.weight)
    assert_close(layer[1, 0].double(), weights, rtol=1e-4, atol=1e-5)
    (layer,) = attention_maps(LanguageModel(11, 8, 16, MultiHeadAttention(16, 4, 8)), idx)
    assert layer.shape == (2, 4, 6, 6)
    check_maps([layer], 6)


def test_attention_maps_of_a_bfloat16_model_are_float32_too(tiny_gpt):
    maps = attention_maps(tiny_gpt().bfloat16(), torch.randint(11, (1, 6)))
    assert [layer.dtype for layer in maps] == [torch.float32] * 2


def test_attention_maps_clean_up_after_an_error(tiny_gpt):
    model = tiny_gpt().train()
    with pytest.raises(IndexError):
        attention_maps(model, torch.zeros(1, 99, dtype=torch.int64))
    assert model.training and all(not m._forward_pre_hooks for m in model.modules())
