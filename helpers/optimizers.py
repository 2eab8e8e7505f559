"""What turns gradients into steps: the learning-rate schedule, parameter groups, AdamW and Muon."""

import math
from collections import defaultdict

import torch

from helpers.device import bf16_is_fast


def learning_rate_factor(step, config):
    """What the peak learning rate is multiplied with at a step: linear warm-up, then half a cosine.

    Source: Loshchilov and Hutter 2017 (arXiv:1608.03983), equation 5, without restarts.
    """
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    floor = config.min_learning_rate_ratio
    progress = (step - config.warmup_steps) / max(config.max_steps - config.warmup_steps, 1)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(progress, 1)))


def orthogonalise(matrices, coefficients=(3.4445, -4.775, 2.0315), steps=5, eps=1e-7):
    """(N, rows, columns) -> the same directions, each now of strength (singular value) near 1.

    Every step applies the polynomial a s + b s^3 + c s^5 to each singular value s, by matrix
    products alone, in the dtype of `matrices`. Source: Newton-Schulz iteration of Jordan 2024 (Muon).
    """
    a, b, c = coefficients
    tall = matrices.shape[1] > matrices.shape[2]
    X = matrices.mT if tall else matrices  # the smaller side makes the smaller products
    X = X / X.norm(dim=(1, 2), keepdim=True).clamp(min=eps)
    for _ in range(steps):
        # baddbmm adds while it multiplies, faster than @ and +: see muon-products in program/bench.py.
        A = X @ X.mT
        B = torch.baddbmm(A, A, A, beta=b, alpha=c)  # b A + c A^2
        X = torch.baddbmm(X, B, X, beta=a)  # a X + B X
    return X.mT if tall else X


class Muon(torch.optim.Optimizer):
    """torch.optim.Muon with all matrices of one shape in one product.

    A small model has many small matrices, and for each PyTorch's class makes 15 products in turn, in
    bfloat16 even where that is slow. This one takes the precision that the machine is fast in.
    """

    def __init__(self, params, lr, momentum=0.95, weight_decay=0.1):
        """params: matrices only."""
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self):
        """Move every matrix that has a gradient."""
        for group in self.param_groups:
            same_shape = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    same_shape[p.shape].append(p)
            for (rows, columns), params in same_shape.items():
                self.step_together(params, group, strength=math.sqrt(max(1, rows / columns)))

    def step_together(self, params, group, strength):
        """One step of matrices of one shape; tall ones move further (Jordan 2024)."""
        updates = []
        for p in params:
            momentum = self.state[p].setdefault("momentum_buffer", torch.zeros_like(p))
            momentum.lerp_(p.grad, 1 - group["momentum"])
            updates.append(p.grad.lerp(momentum, group["momentum"]))  # Nesterov: look one step ahead
        dtype = torch.bfloat16 if bf16_is_fast(params[0].device) else torch.float32
        for p, update in zip(params, orthogonalise(torch.stack(updates).to(dtype))):
            p.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"] * strength)


def make_optimizers(model, config):
    """The optimizers of a run, a list of one or two; each group remembers its peak as "peak_lr".

    Matrices decay, vectors (biases, layer norms) do not. With optimizer="muon" the matrices of the
    blocks go to Muon, whose update has every singular value near 1; embeddings and the final layer, of
    which a token uses a row or has one of its own, stay with AdamW.
    """
    params = {name: p for name, p in model.named_parameters() if p.requires_grad}
    matrices = {}  # for Muon
    if config.optimizer == "muon":
        matrices = {n: p for n, p in params.items() if p.dim() == 2 and n.startswith("blocks.")}
    rest = [p for name, p in params.items() if name not in matrices]
    groups = [
        {"params": [p for p in rest if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in rest if p.dim() < 2], "weight_decay": 0.0},
    ]
    fused = next(model.parameters()).device.type != "mps"  # one kernel for all parameters
    betas = (config.beta1, config.beta2)
    optimizers = [torch.optim.AdamW(groups, config.learning_rate, betas, fused=fused)]
    if matrices:
        optimizers.append(
            Muon(matrices.values(), config.muon_learning_rate, weight_decay=config.weight_decay)
        )
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers
