"""The GPT, the trainer and generation on fake CUDA tensors: `make test-fake-cuda`, without a GPU.

A fake tensor has a shape, a dtype and a device, but no numbers (torch._subclasses.fake_tensor), so every
operation of a run on a GPU can be followed on a machine that has none, if torch was built for CUDA. This
finds every tensor on the wrong device, every generator on the wrong device, and every place inside the
steps of training where a GPU would have to be waited for. It says nothing about numbers, speed or memory,
and does not see what torch.compile makes of a step: tests/test_cuda.py does, on a real GPU.

Prints one line for each thing traced, "ok" or "FAILED"; exits with 1 if one failed. Stand-ins, where
numbers or a driver would be needed:
- A number that is read (.item(), .tolist(), a condition) is 0.0, 1 or True: all is finite, every id is in
  the vocabulary, float16 did not overflow. Traced "with an overflow" it is 1.0, 1 or False.
- What is asked of the driver: one GPU of compute capability 9.0, for float16 of 7.5 (a T4); its random
  state is a row of zeros; waiting for it takes no time.
- torch.compile(f) is f, so its warm-up passes are traced as plain ones. It raises where the real one would
  compile a second time: for inputs of another layout, or when TF32 has been switched on or off in between.
- model.to(device) puts new parameters in the place of the old ones; torch keeps the objects, but cannot do
  that with fake ones. Tied weights stay tied, and what is on the device already stays as it is.
- The engine of loss.backward() wants a driver: a loop in Python calls the same functions of the graph.
- Pinned memory is remembered by name only. A generator is compared with the device of what it fills, then
  left out. Attention is the plain form of scaled_dot_product_attention: which of its kernels a GPU takes
  is up to the driver.
"""

import contextlib
import itertools
import sys
import traceback
from collections import Counter, defaultdict
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from helpers.generate import KVCache, generate, stream_text
from helpers.model import GPT, GPTConfig, LanguageModel, MultiHeadAttention, attention_maps
from helpers.train import (
    Callbacks,
    TrainConfig,
    batch_in_parts,
    begin,
    evaluate,
    one_step,
    prepare,
    read_losses,
    train,
)

HELPERS = Path(__file__).resolve().parent.parent / "helpers"
CUDA = torch.device("cuda", 0)
V, T = 11, 8
PRECISIONS = ("float32", "bfloat16", "float16")
aten = torch.ops.aten

# ---------------------------------------------------------------- stand-ins


class FakeCuda(FakeTensorMode):
    """FakeTensorMode that never asks for the driver, although torch.cuda.is_available() says True here."""

    avoid_device_init = True


def moved(module, device):
    """What model.to(device) comes to, see the top."""
    new = {}

    def once(tensor):
        if tensor.device == torch.device(device):
            return tensor
        if id(tensor) not in new:
            copy = tensor.detach().to(device)
            is_parameter = isinstance(tensor, nn.Parameter)
            new[id(tensor)] = nn.Parameter(copy, tensor.requires_grad) if is_parameter else copy
        return new[id(tensor)]

    for part in module.modules():
        for tensors in (part._parameters, part._buffers):
            tensors.update({name: once(t) for name, t in tensors.items() if t is not None})
    return module


def compiled(function, **options):
    """What torch.compile(function) comes to, see the top."""
    seen = []

    def run(*inputs):
        layouts = [(tuple(x.shape), x.stride(), x.dtype, x.device) for x in inputs]
        seen.append((torch.get_float32_matmul_precision(), torch.is_grad_enabled(), layouts))
        if seen[-1] != seen[0]:
            raise RuntimeError(f"would be compiled again: first {seen[0]}, now {seen[-1]}")
        return function(*inputs)

    return run


def as_expected(gradient, expected):
    """The checks of torch's engine: a gradient is summed to the shape of what it belongs to, and compared."""
    if gradient.device != expected.device:
        raise RuntimeError(f"a gradient on {gradient.device} for a tensor on {expected.device}")
    return gradient.sum_to_size(expected.shape).to(expected.dtype)


