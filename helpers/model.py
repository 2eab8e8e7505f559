"""The models of the course, from the bigram table to the GPT, in the order in which they are built.

Letters in shapes: B sequences in a batch, T positions, C = n_embd channels, H heads,
D = C / H the size of a head, V tokens in the vocabulary.
"""

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from helpers.checks import check_settings, setting


class BigramLanguageModel(nn.Module):
    """Row i of one table holds the logits of what follows token i. (Notebook 02)"""

    def __init__(self, vocab_size):
        super().__init__()
        self.next_token_logits = nn.Embedding(vocab_size, vocab_size)
        nn.init.normal_(self.next_token_logits.weight, std=0.02)  # near zero: near uniform

    def forward(self, idx, targets=None):
        """idx (B, T) -> logits (B, T, V) and the mean cross-entropy in nats, None without targets."""
        logits = self.next_token_logits(idx)
        return logits, next_token_loss(logits, targets)


def next_token_loss(logits, targets):
    """Mean cross-entropy of logits (B, T, V) against targets (B, T), in nats. None stays None."""
    if targets is None:
        return None
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


class Head(nn.Module):
    """One head of causal self-attention: x (B, T, C) -> (B, T, D). (Notebook 03)

    Source: Vaswani et al. 2017 (arXiv:1706.03762), equation 1, with a causal mask.
    """

    def __init__(self, n_embd, head_size, block_size, dropout=0.0):
        super().__init__()
        self.query = nn.Linear(n_embd, head_size, bias=False)
        self.key = nn.Linear(n_embd, head_size, bias=False)
        self.value = nn.Linear(n_embd, head_size, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("mask", torch.tril(torch.ones(block_size, block_size)).bool())

    def weights(self, x):
        """x (B, T, C) -> attention weights (B, T, T); row t is zero right of column t and sums to 1."""
        T = x.shape[1]
        q, k = self.query(x), self.key(x)  # (B, T, D) each
        scores = q @ k.transpose(-2, -1) * k.shape[-1] ** -0.5  # (B, T, T)
        scores = scores.masked_fill(~self.mask[:T, :T], float("-inf"))
        return F.softmax(scores, dim=-1)

    def forward(self, x):
        return self.dropout(self.weights(x)) @ self.value(x)  # (B, T, T) @ (B, T, D)


class MultiHeadAttention(nn.Module):
    """H small heads side by side, then a projection that mixes them. (Notebook 04)"""

    def __init__(self, n_embd, n_head, block_size, dropout=0.0):
        super().__init__()
        head_size = n_embd // n_head
        self.heads = nn.ModuleList(Head(n_embd, head_size, block_size, dropout) for _ in range(n_head))
        self.proj = nn.Linear(n_embd, n_embd)
        self.dropout = nn.Dropout(dropout)

    def weights(self, x):
        """x (B, T, C) -> attention weights of every head (B, H, T, T)."""
        return torch.stack([head.weights(x) for head in self.heads], dim=1)

    def forward(self, x):
        out = torch.cat([head(x) for head in self.heads], dim=-1)  # (B, T, C)
        return self.dropout(self.proj(out))


class LanguageModel(nn.Module):
    """The frame around any body: embeddings in front, logits behind. (Notebook 03)

    The body maps (B, T, C) to (B, T, C). Notebooks 03 to 05 change the body and keep the frame.
    """

    def __init__(self, vocab_size, block_size, n_embd, body):
        super().__init__()
        self.block_size = block_size
        self.token_embedding = nn.Embedding(vocab_size, n_embd)
        self.position_embedding = nn.Embedding(block_size, n_embd)
        self.body = body
        self.lm_head = nn.Linear(n_embd, vocab_size)
        # GPT-2's start: small embeddings and logits, so the first guess is nearly uniform.
        for layer in (self.token_embedding, self.position_embedding, self.lm_head):
            nn.init.normal_(layer.weight, std=0.02)

    def forward(self, idx, targets=None):
        """idx (B, T) -> logits (B, T, V) and the mean cross-entropy in nats, None without targets."""
        positions = torch.arange(idx.shape[1], device=idx.device)
        x = self.token_embedding(idx) + self.position_embedding(positions)  # (B, T, C)
        logits = self.lm_head(self.body(x))  # (B, T, V)
        return logits, next_token_loss(logits, targets)


ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "gelu_tanh": lambda: nn.GELU("tanh")}


