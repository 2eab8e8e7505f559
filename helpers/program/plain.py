"""The plain baseline: a GPT written, trained and sampled the way most from-scratch scripts do it.

A Python list of heads, float32, no compilation, AdamW as PyTorch chooses it (on a CPU: one parameter
after another), batches stacked from slices, generation that computes the whole context again for
every character. The benchmark measures the course against it.
"""

import time

import torch
from torch import nn
from torch.nn import functional as F

from helpers.device import precision_context
from helpers.model import MultiHeadAttention
from helpers.optimizers import learning_rate_factor


class ListOfHeads(MultiHeadAttention):
    """MultiHeadAttention where CausalSelfAttention stood: x (B, T, C) -> (B, T, C), no cache."""

    def forward(self, x, cache=None):
        return super().forward(x)


@torch.no_grad()
def with_list_of_heads(model):
    """Change the attention of a GPT into lists of heads with the same weights; returns the model.

    It stays the same function, with PyTorch's dropout. Raises ValueError for query, key and value biases.
    """
    config = model.config
    if config.qkv_bias:
        raise ValueError("qkv_bias=True does not fit a list of heads, which has no such biases: use False.")
    for block in model.blocks:
        heads = ListOfHeads(config.n_embd, config.n_head, config.block_size, config.dropout)
        w = block.attn.qkv.weight.view(3, config.n_head, config.head_size, config.n_embd)
        for h, head in enumerate(heads.heads):
            for i, layer in enumerate((head.query, head.key, head.value)):
                layer.weight.copy_(w[i, h])
        heads.proj = block.attn.proj
        block.attn = heads.to(w.device)
    for module in model.modules():  # the course's own dropout is one of the things that scripts lack
        if isinstance(getattr(module, "dropout", None), nn.Dropout):
            module.dropout = nn.Dropout(config.dropout)
    return model


def stacked_batch(ids, block_size, batch_size, generator=None):
    """get_batch the usual way, slice by slice: x (B, T) and y (B, T), equal to get_batch's."""
    starts = torch.randint(len(ids) - block_size, (batch_size,), generator=generator)
    x = torch.stack([ids[i : i + block_size] for i in starts])
    y = torch.stack([ids[i + 1 : i + 1 + block_size] for i in starts])
    return x, y


def plain_optimizer(model, config, fused=None):
    """AdamW as scripts set it up: matrices decay, vectors do not. fused=None leaves the form to PyTorch."""
    params = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in params if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in params if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, config.learning_rate, (config.beta1, config.beta2), fused=fused)


def plain_orthogonalise(matrices, coefficients=(3.4445, -4.775, 2.0315), steps=5, eps=1e-7):
    """orthogonalise of helpers.optimizers with the polynomial as it is usually written, by @ and +."""
    a, b, c = coefficients
    tall = matrices.shape[1] > matrices.shape[2]
    X = matrices.mT if tall else matrices
    X = X / X.norm(dim=(1, 2), keepdim=True).clamp(min=eps)
    for _ in range(steps):
        A = X @ X.mT
        B = b * A + c * A @ A
        X = a * X + B @ X
    return X.mT if tall else X


def plain_train(model, ids, config, device, steps, draw=stacked_batch, fused=None, precision="float32"):
    """Train for `steps` steps of TrainConfig's schedule in the usual loop; returns the seconds.

    `draw`, `fused` and `precision` are what rows of the benchmark exchange one at a time.
    """
    model.to(device).train()
    optimizer = plain_optimizer(model, config, fused)
    generator = torch.Generator().manual_seed(config.seed)
    start = clock(device)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * learning_rate_factor(step, config)
        x, y = draw(ids, model.config.block_size, config.batch_size, generator)
        with precision_context(device, precision):
            _, loss = model(x.to(device), y.to(device))
        loss.backward()
        if config.grad_clip:
            nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()  # scripts print it
    return clock(device) - start


@torch.no_grad()
def plain_generate(model, idx, max_new_tokens):
    """idx (B, T) -> (B, T + max_new_tokens): the whole context through the model for every token."""
    model.eval()
    for _ in range(max_new_tokens):
        logits, _ = model(idx[:, -model.config.block_size :])
        probs = F.softmax(logits[:, -1], dim=-1)  # (B, V)
        idx = torch.cat([idx, torch.multinomial(probs, 1)], dim=1)
    return idx


def clock(device):
    """The time in seconds, when the device has done all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
