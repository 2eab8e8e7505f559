"""The exercises of notebook 08: bytes as ids, bits, a merge, a head of GPT-2, and all cuts of a text."""

import math
from itertools import pairwise

import torch

from helpers.exercises.exercise import Exercise, causal_scores, integer, integers, normal
from helpers.program.gpt2 import BYTE_LETTERS

EXERCISES = {}


def byte_ids(raw):
    """Bytes (N,), int64 from 0 to 255 -> their ids in GPT-2's vocabulary (N,) int64."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    order = visible + [byte for byte in range(256) if byte not in visible]
    ids = torch.zeros_like(raw)
    for n in range(len(raw)):
        ids[n] = order.index(raw[n])
    return ids


_ORDER = torch.tensor(list(BYTE_LETTERS))  # the byte of each id


EXERCISES["byte_ids"] = Exercise(
    slow=byte_ids,
    draw=lambda g, B, T, C: (integers(g, 0, 255, 6 * T),),
    no_loop="T",
    mistakes={
        "This is the byte that has such an id: turn the table round.": lambda raw: _ORDER[raw],
        "These are the bytes themselves.": lambda raw: raw,
        "The visible bytes have gaps: byte 161 follows 126.": lambda raw: (raw - 33) % 256,
        "The bytes that are no visible characters come last, not first.": (
            lambda raw: (_ORDER.argsort()[raw] + 68) % 256
        ),
    },
)


def bits_per_character(losses, lengths):
    """Losses (N,) in nats, of N tokens of these lengths (N,) in characters -> bits per character, ()."""
    bits = characters = 0.0
    for loss, length in zip(losses, lengths):
        bits += loss / math.log(2)
        characters += length
    return bits / characters


EXERCISES["bits_per_character"] = Exercise(
    slow=bits_per_character,
    draw=lambda g, B, T, C: (normal(g, 3 * T).abs(), integers(g, 1, 9, 3 * T)),
    no_loop="T",
    mistakes={
        "A short token counts as much as a long one: divide the sums.": (
            lambda losses, n: (losses / n).mean() / math.log(2)
        ),
        "These are bits per token.": lambda losses, n: losses.mean() / math.log(2),
        "These are nats: a bit is ln 2 nats.": lambda losses, n: losses.sum() / n.sum(),
        "Divide by ln 2: there are more bits than nats.": lambda losses, n: (
            losses.sum() * math.log(2) / n.sum()
        ),
    },
)


def merge(ids, a, b, new):
    """ids (N,) int64 -> ids with every pair a, b replaced by new, from left to right."""
    out = []
    for i in ids:
        if out and out[-1] == a and i == b:
            out[-1] = new
        else:
            out.append(i)
    return torch.tensor(out)


def _merged(ids, hit, new):
    """ids in which new stands where hit (N - 1,) is true, and the id after it is gone."""
    out = torch.where(torch.cat([hit, hit.new_zeros(1)]), new, ids)
    return out[~torch.cat([hit.new_zeros(1), hit])]


EXERCISES["merge"] = Exercise(
    slow=merge,
    draw=lambda g, B, T, C: (integers(g, 0, 2, 8 * T), integer(g, 0, 2), integer(g, 0, 2), 9),
    no_loop="T",
    mistakes={
        "Pairs must not overlap: of a, a, a the first two become one, and the third stays.": (
            lambda ids, a, b, new: _merged(ids, (ids[:-1] == a) & (ids[1:] == b), new)
        ),
        "This is the pair b, a.": lambda ids, a, b, new: merge(ids, b, a, new),
        "In a row of equal ids go from left to right.": lambda ids, a, b, new: merge(
            ids.flip(0), b, a, new
        ).flip(0),
        "new is not used.": lambda ids, a, b, new: merge(ids, a, b, new).where(
            merge(ids, a, b, new) != new, a
        ),
    },
)


def gpt2_head(x, w, b, n_head, h):
    """Head h of GPT-2 on x (B, T, C), with w (C, 3 C) and b (3 C,) of its c_attn -> (B, T, D)."""
    B, T, C = x.shape
    D = C // n_head
    out = torch.zeros(B, T, D)
    for i in range(B):
        for t in range(T):
            q, k, v = (x[i, : t + 1] @ w + b).split(C, dim=1)  # (t + 1, C) each
            q, k, v = (part[:, h * D : (h + 1) * D] for part in (q, k, v))
            weights = (k @ q[t] / D**0.5).softmax(0)  # (t + 1,)
            out[i, t] = weights @ v
    return out


def _head_first(x, w, b, n_head, h):
    """As if the file held q, k and v of head 0, then those of head 1, and so on."""
    columns = torch.arange(len(b)).view(n_head, 3, -1).transpose(0, 1).flatten()
    return gpt2_head(x, w[:, columns], b[columns], n_head, h)


def _head_of(x, w, b, n_head, h, scale):
    """One head without a loop, with another scale."""
    q, k, v = ((part.unflatten(-1, (n_head, -1))[..., h, :]) for part in (x @ w + b).chunk(3, -1))
    return causal_scores(q * q.shape[-1] ** 0.5 / scale, k).softmax(-1) @ v


EXERCISES["gpt2_head"] = Exercise(
    slow=gpt2_head,
    draw=lambda g, B, T, C: (
        normal(g, B, T, 2 * C),
        normal(g, 2 * C, 6 * C),
        normal(g, 6 * C),
        2,
        integer(g, 0, 1),
    ),
    no_loop="BT",
    mistakes={
        "The file holds q of all heads, then k, then v; not head after head.": _head_first,
        "The bias is missing.": lambda x, w, b, n_head, h: gpt2_head(x, w, 0 * b, n_head, h),
        "The scale is missing: divide the scores by sqrt(D).": (
            lambda x, w, b, n_head, h: _head_of(x, w, b, n_head, h, scale=1.0)
        ),
        "The scale is that of a head: sqrt(D), not sqrt(C).": (
            lambda x, w, b, n_head, h: _head_of(x, w, b, n_head, h, scale=x.shape[-1] ** 0.5)
        ),
        "This is another head: h counts from 0.": (
            lambda x, w, b, n_head, h: gpt2_head(x, w, b, n_head, 1 - h)
        ),
    },
    causal=1,
)


def all_cuts(log_probs):
    """log_probs (N, N): entry i, j is for the piece from character i to j -> log-probability of the text, ().

    The text has N characters, and its probability is the sum over all ways to cut it. Source: Kudo 2018
    (arXiv:1804.10959), section 3.
    """
    N, total = len(log_probs), 0.0
    for number in range(2 ** (N - 1)):  # its bits say where to cut
        cuts = [0, *(i for i in range(1, N) if number >> (i - 1) & 1), N]
        total += sum(log_probs[i, j - 1] for i, j in pairwise(cuts)).exp()
    return total.log()


def _best_cut(log_probs, join=torch.amax):
    """The same recursion with another way to join what ends at one place."""
    totals = [torch.tensor(0.0)]
    for j in range(len(log_probs)):
        totals.append(join(torch.stack(totals) + log_probs[: j + 1, j], 0))
    return totals[-1]


EXERCISES["all_cuts"] = Exercise(
    slow=all_cuts,
    draw=lambda g, B, T, C: (-3 * normal(g, T + 2, T + 2).abs(),),
    mistakes={
        "This is the best cut alone: add up the probabilities of all.": _best_cut,
        "Probabilities add up, their logarithms do not.": lambda p: _best_cut(p, torch.sum),
        "This is the cut into single characters.": lambda p: p.diagonal().sum(),
        "This is the text as one piece.": lambda p: p[0, -1],
        "The logarithm is missing: this is the probability.": lambda p: all_cuts(p).exp(),
    },
)
