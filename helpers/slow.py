"""What each exercise asks for, as slow code: loops that say what is wanted, one number at a time.

The notebooks show it, and `check` in exercises.py holds a learner's answers against it.
B sequences, T positions, C channels, D the size of a head, H heads, V tokens in the vocabulary.
"""

import math
from itertools import pairwise

import torch
from torch.nn import functional as F

# ---------------------------------------------------------------- notebook 01


def bits_per_character(loss, n_tokens, n_characters):
    """loss in nats per token, for n_tokens that spell n_characters -> bits per character, a number."""
    bits = 0.0
    for _ in range(n_tokens):
        bits += loss / math.log(2)
    return bits / n_characters


def look_up(codes, vocabulary):
    """codes (N,) and vocabulary (V,), sorted, both int64 code points -> ids (N,) int64."""
    ids = torch.zeros_like(codes)
    for n in range(len(codes)):
        for i in range(len(vocabulary)):
            if vocabulary[i] == codes[n]:
                ids[n] = i
    return ids


def windows(ids, block_size, stride):
    """ids (N,) -> (number of windows, block_size + 1): the inputs, and one more id for the last target."""
    rows, start = [], 0
    while start + block_size + 1 <= len(ids):
        rows.append(ids[start : start + block_size + 1])
        start += stride
    return torch.stack(rows)


def most_frequent_pair(ids):
    """ids (N,) int64 -> two ints: the pair of neighbours that occurs most often; of equals, the largest."""
    best, most = None, 0
    for pair in pairwise(ids.tolist()):
        times = sum(pair == other for other in pairwise(ids.tolist()))
        if (times, pair) > (most, best):
            best, most = pair, times
    return best


# ---------------------------------------------------------------- notebook 02


def perplexity(losses, lengths):
    """losses (n,), the mean loss of each window in nats; lengths (n,), its tokens -> a number."""
    total, tokens = 0.0, 0
    for loss, length in zip(losses.tolist(), lengths.tolist()):
        for _ in range(length):
            total += loss
            tokens += 1
    return math.exp(total / tokens)


def cross_entropy(logits, targets):
    """logits (N, V), targets (N,) int64, where -100 is not counted -> the mean loss in nats, a number."""
    total, counted = 0.0, 0
    for row, target in zip(logits.double(), targets.tolist()):
        if target != -100:
            total += (row - row[target]).exp().sum().log().item()
            counted += 1
    return total / counted


def trigram_probabilities(ids, vocab_size, alpha):
    """ids (N,), alpha > 0 -> P (V, V, V) float32: P[i, j, k] is the chance of k after i, j."""
    P = torch.full((vocab_size, vocab_size, vocab_size), float(alpha))
    for i, j, k in zip(ids[:-2], ids[1:-1], ids[2:]):
        P[i, j, k] += 1
    for i in range(vocab_size):
        for j in range(vocab_size):
            P[i, j] /= P[i, j].sum()
    return P


def sample_ids(probs, u):
    """probs (B, V), u (B,) in [0, 1) -> (B,) int64: the first id where the running sum exceeds u."""
    ids = []
    for p, number in zip(probs, u):
        i, running = 0, p[0]
        while running <= number:
            i += 1
            running = running + p[i]
        ids.append(i)
    return torch.tensor(ids)


# ---------------------------------------------------------------- notebook 03


def causal_mean(x):
    """x (B, T, C) -> (B, T, C): position t is the mean of positions 0 to t."""
    out = torch.zeros_like(x)
    for t in range(x.shape[1]):
        for s in range(t + 1):
            out[:, t] += x[:, s] / (t + 1)
    return out


def softmax(scores):
    """scores (B, T, C), some of them -inf, never a whole row -> (B, T, C): rows of weights that sum to 1."""
    out = torch.zeros_like(scores)
    for b in range(scores.shape[0]):
        for t in range(scores.shape[1]):
            for c, score in enumerate(scores[b, t]):
                if score > float("-inf"):
                    out[b, t, c] = 1 / (scores[b, t] - score).exp().sum()
    return out


def attend(q, k, v):
    """One causal head: q, k, v (B, T, D) -> (B, T, D)."""
    out = torch.zeros_like(v)
    for b in range(q.shape[0]):
        for t in range(q.shape[1]):
            scores = torch.stack([q[b, t] @ k[b, s] for s in range(t + 1)]) / q.shape[-1] ** 0.5
            weights = scores.softmax(0)  # (t + 1,)
            for s in range(t + 1):
                out[b, t] += weights[s] * v[b, s]
    return out


def window_attend(q, k, v, window):
    """A head with a short memory: q, k, v (B, T, D) -> (B, T, D); t sees itself and window - 1 before."""
    out = torch.zeros_like(v)
    for b in range(q.shape[0]):
        for t in range(q.shape[1]):
            near = range(max(0, t - window + 1), t + 1)
            weights = torch.stack([q[b, t] @ k[b, s] / q.shape[-1] ** 0.5 for s in near]).softmax(0)
            for s, weight in zip(near, weights):
                out[b, t] += weight * v[b, s]
    return out


# ---------------------------------------------------------------- notebook 04


def merge_heads(x):
    """x (B, H, T, D) -> (B, T, H D): the channels of head 0, then those of head 1, and so on."""
    B, H, T, D = x.shape
    out = torch.zeros(B, T, H * D)
    for h in range(H):
        for d in range(D):
            out[:, :, h * D + d] = x[:, h, :, d]
    return out


