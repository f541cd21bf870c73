"""Thresholds of a loaded model: the core shares the weights, and everything else is as in a model of its own."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from random_models import build, random_input, recipes, seeds
from support import GRAPHS, KERNELS, quantized, quantized_graph, sequences

import rindle
from rindle import Model, RindleError, fixed
from rindle.engines import golden
from rindle.engines.golden import with_thresholds
from rindle.file.artifact import theta_of_value
from rindle.file.container import loads
from rindle.numbers.formats import integer


def same(shared: Model, whole: Model, x, lengths) -> None:
    """The same integers, counts, id, file, and states as a model that was loaded with these thresholds."""
    found, wanted = shared.measure(x, lengths), whole.measure(x, lengths)
    np.testing.assert_array_equal(found.output, wanted.output)
    assert found.saturations == wanted.saturations
    for one, other in zip((*found.inputs, *found.others), (*wanted.inputs, *wanted.others), strict=True):
        assert (one.name, one.density, one.frames) == (other.name, other.density, other.frames)
        np.testing.assert_array_equal(one.theta, other.theta)
    assert shared._core.held_paths == whole._core.held_paths
    assert shared.id == whole.id
    if whole.artifact.graph.whole_sequence is None:
        streams = shared.stream(), whole.stream()
        for frame in x[0, : lengths[0]]:
            np.testing.assert_array_equal(*(stream.step(frame) for stream in streams))
        assert streams[0].save() == streams[1].save()
    assert shared.data == whole.data


def some(rng, artifact) -> dict:
    """θ for some inputs: none, one, or one per element."""
    chosen = {}
    for name, (node, code) in artifact.held_codes().items():
        layer = artifact.graph.program(node).layer
        size, most = layer.program.sizes[code], layer.formats[code].hi
        theta = rng.integers(0, max(1, most // 8), size)
        chosen[name] = [None, int(theta[0]), theta][rng.integers(3)]
    return {name: theta for name, theta in chosen.items() if rng.random() < 0.7}


@pytest.mark.fast(0)
@settings(max_examples=60, deadline=None)
@given(recipes(), seeds)
def test_shared_weights_give_the_integers_of_a_model_of_its_own(recipe, seed):
    """On every kernel, over random programs of all widths, some of them held from the start; and from one to the next."""
    rng = np.random.default_rng(seed)
    artifact = build(recipe)
    x, lengths = random_input(rng, artifact)
    first, second = some(rng, artifact), some(rng, artifact)
    for kernel in KERNELS:
        model = Model(artifact, kernel=kernel)
        held = model.with_thresholds(first)
        frames = x if x.dtype.kind != "i" or artifact.graph.vocabulary else x * np.float32(artifact.input_format.scale)
        frames = frames.astype(np.int32 if artifact.graph.vocabulary else np.float32)
        same(held, Model(with_thresholds(artifact, first), kernel=kernel), frames, lengths)
        both = with_thresholds(with_thresholds(artifact, first), second)
        same(held.with_thresholds(second), Model(both, kernel=kernel), frames, lengths)
        same(model.with_thresholds({}), Model(artifact, kernel=kernel), frames, lengths)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("scheme", ["int8", "w4a8", "fixed16"])
def test_a_dense_model_is_held_by_several_threads_at_once(scheme, kernel):
    dense = Model(quantized("gru", scheme).artifact, kernel=kernel)
    x = sequences(rows=3, time=20, seed=2)
    thetas = [{"rnn.l0/h": theta, "rnn.l1/x": theta} for theta in range(6)]
    found = [None] * len(thetas)

    def work(i):
        found[i] = dense.with_thresholds(thetas[i]).run(x)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(thetas))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for theta, y in zip(thetas, found, strict=True):
        np.testing.assert_array_equal(y, Model(with_thresholds(dense.artifact, theta), kernel=kernel).run(x))
    assert all(theta is None for theta in dense.thresholds.values())
    np.testing.assert_array_equal(dense.run(x), found[0])


@pytest.mark.parametrize("kind", GRAPHS)
def test_every_kind_of_graph_takes_thresholds(kind):
    model = quantized_graph(kind, "int8")
    x = GRAPHS[kind][1](rows=3, time=8, seed=1)
    x = x.astype(np.int32) if model.vocabulary else x
    thetas = dict.fromkeys(model.thresholds, 5)
    same(model.with_thresholds(thetas), Model(with_thresholds(model.artifact, thetas)), x, np.array([8, 5, 8]))


def test_nothing_is_computed_before_it_is_asked_for(monkeypatch):
    model, runs = quantized("lstm", "int8"), []
    monkeypatch.setattr(golden, "run", lambda *a, _run=golden.run: runs.append(1) or _run(*a))
    held = model.with_thresholds({"rnn.l0/h": 4}).with_thresholds({"rnn.l1/x": 2})
    held.measure(sequences(rows=1))
    held.stream().step(sequences(rows=1)[0, 0])
    assert held.id != model.id and not runs and "data" not in vars(held)
    np.testing.assert_array_equal(loads(held.data).golden.outputs, held.replay())
    assert runs == [1] and not held.disagreements(held.replay())
    assert held.with_provenance({"any": "thing"}).data != held.data and runs == [1]


def test_a_saved_state_is_that_of_the_file_with_these_thresholds(tmp_path):
    x = sequences(rows=1, time=9)[0]
    held = quantized("gru", "int8").with_thresholds({"rnn.l0/h": 4, "rnn.l1/x": 2})
    rindle.save(held, tmp_path / "held.rindle")
    loaded = rindle.load(tmp_path / "held.rindle")
    stream, other = held.stream(), loaded.stream()
    for frame in x[:5]:
        stream.step(frame)
    other.restore(stream.save())
    np.testing.assert_array_equal(stream.step(x[5]), other.step(x[5]))
    with pytest.raises(RindleError, match="saved by another model"):
        held.with_thresholds({"rnn.l0/h": 5}).stream().restore(stream.save())


# ------------------------------------------------------------------------------------------------ units of the value


def test_a_threshold_in_units_of_the_value_means_the_same_at_every_width():
    """A change is skipped where it is not larger than the threshold, whatever a code is worth."""
    for scheme in ("int8", "fixed16"):
        model = quantized("gru", scheme)
        node, code = model.artifact.held_codes()["rnn.l0/h"]
        scale = model.artifact.graph.program(node).layer.formats[code].scale
        held = model.with_thresholds({"rnn.l0/h": 0.05}, unit="value")
        theta = held.thresholds["rnn.l0/h"]
        assert theta * scale <= 0.05 < (theta + 1) * scale
        assert held.threshold_values["rnn.l0/h"] == theta * scale
        assert held.id == model.with_thresholds({"rnn.l0/h": theta}).id
    assert theta > 100  # 16 bits


def test_values_of_thresholds_give_the_thresholds_again():
    model = quantized("lstm", "int8")
    sizes = model.artifact.graph.program("rnn.l0").layer.program.sizes
    each = np.arange(sizes["h.code"]) % 126
    held = model.with_thresholds({"rnn.l0/h": each, "rnn.l1/x": 126, "rnn.l1/h": 0})
    again = model.with_thresholds(held.threshold_values, unit="value")
    assert again.id == held.id and again.thresholds["rnn.l0/x"] is None


@pytest.mark.parametrize("value", [-0.1, np.nan, np.inf, "0.1", True, 1e6, [0.1, 0.2]])
def test_a_value_that_cannot_be_is_refused(value):
    with pytest.raises(RindleError, match=r"rnn\.l0/x: "):
        quantized("gru", "int8").with_thresholds({"rnn.l0/x": value}, unit="value")


def test_a_value_just_below_the_largest_is_the_largest_theta():
    for fmt in (fixed(16, 12, product=True), integer(8, 0.1), integer(4, 3.7e-5, signed=False)):
        assert theta_of_value(np.nextafter(fmt.hi * fmt.scale, 0), fmt, 1, "x") == fmt.hi - 1
        with pytest.raises(RindleError, match="must be below"):
            theta_of_value(fmt.hi * fmt.scale, fmt, 1, "x")


def test_an_unknown_unit_is_refused():
    with pytest.raises(RindleError, match="unknown unit 'volt' of thresholds; there are code, value"):
        quantized("gru", "int8").with_thresholds({"rnn.l0/x": 1}, unit="volt")