@torch.no_grad()
def backward(loss, *options, **named_options):
    """What loss.backward() comes to, see the top: every function of the graph once, the last one first."""
    root, uses, todo = loss.grad_fn, Counter(), [loss.grad_fn]
    while todo:  # how many gradients a function has to wait for
        for following, _ in todo.pop().next_functions:
            if following is not None:
                uses[following] += 1
                if uses[following] == 1:
                    todo.append(following)
    arrived, ready = defaultdict(dict), [root]
    arrived[root][0] = torch.ones_like(loss)
    while ready:
        function = ready.pop()
        gradients = arrived.pop(function)
        results = function(*(gradients.get(i) for i in range(len(function._input_metadata))))
        results = results if isinstance(results, tuple) else (results,)
        for (following, i), gradient in zip(function.next_functions, results):
            if following is None:
                continue
            if gradient is not None:
                gradient = as_expected(gradient, following._input_metadata[i])
                before = arrived[following].get(i)
                arrived[following][i] = gradient if before is None else before + gradient
            uses[following] -= 1
            if not uses[following]:
                ready.append(following)


@contextlib.contextmanager
def a_driver(capability):
    """Inside, torch.cuda answers for one GPU of this compute capability, a pair."""
    total = 80 * 2**30  # bytes
    gpu = SimpleNamespace(
        name="fake CUDA", total_memory=total, major=capability[0], minor=capability[1],
        multi_processor_count=100,
    )  # fmt: skip
    answers = dict(
        is_available=lambda: True,
        device_count=lambda: 1,
        current_device=lambda: 0,
        set_device=lambda device: None,
        get_device_capability=lambda device=None: capability,
        get_device_name=lambda device=None: gpu.name,
        get_device_properties=lambda device=None: gpu,
        is_bf16_supported=lambda including_emulation=True: capability >= (8, 0),
        mem_get_info=lambda device=None: (total, total),
        memory_allocated=lambda device=None: 0,
        empty_cache=lambda: None,
        synchronize=lambda device=None: None,
        is_current_stream_capturing=lambda: False,
        get_rng_state=lambda device=None: torch.zeros(16, dtype=torch.uint8),
        set_rng_state=lambda state, device=None: None,
    )
    with contextlib.ExitStack() as stack:
        for name, answer in answers.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, answer))
        stack.enter_context(mock.patch.object(torch, "compile", compiled))
        stack.enter_context(mock.patch.object(nn.Module, "to", moved))
        stack.enter_context(mock.patch.object(torch.autograd, "backward", backward))
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        yield


# ---------------------------------------------------------------- what is watched

MAY_CROSS = {aten.copy_.default, aten._foreach_copy_.default, aten._to_copy.default}
# Their results have as many entries as the numbers demand: a GPU must be waited for to know how many.
COUNTING = {aten.nonzero.default, aten.masked_select.default, aten._unique2.default}
READING = {aten._local_scalar_dense.default, aten.equal.default, aten.is_nonzero.default}


