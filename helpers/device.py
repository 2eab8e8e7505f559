"""Where to compute and in which precision: device, autocast, and several processes at once."""

import contextlib
import ctypes
import os
import platform
import subprocess
import sys

import torch
from torch import distributed

from helpers.checks import shown

PRECISIONS = ("float32", "bfloat16", "float16")

# ---------------------------------------------------------------- one device


def pick_device(name=None):
    """The device to train on: `name`, else COURSE_DEVICE, else cuda, mps or cpu, the first there is.

    Raises ValueError, with the reason, if this machine cannot use it.
    """
    if name is None:
        name = os.environ.get("COURSE_DEVICE") or None
    if name is None:
        name = "cpu"
        if torch.cuda.is_available():
            name = "cuda"
        elif torch.backends.mps.is_available():
            name = "mps"
    try:
        device = torch.device(name)
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))  # torchrun: a GPU a process
        torch.empty(1, device=device)
    except torch.OutOfMemoryError:
        raise ValueError(
            f"The memory of {device} is full: end the other programs that use it, or use cpu."
        ) from None
    except (RuntimeError, AssertionError, TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise ValueError(
            f"The device {shown(name)} is not there, or does not work ({reason}): "
            "use cpu, or leave it to be chosen."
        ) from None
    return device


def bf16_is_fast(device):
    """Has the device bfloat16 arithmetic in hardware? Without it bfloat16 is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        # A limit set from outside counts too, so that one machine can stand in for an older one.
        limits = os.environ.get("ATEN_CPU_CAPABILITY", ""), os.environ.get("ONEDNN_MAX_CPU_ISA", "")
        older = limits[0] in ("default", "avx2") or limits[1] in ("SSE41", "AVX", "AVX2")
        try:
            return torch.cpu._is_avx512_bf16_supported() and not older
        except AttributeError:  # a build of torch for another kind of processor
            return False
    return False


def best_precision(device):
    """What precision="auto" means: bfloat16 where it is fast, float16 on older GPUs, else float32."""
    if bf16_is_fast(device):
        return "bfloat16"
    return "float16" if device.type == "cuda" else "float32"


def precision_context(device, precision):
    """The autocast context for "bfloat16" or "float16", one that does nothing for "float32"."""
    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=getattr(torch, precision))


@contextlib.contextmanager
def tensor_floats(device):
    """Inside, a GPU multiplies what is in float32 as TF32: 10 bits of fraction in place of 23, and faster."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if device.type == "cuda" else before)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def keep_freed_memory():
    """Let this process keep the memory that a training step frees, for the next step. Linux with glibc.

    Otherwise the C library hands large tensors back to the system after use, and the system clears
    every page again when the next step asks: a quarter of a step's time on a CPU (helpers/program/bench.py).
    Up to 1 GiB stays with the process; its peak stays as it is. Source: man 3 mallopt.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library has other ways
        return
    trim_threshold, mmap_threshold = -1, -3  # numbers from malloc.h
    mallopt(trim_threshold, 2**30)  # bytes that may lie free before any are handed back
    mallopt(mmap_threshold, 2**25)  # larger tensors do go back: the holes they leave would cost more


def compiled_if_possible(loss_of, model, batch, device):
    """torch.compile(loss_of) after three passes there and back, and how it runs; (loss_of, "") without."""
    # CUDA graphs replay a pass with one launch. Gradients that stay for the second part of a batch, or
    # travel between processes, do not fit into that.
    graphs = device.type == "cuda" and len(batch) == 1 and world_size() == 1
    # What an earlier run of this process has compiled would make PyTorch take sizes for variable, which is
    # slow, and give up after a few runs.
    torch.compiler.reset()
    (gives_up,) = any_process(device, not can_compile(device))
    if gives_up:
        return loss_of, ""
    fast = torch.compile(loss_of, mode="reduce-overhead" if graphs else "default", dynamic=False)
    # Dropout draws here too; fork_rng leaves the run's own random state as it was.
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        for _ in range(3):  # compile, record a CUDA graph, replay it
            fast(*batch[0]).backward()
            model.zero_grad(set_to_none=True)  # a graph cannot add to what lies in its own memory
    return fast, "inductor with CUDA graphs" if graphs else "inductor"


def can_compile(device):
    """Does torch.compile work here? Tried on one line, since in a pass processes wait for each other.

    Raises what that raises, but for what a machine without compiler or Triton or an old GPU says.
    """
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.zeros(1, device=device))
    except Exception as error:
        if not cannot_compile(error):
            raise
        print(f"torch.compile does not work here ({type(error).__name__}): training without it.")
        return False
    return True


def cannot_compile(error):
    """Is this what a machine without compiler or Triton says, or a GPU that Triton does not know?"""
    from torch._inductor import exc  # here, as it takes a second to load

    reason = getattr(error, "inner_exception", error)
    kinds = exc.TritonMissing, exc.GPUTooOldForTriton, exc.InvalidCxxCompiler, exc.CppCompileError
    return isinstance(reason, (*kinds, ImportError, subprocess.CalledProcessError)) or (
        "C compiler" in str(reason)  # Triton's own RuntimeError has no kind of its own
    )


def hardware(device):
    """One line that names what a run was computed on."""
    several = f"{world_size()} x " if world_size() > 1 else ""
    if device.type == "cuda":
        return several + torch.cuda.get_device_name(device)
    flag = "with" if bf16_is_fast(device) else "without"
    return f"{several}{device.type}, {platform.machine()}, {torch.get_num_threads()} threads, {flag} bfloat16"


# ---------------------------------------------------------------- several processes


@contextlib.contextmanager
def process_group(device):
    """Join the processes that torchrun started, if it did: NCCL on GPUs, gloo on CPUs."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
        # Leave together: a process that ended in the middle of another's work was seen to crash at its exit.
        distributed.barrier()
    finally:
        distributed.destroy_process_group()


def end_at_once():
    """End this process, well, without Python's clean-up: for one of several, when all its work is done.

    DistributedDataParallel leaves threads behind even when the process group is gone. Where one of them lets
    go of its last tensor while Python is ending, it takes the process down (SIGABRT, seen on a busy machine).
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def world_size():
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank():
    """The number of this process; 0 is the one that reports and saves."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def barrier():
    """Go on when every process has come here."""
    if world_size() > 1:
        distributed.barrier()


@contextlib.contextmanager
def rank_0_first():
    """What stands inside, process 0 does alone; then the others do it, and can use what it left."""
    if rank() != 0:
        barrier()
    try:
        yield
    finally:
        if rank() == 0:
            barrier()


def all_gather(values):
    """A tensor of every process, the same shape in each, stacked in the order of their ranks."""
    if world_size() == 1:
        return values[None]
    parts = [torch.empty_like(values) for _ in range(world_size())]
    distributed.all_gather(parts, values)
    return torch.stack(parts)


def all_reduce_mean(values):
    """The mean of a tensor over all processes, the same in each; just values where there is one."""
    if world_size() > 1:
        values = values.clone()
        distributed.all_reduce(values)
        values /= world_size()
    return values


def any_process(device, *wishes):
    """For each wish, a bool: does any process have it? So that all stop, or save, at the same step."""
    if world_size() == 1:
        return wishes
    votes = torch.tensor(wishes, dtype=torch.float32, device=device)
    distributed.all_reduce(votes, distributed.ReduceOp.MAX)
    return (votes > 0).tolist()