@dataclass(frozen=True)
class GPTConfig:
    """The shape of a GPT, in the field's (nanoGPT's) names. Checked when it is made."""

    vocab_size: int = setting(dataclasses.MISSING, "V, distinct tokens; from the text if not given")
    block_size: int = setting(64, "T, the longest context in tokens")
    n_layer: int = setting(4, "blocks")
    n_head: int = setting(4, "H, attention heads in a block")
    n_embd: int = setting(128, "C, channels of a position; a multiple of n_head")
    dropout: float = setting(0.0, "share of numbers set to 0 while training", least=0, below=1)
    activation: str = setting("relu", "gelu_tanh: GPT-2's approximation", tuple(ACTIVATIONS))
    position: str = setting("learned", "position vectors", ("learned", "sinusoidal"))
    bias: bool = setting(True, "in projections, feed-forward and layer norms")
    qkv_bias: bool = setting(False, "in query, key and value")
    head_bias: bool = setting(True, "in the final linear layer")
    tie_weights: bool = setting(False, "the token embedding is also the final linear layer")

    def __post_init__(self):
        check_settings(self)
        if self.n_embd % self.n_head:
            raise ValueError(
                f"n_embd={self.n_embd} does not divide into n_head={self.n_head} heads of equal size: "
                "make n_embd a multiple of n_head."
            )
        if self.position == "sinusoidal" and self.n_embd % 2:
            raise ValueError(f"n_embd={self.n_embd} must be even: sines and cosines come in pairs.")

    @property
    def head_size(self):
        return self.n_embd // self.n_head


def fast_dropout(x, p, training=True):
    """x with a share p of its numbers set to 0, and the others larger by as much: the mean stays.

    On a CPU PyTorch draws a random number for each of x, which takes a third of a training step. There each
    gets eight random bits, a whole number below 256, and what is below 256 p goes: p becomes a multiple of
    1/256, see true_dropout.
    """
    if not training or p == 0:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, p)
    limit = round(256 * true_dropout(p, x.device))
    bits = torch.empty((x.numel() + 7) // 8, dtype=torch.int64).random_(-(2**63), None)  # all 64 bits
    kept = bits.view(torch.uint8)[: x.numel()].view(x.shape) >= limit
    return x * kept.to(x.dtype).mul_(256 / (256 - limit))


def true_dropout(p, device):
    """The probability that dropout has on a device: p, on a CPU the nearest of 1/256, 2/256, ... 255/256."""
    return min(max(round(256 * p), 1), 255) / 256 if device.type == "cpu" and p else p


class Dropout(nn.Dropout):
    """nn.Dropout with the function above."""

    def forward(self, x):
        return fast_dropout(x, self.p, self.training)


class CausalSelfAttention(nn.Module):
    """All heads at once: one projection for q, k and v, one attention call. (Notebook 04)

    The same function as MultiHeadAttention, faster.
    """

    def __init__(self, config):
        super().__init__()
        self.n_head = config.n_head
        self.dropout_p = config.dropout
        self.qkv = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.qkv_bias)
        self.proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)
        self.dropout = Dropout(config.dropout)

    def split_heads(self, x):
        """x (B, T, C) -> q, k and v, each (B, H, T, D)."""
        B, T, C = x.shape
        qkv = self.qkv(x).view(B, T, 3, self.n_head, C // self.n_head)
        return qkv.permute(2, 0, 3, 1, 4).unbind(0)

    def weights(self, x):
        """x (B, T, C) -> attention weights of every head (B, H, T, T), as drawn in attention maps."""
        q, k, _ = self.split_heads(x)
        return attention_weights(q, k)

    def forward(self, x, cache=None):
        """x (B, T, C) -> (B, T, C). With a cache, x holds only the positions after those cached."""
        q, k, v = self.split_heads(x)
        if cache is not None:
            k, v = cache.append(self, k, v)
        out = attend(q, k, v, self.dropout_p if self.training else 0.0)  # (B, H, T, D)
        return self.dropout(self.proj(out.transpose(1, 2).flatten(2)))


def attend(q, k, v, dropout_p=0.0):
    """softmax(q k^T / sqrt(D) + mask) v: q (B, H, T_q, D), k and v (B, H, T_k, D) -> (B, H, T_q, D).

    The queries are those of the last T_q of T_k positions. Four ways to compute the same function, each
    for where it was the fastest when it was measured (on two x86 cores with bfloat16).
    """
    T_q, T_k = q.shape[2], k.shape[2]
    on_cpu = q.device.type == "cpu"
    if on_cpu and T_q == 1:
        # One new token may look at everything: no mask. In bfloat16 the fused kernel and the products
        # lose more here than it costs to widen keys and values to float32 (1 to 16 sequences at once).
        scores = q.float() @ k.float().transpose(-2, -1) * q.shape[-1] ** -0.5  # (B, H, 1, T_k)
        return (fast_dropout(F.softmax(scores, dim=-1), dropout_p) @ v.float()).to(q.dtype)
    if on_cpu and (q.dtype == torch.bfloat16 or dropout_p):
        # The plain form trains about three times as fast here as the fused kernel, whose backward pass
        # in bfloat16 is slow on a CPU, and whose dropout is PyTorch's. Everywhere else the kernel wins.
        return fast_dropout(attention_weights(q, k), dropout_p) @ v
    if T_q in (1, T_k):
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout_p, is_causal=T_q > 1)
    # New positions after cached ones: each may look at all that is cached, and at the new ones up to itself.
    mask = causal_mask(T_q, T_k, q.device)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout_p)


