"""Imported by a kernel before a page imports its helpers: the processor computes as a T4 of Colab would.

- No bfloat16; what the page trains where pick_device() sends it is trained in float16. That device is called
  cpu:0 here, so that it is not the processor that a page asks for by name, which stays with float32.
- A product in float16 is summed in float32 and rounded once, as a GPU does it. PyTorch's own way on a
  processor without such instructions was measured to take ten times as long for a step of course-cpu.
"""

import os
import warnings

import torch

import helpers.device

os.environ["COURSE_DEVICE"] = "cpu:0"
torch.backends.cuda.enable_flash_sdp(False)  # not CUDA's alone; the products inside it are out of reach
helpers.device.bf16_is_fast = lambda device: False
helpers.device.best_precision = lambda device: "float16" if device.index == 0 else "float32"


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
