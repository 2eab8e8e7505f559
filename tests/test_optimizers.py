"""The schedule, who decays, and Muon: helpers/optimizers.py."""

import copy
import math

import pytest
import torch
from runs_for_tests import run, short
from torch.testing import assert_close

from helpers.optimizers import Muon, learning_rate_factor, make_optimizers, orthogonalise
from helpers.train import TrainConfig


def test_learning_rate_rises_in_a_line_and_falls_in_half_a_cosine():
    config = short(max_steps=110, warmup_steps=10, learning_rate=1.0, min_learning_rate_ratio=0.1)
    factors = [learning_rate_factor(step, config) for step in range(130)]
    assert factors[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    for step in range(10, 111):
        half_cosine = 0.1 + 0.9 * (1 + math.cos(math.pi * (step - 10) / 100)) / 2
        assert factors[step] == pytest.approx(half_cosine)
    assert max(factors) == factors[10] == 1.0 and factors[60] == pytest.approx(0.55)
    assert factors[110:] == [pytest.approx(0.1)] * 20


def test_without_warm_up_and_decay_the_learning_rate_is_constant():
    config = short(warmup_steps=0, min_learning_rate_ratio=1.0, max_steps=1)
    assert [learning_rate_factor(step, config) for step in range(3)] == [1.0] * 3


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_schedule_is_what_the_optimizers_are_given(tiny_gpt, optimizer):
    config, seen = short(optimizer=optimizer), []
    run(
        tiny_gpt(),
        config,
        on_step=lambda h: seen.append([g["lr"] for o in h.optimizers for g in o.param_groups]),
    )
    peaks = [3e-3, 3e-3] + [0.02] * (optimizer == "muon")
    for step, rates in enumerate(seen):
        assert rates == pytest.approx([peak * learning_rate_factor(step, config) for peak in peaks])


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("changes", [{}, {"tie_weights": True}, {"position": "sinusoidal"}, {"bias": False}])
def test_who_decays_and_who_goes_to_muon(tiny_gpt, optimizer, changes):
    model = tiny_gpt(**changes)
    names = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
    optimizers = make_optimizers(model, short(optimizer=optimizer, weight_decay=0.3, beta1=0.8, beta2=0.95))
    where, decay = {}, {}
    for o in optimizers:
        for group in o.param_groups:
            for p in group["params"]:
                assert id(p) not in where, "once each"
                where[id(p)], decay[id(p)] = type(o).__name__, group["weight_decay"]
    assert where.keys() == names.keys(), "every trained parameter has an optimizer"
    for key, name in names.items():
        matrix = not name.endswith(".bias") and ".ln_" not in f".{name}"
        in_muon = optimizer == "muon" and name.startswith("blocks.") and matrix
        assert where[key] == ("Muon" if in_muon else "AdamW"), name
        assert decay[key] == (0.3 if matrix else 0.0), name
    assert optimizers[0].param_groups[0]["betas"] == (0.8, 0.95)


# ---------------------------------------------------------------- Muon


@pytest.mark.parametrize("bf16", [True, False])
def test_muon_is_pytorchs_muon(monkeypatch, bf16):
    monkeypatch.setattr("helpers.optimizers.bf16_is_fast", lambda device: bf16)
    generator = torch.Generator().manual_seed(0)
    shapes = [(48, 16), (16, 48), (16, 16), (48, 16)]
    ours = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    theirs = copy.deepcopy(ours)
    settings = dict(lr=0.05, momentum=0.9, weight_decay=0.3)
    optimizers = Muon(ours, **settings), torch.optim.Muon(theirs, **settings)
    for _ in range(4):
        for p, q in zip(ours, theirs):
            p.grad = torch.randn(p.shape, generator=generator)
            q.grad = p.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for p, q in zip(ours, theirs):
        assert_close(p, q, rtol=0, atol=1e-6 if bf16 else 0.02)
    for key, state in optimizers[1].state_dict()["state"].items():
        assert_close(optimizers[0].state_dict()["state"][key], state)


@pytest.mark.parametrize("shape", [(3, 16, 48), (3, 48, 16), (1, 20, 20)])
def test_orthogonalised_directions_are_the_same_and_all_about_as_strong(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u, _, v = torch.linalg.svd(x, full_matrices=False)
    strengths = u.mT @ orthogonalise(x) @ v.mT
    diagonal = strengths.diagonal(dim1=-2, dim2=-1)
    assert_close(strengths, torch.diag_embed(diagonal), rtol=0, atol=1e-6)
    assert diagonal.min() > 0.5 and diagonal.max() < 1.3


def test_the_length_of_a_gradient_makes_no_difference_to_muon():
    x = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    assert_close(orthogonalise(1e-4 * x), orthogonalise(x))


def test_an_optimizer_named_in_a_file_is_the_same_one(tiny_gpt):
    """A text that was read is equal to the one in the code, but not the same object."""
    config = TrainConfig(optimizer="".join(["mu", "on"]))
    assert [type(o).__name__ for o in make_optimizers(tiny_gpt(), config)] == ["AdamW", "Muon"]


def test_muon_refuses_what_it_does_not_do():
    matrix = [torch.nn.Parameter(torch.zeros(2, 2))]
    for option in ({"nesterov": False}, {"ns_steps": 3}, {"eps": 1.0}, {"adjust_lr_fn": "match_rms_adamw"}):
        torch.optim.Muon(matrix, 0.1, **option)  # PyTorch's has it
        with pytest.raises(TypeError):
            Muon(matrix, 0.1, **option)
    with pytest.raises(TypeError):
        Muon(matrix, 0.1).step(lambda: None)


def test_muons_settings_are_pytorchs_unless_said_otherwise():
    matrix = [torch.nn.Parameter(torch.zeros(2, 2))]
    ours, theirs = Muon(matrix, lr=0.02).defaults, torch.optim.Muon(matrix, lr=0.02).defaults
    assert ours == {name: theirs[name] for name in ours} and ours["momentum"] == 0.95


def test_adamw_takes_its_step_in_one_kernel(tiny_gpt):
    (adamw,) = make_optimizers(tiny_gpt(), short())
    assert adamw.defaults["fused"] is True