def causal_mask(T_q, T_k, device=None):
    """bool (T_q, T_k): may the i-th of the last T_q positions look at the j-th of T_k?"""
    return torch.ones(T_q, T_k, dtype=torch.bool, device=device).tril(T_k - T_q)


def attention_weights(q, k):
    """softmax(q k^T / sqrt(D) + mask): q (B, H, T_q, D), k (B, H, T_k, D) -> (B, H, T_q, T_k)."""
    mask = causal_mask(q.shape[2], k.shape[2], q.device)
    bias = torch.zeros_like(mask, dtype=q.dtype).masked_fill(~mask, float("-inf"))  # (T_q, T_k)
    # bias + scores / sqrt(D) in one pass over the largest tensor of the model
    scores = torch.add(bias, q @ k.transpose(-2, -1), alpha=q.shape[-1] ** -0.5)
    return F.softmax(scores, dim=-1)


class FeedForward(nn.Module):
    """Each position by itself: widen four times, apply the activation, narrow. (Notebook 05)"""

    def __init__(self, config):
        super().__init__()
        self.widen = nn.Linear(config.n_embd, 4 * config.n_embd, bias=config.bias)
        self.activation = ACTIVATIONS[config.activation]()
        self.narrow = nn.Linear(4 * config.n_embd, config.n_embd, bias=config.bias)
        self.dropout = Dropout(config.dropout)

    def forward(self, x):
        return self.dropout(self.narrow(self.activation(self.widen(x))))


class Block(nn.Module):
    """Communication, then computation, each added to the residual stream. (Notebook 05)

    Layer norm in front of each part ("pre-norm"): Xiong et al. 2020 (arXiv:2002.04745).
    """

    def __init__(self, config):
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.attn = CausalSelfAttention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.ffwd = FeedForward(config)

    def forward(self, x, cache=None):
        x = x + self.attn(self.ln_1(x), cache)
        return x + self.ffwd(self.ln_2(x))


def sinusoidal_positions(block_size, n_embd):
    """Fixed position vectors (T, C): sines and cosines of falling frequency.

    Source: Vaswani et al. 2017, section 3.5.
    """
    position = torch.arange(block_size).unsqueeze(1)  # (T, 1)
    frequency = torch.exp(-math.log(10000.0) * torch.arange(0, n_embd, 2) / n_embd)  # (C/2,)
    angles = position * frequency
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)  # sin, cos, sin, cos, ...


class GPT(nn.Module):
    """The decoder-only transformer. (Notebook 05)

    Source: Radford et al. 2019 (GPT-2); the names follow nanoGPT.
    """

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.n_embd)
        if config.position == "learned":
            self.position_embedding = nn.Embedding(config.block_size, config.n_embd)
        else:
            table = sinusoidal_positions(config.block_size, config.n_embd)
            self.position_embedding = nn.Embedding.from_pretrained(table, freeze=True)
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=config.head_bias)
        self.apply(self._init_weights)
        # Every block adds two terms to the residual stream. Shrinking each by sqrt(2 n_layer)
        # keeps the variance of the sum the same at any depth (GPT-2).
        for name, p in self.named_parameters():
            if name.endswith(("attn.proj.weight", "ffwd.narrow.weight")):
                nn.init.normal_(p, std=0.02 / math.sqrt(2 * config.n_layer))
        if config.tie_weights:
            self.lm_head.weight = self.token_embedding.weight

    def _init_weights(self, module):
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding) and module.weight.requires_grad:
            nn.init.normal_(module.weight, std=0.02)

    def forward(self, idx, targets=None, cache=None):
        """idx (B, T) -> logits (B, T, V) and the mean cross-entropy in nats, None without targets.

        With a cache (see generate.py), idx holds only the tokens after those already cached.
        """
        past = 0 if cache is None else cache.length
        T = past + idx.shape[1]
        positions = torch.arange(past, T, device=idx.device)
        x = self.dropout(self.token_embedding(idx) + self.position_embedding(positions))  # (B, T, C)
        for block in self.blocks:
            x = block(x, cache)
        if cache is not None:
            cache.length = T
        logits = self.lm_head(self.ln_f(x))  # (B, T, V)
        return logits, next_token_loss(logits, targets)


