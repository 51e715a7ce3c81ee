"""The terms of a lesson against formulas written out slowly, values and gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lmctl.distill.base import LossContext, TeacherLogits
from lmctl.distill.curriculum import Curriculum
from lmctl.distill.logits import Logits


def logits(rows: int = 5, outputs: int = 7, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (3 * torch.randn(rows, outputs, generator=generator, dtype=torch.float64) for _ in range(2))
    return student.requires_grad_(), teacher


def shares(values: list[float], temperature: float) -> list[float]:
    powers = [math.exp(value / temperature) for value in values]
    return [power / sum(powers) for power in powers]


def slow(student: Tensor, teacher: Tensor, kind: str, t: float, beta: float, top_k: int | None) -> float:
    """T^2 times the divergence, number by number."""
    total = 0.0
    for s, z in zip(student.tolist(), teacher.tolist(), strict=True):
        if top_k is not None:
            places = sorted(range(len(z)), key=lambda i: -z[i])[:top_k]
            s, z = [s[i] for i in places], [z[i] for i in places]
        q, p = shares(s, t), shares(z, t)
        for a, b in zip(q, p, strict=True):
            m = beta * b + (1 - beta) * a
            total += {
                "forward": b * math.log(b / a),
                "reverse": a * math.log(a / b),
                "js": beta * b * math.log(b / m) + (1 - beta) * a * math.log(a / m),
            }[kind]
    return t * t * total


@pytest.mark.parametrize("top_k", [None, 3])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("kind", ["forward", "reverse", "js"])
def test_divergences_are_the_written_out_ones_in_value_and_gradient(kind, temperature, top_k):
    student, teacher = logits()
    term = Logits(divergence=kind, temperature=temperature, beta=0.3, top_k=top_k)
    value = term.loss(student, TeacherLogits(teacher), LossContext("class", 0.0))
    assert value.item() == pytest.approx(slow(student, teacher, kind, temperature, 0.3, top_k), rel=1e-9)
    (gradient,) = torch.autograd.grad(value, student)
    step = 1e-6
    for row, column in [(0, 0), (2, 4), (4, 6)]:
        moved = [student.detach().clone(), student.detach().clone()]
        moved[0][row, column] += step
        moved[1][row, column] -= step
        up, down = (slow(m, teacher, kind, temperature, 0.3, top_k) for m in moved)
        assert gradient[row, column].item() == pytest.approx((up - down) / (2 * step), abs=1e-5)


def test_the_gradient_of_soft_targets_keeps_its_size_when_the_temperature_grows():
    """Hinton et al. 2015, equation 4: at a high temperature T^2 times the divergence is the squared difference of
    logits over twice their number, whatever T is, if they have mean zero."""
    student, teacher = (x.detach() - x.detach().mean(dim=1, keepdim=True) for x in logits())
    student.requires_grad_()
    value = Logits(temperature=1e4).loss(student, TeacherLogits(teacher), LossContext("class", 0.0))
    (gradient,) = torch.autograd.grad(value, student)
    torch.testing.assert_close(gradient, (student - teacher).detach() / student.shape[1], rtol=1e-3, atol=1e-5)


def test_answers_about_some_pieces_only_are_compared_there():
    student, teacher = logits()
    values, places = teacher.topk(3, dim=-1)
    some = Logits().loss(student, TeacherLogits(values, places), LossContext("class", 0.0))
    assert some.item() == pytest.approx(
        Logits(top_k=3).loss(student, TeacherLogits(teacher), LossContext("class", 0.0)).item()
    )
    narrower = Logits(top_k=2).loss(student, TeacherLogits(values, places), LossContext("class", 0.0))
    assert narrower.item() == pytest.approx(
        Logits(top_k=2).loss(student, TeacherLogits(teacher), LossContext("class", 0.0)).item()
    )


def test_each_class_by_itself_and_numbers():
    student, teacher = logits()
    value = Logits(temperature=2.0).loss(student, TeacherLogits(teacher), LossContext("classes", 0.0))
    expected = 0.0
    for s, z in zip(student.flatten().tolist(), teacher.flatten().tolist(), strict=True):
        q, p = 1 / (1 + math.exp(-s / 2)), 1 / (1 + math.exp(-z / 2))
        expected += 4 * (p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q)))
    assert value.item() == pytest.approx(expected)
    number = Logits().loss(student[:, :1], TeacherLogits(teacher[:, :1]), LossContext("number", 0.0))
    assert number.item() == pytest.approx(((student - teacher)[:, 0] ** 2).sum().item())


def test_weights_and_temperatures_follow_the_budget():
    term = Logits(weight=[[0.0, 0.0], [0.5, 1.0]], temperature=[[0.0, 4.0], [1.0, 2.0]])
    assert [term.weight_at(at) for at in (0.0, 0.25, 0.5, 1.0)] == [0.0, 0.5, 1.0, 1.0]
    student, teacher = logits()
    halfway = term.loss(student, TeacherLogits(teacher), LossContext("class", 0.5)).item()
    assert halfway == pytest.approx(
        Logits(temperature=3.0).loss(student, TeacherLogits(teacher), LossContext("class", 0)).item()
    )
    stages = Curriculum({"logits": Logits()}, hard=[[0, 1], [0.5, 0]], between="step")
    assert [stages.task_weight_at(at) for at in (0.49, 0.5)] == [1.0, 0.0]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"divergence": "sideways"}, "divergence must be one of forward, reverse, js"),
        ({"weight": -1}, "weight must not be negative"),
        ({"weight": [[0.5, 1], [0.2, 1]]}, "each further than the one before"),
        ({"top_k": 1}, "top_k must be at least 2"),
        ({"beta": 1.0}, "beta is a share"),
        ({"between": "spline"}, "between must be one of linear, step"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        Logits(**settings)
