"""The exercises of notebook 04: several heads, apart and together."""

import math
from itertools import combinations

import torch

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


def all_heads(q, k, v, n_head):
    """Causal heads side by side: q, k, v (B, T, C), of each head D = C / n_head channels -> (B, T, C)."""
    out = torch.zeros_like(v)
    D = v.shape[-1] // n_head
    for h in range(n_head):
        own = slice(h * D, (h + 1) * D)  # the channels of head h
        for t in range(v.shape[1]):
            scores = k[:, : t + 1, own] @ q[:, t, own].unsqueeze(-1) / D**0.5  # (B, t + 1, 1)
            out[:, t, own] = (scores.softmax(1) * v[:, : t + 1, own]).sum(1)
    return out


BUGS = {  # of the code in the notebook, and what is said of each that is left
    "the scale": "a head compares D channels, not C",
    "the softmax": "each query shares its weight among the keys",
    "the way back": "heads go behind time before they are joined",
}


def _all_heads(q, k, v, n_head, bugs):
    """The fast form with some of the BUGS."""
    B, T, C = q.shape
    q, k, v = (a.view(B, T, n_head, -1).transpose(1, 2) for a in (q, k, v))  # (B, H, T, D) each
    if "the scale" in bugs:
        q = q / n_head**0.5
    out = causal_scores(q, k).softmax(-2 if "the softmax" in bugs else -1) @ v
    return (out if "the way back" in bugs else out.transpose(1, 2)).reshape(B, T, C)


def _draw_all_heads(g, B, T, C):
    n_head = integer(g, 2, 4)
    return *normal(g, 3, B, T, n_head * C).unbind(0), n_head


EXERCISES["all_heads"] = Exercise(
    slow=all_heads,
    draw=_draw_all_heads,
    mistakes={
        f"Still wrong, {'; '.join(f'{bug}: {BUGS[bug]}' for bug in bugs)}.": (
            lambda q, k, v, n_head, bugs=bugs: _all_heads(q, k, v, n_head, bugs)
        )
        for n in (1, 2, 3)
        for bugs in combinations(BUGS, n)
    },
    causal=3,
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
