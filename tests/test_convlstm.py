"""ConvLSTM over images: the published equations, odd kernels, several layers, both directions; then integers."""

import copy

import numpy as np
import pytest
import torch
from support import assert_agree, assert_naive, extreme_codes
from torch.nn import functional as F

import rindle
from rindle import ConvLSTM, RindleError
from rindle.engines.golden import with_thresholds


def published(module: ConvLSTM, x, layer: int = 0, reverse: bool = False):
    """Shi et al. 2015, equation (3), by torch's own convolutions, one frame after the other. x: [T, B, C, H, W]."""
    height, width = module.geometry["image"]
    kernel = module.geometry["kernel"]
    parameters = module.parameters_of(layer, reverse)
    channels = module.hidden_size // (height * width)
    w, u = (parameters[name].unflatten(1, (-1, *kernel)) for name in ("weight_ih", "weight_hh"))
    padding = [size // 2 for size in kernel]
    peeps = [parameters[f"weight_p_{g}"].view(-1, height, width) if "weight_p_i" in parameters else 0 for g in "ifo"]
    h = c = x.new_zeros(x.shape[1], channels, height, width)
    outputs = []
    for frame in x.flip(0) if reverse else x:
        read = F.conv2d(frame, w, parameters["bias"], padding=padding) + F.conv2d(h, u, None, padding=padding)
        i, f, g, o = read.chunk(4, 1)
        c = torch.sigmoid(f + peeps[1] * c) * c + torch.sigmoid(i + peeps[0] * c) * torch.tanh(g)
        h = torch.sigmoid(o + peeps[2] * c) * torch.tanh(c)
        outputs.append(h)
    return torch.stack(outputs[::-1] if reverse else outputs), h, c


@pytest.mark.parametrize("peephole", [False, True])
@pytest.mark.parametrize("image, kernel", [((4, 6), 3), ((5, 1), (5, 1)), ((3, 7), (1, 3)), ((2, 2), 5), ((1, 1), 1)])
@pytest.mark.parametrize("batch, time", [(1, 1), (3, 4)])
def test_it_is_the_published_equation(peephole, image, kernel, batch, time):
    torch.manual_seed(1)
    module = ConvLSTM(2, 3, image, kernel, num_layers=2, peephole=peephole)
    x = torch.randn(time, batch, 2, *image)
    first, *_ = published(module, x)
    wanted, h, c = published(module, first, layer=1)
    y, (hs, cs) = module(x)
    torch.testing.assert_close(y, wanted)
    torch.testing.assert_close((hs[1], cs[1]), (h, c))


def test_both_directions_and_initial_states():
    torch.manual_seed(2)
    module = ConvLSTM(2, 3, (3, 4), 3, bidirectional=True, batch_first=True)
    x = torch.randn(2, 5, 2, 3, 4)
    y, _ = module(x)
    forward, *_ = published(module, x.transpose(0, 1))
    backward, *_ = published(module, x.transpose(0, 1), reverse=True)
    torch.testing.assert_close(y, torch.cat([forward, backward], 2).transpose(0, 1))
    one = ConvLSTM(2, 3, (3, 4), 3, batch_first=True)
    whole, ends = one(x)
    start, states = one(x[:, :2])
    rest, after = one(x[:, 2:], states)
    torch.testing.assert_close(torch.cat([start, rest], 1), whole)
    torch.testing.assert_close(after, ends)
    again = copy.deepcopy(one)
    again.load_state_dict(one.state_dict())
    torch.testing.assert_close(again(x)[0], whole)


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: ConvLSTM(2, 3, (3, 4), 2), r"odd sides, not \(2, 2\)"),
        (lambda: ConvLSTM(2, 3, (3, 4))(torch.zeros(1, 1, 2, 4, 3)), r"x has the shape \[1, 1, 2, 4, 3\]; it must be \[T, B, 2, 3, 4\]"),
        (lambda: rindle.Recurrent(rindle.CELLS["convlstm"], 12, 24), r"'convlstm' has convolutions; give image=\(height, width\) and kernel"),
        (lambda: rindle.Recurrent(rindle.CELLS["gru"], 12, 24, image=(3, 4), kernel=(3, 3)), "'gru' has no convolutions; leave out image"),
        (lambda: rindle.Recurrent(rindle.CELLS["convlstm"], 12, 20, image=(3, 4), kernel=(3, 3)), "hidden_size is 20, which is no multiple of the 12 pixels"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(make, words):
    with pytest.raises(RindleError, match=words):
        make()


class Frames(torch.nn.Module):
    """Two layers over flat images, and a Linear on the mean."""

    def __init__(self, image=(4, 6), **options):
        super().__init__()
        pixels = image[0] * image[1]
        cell = rindle.CELLS["convlstm_peephole"]
        self.rnn = rindle.Recurrent(
            cell, pixels, 2 * pixels, 2, batch_first=True, image=image, kernel=(3, 5), **options
        )
        self.fc = torch.nn.Linear(2 * pixels, 3)

    def forward(self, x):
        return self.fc(self.rnn(x)[0].mean(1))


class Video(torch.nn.Module):
    """Images in, images out: two layers, and a convolution of 1 x 1 that reads both, in each frame."""

    def __init__(self, batch_first: bool):
        super().__init__()
        self.batch_first = batch_first
        self.first = ConvLSTM(2, 3, (4, 5), (3, 5), batch_first=batch_first)
        self.second = ConvLSTM(3, 3, (4, 5), 3, batch_first=batch_first, peephole=True)
        self.out = torch.nn.Conv2d(6, 2, 1)

    def forward(self, x):
        one, _ = self.first(x)
        two, _ = self.second(one)
        frames = torch.cat([one, two], 2)
        return self.out(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])


