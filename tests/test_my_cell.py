"""The page "my cell": its code is the examples' code, and that runs; the laws on its cells stand with all others'."""

import re

import numpy as np
import pytest
import torch
from support import EVERY_CELL, ROOT, example

from rindle import CELLS, Recurrent

PAGE = (ROOT / "docs/my-cell.md").read_text()


def test_the_pages_code_is_the_examples_code():
    """Every block stands in a file, and all of both files' code stands on the page."""
    files = {name: (ROOT / f"examples/{name}.py").read_text() for name in ("mingru", "fastgrnn")}
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    assert len(blocks) == 6
    for block in blocks:
        assert any(block in text for text in files.values()), block
    left = dict(files)
    for block in blocks:
        left = {name: text.replace(block, "", 1) for name, text in left.items()}
    for name, text in left.items():
        assert re.fullmatch(r'""".*?"""\s*', text, re.S), f"{name}: {text}"


def test_they_stand_outside_the_package():
    assert {"mingru", "fastgrnn"} <= set(EVERY_CELL) and not {"mingru", "fastgrnn"} & set(CELLS)


@pytest.mark.parametrize("name", ["mingru", "fastgrnn"])
def test_the_examples_run(name, tmp_path):
    """Short: what is learned is little, but the integers are near the float, and the stream is the run."""
    torch.manual_seed(0)
    tools = example("mingru")
    net = tools.Memory(EVERY_CELL[name])
    if name == "fastgrnn":
        example(name).begin(net)
        assert torch.equal(net.rnn.zeta_l1, torch.ones(24)) and (net.rnn.nu_l0 == 0.02).all()
    x, y = tools.marked_values(20, 20, seed=7)
    with torch.no_grad():
        before = np.square(net(torch.from_numpy(x)).numpy() - y).mean()
    tools.train(net, steps=30)
    found, integers = tools.ship(net, tmp_path / "model.rindle")
    assert found < 0.9 * before and abs(integers - found) < 0.02


def test_marked_values_are_what_they_say():
    x, y = example("mingru").marked_values(4, 30, seed=3)
    for row in range(4):
        last = 0.0
        for t in range(30):
            last = x[row, t, 0] if x[row, t, 1] else last
            assert y[row, t, 0] == last


def test_mingru_is_the_papers_equation():
    """h = (1 − z) h + z g with z = σ(W_z x), g = W_g x."""
    module, x = Recurrent(EVERY_CELL["mingru"], 3, 4).double(), torch.randn(6, 2, 3, dtype=torch.float64)
    w, b, h = module.weight_x_l0, module.bias_l0, torch.zeros(2, 4, dtype=torch.float64)
    for frame, found in zip(x, module(x)[0]):
        z, g = (frame @ w.T + b).chunk(2, -1)
        h = (1 - z.sigmoid()) * h + z.sigmoid() * g
        torch.testing.assert_close(found, h, rtol=0, atol=1e-12)


def test_fastgrnn_is_the_papers_equation():
    """z = σ(W x + U h + b_z), c = tanh(W x + U h + b_c), h = (ζ (1 − z) + ν) ⊙ c + z ⊙ h."""
    module, x = Recurrent(EVERY_CELL["fastgrnn"], 3, 4).double(), torch.randn(6, 2, 3, dtype=torch.float64)
    p, h = {name[:-3]: value for name, value in module.named_parameters()}, torch.zeros(2, 4, dtype=torch.float64)
    for frame, found in zip(x, module(x)[0]):
        a = frame @ p["weight_x"].T + h @ p["weight_h"].T
        z, c = torch.sigmoid(a + p["b_z"]), torch.tanh(a + p["b_c"])
        h = (p["zeta"] * (1 - z) + p["nu"]) * c + z * h
        torch.testing.assert_close(found, h, rtol=0, atol=1e-12)
