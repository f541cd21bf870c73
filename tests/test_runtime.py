"""Model and Stream: what they refuse, and that a stream is one running copy of the states."""

import threading

import numpy as np
import pytest
from support import FEATURES, OUTPUTS, quantized, quantized_graph, sequences

import rindle
from rindle import RindleError
from rindle.engines import reference


@pytest.fixture
def gru():
    """What is decided before any cell is reached is asked of one cell; what a cell decides, of every cell (``model``)."""
    return quantized("gru", "int8")


@pytest.fixture
def x():
    return sequences(3, 9)


# ----------------------------------------------------------------------------------------------------- streams


@pytest.mark.fast(6)
def test_streams_are_independent(model, x):
    first, second = model.stream(), model.stream()
    wanted = model.run(x)
    for t in range(9):
        np.testing.assert_array_equal(first.step(x[0, t]), wanted[0, t])
        np.testing.assert_array_equal(second.step(x[1, t]), wanted[1, t])


def test_reset_starts_again(gru, x):
    stream = gru.stream()
    first = [stream.step(frame).copy() for frame in x[0]]
    stream.reset()
    np.testing.assert_array_equal([stream.step(frame) for frame in x[0]], first)


def test_step_writes_into_out_and_returns_it(gru, x):
    out = np.zeros(OUTPUTS, np.float32)
    assert gru.stream().step(x[0, 0], out) is out
    np.testing.assert_array_equal(out, gru.run(x)[0, 0])


@pytest.mark.parametrize("theta", [None, 0, 5])
def test_a_restored_state_continues_as_if_nothing_had_happened(model, x, theta):
    model = model.with_thresholds(dict.fromkeys(model.thresholds, theta))
    stream = model.stream()
    for frame in x[0, :4]:
        stream.step(frame)
    state = stream.save()
    rest = [stream.step(frame).copy() for frame in x[0, 4:]]
    for other in (stream, model.stream(), rindle.Model(model.artifact).stream()):
        other.step(x[1, 0])
        other.restore(state)
        np.testing.assert_array_equal([other.step(frame) for frame in x[0, 4:]], rest)


def test_a_state_of_another_model_is_refused_and_changes_nothing(gru, x):
    stream = gru.stream()
    stream.step(x[0, 0])
    before = stream.save()
    held = gru.with_thresholds({"rnn.l0/x": 1}).stream()
    for state in (
        held.save(),
        quantized("lstm", "w4a8").stream().save(),
        before[:-1],
        before + b"\0",
        b"",
        b"RNDLST1\0",
    ):
        with pytest.raises(RindleError, match="state"):
            stream.restore(state)
    with pytest.raises(RindleError, match="str"):
        stream.restore("state")
    assert stream.save() == before


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (np.zeros(FEATURES + 1, np.float32), rf"float32 \[{FEATURES + 1}\]; it must be float32 \[{FEATURES}\]"),
        (np.zeros(FEATURES), r"float64 \[5\]; it must be float32 \[5\]: x\.astype"),
        (np.zeros((1, FEATURES), np.float32), r"\[1, 5\]"),
        ([0.0] * FEATURES, "list"),
        (np.zeros(2 * FEATURES, np.float32)[::2], "contiguous"),
        (np.full(FEATURES, np.nan, np.float32), "nan"),
        (np.array([0, 0, np.inf, 0, 0], np.float32), "feature 2 is inf"),
    ],
)
def test_step_refuses_by_name_and_changes_nothing(gru, x, frame, words):
    stream = gru.stream()
    stream.step(x[0, 0])
    before = stream.save()
    with pytest.raises(RindleError, match=words):
        stream.step(frame)
    assert stream.save() == before


def test_step_refuses_an_unfit_out(gru, x):
    for out in (np.zeros(OUTPUTS + 1, np.float32), np.zeros(OUTPUTS, np.int16), np.zeros(2 * OUTPUTS, np.float32)[::2]):
        with pytest.raises(RindleError, match="out"):
            gru.stream().step(x[0, 0], out)
    fixed = np.zeros(OUTPUTS, np.float32)
    fixed.setflags(write=False)
    with pytest.raises(RindleError, match=r"out must be .*writable"):
        gru.stream().step(x[0, 0], fixed)


