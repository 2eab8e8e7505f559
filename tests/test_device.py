"""Where to compute: helpers/device.py."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import helpers.train
from helpers.device import best_precision, bf16_is_fast, pick_device, tensor_floats
from helpers.train import TrainConfig, train

ROOT = Path(__file__).resolve().parent.parent
CPU = torch.device("cpu")


def test_the_device_can_be_chosen_and_a_missing_one_is_a_sentence(monkeypatch):
    assert pick_device("cpu") == CPU
    monkeypatch.setenv("COURSE_DEVICE", "cpu")
    assert pick_device() == CPU
    for name in ("cuda:99", "abacus"):
        with pytest.raises(ValueError, match=f"The device '{name}' is not there, or does not work"):
            pick_device(name)


@pytest.mark.parametrize(
    "error, words",
    [
        (
            torch.OutOfMemoryError("CUDA out of memory"),
            "The memory of cuda:0 is full: end the other programs",
        ),
        (RuntimeError("CUDA driver error: the driver is too old.\nMore"), r"\(CUDA driver error: the driver"),
    ],
)
def test_a_gpu_that_is_full_or_broken_is_not_called_missing(monkeypatch, error, words):
    def fails(*args, **kwargs):
        raise error

    monkeypatch.setattr(torch, "empty", fails)
    with pytest.raises(ValueError, match=words) as said:
        pick_device("cuda")
    assert "\n" not in str(said.value)


def test_tf32_ends_with_the_training(monkeypatch):
    before, gpu = torch.get_float32_matmul_precision(), torch.device("cuda")
    with pytest.raises(KeyError), tensor_floats(gpu):
        assert torch.get_float32_matmul_precision() == "high"
        raise KeyError
    assert torch.get_float32_matmul_precision() == before
    with tensor_floats(CPU):
        assert torch.get_float32_matmul_precision() == before


def test_an_empty_course_device_chooses_by_itself(monkeypatch):
    monkeypatch.setenv("COURSE_DEVICE", "")
    assert pick_device().type in ("cpu", "cuda", "mps")


def test_an_older_processor_gets_no_bfloat16(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    for name in ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA"):
        monkeypatch.delenv(name, raising=False)
    assert bf16_is_fast(CPU)
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    assert not bf16_is_fast(CPU)
    monkeypatch.delenv("ATEN_CPU_CAPABILITY")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert not bf16_is_fast(CPU)
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    assert not bf16_is_fast(CPU)


FAULTS = """
import resource, sys, torch
import helpers.train
from helpers.model import GPT, GPTConfig
if sys.argv[1] == "handed back":
    helpers.train.keep_freed_memory = lambda: None
faults, ids, cpu = [], torch.arange(5000) % 11, torch.device("cpu")
def count(history):
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
model = GPT(GPTConfig(vocab_size=11, n_layer=2, n_embd=128))
config = helpers.train.TrainConfig(batch_size=32, max_steps=12)
callbacks = helpers.train.Callbacks(on_step=count)
helpers.train.train(model, ids, ids[:200], config, cpu, None, callbacks, progress=False)
print(faults[-1] - faults[3])
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt")
def test_a_step_finds_the_memory_of_the_last_one():
    """A minor page fault is a page that the system had to clear and hand out anew."""
    faults = {}
    for kind in ("kept", "handed back"):
        done = subprocess.run(
            [sys.executable, "-c", FAULTS, kind], cwd=ROOT, check=True, capture_output=True, text=True
        )
        faults[kind] = int(done.stdout)
    assert faults["handed back"] > 10_000 and faults["kept"] < faults["handed back"] / 5, faults


def test_training_on_a_cpu_keeps_freed_memory(monkeypatch, tiny_gpt):
    asked = []
    monkeypatch.setattr(helpers.train, "keep_freed_memory", lambda: asked.append(True))
    ids = torch.arange(60) % 11
    train(tiny_gpt(), ids, ids, TrainConfig(batch_size=2, max_steps=1), CPU, progress=False)
    assert asked == [True]


# ---------------------------------------------------------------- what a GPU would be asked


@pytest.mark.parametrize(
    "capability, precision",
    [((7, 5), "float16"), ((8, 0), "bfloat16"), ((8, 9), "bfloat16"), ((9, 0), "bfloat16")],
)
def test_a_gpu_takes_bfloat16_from_ampere_on_and_float16_before(monkeypatch, capability, precision):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert best_precision(torch.device("cuda")) == precision


@pytest.mark.parametrize("fast, precision", [(True, "bfloat16"), (False, "float32")])
def test_a_processor_never_takes_float16(monkeypatch, fast, precision):
    monkeypatch.setattr(helpers.device, "bf16_is_fast", lambda device: fast)
    assert best_precision(CPU) == precision


def test_each_process_of_torchrun_takes_a_gpu_of_its_own(monkeypatch):
    tried = []
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "empty", lambda size, device: tried.append(str(device)))
    pick_device()
    for local_rank in "01":
        monkeypatch.setenv("LOCAL_RANK", local_rank)
        assert pick_device() == torch.device(f"cuda:{local_rank}")
    assert tried == ["cuda:0", "cuda:0", "cuda:1"]


def test_a_process_of_several_ends_well_and_without_clean_up():
    """The clean-up is where threads of DistributedDataParallel were seen to abort it."""
    program = (
        "import atexit, sys; from helpers.device import end_at_once; atexit.register(print, 'late');"
        "print('out'); print('err', file=sys.stderr); end_at_once(); print('never')"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "out\n", "err\n")


def test_the_mean_over_processes_is_a_mean(monkeypatch):
    monkeypatch.setattr(helpers.device, "world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda values: values.add_(4))  # the other has 4
    mine = torch.tensor([2.0])
    assert helpers.device.all_reduce_mean(mine).item() == 3 and mine.item() == 2
