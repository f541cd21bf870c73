"""Learned steps against the equations of Esser et al. 2020 (arXiv 1902.08153), written out element by element."""

import math

import numpy as np
import pytest
import torch

from rindle.nn.lsq import CodeStep, WeightSteps, quantize

V = [-9.7, -3.2, -3.0, -1.26, -0.75, -0.25, 0.0, 0.2, 0.25, 0.6, 1.1, 2.9, 3.0, 3.1, 12.0]


def lsq(v: float, s: float, lo: int, hi: int) -> tuple[float, float, float]:
    """(value, its derivative by v, its derivative by s): LSQ (1) to (3), (5)."""
    u = v / s
    if u <= lo:
        return lo * s, 0.0, lo
    if u >= hi:
        return hi * s, 0.0, hi
    code = math.floor(u + 0.5)
    return code * s, 1.0, code - u


@pytest.mark.parametrize("s, lo, hi", [(0.5, -7, 7), (1.0, -3, 3), (3.0, -1, 1), (0.25, 0, 15)])
def test_values_and_gradients_are_those_of_the_paper(s, lo, hi):
    v, step = torch.tensor(V, requires_grad=True), torch.tensor(s, requires_grad=True)
    weights = torch.linspace(-1, 2, len(V))
    y = quantize(v, step, lo, hi, 0.3)
    (y * weights).sum().backward()
    wanted = [lsq(one, s, lo, hi) for one in V]
    assert y.tolist() == pytest.approx([value for value, _, _ in wanted])
    assert v.grad.tolist() == pytest.approx([w * slope for w, (_, slope, _) in zip(weights.tolist(), wanted)])
    assert step.grad.item() == pytest.approx(0.3 * sum(w * d for w, (_, _, d) in zip(weights.tolist(), wanted)))


def test_a_fixed_step_has_no_gradient_and_the_same_values():
    v = torch.tensor(V, requires_grad=True)
    y = quantize(v, 0.5, -7, 7)
    assert torch.equal(y, quantize(v, torch.tensor(0.5, requires_grad=True), -7, 7))
    y.sum().backward()
    assert v.grad.tolist() == [lsq(one, 0.5, -7, 7)[1] for one in V]


def test_steps_of_rows_are_learned_in_the_logarithm_at_the_papers_scale():
    """d/dρ = s · d/ds, and 1/√(columns · largest code) of it; a row of a fixed format has none."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(3, 5, generator=generator)
    steps = WeightSteps(np.array([0.3, 0.2, 0.25]), np.array([3, 7, 7]), np.array([1, 1, 0]))
    steps(weight).sum().backward()
    for row, (s, hi) in enumerate([(0.3, 3), (0.2, 7)]):
        total = sum(lsq(v, s, -hi, hi)[2] for v in weight[row].tolist())
        assert steps.rho.grad[row].item() == pytest.approx(s * total / math.sqrt(5 * hi), rel=1e-4)
    assert steps.rho.grad[2] == 0
    with torch.no_grad():
        steps.rho += 1.0
    assert steps.steps()[:, 0].tolist() == pytest.approx([0.3 * math.e, 0.2 * math.e, 0.25])


def test_the_step_of_a_code_is_learned():
    code = CodeStep(0.5, -7, 7, features=4)
    code(torch.tensor([[0.6, 9.0, -0.1, 1.0], [0.0, 0.3, -9.0, 2.0]])).sum().backward()
    total = sum(lsq(v, 0.5, -7, 7)[2] for v in (0.6, 9.0, -0.1, 1.0, 0.0, 0.3, -9.0, 2.0))
    assert code.rho.grad.item() == pytest.approx(0.5 * total / math.sqrt(4 * 7), rel=1e-5)


def test_a_step_stays_positive_and_finds_the_best_one():
    """From a tenth and from ten times the best step, plain Adam comes to the least squared error; it never crosses 0."""
    values = torch.randn(4000, generator=torch.Generator().manual_seed(1))
    errors = {s: float((quantize(values, s, -3, 3) - values).square().mean()) for s in np.linspace(0.2, 1.5, 200)}
    best = min(errors, key=errors.get)
    for start in (best / 10, best * 10):
        code = CodeStep(start, -3, 3, features=len(values))
        optimizer = torch.optim.Adam(code.parameters(), 0.02)
        for _ in range(400):
            loss = (code(values) - values).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            assert code.step() > 0
        assert code.step().item() == pytest.approx(best, rel=0.15), (start, best)
