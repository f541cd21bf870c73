"""The check of a captured graph: outputs in their own units pass, faults do not, and it says by how much and where."""

import pytest
import torch
from torch import nn

from rindle import RindleError
from rindle.nn.capture.check import compare


class Scaled(nn.Module):
    def __init__(self, scale=1.0, shift=0.0, noise=0.0):
        super().__init__()
        self.fc, self.scale, self.shift, self.noise = nn.Linear(3, 2), scale, shift, noise

    def forward(self, x):
        y = self.fc(x) * self.scale + self.shift
        return y + self.noise * self.scale if x.dtype == torch.float32 else y


def checked(model, wrong=lambda y: y, captured=None):
    torch.manual_seed(0)
    x = torch.randn(4, 5, 3)
    with torch.no_grad():
        y = model.double()(x.double())
    compare("Model", model.float(), x, wrong(y), True, captured)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e5, 1e9])
@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_units_do_not_matter(scale, shift):
    torch.manual_seed(1)
    model = Scaled(scale, shift * scale)
    checked(model)
    with pytest.raises(
        RindleError,
        match=r"differs from Model by .* on 5 frames, in 1 of 40 values; most at row 2, frame 3, output 1: ",
    ):
        checked(
            model, lambda y: y.index_put((torch.tensor(2), torch.tensor(3), torch.tensor(1)), y[2, 3, 1] + 0.05 * scale)
        )


def test_a_fault_is_measured_by_the_variation():
    """Where everything is near 300, a graph that says 300 everywhere is none."""
    torch.manual_seed(1)
    with pytest.raises(RindleError, match=r"in .* of 40 values"):
        checked(Scaled(1.0, 300.0), lambda y: torch.full_like(y, 300.0))


def test_float32_of_the_module_is_no_fault_of_the_graph():
    torch.manual_seed(1)
    checked(Scaled(noise=0.1))  # off in float32 alone


def test_it_says_whether_the_length_differs():
    torch.manual_seed(1)
    for captured, words in (
        (5, "depends on its data"),
        (9, "depends on the sequence length, which was 9"),
        (None, "depends on the"),
    ):
        with pytest.raises(RindleError, match=words):
            checked(Scaled(), lambda y: y + 1, captured)
    with pytest.raises(RindleError, match=r"gives \[4, 5, 1\], Model \[4, 5, 2\]"):
        checked(Scaled(), lambda y: y[..., :1])
    with pytest.raises(RindleError, match="differs from Model by nan"):
        checked(Scaled(), lambda y: y * torch.nan)
