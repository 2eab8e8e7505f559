"""Sampling from a trained model: one token after another, with a key/value cache."""

import codecs
import contextlib

import torch
from torch.nn import functional as F

from helpers.checks import check_kind, check_number, check_whole, shown
from helpers.model import GPT, check_in_vocabulary
from helpers.tokenizer import BytePairTokenizer

# ---------------------------------------------------------------- from logits to one token


def next_token_probs(logits, temperature=1.0, top_k=None, top_p=None):
    """Logits (..., V) -> probabilities (..., V) after temperature, top-k and top-p, in that order.

    temperature < 1 sharpens, > 1 flattens. top_k keeps the k likeliest tokens, of equal ones those with
    the lower ids. top_p keeps the smallest set of likeliest tokens whose probabilities reach p (Holtzman
    et al. 2019, arXiv:1904.09751). Not checked here: temperature > 0, 1 <= top_k <= V, 0 < top_p <= 1.
    """
    if top_k is None and (top_p is None or top_p == 1):
        return F.softmax(logits.float() / temperature, dim=-1)
    # Ranked before anything is rounded: in float16 or at a high temperature unequal logits can become equal.
    order = logits.argsort(dim=-1, descending=True, stable=True)
    ranked = logits.gather(-1, order).float() / temperature
    if top_k is not None:
        ranked[..., top_k:] = float("-inf")
    if top_p is not None and top_p < 1:
        probs = F.softmax(ranked, dim=-1)
        before = probs.cumsum(-1) - probs  # of all that are likelier
        ranked[before >= top_p] = float("-inf")  # the likeliest always stays: before it there is none
    probs = F.softmax(ranked, dim=-1)
    return torch.empty_like(probs).scatter_(-1, order, probs)  # back in the order of the ids


def draw_token(probs, generator=None):
    """Draw one token a row from probs (B, V): int64 (B, 1), the same draw as torch.multinomial.

    A race: token i arrives after an exponential time of rate probs[i], and is first with just that
    probability. multinomial runs the same race, but checks probs first, and a GPU must wait for that.
    """
    # Drawn where the generator is: one on the CPU serves a model on a GPU too.
    draw_on = probs.device if generator is None else generator.device
    noise = torch.empty_like(probs, device=draw_on).exponential_(generator=generator)
    return (probs / noise.to(probs.device)).argmax(-1, keepdim=True)


# ---------------------------------------------------------------- the cache, and what the model sees


class KVCache:
    """Keys and values of the positions seen so far, per attention layer, in memory for block_size of them.

    The memory is taken once, at the first append: (2, B, H, block_size, D) in the dtype of the keys.
    Growing it by torch.cat would copy all that is kept for every new token. `length` is moved on by the
    model when all its layers have appended; to start anew, set it to 0.
    """

    def __init__(self, block_size):
        self.block_size = block_size
        self.length = 0
        self.memory = {}

    def append(self, layer, k, v):
        """Add new keys and values (B, H, T, D) of one layer; return all of them, as views."""
        if layer not in self.memory:
            B, H, _, D = k.shape
            self.memory[layer] = k.new_empty(2, B, H, self.block_size, D)
        kept = self.memory[layer][:, :, :, : self.length + k.shape[2]]
        kept[0, :, :, self.length :] = k
        kept[1, :, :, self.length :] = v
        return kept[0], kept[1]


@contextlib.contextmanager
def without_onednn(switch=True):
    """Inside, matrix products on the CPU go without oneDNN, if `switch` is true.

    Measured: in bfloat16 oneDNN prepares every product for longer than a single row takes to multiply.
    With one row, PyTorch's own loop is the faster one; with more rows oneDNN is, by far.
    """
    was = torch.backends.mkldnn.enabled
    torch.backends.mkldnn.enabled = was and not switch
    try:
        yield
    finally:
        torch.backends.mkldnn.enabled = was


