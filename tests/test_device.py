"""Where to compute: helpers/device.py."""

import pytest
import torch

from helpers.device import bf16_is_fast, pick_device

CPU = torch.device("cpu")


def test_the_device_can_be_chosen_and_a_missing_one_is_a_sentence(monkeypatch):
    assert pick_device("cpu") == CPU
    monkeypatch.setenv("COURSE_DEVICE", "cpu")
    assert pick_device() == CPU
    for name in ("cuda:99", "abacus"):
        with pytest.raises(ValueError, match=f"The device '{name}' is not there on this machine"):
            pick_device(name)


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