class Watch(TorchDispatchMode):
    """Compares the devices of every operation, counts the times that the GPU is waited for, answers reads."""

    def __init__(self, overflow=False):
        super().__init__()
        self.overflow = overflow
        self.waits = []  # the lines of helpers/ that wait
        self.pinned = []  # storages; kept alive, so that no other one takes the place of one of them

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        self.compare_devices(func, tensors)
        if self.waits_for_gpu(func, args, kwargs, tensors):
            self.waits.append(line_of_helpers())
        if func in READING:
            return self.answer(args[0].dtype if func is aten._local_scalar_dense.default else torch.bool)
        if func is aten.is_pinned.default:
            return self.is_pinned(args[0])
        pin = kwargs.pop("pin_memory", False) or func is aten._pin_memory.default
        generator = kwargs.get("generator")
        kwargs |= {"generator": None} if generator is not None else {}
        result = aten.clone.default(args[0]) if func is aten._pin_memory.default else func(*args, **kwargs)
        if generator is not None and generator.device.type != result.device.type:
            raise RuntimeError(f"{func}: a {generator.device.type} generator for a tensor on {result.device}")
        if pin:
            self.pinned.append(result.untyped_storage())
        return result

    def answer(self, dtype):
        """The number that stands for one that is read."""
        if dtype == torch.bool:
            return not self.overflow
        return float(self.overflow) if dtype.is_floating_point else 1

    def compare_devices(self, func, tensors):
        """Raise RuntimeError for tensors on two devices. One number on the CPU goes with any device."""
        devices = {t.device for t in tensors if t.dim() or t.device.type != "cpu"}
        if len(devices) > 1 and func not in MAY_CROSS:
            where = ", ".join(f"{t.device} {tuple(t.shape)}" for t in tensors)
            raise RuntimeError(f"{func}: tensors on two devices: {where}")

    def is_pinned(self, tensor):
        return any(tensor.untyped_storage()._cdata == storage._cdata for storage in self.pinned)

    def waits_for_gpu(self, func, args, kwargs, tensors):
        """Must the program wait for the GPU here? As torch.cuda.set_sync_debug_mode sees it, or stricter."""
        on_gpu = any(t.device.type == "cuda" for t in tensors)
        if func is aten.index.Tensor:  # a mask is turned into the places where it is true
            return on_gpu and any(i is not None and i.dtype == torch.bool for i in args[1])
        if func not in MAY_CROSS:
            return on_gpu and func in READING | COUNTING
        to, source = kwargs.get("device", args[0].device), tensors[-1]
        if to is None or torch.device(to).type == source.device.type:
            return False
        at_once = kwargs.get("non_blocking", func is aten.copy_.default and len(args) > 2 and args[2])
        # From memory that is not pinned the driver copies in turn, whatever it was told.
        return not at_once or (source.device.type == "cpu" and not self.is_pinned(source))


def line_of_helpers(frames=None):
    """file:line of the innermost line of helpers/ that is being run."""
    frames = frames or traceback.extract_stack()
    here = [f for f in frames if f.filename.startswith(str(HELPERS))]
    return f"{Path(here[-1].filename).name}:{here[-1].lineno}" if here else "torch"


# ---------------------------------------------------------------- what is traced


def gpt(**changes):
    settings = dict(vocab_size=V, block_size=T, n_layer=2, n_head=2, n_embd=16, dropout=0.1) | changes
    return GPT(GPTConfig(**settings))


def ids(n=600, device=CUDA, dtype=torch.int64):
    return torch.randint(V, (n,), device=device).to(dtype)


def all_on_cuda(tensors, what):
    """Raise AssertionError unless there are tensors, all on the GPU."""
    tensors = list(tensors)
    assert tensors, f"no {what}"
    assert {t.device for t in tensors} == {CUDA}, f"{what} on {sorted({str(t.device) for t in tensors})}"


def there_and_back(watch, precision, **changes):
    """The model alone: loss and gradients."""
    model = gpt(**changes).to(CUDA)
    x = torch.randint(V, (2, T), device=CUDA)
    amp = torch.autocast("cuda", getattr(torch, precision), enabled=precision != "float32")
    with amp:
        logits, loss = model(x, x)
    loss.backward()
    assert logits.dtype == getattr(torch, precision), "autocast is in use"
    all_on_cuda([logits, loss], "results")
    all_on_cuda((p.grad for p in model.parameters() if p.requires_grad), "gradients")


