"""The speech demo: frames that do not depend on how a sound is cut, folds that keep speakers apart, and listening."""

import json
import os
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
import torch

for name in ("kaldi_native_fbank", "soundfile", "soxr", "lightning_fabric", "sktime"):
    pytest.importorskip(name, reason=f"the extra `demo` is not installed: there is no {name}")

import rindle  # noqa: E402
from rindle.cli import main as command  # noqa: E402
from rindle.tasks.data import fsdd  # noqa: E402
from rindle.tasks.demo import digits, digits_train  # noqa: E402
from rindle.tasks.demo.frontend import (  # noqa: E402
    BINS,
    FLOOR,
    PRIOR,
    RATE,
    SPREAD,
    TYPICAL,
    LogMel,
    Normalizer,
    Sound,
    logmel,
    normalize,
)

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "examples"), str(ROOT)]

import listen  # noqa: E402

needs_mirror = pytest.mark.skipif(
    not os.environ.get("RINDLE_DATA_MIRROR"),
    reason="RINDLE_DATA_MIRROR is not set, so there are no recordings of digits",
)


def speech(seconds: float = 0.5, seed: int = 0, pitch: float = 120.0) -> np.ndarray:
    """Something voiced: int16 at 8 kHz, harmonics whose strengths wander, with a little noise."""
    draw = np.random.default_rng(seed)
    t = np.arange(int(seconds * RATE)) / RATE
    strengths = np.exp(np.cumsum(draw.normal(0, 0.02, (20, len(t))), axis=1))
    waves = sum(s * np.sin(2 * np.pi * pitch * (k + 1) * t) / (k + 1) for k, s in enumerate(strengths))
    return np.round(4000 * waves / np.abs(waves).max() + draw.normal(0, 20, len(t))).astype(np.int16)


def put_wav(path: Path, samples: np.ndarray, rate: int = RATE) -> Path:
    """samples: int16 [n] or [n, channels]."""
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(samples.astype("<i2").tobytes())
    return path


def pieces(samples: np.ndarray, sizes) -> list[np.ndarray]:
    return np.split(samples, np.cumsum(sizes)[np.cumsum(sizes) < len(samples)])


# Frames


@pytest.mark.parametrize("size", [1, 79, 80, 81, 200, 1000])
def test_frames_do_not_depend_on_how_a_sound_is_cut(size):
    samples = speech(0.3)
    mel, normalizer = LogMel(), Normalizer()
    cut = [mel.accept(piece) for piece in pieces(samples, [size] * len(samples))]
    whole = logmel(samples)
    assert np.array_equal(np.concatenate(cut), whole)
    assert np.array_equal(np.concatenate([normalizer.accept(frames) for frames in cut]), normalize(whole))


@pytest.mark.parametrize("count, frames", [(1, 1), (200, 1), (279, 1), (280, 2), (4000, 48)])
def test_a_frame_comes_with_its_last_sample(count, frames):
    assert logmel(speech()[:count]).shape == (frames, BINS)


def test_frames_say_which_band_is_loud_and_by_how_much():
    t = np.arange(RATE) / RATE
    mel = lambda f: 1127 * np.log(1 + f / 700)  # noqa: E731
    centres = np.linspace(mel(60), mel(3800), BINS + 2)[1:-1]
    for f in (300.0, 1000.0, 3000.0):
        tone = 1000 * np.sin(2 * np.pi * f * t)
        frames = logmel(tone)
        assert abs(frames.mean(0).argmax() - np.abs(centres - mel(f)).argmin()) <= 1
        assert np.allclose(logmel(2 * tone) - frames, np.log(4), atol=1e-2)


def test_the_normalizer_is_the_written_formula():
    frames = np.random.default_rng(1).normal(12, 4, (30, BINS)).astype(np.float32)
    found = normalize(frames)
    for t in range(30):
        for k in range(BINS):
            heard = [max(float(one), FLOOR) for one in frames[: t + 1, k]]
            mean = (PRIOR * TYPICAL + sum(heard)) / (PRIOR + t + 1)
            assert found[t, k] == pytest.approx((heard[-1] - mean) / SPREAD, abs=1e-5)


def test_loudness_fades_out_of_the_frames():
    frames = np.random.default_rng(2).normal(14, 1, (2000, BINS)).astype(np.float32)
    apart = np.abs(normalize(frames + 2) - normalize(frames)).max(1)
    assert apart[0] > 0.6 and apart[-1] < 0.01


# Sound files


def heard(path: Path) -> np.ndarray:
    return np.concatenate(list(Sound(path)))