def test_two_threads_on_one_stream_are_refused(gru):
    """One keeps the stream busy with long runs; the other must be told so, and both must survive."""
    stream = gru.stream()
    long = np.zeros((1, 20000, FEATURES), np.float32)
    out = np.zeros((1, 20000, OUTPUTS), np.float32)
    stop, refused = threading.Event(), []

    def occupy():
        while not stop.is_set():
            try:
                stream._core.run(long, out)
            except RuntimeError:
                pass

    worker = threading.Thread(target=occupy)
    worker.start()
    try:
        for _ in range(20000):
            try:
                stream.step(np.zeros(FEATURES, np.float32))
            except RuntimeError as error:
                refused.append(str(error))
                break
    finally:
        stop.set()
        worker.join()
    assert refused and "thread" in refused[0]
    stream.reset()
    np.testing.assert_array_equal(stream.step(long[0, 0]), gru.run(long[:, :1])[0, 0])


def test_streams_of_one_model_run_in_parallel(gru, x):
    wanted = gru.run(x)
    found = {}

    def work(row):
        stream = gru.stream()
        for _ in range(50):
            stream.reset()
            found[row] = np.stack([stream.step(frame) for frame in x[row]])

    threads = [threading.Thread(target=work, args=(row,)) for row in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for row in range(3):
        np.testing.assert_array_equal(found[row], wanted[row])


@pytest.mark.fast(4)
def test_last_streams_and_mean_does_not(cell, x):
    last = quantized(cell, "int8", head="last")
    stream = last.stream()
    for t in range(9):
        np.testing.assert_array_equal(stream.step(x[0, t]), last.run(x[:1, : t + 1])[0])
    with pytest.raises(RindleError, match=r"'rnn\.l1\.mean' needs the whole sequence"):
        quantized(cell, "int8", head="mean").stream()


# --------------------------------------------------------------------------------------------------------- run


@pytest.mark.parametrize("call", ["run", "measure"])
@pytest.mark.parametrize(
    ("x", "lengths", "words"),
    [
        (
            np.zeros((3, 9, FEATURES + 1), np.float32),
            None,
            r"float32 \[3, 9, 6\]; it must be float32 \[T, 5\] or \[B, T, 5\]$",
        ),
        (np.zeros(FEATURES, np.float32), None, r"float32 \[5\]; it must be"),
        (
            np.zeros((3, 9, FEATURES)),
            None,
            r"x is float64 \[3, 9, 5\]; it must be float32 .*: x\.astype\(np\.float32\)$",
        ),
        (np.zeros((3, 0, FEATURES), np.float32), None, "at least one frame"),
        (np.zeros((0, 9, FEATURES), np.float32), None, "at least one row"),
        (np.zeros((0, FEATURES), np.float32), None, "at least one frame"),
        ([[0.0] * FEATURES], None, "list"),
        (np.zeros((3, 9, FEATURES), np.float32), [9, 0, 9], r"lengths\[1\] is 0; it must be 1..9"),
        (np.zeros((3, 9, FEATURES), np.float32), [9, 9, 10], r"lengths\[2\] is 10"),
        (np.zeros((3, 9, FEATURES), np.float32), [9, 9], "one for each of the 3 rows"),
        (np.zeros((3, 9, FEATURES), np.float32), [9.0, 9.0, 9.0], "integers"),
    ],
)
def test_run_refuses_by_name(gru, call, x, lengths, words):
    with pytest.raises(RindleError, match=words):
        getattr(gru, call)(x, lengths)


@pytest.mark.parametrize("engine", ["runtime", "reference"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_run_refuses_what_is_not_finite_but_does_not_read_padding(gru, x, engine, value):
    wanted = gru.run(x, [9, 5, 9], engine=engine)
    x[1, 5:] = value
    np.testing.assert_array_equal(gru.run(x, [9, 5, 9], engine=engine), wanted)
    with pytest.raises(RindleError, match=r"nan|inf"):
        gru.run(x, engine=engine)


@pytest.mark.parametrize("engine", ["runtime", "reference"])
def test_run_codes_refuses_codes_outside_the_format(gru, engine):
    codes = np.zeros((1, 4, FEATURES), np.int16)
    codes[0, 2, 1] = -128
    with pytest.raises(RindleError, match="-127"):
        gru.run_codes(codes, engine=engine)


def test_inputs_far_outside_the_calibrated_range_work_and_are_counted(gru, x):
    seen = gru.measure(x * 1e6)
    assert np.isfinite(seen.output).all()
    assert seen.saturations["input", "input"] > x.size / 2
    assert gru.measure(x * 0).saturations["input", "input"] == 0


def test_without_a_batch_there_is_none_in_the_output(gru, x):
    np.testing.assert_array_equal(gru.run(x[0]), gru.run(x)[0])
    np.testing.assert_array_equal(gru.run(x[0], [4]), gru.run(x[:1], [4])[0])


def test_an_unknown_engine_and_kernel_are_named(gru, x, tmp_path, monkeypatch):
    with pytest.raises(RindleError, match="'gpu'; there are runtime and reference"):
        gru.run(x, engine="gpu")
    rindle.save(gru, tmp_path / "m.rindle")
    with pytest.raises(RindleError, match=r"abacus.*portable"):
        rindle.load(tmp_path / "m.rindle", kernel="abacus")
    monkeypatch.setenv("RINDLE_KERNEL", "abacus")
    with pytest.raises(RindleError, match=r"abacus.*portable"):
        rindle.load(tmp_path / "m.rindle")


def test_a_failed_save_leaves_the_older_file(gru, tmp_path, monkeypatch):
    path = tmp_path / "m.rindle"
    path.write_bytes(b"older")
    with monkeypatch.context() as patched:
        patched.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(RindleError, match="No space left"):
            rindle.save(gru, path)
    assert path.read_bytes() == b"older" and list(tmp_path.iterdir()) == [path]
    rindle.save(gru, path)
    assert rindle.load(path).id == gru.id


# ------------------------------------------------------------------------------------------------- measurements


def test_measured_activity_is_that_of_the_held_inputs(model, x):
    """Eliminated operations against a count by hand from the reference's changes."""
    *_, last = (name for name in model.thresholds if name.startswith("rnn.l1"))
    held = model.with_thresholds({"rnn.l0/x": 3, last: 9})
    lengths = [9, 5, 1]
    seen = held.measure(x, lengths)
    result = reference.run(held.artifact, x, lengths)
    assert result.saturations == seen.saturations
    spared = whole = 0
    for one in seen.inputs:
        key = held.artifact.held_codes()[one.name]
        changed, frames = result.changes.get(key, (one.size * 15, 15))
        assert one.frames == frames == 15
        assert one.density == changed / (one.size * 15)
        spared += one.macs * 15 - one.macs // one.size * changed
        whole += one.macs * 15
    assert seen.eliminated() == pytest.approx(spared / whole)
    assert {one.name: one.theta for one in seen.inputs if one.theta is not None} == {"rnn.l0/x": 3, last: 9}
    assert 0 < seen.eliminated() < 1


@pytest.mark.parametrize("theta", [-1, 0.5, 127, 1000, "3", np.nan, [1, 2], True])
def test_a_theta_that_cannot_be_is_refused(gru, theta):
    with pytest.raises(RindleError, match=r"rnn\.l0/x: θ"):
        gru.with_thresholds({"rnn.l0/x": theta})


def test_an_unknown_input_is_named_with_the_near_one(gru):
    with pytest.raises(RindleError, match=r"'rnn\.l0/y'; did you mean 'rnn\.l0/x'"):
        gru.with_thresholds({"rnn.l0/y": 1})


@pytest.mark.parametrize(
    ("call", "kind", "wrong"), [("run", np.float32, np.inf), ("run_codes", np.int16, -128), ("run", np.int32, 99)]
)
def test_both_engines_refuse_a_value_in_the_same_words(call, kind, wrong):
    model = quantized_graph("words", "int8") if kind is np.int32 else quantized("gru", "int8")
    x = np.zeros((3, 9) if kind is np.int32 else (3, 9, FEATURES), kind)
    x[1, 4:] = wrong
    said = []
    for engine in ("runtime", "reference"):
        getattr(model, call)(x, [9, 4, 9], engine=engine)  # what stands behind a row is not read
        with pytest.raises(RindleError) as error:
            getattr(model, call)(x, engine=engine)
        said.append(str(error.value))
    assert said[0] == said[1] and said[0].startswith("input row 1, frame 4, ")
