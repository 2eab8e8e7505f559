"""Sampling from a trained model: one token after another, with a key/value cache."""

import codecs
from contextlib import contextmanager
from numbers import Integral, Real

import torch
from torch.nn import functional as F

from helpers.checks import check_flag, check_kind, check_whole, shown
from helpers.model import GPT, check_in_vocabulary, check_model
from helpers.tokenizer import BytePairTokenizer


def next_token_probs(logits, temperature=1.0, top_k=None, top_p=None):
    """Logits (..., V) -> probabilities (..., V) after temperature, top-k and top-p, in that order.

    temperature < 1 sharpens, > 1 flattens. top_k keeps the k likeliest tokens. top_p keeps the
    smallest set of likeliest tokens whose probabilities reach p (Holtzman et al. 2019, arXiv:1904.09751).
    """
    if not torch.is_tensor(logits) or logits.dim() == 0 or not logits.is_floating_point():
        raise ValueError(f"logits={shown(logits)} must be real numbers (..., V): take them from a model.")
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
    number = isinstance(temperature, Real) and not isinstance(temperature, bool)
    if not number or not 0 < temperature < float("inf"):
        raise ValueError(
            f"temperature={shown(temperature)} must be above 0; for the likeliest token alone use top_k=1."
        )
    whole = isinstance(top_k, Integral) and not isinstance(top_k, bool)
    if top_k is not None and not (whole and 1 <= top_k <= vocab_size):
        raise ValueError(
            f"top_k={shown(top_k)} must lie between 1 and the vocabulary size, {vocab_size}: "
            "give a whole number, or None for no limit."
        )
    number = isinstance(top_p, Real) and not isinstance(top_p, bool)
    if top_p is not None and not (number and 0 < top_p <= 1):
        raise ValueError(f"top_p={shown(top_p)} must be above 0 and at most 1.")


def draw_token(probs, generator=None):
    """Draw one token a row from probs (B, V): int64 (B, 1), the same draw as torch.multinomial.

    A race: token i arrives after an exponential time of rate probs[i], and is first with just that
    probability. multinomial runs the same race, but checks probs first, and a GPU must wait for that.
    """
    return (probs / torch.empty_like(probs).exponential_(generator=generator)).argmax(-1, keepdim=True)


class KVCache:
    """Keys and values of the positions seen so far, per attention layer, in memory for block_size of them.

    The memory is taken once, at the first append: (2, B, H, block_size, D) in the dtype of the keys.
    Growing it by torch.cat would copy all that is kept for every new token. `length` is moved on by the
    model when all its layers have appended; to start anew, set it to 0.
    """

    def __init__(self, block_size):
        check_whole("block_size", block_size)
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


@contextmanager
def plain_products(switch=True):
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


@torch.no_grad()
def stream(
    model, idx, max_new_tokens, temperature=1.0, top_k=None, top_p=None, generator=None, use_cache=True
):
    """Yield max_new_tokens tensors (B,), each the next token of every row of idx (B, T).

    `use_cache=False` runs the whole view through the model for every token, as the lessons do;
    both ways see the same view and give the same logits. Raises ValueError for bad settings.
    """
    check_prompt(model, idx)
    check_count(max_new_tokens)
    check_kind("generator", generator, torch.Generator | None, "a torch.Generator, or None")
    check_flag("use_cache", use_cache)
    use_cache = use_cache and isinstance(model, GPT)
    block_size = getattr(getattr(model, "config", model), "block_size", 1)  # a bigram sees 1
    was_training = model.training
    model.eval()
    length, begin = idx.shape[1], 0  # of the text so far; where the view of it begins
    view, cache = idx, KVCache(block_size)
    weight = next(model.parameters())
    one_row = len(idx) == 1 and weight.dtype == torch.bfloat16 and weight.device.type == "cpu"
    try:
        for step in range(max_new_tokens):
            start = window_start(length, block_size)
            if start != begin:
                view, begin, cache.length = view[:, start - begin :], start, 0
            if use_cache:
                new = view[:, cache.length :]
                with plain_products(one_row and new.shape[1] == 1):
                    logits, _ = model(new, cache=cache)
            else:
                logits, _ = model(view)
            probs = next_token_probs(logits[:, -1], temperature, top_k, top_p)  # (B, V)
            if step == 0:  # once only: a GPU must wait for the answer
                check_probs(probs)
            token = draw_token(probs, generator)  # (B, 1)
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


def stream_text(
    model,
    tokenizer,
    prompt,
    max_new_tokens,
    temperature=1.0,
    top_k=None,
    top_p=None,
    generator=None,
    use_cache=True,
    stop=None,
):
    """Yield what the model writes after `prompt` (str), piece by piece, each a str as soon as it is sure.

    Ends after max_new_tokens, or before the first `stop` in the new text. What could be the beginning
    of `stop` is held back until the next tokens decide; of a byte-pair tokenizer only whole UTF-8
    characters are yielded, and one that is unfinished at the end is dropped. "".join(...) is the text.
    Raises ValueError for an empty or unknown prompt and for bad settings.
    """
    check_model(model)
    if not isinstance(prompt, str) or not prompt:
        raise ValueError(
            f"prompt={shown(prompt)} must be a text of at least one character, such as a newline."
        )
    if stop is not None and (not isinstance(stop, str) or not stop):
        raise ValueError(f"stop={shown(stop)} must be a text of at least one character, or None to write on.")
    if not hasattr(tokenizer, "vocab_size"):
        raise ValueError(f"tokenizer={shown(tokenizer)} cannot encode: give the one of the model's text.")
    device = next(model.parameters()).device
    idx = tokenizer.encode(prompt).view(1, -1).to(device)
    utf8 = codecs.getincrementaldecoder("utf-8")("replace")  # keeps unfinished characters for later
    held = ""
    for token in stream(model, idx, max_new_tokens, temperature, top_k, top_p, generator, use_cache):
        piece = tokenizer.decode(token)
        if isinstance(tokenizer, BytePairTokenizer):
            piece = utf8.decode(tokenizer.pieces[token.item()])
        held += piece
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


def check_prompt(model, idx):
    """Raise ValueError unless idx (B, T) has at least one token a row, all in the model's vocabulary."""
    check_model(model)
    check_kind("idx", idx, torch.Tensor, "a tensor (B, T), such as tokenizer.encode(prompt)[None]")
    if idx.dim() != 2 or 0 in idx.shape:
        raise ValueError(
            f"idx of shape {tuple(idx.shape)} must be (B, T) with T of at least 1: "
            "encode a prompt, or start from a newline."
        )
    if idx.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"idx of dtype {idx.dtype} must hold integers: encode a prompt with the tokenizer.")
    check_in_vocabulary("idx", idx, model)


def check_count(max_new_tokens):
    """Raise ValueError unless max_new_tokens is a whole number of at least 0."""
    if not isinstance(max_new_tokens, Integral) or isinstance(max_new_tokens, bool) or max_new_tokens < 0:
        raise ValueError(f"max_new_tokens={shown(max_new_tokens)} must be at least 0, and a whole number.")


def check_probs(probs):
    """Raise ValueError if there is nothing to draw from: the weights of the model are NaN or infinite."""
    if not torch.isfinite(probs).all():
        raise ValueError(
            "The model's logits are not finite: its weights are damaged; load a good checkpoint."
        )