def test_a_file_at_our_rate_is_read_as_it_is(tmp_path):
    samples = speech()
    assert np.array_equal(heard(put_wav(tmp_path / "a.wav", samples)), samples)
    two = np.stack([samples, samples // 2], axis=1)
    assert np.allclose(heard(put_wav(tmp_path / "b.wav", two)), two.mean(1), atol=0.01)


@pytest.mark.parametrize("rate", [11025, 16000, 44100])
def test_other_rates_are_resampled(tmp_path, rate):
    t = np.arange(rate) / rate
    tone = put_wav(tmp_path / "a.wav", np.round(8000 * np.sin(2 * np.pi * 440 * t)).astype(np.int16), rate)
    samples = heard(tone)
    assert abs(len(samples) - RATE) <= 1
    wanted = 8000 * np.sin(2 * np.pi * 440 * np.arange(len(samples)) / RATE)
    middle = slice(500, -500)  # a resampler rings at the ends
    assert np.abs(samples - wanted)[middle].max() < 20


def test_24_bits_mean_the_same(tmp_path):
    import soundfile

    samples = speech()
    soundfile.write(tmp_path / "a.wav", samples / 32768, RATE, subtype="PCM_24")
    assert np.abs(heard(tmp_path / "a.wav") - samples).max() < 0.01


def test_what_is_no_sound_is_refused(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"not a sound")
    for name in ("a.wav", "missing.wav"):
        with pytest.raises(rindle.RindleError, match=rf"{name} is not a sound file"):
            Sound(tmp_path / name)


# Folds and results


@pytest.fixture
def recordings(monkeypatch):
    """Instead of the data set: six speakers say ten digits, three times each."""
    made = [
        fsdd.Recording(
            digit, speaker, index, speech(0.15 + 0.02 * index, seed=100 * k + 10 * digit + index, pitch=90 + 10 * k)
        )
        for k, speaker in enumerate(digits.SPEAKERS)
        for digit in range(10)
        for index in range(3)
    ]
    monkeypatch.setattr(fsdd, "load", lambda: {"train": made[::2], "valid": [], "test": made[1::2]})
    return made


def test_every_speaker_is_tested_once_and_never_chosen_on(recordings):
    made = digits.folds()
    assert tuple(made) == digits.SPEAKERS
    for test, fold in made.items():
        parts = [{one.speaker for one in part} for part in (fold.test, fold.valid, fold.train)]
        assert parts[0] == {test} and parts[1] == {fold.valid_speaker} and len(parts[2]) == 4
        assert set.union(*parts) == set(digits.SPEAKERS)
        assert [len(part) for part in (fold.test, fold.valid, fold.train)] == [30, 30, 120]


def test_names_of_folds_are_checked():
    assert digits.names("all") == digits.SPEAKERS and digits.names("theo, lucas") == ("theo", "lucas")
    with pytest.raises(rindle.RindleError, match="no speaker 'eve'; there are george, "):
        digits.names("theo,eve")


def test_training_changes_a_recording_by_seed_epoch_and_row_alone(recordings):
    fold = digits.folds(("theo",))["theo"]
    one, two = digits_train.Task(fold, seed=1), digits_train.Task(fold, seed=1)
    plans = [task.plan(3) for task in (one, two)]
    assert all(np.array_equal(*batches) for batches in zip(*plans))
    assert sorted(np.concatenate(plans[0])) == list(range(len(fold.train)))
    before = one.examples
    assert all(np.array_equal(*both) for both in zip(before, two.examples))
    one.plan(4)
    assert not any(np.array_equal(*both) for both in zip(before, one.examples))


def test_summary_is_mean_and_deviation_over_the_folds():
    def fold(real, int8, delta, share):
        spared = dict.fromkeys(("all", "input", "hidden"), share)
        rows = ((digits.FLOAT, real), (digits.INT8, int8), (digits.DELTA, delta))
        models = {name: {"bytes": 10, "valid": 0.0, "test": value} for name, value in rows}
        models[digits.DELTA] |= {"eliminated": spared, "eliminated at 0": spared}
        return {"models": models}

    found = digits.summary([fold(0.9, 0.8, 0.7, 0.5), fold(0.6, 0.6, 0.65, 0.7)])
    close = lambda mean, deviation: pytest.approx({"mean": mean, "deviation": deviation})  # noqa: E731
    assert found[digits.FLOAT]["accuracy"] == close(0.75, 0.3 / 2**0.5)
    assert found[digits.INT8]["lost"] == close(5.0, 10 / 2**0.5)
    assert found[digits.DELTA]["lost"] == close(2.5, 15 / 2**0.5)
    assert found[digits.DELTA]["eliminated"]["hidden"] == close(0.6, 0.2 / 2**0.5)


@pytest.mark.fast(0)
@needs_mirror
def test_the_demo_runs_and_measures_what_it_says(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(
        sys, "argv", ["rindle", "demo", "--data", "fsdd", "--folds", "lucas,theo", "--quick", "--output", str(tmp_path)]
    )
    with pytest.raises(SystemExit) as ended:
        command()
    assert not ended.value.code
    shown = capfd.readouterr().out
    results = json.loads((tmp_path / "results.json").read_text())
    assert [one["test speaker"] for one in results["folds"]] == ["lucas", "theo"]
    for one in results["folds"]:
        speaker, rows = one["test speaker"], one["models"]
        fold = digits.folds((speaker,), digits.QUICK)[speaker]
        frames = [u.frames for u in fold.test]
        assert (one["recordings"], one["frames"]) == (20, sum(len(f) for f in frames))
        labels = np.array([u.digit for u in fold.test])
        for name, file in ((digits.INT8, "int8"), (digits.DELTA, "delta")):
            path = tmp_path / f"{speaker}-{file}.rindle"
            model = rindle.load(path)
            alone = np.stack([model.run(f) for f in frames])  # one by one: no padding anywhere
            assert rows[name]["test"] == (alone.argmax(1) == labels).mean()
            assert rows[name]["bytes"] == path.stat().st_size
        assert {key: model.thresholds[key] for key in rows[digits.DELTA]["thresholds"]} == rows[digits.DELTA][
            "thresholds"
        ]
        dense = rindle.load(tmp_path / f"{speaker}-int8.rindle")
        unlike = [model.run(u.frames).argmax() != dense.run(u.frames).argmax() for u in fold.valid]
        assert 100 * np.mean(unlike) <= results["budget"]
        stream, spared, whole = model.stream(), 0.0, 0.0
        for f in frames:
            stream.reset()
            for frame in f:
                stream.step(frame)
        for i in stream.measure().inputs:
            whole += i.macs * i.frames
            spared += i.macs * i.frames * (1 - i.density)
        assert rows[digits.DELTA]["eliminated"]["all"] == pytest.approx(spared / whole)
        assert f"{rows[digits.FLOAT]['test']:.1%}" in shown
        # the float number is that of the saved, rounded weights
        net, about = digits_train.load(tmp_path / f"{speaker}.safetensors")
        assert all(torch.equal(value, value.half().float()) for value in net.parameters())
        with torch.no_grad():
            right = [int(net(torch.from_numpy(f)[None])[0].argmax()) for f in frames] == labels
        assert rows[digits.FLOAT]["test"] == right.mean()
        assert speaker not in about["train speakers"] and one["validation speaker"] not in about["train speakers"]


# Listening


@pytest.fixture(scope="module")
def untrained():
    torch.manual_seed(0)
    frames = [normalize(logmel(speech(0.4, seed)))[None] for seed in range(4)]
    return rindle.quantize(digits_train.DigitNet(), "int8", frames).with_thresholds({"rnn.l0/h": 3})


def spaced(
    words: list[np.ndarray], gap: float = 0.4, noise: float = 3.0
) -> tuple[np.ndarray, list[tuple[float, float]]]:
    """Words with silence (a little noise) around them, int16, and when each begins and ends."""
    draw, times = np.random.default_rng(5), []
    parts, now = [np.zeros(int(gap * RATE))], gap
    for word in words:
        times.append((now, now + len(word) / RATE))
        parts += [word, np.zeros(int(gap * RATE))]
        now = sum(len(part) for part in parts) / RATE
    whole = np.concatenate(parts)
    return np.round(whole + draw.normal(0, noise, len(whole))).astype(np.int16), times


def words(model, samples, sizes=(80,) * 10_000) -> list:
    return [one for one in listen.listen(model, pieces(samples, sizes)) if one.final]


def test_listening_finds_the_words_and_nothing_in_silence(untrained):
    samples, times = spaced([speech(0.3, 1), speech(0.5, 2), speech(0.2, 3)])
    found = words(untrained, samples)
    assert len(found) == 3
    for one, (start, end) in zip(found, times):
        assert start - 0.13 <= one.start <= start + 0.03 and abs(one.end - end) < 0.06
    assert words(untrained, spaced([np.zeros(RATE)])[0]) == []
    assert words(untrained, np.zeros(RATE, np.int16)) == []
    assert words(untrained, spaced([speech(0.03, 1)])[0]) == []  # a click
    assert len(words(untrained, samples[: int(times[0][1] * RATE)])) == 1  # the file ends within the word


def test_listening_gets_used_to_a_loud_room(untrained):
    draw, fan = np.random.default_rng(6), 100.0
    assert words(untrained, draw.normal(0, 20 * fan, 5 * RATE).clip(-32768, 32767).astype(np.int16)) == []
    room = draw.normal(0, fan, 6 * RATE)
    room[5 * RATE :][: int(0.3 * RATE)] += 3 * speech(0.3, 1)
    found = words(untrained, np.clip(room, -32768, 32767).astype(np.int16))
    assert len(found) <= 2 and 4.85 < found[-1].start < 5.05 and abs(found[-1].end - 5.3) < 0.06


def test_listening_does_not_depend_on_how_the_sound_is_cut(untrained):
    samples, _ = spaced([speech(0.3, 1), speech(0.4, 2)])
    assert list(listen.listen(untrained, [samples])) == list(listen.listen(untrained, pieces(samples, [37] * 1000)))


def test_a_heard_word_is_what_the_model_says_of_its_frames(untrained):
    samples, _ = spaced([speech(0.3, 1), speech(0.4, 2)])
    frames = logmel(samples)
    for one in words(untrained, samples):
        first, last = round(one.start * 100), round((one.end - 0.015) * 100)
        # up to the frame that decided that the word is over
        scores = untrained.run(normalize(frames[first : last + listen.Silence.PAUSE - 1]))
        powers = np.exp(scores.astype(np.float64) - scores.max())
        assert one.digit == scores.argmax() and one.probability == pytest.approx(
            (powers / powers.sum()).max(), rel=1e-12
        )


def test_listening_refuses_another_model():
    from support import quantized

    with pytest.raises(
        rindle.RindleError, match=r"the model maps \d+ features to \d+ scores; this listens with 32 to 10"
    ):
        listen.Listener(quantized("gru", "int8"))


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
sys.argv = ["listen.py", *sys.argv[1:]]
import listen
listen.main()
"""


def test_the_listener_is_a_program_without_torch(untrained, tmp_path):
    samples, _ = spaced([speech(0.3, 1), speech(0.5, 2)])
    rindle.save(untrained, tmp_path / "m.rindle")
    sound = put_wav(tmp_path / "a.wav", np.repeat(samples, 2), 16000)
    call = [sys.executable, "-c", WITHOUT_TORCH]
    done = subprocess.run([*call, tmp_path / "m.rindle", sound], cwd=ROOT / "examples", capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and len(lines) == 3 and lines[-1].endswith("at 16000 Hz, 2 words"), done
    assert all(any(digit in line for digit in digits.DIGITS) for line in lines[:2])
    done = subprocess.run([*call, sound, sound], cwd=ROOT / "examples", capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith(f"error: {sound}"), done


# The committed networks


def test_the_page_says_what_the_results_say():
    from experiments.fsdd import table

    text = table.PAGE.read_text()
    assert text.partition(table.BEGIN)[2].partition(table.END)[0].splitlines() == table.rows()


def test_the_results_are_of_the_committed_networks(recordings):
    results = json.loads((ROOT / "experiments/fsdd/results.json").read_text())
    assert [one["test speaker"] for one in results["folds"]] == list(digits.SPEAKERS) and not results["quick"]
    assert results["summary"] == digits.summary(results["folds"])
    for one in results["folds"]:
        net, about = digits_train.load(ROOT / f"experiments/fsdd/{one['test speaker']}.safetensors")
        assert about == one["training"]
        fold = digits.folds((one["test speaker"],))[one["test speaker"]]
        assert one["validation speaker"] == fold.valid_speaker
        assert set(about["train speakers"]) == {u.speaker for u in fold.train}
        assert all(torch.equal(value, value.half().float()) for value in net.parameters())


@pytest.mark.fast(0)
@needs_mirror
def test_a_committed_network_measures_what_is_written():
    results = json.loads((ROOT / "experiments/fsdd/results.json").read_text())
    (one,) = (one for one in results["folds"] if one["test speaker"] == "lucas")
    net, _ = digits_train.load(ROOT / "experiments/fsdd/lucas.safetensors")
    test = digits.packed(digits.folds(("lucas",))["lucas"].test, "lucas")
    right = (digits_train.float_scores(net, test).argmax(1) == test.y).mean()
    assert (len(test), test.frames) == (one["recordings"], one["frames"])
    # another machine's float sums may turn a close decision
    assert right == pytest.approx(one["models"][digits.FLOAT]["test"], abs=0.004)
