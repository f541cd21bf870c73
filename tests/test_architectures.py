"""Published architectures, from torch to integers: captured, quantized, saved, loaded, run and streamed; all engines equal."""

import numpy as np
import pytest
import torch
from architectures import ARCHITECTURES, DATA, STREAMED, made, signal

import rindle
from rindle import RindleError
from rindle.engines import reference
from rindle.nn import simulate

# Largest difference of int8 from float, as a part of how much the output differs between rows: 2026-11-22, about three times what was seen.
BUDGET = {"crnn": 0.2, "dtln, stage 1": 0.003, "dtln, stage 2": 0.045, "attention": 0.1}


@pytest.fixture(scope="module", params=ARCHITECTURES)
def name(request):
    return request.param


@pytest.fixture(scope="module", params=DATA)
def data(request, name):
    """Calibration sequences and others, [4, T, I] each."""
    return DATA[request.param](name, 4), DATA[request.param](name, 4, seed=1)


@pytest.fixture(scope="module")
def quantized(name, data, tmp_path_factory):
    """The float model, and the model of integers from its file."""
    exact, path = made(name), tmp_path_factory.mktemp("models") / "model.rindle"
    rindle.save(rindle.quantize(exact, "int8", data[0]), path)
    return exact, rindle.load(path)


@pytest.mark.fast(2)
def test_int8_is_close_to_float(name, quantized, data):
    exact, model = quantized
    with torch.no_grad():
        wanted = exact(torch.from_numpy(data[1])).numpy()
    found = model.run(data[1])
    assert found.shape == wanted.shape
    error = np.abs(found - wanted).max() / np.ptp(wanted, axis=0).max()  # of what differs from row to row
    assert error < BUDGET[name], error


@pytest.mark.fast(2)
def test_every_engine_gives_the_same_integers(quantized, data):
    artifact, x = quantized[1].artifact, data[1]
    lengths = np.array(
        [x.shape[1], max(x.shape[1] - 9, artifact.graph.least_frames), x.shape[1], artifact.graph.least_frames]
    )
    wanted, found = (engine(artifact, x, lengths) for engine in (reference.run, simulate.run))
    for node in artifact.graph.nodes:
        if not artifact.graph.is_float(node.name):
            np.testing.assert_array_equal(found.values[node.name], wanted.values[node.name], err_msg=node.name)
    assert found.saturations == wanted.saturations
    y = quantized[1].run(x, lengths)
    if artifact.graph.is_float(artifact.graph.output):
        np.testing.assert_allclose(y, wanted.codes, rtol=1e-5, atol=1e-6)
    else:
        np.testing.assert_array_equal(y, quantized[1].run(x, lengths, engine="reference"))


@pytest.mark.fast(2)
def test_a_denoiser_streams_frame_by_frame(name, quantized, data):
    model, (x, *_) = quantized[1], data[1]
    if name not in STREAMED:
        with pytest.raises(RindleError, match=r"the node '.*' needs the whole sequence"):
            model.stream()
        return
    stream = model.stream()
    np.testing.assert_array_equal([stream.step(frame) for frame in x], model.run(x))


def test_both_stages_of_the_denoiser_reduce_noise_through_one_another():
    """Not trained, so of the wiring alone: what comes out is at most what went in, where the mask is one of 0..1."""
    x = signal("dtln, stage 1", 2)
    masked = rindle.quantize(made("dtln, stage 1"), "int8", x).run(x)
    assert (masked <= x[..., 257:] + 0.01).all() and (masked >= -0.01).all()
