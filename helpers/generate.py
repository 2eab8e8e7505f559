"""Sampling from a trained model: one token after another, with a key/value cache."""

import torch
from torch.nn import functional as F

from helpers.model import GPT


def next_token_probs(logits, temperature=1.0, top_k=None, top_p=None):
    """Logits (..., V) -> probabilities (..., V) after temperature, top-k and top-p, in that order.

    temperature < 1 sharpens, > 1 flattens. top_k keeps the k likeliest tokens. top_p keeps the
    smallest set of likeliest tokens whose probabilities reach p (Holtzman et al. 2019, arXiv:1904.09751).
    """
    check_sampling(logits.shape[-1], temperature, top_k, top_p)
    logits = logits.float() / temperature
    if top_k is not None:
        kth = logits.topk(top_k, dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < kth, float("-inf"))
    if top_p is not None and top_p < 1:
        probs, order = F.softmax(logits, dim=-1).sort(dim=-1, descending=True)
        # A token goes if those before it already reach p; the first always stays.
        gone = probs.cumsum(-1) - probs >= top_p
        logits = logits.masked_fill(gone.gather(-1, order.argsort(-1)), float("-inf"))
    return F.softmax(logits, dim=-1)


def check_sampling(vocab_size, temperature, top_k, top_p):
    """Raise ValueError, naming the argument and the remedy, unless the three make sense."""
    if not 0 < temperature < float("inf"):
        raise ValueError(
            f"temperature={temperature} must be above 0; for the likeliest token alone use top_k=1."
        )
    if top_k is not None and not 1 <= top_k <= vocab_size:
        raise ValueError(f"top_k={top_k} must lie between 1 and the vocabulary size, {vocab_size}.")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p={top_p} must be above 0 and at most 1.")


class KVCache:
    """Keys and values of the positions seen so far, per attention layer: (B, H, T, D) each."""

    def __init__(self):
        self.length = 0
        self.kept = {}

    def append(self, layer, k, v):
        """Add new keys and values of one layer; return all of them."""
        if layer in self.kept:
            k = torch.cat([self.kept[layer][0], k], dim=2)
            v = torch.cat([self.kept[layer][1], v], dim=2)
        self.kept[layer] = (k, v)
        return k, v


def window_start(length, block_size):
    """Where the model's view begins in a text of `length` tokens.

    0 while the text fits. After that the view moves on by half a block at a time, not by one token:
    positions are absolute, so every move makes all cached keys and values stale.
    """
    if length <= block_size:
        return 0
    hop = max(block_size // 2, 1)
    return -(-(length - block_size) // hop) * hop


@torch.no_grad()
def stream(
    model, idx, max_new_tokens, temperature=1.0, top_k=None, top_p=None, generator=None, use_cache=True
):
    """Yield max_new_tokens tensors (B,), each the next token of every row of idx (B, T).

    `use_cache=False` runs the whole view through the model for every token, as the lessons do;
    both ways see the same view and give the same logits. Raises ValueError for bad settings.
    """
    if idx.dim() != 2 or idx.shape[1] == 0:
        raise ValueError(
            f"idx of shape {tuple(idx.shape)} must be (B, T) with T of at least 1: "
            "encode a prompt, or start from a newline."
        )
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens={max_new_tokens} must be at least 0.")
    use_cache = use_cache and isinstance(model, GPT)
    block_size = getattr(getattr(model, "config", model), "block_size", 1)  # a bigram sees 1
    was_training = model.training
    model.eval()
    cache, begin = KVCache(), 0
    try:
        for _ in range(max_new_tokens):
            start = window_start(idx.shape[1], block_size)
            if start != begin:
                cache, begin = KVCache(), start
            if use_cache:
                logits, _ = model(idx[:, begin + cache.length :], cache=cache)
            else:
                logits, _ = model(idx[:, begin:])
            probs = next_token_probs(logits[:, -1], temperature, top_k, top_p)  # (B, V)
            new = torch.multinomial(probs, 1, generator=generator)  # (B, 1)
            idx = torch.cat([idx, new], dim=1)
            yield new[:, 0]
    finally:
        model.train(was_training)


def generate(
    model, idx, max_new_tokens, temperature=1.0, top_k=None, top_p=None, generator=None, use_cache=True
):
    """idx (B, T) -> (B, T + max_new_tokens): the prompt and what the model wrote after it."""
    new = list(stream(model, idx, max_new_tokens, temperature, top_k, top_p, generator, use_cache))
    return torch.cat([idx, *(token.unsqueeze(1) for token in new)], dim=1)