def window_start(length, block_size):
    """Where the model's view begins in a text of `length` tokens.

    0 while the text fits. After that the view moves on by half a block at a time, not by one token:
    positions are absolute, so every move makes all cached keys and values stale.
    """
    if length <= block_size:
        return 0
    hop = max(block_size // 2, 1)
    return -(-(length - block_size) // hop) * hop


# ---------------------------------------------------------------- token after token


@torch.no_grad()
def stream(
    model, idx, max_new_tokens, temperature=1.0, top_k=None, top_p=None, generator=None, use_cache=True
):
    """Yield max_new_tokens tensors (B,), each the next token of every row of idx (B, T).

    `use_cache=False` runs the whole view through the model for every token, as the lessons do;
    both ways see the same view and give the same logits. Raises ValueError for bad settings.
    """
    check_prompt(model, idx)
    check_whole("max_new_tokens", max_new_tokens, least=0)
    use_cache = use_cache and isinstance(model, GPT)
    block_size = getattr(getattr(model, "config", model), "block_size", 1)  # not told, as in a bigram: 1
    was_training = model.training
    model.eval()
    length, begin = idx.shape[1], 0  # of the text so far; where the view of it begins
    view, cache = idx, KVCache(block_size)
    weight = next(model.parameters(), idx)  # a model of the reader's own may have none
    one_row = len(idx) == 1 and weight.dtype == torch.bfloat16 and weight.device.type == "cpu"
    try:
        for step in range(max_new_tokens):
            start = window_start(length, block_size)
            if start != begin:
                view, begin, cache.length = view[:, start - begin :], start, 0
            new = view[:, cache.length :] if use_cache else view
            with without_onednn(one_row and new.shape[1] == 1):
                logits, _ = model(new, cache=cache) if use_cache else model(view)
            logits = logits[:, -1]  # (B, V)
            if step == 0:  # once only: a GPU must wait for the answer
                check_sampling(logits, temperature, top_k, top_p)
            token = draw_token(next_token_probs(logits, temperature, top_k, top_p), generator)  # (B, 1)
            view = torch.cat([view, token], dim=1)
            length += 1
            yield token[:, 0]
    finally:
        model.train(was_training)


def generate(
    model, idx, max_new_tokens, temperature=1.0, top_k=None, top_p=None, generator=None, use_cache=True
):
    """idx (B, T) -> (B, T + max_new_tokens): the prompt and what the model wrote after it."""
    new = list(stream(model, idx, max_new_tokens, temperature, top_k, top_p, generator, use_cache))
    return torch.cat([idx, *(token.unsqueeze(1) for token in new)], dim=1)


def stream_text(model, tokenizer, prompt, max_new_tokens, stop=None, **sampling):
    """Yield what the model writes after `prompt` (str), piece by piece, each a str as soon as it is sure.

    sampling: temperature, top_k, top_p, generator, use_cache, as for stream. Ends after max_new_tokens, or
    before the first `stop` in the new text. What could be the beginning of `stop` is held back until the
    next tokens decide; of a byte-pair tokenizer only whole UTF-8 characters are yielded, and one that is
    unfinished at the end is dropped. An id beyond the tokenizer's has no text. "".join(...) is the text.
    Raises ValueError for an empty or unknown prompt and for bad settings.
    """
    check_text("prompt", prompt, "such as a newline")
    if stop is not None:
        check_text("stop", stop, "or None to write on")
    idx = tokenizer.encode(prompt).view(1, -1).to(next(model.parameters()).device)
    utf8 = codecs.getincrementaldecoder("utf-8")("replace")  # keeps unfinished characters for later
    held = ""
    for token in stream(model, idx, max_new_tokens, **sampling):
        if token.item() >= tokenizer.vocab_size:
            continue
        if isinstance(tokenizer, BytePairTokenizer):
            held += utf8.decode(tokenizer.pieces[token.item()])
        else:
            held += tokenizer.decode(token)
        if stop is not None and stop in held:
            held = held[: held.index(stop)]
            break
        sure = len(held) - overlap(held, stop or "")
        if sure:
            yield held[:sure]
            held = held[sure:]
    if held:
        yield held


def overlap(text, stop):
    """How many characters at the end of `text` could be the beginning of `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)


# ---------------------------------------------------------------- what is refused


def check_text(name, value, hint):
    """Raise ValueError unless value is a text of at least one character."""
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name}={shown(value)} must be a text of at least one character, {hint}.")


def check_prompt(model, idx):
    """Raise ValueError unless idx (B, T) has at least one token a row, all in the model's vocabulary."""
    check_kind("idx", idx, torch.Tensor, "a tensor (B, T), such as tokenizer.encode(prompt)[None]")
    if idx.dim() != 2 or 0 in idx.shape or idx.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"idx={shown(idx)} must be integers (B, T) with T of at least 1: encode a prompt.")
    check_in_vocabulary("idx", idx, model)


def check_sampling(logits, temperature, top_k, top_p):
    """Raise ValueError, naming argument and remedy, unless logits (B, V) can be drawn from like this."""
    check_number("temperature", temperature, above=0)
    if top_k is not None:
        check_whole("top_k", top_k, most=logits.shape[-1])
    if top_p is not None:
        check_number("top_p", top_p, above=0, most=1)
    if not torch.isfinite(F.softmax(logits.float(), dim=-1)).all():
        raise ValueError(
            "The model's logits are not finite: its weights are damaged; load a good checkpoint."
        )
    if temperature < 1e-20:  # float32 ends at 3e38: the quotient has to fit
        raise ValueError(
            f"temperature={shown(temperature)} is too small for float32: for the likeliest token use top_k=1."
        )
