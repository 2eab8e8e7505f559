"""The exercises of notebook 04: several heads, apart and together."""

import math

import torch
from torch.nn import functional as F

from helpers.exercises.exercise import Exercise, causal_scores, integer, normal, scale_mistakes

EXERCISES = {}


def merge_heads(x):
    """x (B, H, T, D) -> (B, T, H D): the channels of head 0, then those of head 1, and so on."""
    B, H, T, D = x.shape
    out = torch.zeros(B, T, H * D)
    for t in range(T):
        for h in range(H):
            out[:, t, h * D : (h + 1) * D] = x[:, h, t]
    return out


EXERCISES["merge_heads"] = Exercise(
    slow=merge_heads,
    draw=lambda g, B, T, C: (normal(g, B, integer(g, 2, 4), T, C),),
    no_loop="T",
    mistakes={
        "Heads and time are mixed: a transpose is missing before the reshape.": (
            lambda x: x.reshape(len(x), x.shape[2], -1)
        ),
        "The channels of one head should stand together.": lambda x: x.permute(0, 2, 3, 1).flatten(2),
        "This is the mean of the heads; they should stand side by side.": lambda x: x.mean(1),
    },
)


def head_matrices(weight, n_head, head):
    """weight (3C, C), of the fused query, key and value -> (3, D, C): the three matrices of one head."""
    C = weight.shape[1]
    D = C // n_head
    out = torch.zeros(3, D, C)
    for part in range(3):
        for d in range(D):
            out[part, d] = weight[part * C + head * D + d]
    return out


def _draw_head_matrices(g, B, T, C):
    n_head, D = integer(g, 2, 4), T + 1  # with T, so that longer cases take a loop more rounds
    return normal(g, 3 * n_head * D, n_head * D), n_head, integer(g, 0, n_head - 1)


EXERCISES["head_matrices"] = Exercise(
    slow=head_matrices,
    draw=_draw_head_matrices,
    no_loop="T",
    mistakes={
        "These rows are consecutive; a head has D in each of three places.": (
            lambda w, H, h: w.view(H, 3, -1, w.shape[1])[h]
        ),
        "These rows lie H apart; the D rows of a head stand together.": (
            lambda w, H, h: w.view(3, -1, H, w.shape[1])[:, :, h]
        ),
        "This is the next head: count from 0.": lambda w, H, h: head_matrices(w, H, (h + 1) % H),
        "This is the head before: count from 0.": lambda w, H, h: head_matrices(w, H, (h - 1) % H),
    },
)


def reach_without_permute(T, n_head):
    """bool (T, T): does output t of the form that leaves permute out depend on input j?"""
    out = torch.zeros(T, T, dtype=torch.bool)
    pieces = [j for j in range(T) for _ in range(n_head)]  # n_head pieces of D numbers a position
    for h in range(n_head):
        taken = pieces[h * T : (h + 1) * T]  # what head h takes for its positions 0 to T - 1
        for t in range(T):
            for s in range(t + 1):
                out[t, taken[s]] = True
    return out


def _sources(T, n_head):
    """The position that each piece of each head comes from, one-hot: (H, T, T)."""
    return F.one_hot((torch.arange(n_head * T) // n_head).view(n_head, T), T)


EXERCISES["reach_without_permute"] = Exercise(
    slow=reach_without_permute,
    draw=lambda g, B, T, C: (integer(g, 1, 4) * T + 1, integer(g, 1, 4)),
    no_loop="T",
    mistakes={
        "This is the right form, with permute; without it a head takes pieces of few positions.": (
            lambda T, n_head: torch.ones(T, T).tril().bool()
        ),
        "This is head 0 alone; output t joins what all heads have found.": (
            lambda T, n_head: _sources(T, n_head)[0].cumsum(0) > 0
        ),
        "This is one piece a head; position t of a head looks at its pieces 0 to t.": (
            lambda T, n_head: _sources(T, n_head).any(0)
        ),
        "Position t of a head looks at its pieces 0 to t, not at all of them.": (
            lambda T, n_head: torch.ones(T, T).bool()
        ),
        "Rows and columns are swapped: row t is for output t.": (
            lambda T, n_head: reach_without_permute(T, n_head).T
        ),
    },
)


def attention_entropy(weights):
    """weights (B, H, T, T), rows that sum to 1 -> (H,): the mean entropy of each head's rows, in nats."""
    B, H, T, _ = weights.shape
    out = torch.zeros(H)
    for b in range(B):
        for h in range(H):
            for t in range(T):
                for w in weights[b, h, t]:
                    if w > 0:
                        out[h] -= w * w.log() / (B * T)
    return out


_entr = torch.special.entr  # -w ln w, and 0 where w is 0

EXERCISES["attention_entropy"] = Exercise(
    slow=attention_entropy,
    draw=lambda g, B, T, C: (causal_scores(*normal(g, 2, B, C, T + 1, 4)).softmax(-1),),
    no_loop="T",
    mistakes={
        "These are bits; nats use the natural logarithm.": lambda w: attention_entropy(w) / math.log(2),
        "This is the entropy of the mean row; take the entropy first.": (
            lambda w: _entr(w.mean((0, 2))).sum(-1)
        ),
        "This is the sum over rows; take the mean.": lambda w: _entr(w).sum((0, 2, 3)),
        "Sum each row, then take the mean over rows.": lambda w: _entr(w).mean((0, 2, 3)),
        "This is one number per sequence, not per head.": lambda w: _entr(w).sum(-1).mean((1, 2)),
    },
)


def grouped_attend(q, k, v):
    """q (B, H, T, D), k and v (B, G, T, D), H a multiple of G -> (B, H, T, D): H / G heads share a key.

    Source: Ainslie et al. 2023 (arXiv:2305.13245), section 2.2.
    """
    out = torch.zeros_like(q)
    share = q.shape[1] // k.shape[1]
    for h in range(q.shape[1]):
        g = h // share  # the group of head h
        for t in range(q.shape[2]):
            scores = k[:, g, : t + 1] @ q[:, h, t].unsqueeze(-1) / q.shape[-1] ** 0.5  # (B, t + 1, 1)
            out[:, h, t] = (scores.softmax(1) * v[:, g, : t + 1]).sum(1)
    return out


def _draw_grouped(g, B, T, C):
    G, share = integer(g, 1, 2), integer(g, 1, 3)
    return normal(g, B, G * share, T, C), *normal(g, 2, B, G, T, C)


def _tiled(q, x):
    """x (B, G, T, D) -> (B, H, T, D), for q (B, H, T, D): groups 0 1 0 1 in place of 0 0 1 1."""
    return x.repeat(1, q.shape[1] // x.shape[1], 1, 1)


EXERCISES["grouped_attend"] = Exercise(
    slow=grouped_attend,
    draw=_draw_grouped,
    no_loop="T",
    mistakes={
        **scale_mistakes(grouped_attend),
        "The heads that share a key are neighbours: groups 0 0 1 1, not 0 1 0 1.": (
            lambda q, k, v: grouped_attend(q, _tiled(q, k), _tiled(q, v))
        ),
        "All heads use the first group.": lambda q, k, v: grouped_attend(q, k[:, :1], v[:, :1]),
        "The groups are averaged.": lambda q, k, v: grouped_attend(q, k.mean(1, True), v.mean(1, True)),
    },
    causal=3,
)