def lessons(watch):
    """The models of notebooks 03 and 04, and the maps of attention."""
    model = LanguageModel(V, T, 16, MultiHeadAttention(16, 2, T, 0.1)).to(CUDA)
    x = torch.randint(V, (2, T), device=CUDA)
    model(x, x)[1].backward()
    all_on_cuda((p.grad for p in model.parameters()), "gradients")
    attention_maps(model, x), attention_maps(gpt().to(CUDA), x)
    generate(model, x, 3)


def steps(watch, precision, optimizer, accumulation_steps, large_text=False):
    """Three steps of the trainer between two sweeps, by its parts; the steps themselves must not wait."""
    model = gpt(position="sinusoidal", tie_weights=True)
    text = ids(device="cpu", dtype=torch.uint16) if large_text else ids()
    config = TrainConfig(
        batch_size=4, accumulation_steps=accumulation_steps, optimizer=optimizer, precision=precision,
        max_steps=3, grad_clip=1.0, warmup_steps=2,
    )  # fmt: skip
    history = begin(model, config, CUDA)
    shared, loss_of = prepare(model, text, config, CUDA, history)[:2]
    evaluate(model, text, T)
    losses, dtypes, before = [], set(), len(watch.waits)
    hook = model.lm_head.register_forward_hook(lambda layer, inputs, logits: dtypes.add(logits.dtype))
    for _ in range(config.max_steps):
        batch = batch_in_parts(text, model, config, CUDA, history)
        assert len(batch) == accumulation_steps
        all_on_cuda((t for part in batch for t in part), "batches")
        losses.append(one_step(shared, loss_of, batch, config, history))
    hook.remove()
    waits = watch.waits[before:]
    assert dtypes == {getattr(torch, precision)}, f"autocast is not in use: {dtypes}"
    all_on_cuda(losses, "losses")
    all_on_cuda(model.state_dict().values(), "weights")
    states = [s for o in history.optimizers for s in o.state.values()]
    if watch.overflow:
        assert not states, "an overflow skips the step of every optimizer"
    else:
        all_on_cuda((t for s in states for t in s.values() if torch.is_tensor(t)), "optimizer states")
    read_losses(losses, 0.0, config, history)
    evaluate(model, text, T)
    assert model.lm_head.weight is model.token_embedding.weight, "still tied"
    # In float16 a step waits once, to learn whether it overflowed.
    waits_allowed = config.max_steps * (precision == "float16")
    assert len(waits) <= waits_allowed, f"waits for the GPU: {waits}"
    return f"{len(waits)} waits in 3 steps" + (f" ({', '.join(sorted(set(waits)))})" if waits else "")


def whole_run(watch, **changes):
    """train() from the first sweep to the last, stopped after two steps and continued."""
    model = gpt()
    config = TrainConfig(**dict(batch_size=4, max_steps=4, eval_interval=2) | changes)
    steps_asked = iter([False, True])
    stop = Callbacks(should_stop=lambda: next(steps_asked))
    arguments = model, ids(device="cpu"), ids(60, device="cpu"), config, CUDA
    history = train(*arguments, callbacks=stop, progress=False)
    assert history.stopped
    history = train(*arguments, history=history, progress=False)
    assert history.step == 4 and not history.stopped
    all_on_cuda(model.state_dict().values(), "weights")


def writing(watch, dtype, use_cache, **sampling):
    """Twelve tokens after six, so that the view moves on past the block."""
    model = moved(gpt(), CUDA)
    prompt = torch.randint(V, (3, 6), device=CUDA)
    with torch.autocast("cuda", getattr(torch, dtype), enabled=dtype != "float32"):
        text = generate(model, prompt, 2 * T - 4, use_cache=use_cache, **sampling)
    all_on_cuda([text], "text")
    assert text.shape == (3, 2 * T + 2)


@torch.no_grad()
def several_at_once(watch):
    """Two tokens after three cached ones: generation never asks for this, a program that reads on does."""
    model, cache = moved(gpt(), CUDA).eval(), KVCache(T)
    x = torch.randint(V, (2, 5), device=CUDA)
    all_on_cuda((model(part, cache=cache)[0] for part in x.split([3, 2], dim=1)), "logits")