@pytest.mark.parametrize("batch_first", [True, False])
def test_images_are_captured_run_and_streamed(batch_first):
    torch.manual_seed(4)
    video = Video(batch_first).eval()
    x = (0.3 * np.random.default_rng(4).normal(size=(3, 6, 2, 4, 5)).cumsum(1)).astype(np.float32)
    own = x if batch_first else x.swapaxes(0, 1)
    model = rindle.quantize(video, "int8", own)
    with torch.no_grad():
        wanted = video(torch.from_numpy(own)).numpy()
    wanted = wanted if batch_first else wanted.swapaxes(0, 1)
    flat = x.reshape(3, 6, -1)
    y = model.run(flat)
    assert y.shape == (3, 6, 40)
    assert np.abs(y.reshape(wanted.shape) - wanted).max() < 0.05 * np.abs(wanted).max()
    assert_agree(model.artifact, flat, np.array([6, 2, 5]))
    stream = model.stream()
    np.testing.assert_array_equal(np.stack([stream.step(frame) for frame in flat[0]]), y[0])


@pytest.mark.parametrize("scheme", ["int8", "w4a8", "fixed16", "fixed8"])
def test_engines_agree_and_delta_is_of_the_held_image(scheme):
    torch.manual_seed(3)
    model = Frames().eval()
    x = (0.3 * np.random.default_rng(3).normal(size=(4, 7, 24)).cumsum(1)).astype(np.float32)
    artifact = rindle.quantize(model, scheme, x).artifact
    assert artifact.version == 3
    lengths = np.array([7, 3, 1, 7])
    assert_agree(artifact, x, lengths)
    held = with_thresholds(artifact, {"rnn.l0/x": 3, "rnn.l0/h": 5, "rnn.l1/h": 0})
    found = assert_agree(held, 20 * x, lengths)
    assert all(0 < changed for changed, _ in found.changes.values())
    assert_naive(held, extreme_codes(np.random.default_rng(0), artifact.input_format, (2, 2, 24)), np.array([2, 1]))
    measured = rindle.Model(held).measure(x)
    macs = {(one.node, one.path): one.macs for one in measured.inputs}
    assert macs["rnn.l0", "x"] == 8 * 1 * 15 * 24  # channels of the gates x channels x kernel x pixels
    assert macs["rnn.l1", "h"] == 8 * 2 * 15 * 24
    assert 0 < measured.eliminated() < 1
