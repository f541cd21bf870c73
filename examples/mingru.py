"""minGRU as a cell of one's own: trained, quantized, saved, and run frame by frame. `python examples/mingru.py`"""

import numpy as np
import torch

import rindle


@rindle.cell(states=("h",))
def mingru(n, x, h):
    """minGRU: gate z and candidate g read x alone. Feng et al. 2024 (arXiv 2410.01201), section 3.1."""
    z, g = n.affine("z g", x)
    h = n.lerp(n.sigmoid(z), g, h)
    return h


class Memory(torch.nn.Module):
    """What was the value at the last mark? [B, T, 2] -> [B, T, 1]"""

    def __init__(self, cell, hidden: int = 24):
        super().__init__()
        self.rnn = rindle.Recurrent(cell, 2, hidden, num_layers=2, batch_first=True)
        self.fc = torch.nn.Linear(hidden, 1)

    def forward(self, x):
        y, _ = self.rnn(x)
        return self.fc(y)


def marked_values(rows: int, time: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """x: a random value and a mark, now and then; y: the value at the last mark, 0 before there is one."""
    rng = np.random.default_rng(seed)
    values, marks = rng.uniform(-1, 1, (rows, time)), rng.random((rows, time)) < 0.2
    last = np.maximum.accumulate(np.where(marks, np.arange(time), -1), axis=1)
    y = np.where(last < 0, 0.0, np.take_along_axis(values, np.maximum(last, 0), axis=1))
    return np.stack([values, marks], -1).astype(np.float32), y[..., None].astype(np.float32)


def train(net: torch.nn.Module, steps: int) -> None:
    optimizer = torch.optim.Adam(net.parameters(), 0.02)
    for step in range(steps):
        x, y = map(torch.from_numpy, marked_values(32, 20, seed=step))
        loss = (net(x) - y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def ship(net: torch.nn.Module, path: str) -> tuple[float, float]:
    """Quantizes, saves, loads, and streams. Returns the mean squared errors of float and of the integers, on new sequences."""
    calibration, _ = marked_values(100, 20, seed=10**6)
    model = rindle.quantize(net.eval(), "int8", calibration)
    rindle.save(model, path)

    model = rindle.load(path)  # from here on, nothing needs torch
    x, y = marked_values(100, 20, seed=10**6 + 1)
    stream = model.stream()
    frames = np.stack([stream.step(frame) for frame in x[0]])
    assert (frames == model.run(x[:1])[0]).all()
    with torch.no_grad():
        float_error = np.square(net(torch.from_numpy(x)).numpy() - y).mean()
    return float(float_error), float(np.square(model.run(x) - y).mean())


if __name__ == "__main__":
    torch.manual_seed(0)
    net = Memory(mingru)
    train(net, steps=300)
    print("mean squared error: float {:.4f}, int8 {:.4f}".format(*ship(net, "mingru.rindle")))