def writing_words(watch):
    """A text as a program prints it."""
    tokenizer = SimpleNamespace(
        vocab_size=V,
        encode=lambda text: torch.ones(len(text), dtype=torch.int64),
        decode=lambda token: "b" * len(token),
    )
    pieces = stream_text(moved(gpt(), CUDA), tokenizer, "abc", T + 2, stop="x", top_k=3)
    assert len("".join(pieces)) == T + 2


def generator_elsewhere(watch):
    """A CPU generator with a model on the GPU works, or is refused in a sentence (ValueError)."""
    prompt = torch.randint(V, (1, 3), device=CUDA)
    try:
        generate(moved(gpt(), CUDA), prompt, 3, generator=torch.Generator().manual_seed(1))
    except ValueError as error:
        return f"refused: {error}"


def everything():
    """Yield (name, function of a Watch, settings) of each thing to trace."""
    shapes = dict(plain={}, tied=dict(tie_weights=True), sinusoidal=dict(position="sinusoidal"))
    shapes["GPT-2's"] = dict(activation="gelu_tanh", qkv_bias=True, tie_weights=True, head_bias=False)
    shapes["no dropout, no biases"] = dict(dropout=0.0, bias=False)
    for precision, shape in itertools.product(PRECISIONS, shapes):
        yield f"model, {shape}, {precision}", there_and_back, dict(precision=precision) | shapes[shape]
    yield "models of the lessons and attention maps", lessons, {}
    for precision, optimizer, parts in itertools.product(PRECISIONS, ("adamw", "muon"), (1, 2)):
        name = f"trainer, {optimizer}, {precision}, batch in {parts}"
        told = dict(precision=precision, optimizer=optimizer, accumulation_steps=parts)
        yield name, steps, told
        if precision == "float16":
            yield f"{name}, with an overflow", steps, told
    told = dict(precision="bfloat16", optimizer="muon", accumulation_steps=1)
    yield "trainer, large text on the CPU", steps, told | dict(large_text=True)
    yield "train(), stopped and continued", whole_run, dict(optimizer="muon", precision="bfloat16")
    yield "train(), float16", whole_run, dict(optimizer="muon", precision="float16", compile=False)
    ways = dict(plain={}, top_k=dict(top_k=3), top_p=dict(top_p=0.9), both=dict(top_k=3, top_p=0.9))
    for dtype, use_cache, way in itertools.product(PRECISIONS, (True, False), ways):
        name = f"generation, {way}, {'with' if use_cache else 'without'} cache, {dtype}"
        yield name, writing, dict(dtype=dtype, use_cache=use_cache) | ways[way]
    yield "generation, several tokens after cached ones", several_at_once, {}
    yield "generation, text by pieces", writing_words, {}
    yield "generation, generator on the CPU", generator_elsewhere, {}


def trace(name, function, told):
    """Trace one thing; returns "" or the error in one line."""
    old = "float16" in (told.get("precision"), told.get("dtype"))
    watch = Watch(overflow=name.endswith("with an overflow"))
    try:
        with a_driver((7, 5) if old else (9, 0)), FakeCuda(), watch:
            said = function(watch, **told)
    except Exception as error:
        where = line_of_helpers(traceback.extract_tb(error.__traceback__))
        print(f"FAILED {name}: {where}: {type(error).__name__}: {error}", flush=True)
        return False
    print(f"ok     {name}" + (f": {said}" if said else ""), flush=True)
    return True


def main():
    """Trace everything; returns the exit status."""
    if torch.version.cuda is None:
        raise SystemExit("This torch is not built for CUDA: make test-fake-cuda sets up one that is.")
    results = [trace(*thing) for thing in everything()]
    print(f"{sum(results)} of {len(results)} traced on fake CUDA tensors, torch {torch.__version__}")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