def head_matrices(weight, n_head, head):
    """weight (3C, C), of the fused query, key and value -> (3, D, C): the three matrices of one head."""
    C = weight.shape[1]
    D = C // n_head
    out = torch.zeros(3, D, C)
    for part in range(3):
        for d in range(D):
            out[part, d] = weight[part * C + head * D + d]
    return out


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


def grouped_attend(q, k, v):
    """q (B, H, T, D), k and v (B, G, T, D), H a multiple of G -> (B, H, T, D): H / G heads share a key.

    Source: Ainslie et al. 2023 (arXiv:2305.13245), section 2.2.
    """
    out = torch.zeros_like(q)
    share = q.shape[1] // k.shape[1]
    for h in range(q.shape[1]):
        g = h // share  # the group of head h
        out[:, h] = F.scaled_dot_product_attention(q[:, h], k[:, g], v[:, g], is_causal=True)
    return out


# ---------------------------------------------------------------- notebook 05


def rms_norm(x, gamma, eps):
    """x (B, T, C), gamma (C,) -> (B, T, C): each vector over its root mean square, times gamma.

    Source: Zhang and Sennrich 2019 (arXiv:1910.07467), equation 4, with eps added to the mean square.
    """
    out = torch.zeros_like(x)
    for b in range(x.shape[0]):
        for t in range(x.shape[1]):
            square = sum(number**2 for number in x[b, t].tolist()) / x.shape[2]
            out[b, t] = gamma * x[b, t] / math.sqrt(square + eps)
    return out


def gpt2_parameters(vocab_size, block_size, n_layer, n_embd):
    """How many numbers GPT-2 learns -> an int. Biases everywhere but in the final layer, which is tied."""
    V, T, C = vocab_size, block_size, n_embd
    norm = [(C,), (C,)]
    attention = [(3 * C, C), (3 * C,), (C, C), (C,)]
    feed_forward = [(4 * C, C), (4 * C,), (C, 4 * C), (C,)]
    shapes = [(V, C), (T, C), *norm]
    for _ in range(n_layer):
        shapes += norm + attention + norm + feed_forward
    return sum(math.prod(shape) for shape in shapes)


def rotate(x, base=10000.0):
    """Rotary positions: x (B, H, T, D), D even -> (B, H, T, D).

    At position t channels 2 i and 2 i + 1 turn by the angle t base^(-2 i / D).
    Source: Su et al. 2021 (arXiv:2104.09864), equation 15.
    """
    out = torch.zeros_like(x)
    T, D = x.shape[2:]
    for t in range(T):
        for i in range(D // 2):
            angle = t * base ** (-2 * i / D)
            a, b = x[:, :, t, 2 * i], x[:, :, t, 2 * i + 1]
            out[:, :, t, 2 * i] = a * math.cos(angle) - b * math.sin(angle)
            out[:, :, t, 2 * i + 1] = a * math.sin(angle) + b * math.cos(angle)
    return out


# ---------------------------------------------------------------- notebook 06


def schedule(max_steps, warmup_steps, peak, floor):
    """Learning rates (max_steps,) float32: up in a line to peak, then half a cosine towards floor."""
    rates = []
    for step in range(max_steps):
        if step < warmup_steps:
            rates.append(peak * (step + 1) / warmup_steps)
        else:
            done = (step - warmup_steps) / (max_steps - warmup_steps)
            rates.append(floor + (peak - floor) * (1 + math.cos(math.pi * done)) / 2)
    return torch.tensor(rates)


def large_batch_gradient(gradients, sizes):
    """gradients (n, P), of the mean loss of n small batches of sizes (n,) -> (P,), of the large batch."""
    total = torch.zeros(gradients.shape[1])
    for gradient, size in zip(gradients, sizes.tolist()):
        for _ in range(size):
            total += gradient
    return total / sizes.sum()


def nucleus(probs, p):
    """probs (B, V), 0 < p < 1 -> (B, V): the fewest likeliest ids that reach p together, as probabilities.

    Source: Holtzman et al. 2019 (arXiv:1904.09751), section 3.1.
    """
    out = torch.zeros_like(probs)
    for row, kept in zip(probs, out):
        for i in row.argsort(descending=True):
            if kept.sum() < p:
                kept[i] = row[i]
        kept /= kept.sum()
    return out


def beam_search(log_probs, start, width):
    """log_probs (n, V, V): at step t, row i is for what follows id i -> (1 + n,) int64: the best ids found.

    After each step the width best continuations of all beams are kept.
    """
    beams = [(0.0, [start])]
    for table in log_probs:
        longer = []
        for total, ids in beams:
            longer += [(total + x, [*ids, i]) for i, x in enumerate(table[ids[-1]].tolist())]
        beams = sorted(longer, reverse=True)[:width]
    return torch.tensor(beams[0][1])


def cached_head(x, w_q, w_k, w_v, k, v):
    """A causal head on n new positions x (B, n, C), given k, v (B, P, D) of the P before -> (out, k, v).

    w_q, w_k and w_v are (D, C). out (B, n, D) is for the new positions; k, v (B, P + n, D) hold all.
    """
    k, v = torch.cat([k, x @ w_k.T], dim=1), torch.cat([v, x @ w_v.T], dim=1)
    out = torch.zeros_like(v[:, : x.shape[1]])
    past = k.shape[1] - x.shape[1]
    for b in range(x.shape[0]):
        for i in range(x.shape[1]):
            q, seen = w_q @ x[b, i], past + i + 1
            weights = (k[b, :seen] @ q / len(q) ** 0.5).softmax(0)  # (seen,)
            out[b, i] = weights @ v[b, :seen]
    return out, k, v
