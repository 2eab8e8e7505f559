"""Imported by a kernel before a page imports its helpers: the processor computes as a T4 of Colab would.

- No bfloat16, which the processes that a page starts hear too. What the page trains where pick_device() sends
  it is trained in float16: that device is called cpu:0 here, so that it is not the processor that a page asks
  for by name, which stays with float32, as its processes do.
- A product in float16 is summed in float32 and rounded once, as a GPU does it. PyTorch's own way on a
  processor without such instructions was measured to take ten times as long for a step of course-cpu.
"""

import os
import warnings

import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import helpers.device

os.environ |= {"COURSE_DEVICE": "cpu:0", "ONEDNN_MAX_CPU_ISA": "AVX2"}
helpers.device.best_precision = lambda device: "float16" if device.index == 0 else "float32"
fused = F.scaled_dot_product_attention


def attention(q, *rest, **options):
    if q.dtype != torch.float16:
        return fused(q, *rest, **options)
    with sdpa_kernel(SDPBackend.MATH):  # the fused kernel's products are out of reach
        return fused(q, *rest, **options)


F.scaled_dot_product_attention = attention


def wide(dtype):
    return torch.float32 if dtype == torch.float16 else dtype


def mm(a, b):
    out = torch.empty(len(a), b.shape[1], dtype=wide(a.dtype))
    return torch.mm(a.to(out.dtype), b.to(out.dtype), out=out).to(a.dtype)


def bmm(a, b):
    out = torch.empty(len(a), a.shape[1], b.shape[2], dtype=wide(a.dtype))
    return torch.bmm(a.to(out.dtype), b.to(out.dtype), out=out).to(a.dtype)


def addmm(c, a, b, *, beta=1, alpha=1):
    out = torch.empty(len(a), b.shape[1], dtype=wide(a.dtype))
    c, a, b, dtype = c.to(out.dtype), a.to(out.dtype), b.to(out.dtype), a.dtype
    return torch.addmm(c, a, b, beta=beta, alpha=alpha, out=out).to(dtype)


products = torch.library.Library("aten", "IMPL")  # kept: what it holds ends with it
with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "Warning only once")  # that a product is defined anew
    for product in (mm, bmm, addmm):
        products.impl(product.__name__, product, "CPU")