def count_parameters(model):
    """How many numbers training adjusts; tied weights count once, fixed tables not at all."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def check_in_vocabulary(name, ids, model):
    """Raise ValueError if ids (any shape) hold one that the model's first embedding does not know.

    Reads all ids, so it stands at the entry of a program, never in the loop of its steps.
    """
    vocab_size = next((m.num_embeddings for m in model.modules() if isinstance(m, nn.Embedding)), None)
    if vocab_size is None:  # a model of the reader's own, such as a table of counts
        return
    # Piece by piece: the ids of a large text, 16 bits each, need not fit into memory as int64.
    ends = torch.stack([torch.stack(piece.long().aminmax()) for piece in ids.reshape(-1).split(2**24)])
    lowest, highest = ends.min().item(), ends.max().item()
    if lowest < 0 or highest >= vocab_size:
        raise ValueError(
            f"{name} holds ids from {lowest} to {highest}, but the model knows 0 to "
            f"{vocab_size - 1}: encode the text with the model's own tokenizer."
        )


def parameter_table(config):
    """The parameters of GPT(config) by part, from the formula: a dict that sums to count_parameters.

    Nothing is built, so it is immediate at any size. n_head appears nowhere: heads only share out C.
    """
    C, T, V, L = config.n_embd, config.block_size, config.vocab_size, config.n_layer
    return {
        "token embedding": V * C,
        "position embedding": T * C if config.position == "learned" else 0,
        "attention": L * (4 * C * C + config.qkv_bias * 3 * C + config.bias * C),
        "feed-forward": L * (8 * C * C + config.bias * 5 * C),
        "layer norms": (2 * L + 1) * (C + config.bias * C),
        "final layer": (0 if config.tie_weights else V * C) + config.head_bias * V,
    }


def numbers_of(config):
    """How many numbers GPT(config) holds, those that training leaves alone included; nothing is built."""
    fixed = config.block_size * config.n_embd if config.position == "sinusoidal" else 0
    return sum(parameter_table(config).values()) + fixed


def activations_per_token(config):
    """Numbers that the forward pass of GPT(config) keeps for the backward pass, per token: an estimate.

    A block keeps the inputs and outputs of two layer norms (4 C), q, k and v (3 C), what attention
    returns (C) and the widened layer (4 C, twice with GELU); the end keeps 2 C and V. This holds for
    the fused attention kernel, which keeps no (T, T) scores, in float32 without dropout.
    """
    C, widened = config.n_embd, 4 if config.activation == "relu" else 8
    return config.n_layer * (8 + widened) * C + 2 * C + config.vocab_size


def training_memory(config, batch_size):
    """Bytes to train GPT(config) in float32 with AdamW, by part: 16 a parameter, and activations."""
    parameters = sum(parameter_table(config).values())
    tokens = batch_size * config.block_size
    return {
        "weights": 4 * parameters,
        "gradients": 4 * parameters,
        "AdamW's two moments": 8 * parameters,
        "activations": 4 * activations_per_token(config) * tokens,
    }


def flops_per_token(config):
    """Floating-point operations to train on one token: forward, and twice that backward.

    Six per weight that multiplies an activation, and 12 n_layer C T for attention.
    Source: Chowdhery et al. 2022 (PaLM, arXiv:2204.02311), appendix B.
    """
    C, T, V = config.n_embd, config.block_size, config.vocab_size
    weights = config.n_layer * 12 * C * C + V * C
    return 6 * weights + 12 * config.n_layer * C * T


@torch.no_grad()
def attention_maps(model, idx):
    """The attention weights of every attention layer for idx (B, T), from one evaluation pass.

    Returns a list with one tensor a layer: (B, H, T, T), H = 1 for a single Head. Causal rows sum to 1.
    """
    maps, hooks = [], []

    def record(module, inputs):
        w = module.weights(inputs[0])
        maps.append((w if w.dim() == 4 else w.unsqueeze(1)).float().cpu())

    was_training = model.training
    model.eval()
    nested = {head for m in model.modules() if isinstance(m, MultiHeadAttention) for head in m.heads}
    for module in model.modules():
        # A list of heads reports once for all its heads, not once more for each.
        if hasattr(module, "weights") and module not in nested:
            hooks.append(module.register_forward_pre_hook(record))
    try:
        model(idx)
    finally:
        for hook in hooks:
            hook.remove()
        model.train(was_training)
    return maps
