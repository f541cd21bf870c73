"""Every loader, on small files of the published layout; and, where the data sets are at hand, on those.

The second kind needs RINDLE_DATA_MIRROR, a folder with the packages that `rindle.data` names. Without it these tests
are skipped and say so; the loaders' rules are then still tested on the small files.
"""

import json
import os
import struct
import wave

import numpy as np
import pytest

from rindle.tasks.data import DATASETS, DataError, an4, fsdd, imdb, mboshi, mnist, opendpd, ptb, speech_commands, timit
from rindle.tasks.data.audio import logmel, read_audio

needs_mirror = pytest.mark.skipif(
    not os.environ.get("RINDLE_DATA_MIRROR"),
    reason="RINDLE_DATA_MIRROR is not set, so the published files cannot be counted; their layout is tested all the same",
)


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def put_wav(path, samples, rate=16000):
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(np.asarray(samples, "<i2").tobytes())
    return path


def test_every_data_set_says_where_it_is_from():
    import rindle.data

    for name in DATASETS:
        module = getattr(rindle.data, name)
        for source in (v for v in vars(module).values() if type(v).__name__ == "Source"):
            assert source.home.startswith("http") and source.licence and source.ways
            assert source.digest or source.name in ("timit", "speech_commands", "speech_commands_test")
    with pytest.raises(AttributeError, match=r"no 'wikipedia'; the data sets are an4, "):
        rindle.data.wikipedia  # noqa: B018


# Text


def test_ptb_indices_are_ranks_in_train(tmp_path):
    put(tmp_path / "ptb.train.txt", " b a b \n b <unk> c \n")
    put(tmp_path / "ptb.valid.txt", " a \n")
    put(tmp_path / "ptb.test.txt", " c <unk> \n\n")
    data = ptb.load(tmp_path)
    assert data.words == ["b", "<eos>", "<unk>", "a", "c"]  # ties by spelling
    assert data.train.tolist() == [0, 3, 0, 1, 0, 2, 4, 1]
    assert data.valid.tolist() == [3, 1] and data.test.tolist() == [4, 2, 1, 1]


@needs_mirror
def test_ptb_published():
    data = ptb.load()
    assert (len(data.words), len(data.train), len(data.valid), len(data.test)) == (10_000, 929_589, 73_760, 82_430)


def test_imdb_split_keeps_films_and_texts_apart(tmp_path):
    reviews = {
        "train/pos/9999_8.txt": "good<br /><br />film!",
        "train/pos/10000_9.txt": "held out",
        "train/neg/12499_1.txt": "held out too",
        "train/neg/12500_2.txt": "Bad, bad film",
        "train/neg/3_3.txt": "in both",
        "train/neg/4_3.txt": "held out",
        "test/pos/0_10.txt": "never seen",
        "test/neg/1_4.txt": "in both",
    }
    for name, text in reviews.items():
        put(tmp_path / name, text)
    parts = imdb.reviews(tmp_path)
    assert {p: [(r.id, r.positive) for r in rows] for p, rows in parts.items()} == {
        "train": [(12500, False), (9999, True)],
        "valid": [(12499, False), (10000, True)],
        "test": [(1, False), (0, True)],
    }
    data = imdb.load(tmp_path, vocabulary=4, length=3)
    assert data.words == ["<pad>", "<unk>", "bad", "film"]
    assert [row.tolist() for row in data.train[0]] == [[2, 2, 3], [1, 3, 1]]
    assert data.train[1].tolist() == [0, 1]


@pytest.mark.fast(0)
@needs_mirror
def test_imdb_published():
    parts = imdb.reviews()
    assert {part: len(rows) for part, rows in parts.items()} == {"train": 19_897, "valid": 4_960, "test": 25_000}
    texts = {part: {review.text for review in rows} for part, rows in parts.items()}
    assert not texts["train"] & texts["test"] and not texts["valid"] & (texts["test"] | texts["train"])


# Speech


def sphere(samples, order="01", coding="pcm"):
    fields = f"sample_count -i {len(samples)}\nsample_rate -i 16000\nsample_byte_format -s2 {order}\n"
    fields += f"channel_count -i 1\nsample_n_bytes -i 2\nsample_coding -s{len(coding)} {coding}\nend_head\n"
    header = ("NIST_1A\n   1024\n" + fields).ljust(1024).encode()
    return header + np.asarray(samples, "<i2" if order == "01" else ">i2").tobytes()


@pytest.mark.parametrize("order", ["01", "10"])
def test_sphere_and_riff_hold_the_same_samples(tmp_path, order):
    samples = np.array([0, 1, -1, 32767, -32768, 258], np.int16)
    one = read_audio(put(tmp_path / "a.wav", sphere(samples, order)))
    two = read_audio(put_wav(tmp_path / "b.wav", samples))
    assert one[0].tolist() == two[0].tolist() == samples.tolist() and one[1] == two[1] == 16000


def test_compressed_sphere_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"coding pcm,embedded-shorten-v2\.00"):
        read_audio(put(tmp_path / "a.wav", sphere([1], coding="pcm,embedded-shorten-v2.00")))


@pytest.mark.parametrize("rate, peak", [(16000, 440.0), (8000, 1000.0)])
def test_logmel_peaks_at_the_tones_bin(rate, peak):
    samples = np.round(8000 * np.sin(2 * np.pi * peak * np.arange(rate) / rate)).astype(np.int16)
    features = logmel(samples, rate)
    assert features.shape == (98, 40) and features.dtype == np.float32
    mel = lambda f: 2595 * np.log10(1 + f / 700)  # noqa: E731
    centres = np.linspace(mel(20), mel(0.475 * rate), 42)[1:-1]
    assert abs(features.mean(0).argmax() - np.abs(centres - mel(peak)).argmin()) <= 1
    assert np.allclose(logmel(np.zeros(400, np.int16), 16000), np.log(1e-6))


def test_logmel_is_the_written_formula():
    samples = np.random.default_rng(0).integers(-3000, 3000, 1000).astype(np.int16)
    x = samples[160:560] / 32768 * (0.54 - 0.46 * np.cos(2 * np.pi * np.arange(400) / 399))
    power = [abs(sum(x * np.exp(-2j * np.pi * k * np.arange(400) / 512))) ** 2 for k in range(257)]
    edges = 700 * (10 ** (np.linspace(*(2595 * np.log10(1 + np.array([20, 7600]) / 700)), 42) / 2595) - 1)

    def weight(b, f):
        a, c, d = edges[b : b + 3]
        return max(0.0, min((f - a) / (c - a), (d - f) / (d - c)))

    expected = [np.log(sum(weight(b, 31.25 * k) * power[k] for k in range(257)) + 1e-6) for b in range(40)]
    assert np.allclose(logmel(samples, 16000)[1], expected, atol=1e-4)


def test_fsdd_splits(tmp_path):
    for speaker in ("george", "lucas", "yweweler"):
        for index in (0, 4, 5, 9, 10, 49):
            put_wav(tmp_path / f"recordings/7_{speaker}_{index}.wav", [index, -index], rate=8000)
    parts = fsdd.load(tmp_path)
    assert {p: {r.speaker for r in rows} for p, rows in parts.items()} == {
        "train": {"george"},
        "valid": {"lucas"},
        "test": {"yweweler"},
    }
    parts = fsdd.load(tmp_path, split="official")
    assert {p: {r.index for r in rows} for p, rows in parts.items()} == {
        "train": {10, 49},
        "valid": {5, 9},
        "test": {0, 4},
    }
    assert all(r.digit == 7 and r.samples.tolist() == [r.index, -r.index] for rows in parts.values() for r in rows)
    put_wav(tmp_path / "recordings/1_theo_0.wav", [0], rate=16000)
    with pytest.raises(DataError, match="16000 samples per second, expected 8000"):
        fsdd.load(tmp_path)


@pytest.mark.fast(0)
@needs_mirror
def test_fsdd_published():
    counts = {split: {p: len(rows) for p, rows in fsdd.load(split=split).items()} for split in fsdd.SPLITS}
    assert counts["by_speaker"] == {"train": 2000, "valid": 500, "test": 500}
    assert counts["official"] == {"train": 2400, "valid": 300, "test": 300}


def mfc(frames):
    return struct.pack(">i", np.size(frames)) + np.asarray(frames, ">f4").tobytes()


def test_an4_holds_out_the_last_eight_speakers(tmp_path):
    speakers = [f"f{letter}" for letter in "abcdefghij"]
    names = {"train": [f"an4_clstk/{s}/an1-{s}-b" for s in speakers], "test": ["an4test_clstk/mx/cen1-mx-b"]}
    frames = np.arange(26, dtype=np.float32).reshape(2, 13)
    for part, files in names.items():
        put(tmp_path / f"etc/an4_{part}.fileids", "\n".join(files))
        rows = [f"<s> YES NO </s> ({f.split('/')[2]})" for f in files]
        put(tmp_path / f"etc/an4_{part}.transcription", "\n".join(rows))
        for file in files:
            put(tmp_path / f"feat/{file}.mfc", mfc(frames))
    put(tmp_path / "etc/an4.dic", "A  AH\nA(2)  EY\nYES  Y EH S\n")
    parts = an4.load(tmp_path)
    assert [u.speaker for u in parts["train"]] == ["fa", "fb"] and len(parts["valid"]) == 8 and len(parts["test"]) == 1
    assert parts["test"][0].words == ["YES", "NO"] and (parts["test"][0].features == frames).all()
    assert an4.lexicon(tmp_path) == {"A": [["AH"], ["EY"]], "YES": [["Y", "EH", "S"]]}
    put(tmp_path / "feat/an4test_clstk/mx/cen1-mx-b.mfc", mfc(frames)[:-4])
    with pytest.raises(DataError, match="104 bytes for 26 values of 13 per frame"):
        an4.load(tmp_path)
    put(tmp_path / "etc/an4_test.transcription", "YES (cen2-mx-b)")
    with pytest.raises(DataError, match="transcription of cen2-mx-b where that of cen1-mx-b should be"):
        an4.load(tmp_path)


@pytest.mark.fast(0)
@needs_mirror
def test_an4_published():
    parts = an4.load()
    assert {p: (len(rows), len({u.speaker for u in rows})) for p, rows in parts.items()} == {
        "train": (848, 66),
        "valid": (100, 8),
        "test": (130, 10),
    }
    assert sum(len(u.words) for p in ("train", "valid") for u in parts[p]) == 5442
    speakers = [{u.speaker for u in rows} for rows in parts.values()]
    assert len(set.union(*speakers)) == sum(map(len, speakers))
    known = {tuple(u.words) for u in parts["train"]}
    assert [sum(tuple(u.words) in known for u in parts[p]) for p in ("valid", "test")] == [26, 24]
    assert sum(len(u.features) for rows in parts.values() for u in rows) == 289_252
    lexicon = an4.lexicon()
    assert all(word in lexicon for rows in parts.values() for u in rows for word in u.words)


def put_mboshi(folder, part, utterances):
    """utterances: (speaker, text, frames)."""
    offsets = np.cumsum([0, *(frames for *_, frames in utterances)])
    codes = np.arange(offsets[-1] * 40, dtype=np.uint64).astype(np.uint8).reshape(-1, 40)
    labels = (np.arange(offsets[-1]) % 28).astype(np.uint8)
    np.save(folder / f"{part}_feats.npy", codes)
    np.savez(folder / f"{part}_meta.npz", frame_offset=offsets, frame_label=labels)
    about = [{"id": f"{part}{i}", "speaker": s, "text_cleaned": t} for i, (s, t, _) in enumerate(utterances)]
    put(folder / f"{part}_utts.json", json.dumps(about))
    put(folder / "config.json", json.dumps({"phones": ["SIL", "A"], "train_mean": [-14] * 40, "train_std": [2] * 40}))
    return codes, labels


def test_mboshi_splits_keep_texts_apart(tmp_path):
    train = [("abiayi", f"text {i:02}", 2) for i in range(20)] + [("martial", "text 09", 3), ("kouarata", "text 00", 1)]
    codes, labels = put_mboshi(tmp_path, "train", train)
    put_mboshi(tmp_path, "dev", [("martial", "other", 1), ("abiayi", "more", 1), ("kouarata", "most", 1)])
    data = mboshi.load(tmp_path)
    assert [u.text for u in data.valid] == ["text 09", "text 19", "text 09"]
    assert len(data.train) == 19 and {u.id for u in data.test} == {"dev0", "dev1", "dev2"}
    last = next(u for u in data.train if u.id == "train18")
    assert (last.codes == codes[36:38]).all() and (last.labels == labels[36:38]).all()
    assert np.allclose(data.features(last), codes[36:38] / 16)
    data = mboshi.load(tmp_path, split="speaker")
    assert [{u.speaker for u in part} for part in data[3:]] == [{"abiayi"}, {"martial"}, {"kouarata"}]
    assert {u.text for u in data.train} == {f"text {i:02}" for i in range(1, 20)} - {"text 09"} | {"more"}


@pytest.mark.fast(0)
@needs_mirror
def test_mboshi_published():
    data = mboshi.load()
    assert (len(data.train) + len(data.valid), len(data.test), len(data.phones)) == (4616, 514, 28)
    assert sum(len(u.codes) for part in data[3:] for u in part) == 1_438_904 + 157_575
    for split in mboshi.SPLITS:
        train, valid, test = ({u.text for u in part} for part in mboshi.load(split=split)[3:])
        assert not train & valid and not train & test and not valid & test


def test_speech_commands_labels_and_speakers(tmp_path):
    for i in range(5):
        put_wav(tmp_path / f"yes/0000000{i}_nohash_0.wav", [i])
        put_wav(tmp_path / f"_unknown_/bed_0000000{i}_nohash_1.wav.wav", [i])
        put_wav(tmp_path / f"_silence_/{i}.wav", [i])
    clips = speech_commands.load(tmp_path)
    assert {(c.label, c.speaker) for c in clips if c.file.name.startswith(("0000", "bed_00000003"))} == {
        *(("yes", f"0000000{i}") for i in range(5)),
        ("_unknown_", "00000003"),
    }
    assert [c.samples().tolist() for c in clips if c.label == "_silence_"] == [[0], [1], [2], [3], [4]]
    parts = speech_commands.by_speaker(clips)
    assert {p: sorted({c.speaker or c.file.name for c in rows}) for p, rows in parts.items()} == {
        "train": ["0.wav", "00000000", "00000001", "00000002", "1.wav", "2.wav"],
        "valid": ["00000003", "3.wav"],
        "test": ["00000004", "4.wav"],
    }
    silent = [c for c in clips if c.label == "_silence_"]
    assert [c.file.name for c in speech_commands.subset(silent, each=2)] == ["0.wav", "2.wav"]


def test_speech_commands_corpus_split(tmp_path):
    for name in ("yes/00000001_nohash_0.wav", "bed/00000002_nohash_0.wav", "no/00000003_nohash_0.wav"):
        put_wav(tmp_path / name, [0])
    put_wav(tmp_path / "_background_noise_/running_tap.wav", [0])
    put(tmp_path / "validation_list.txt", "bed/00000002_nohash_0.wav\n")
    put(tmp_path / "testing_list.txt", "no/00000003_nohash_0.wav\n")
    parts = speech_commands.corpus(tmp_path)
    assert {p: [c.label for c in rows] for p, rows in parts.items()} == {
        "train": ["yes"],
        "valid": ["_unknown_"],
        "test": ["no"],
    }


@pytest.mark.fast(0)
@needs_mirror
def test_speech_commands_published():
    clips = speech_commands.load()
    assert len(clips) == 720 and len({c.speaker for c in clips if c.speaker}) == 194
    assert all(sum(c.label == label for c in clips) == 60 for label in speech_commands.CLASSES)
    assert {len(c.samples()) for c in clips[::40]} == {16000}


def put_utterance(folder, name, upper=False):
    change = str.upper if upper else str.lower
    for ending, content in {
        "wav": sphere([1, 2, 3]),
        "phn": "0 200 h#\n200 400 q\n400 900 axr\n",
        "wrd": "200 900 her\n",
        "txt": "0 900 Her.\n",
    }.items():
        put(folder / change(f"{name}.{ending}"), content)


@pytest.mark.parametrize("upper", [False, True])
def test_timit_ldc_layout(tmp_path, upper):
    change = str.upper if upper else str.lower
    speakers = {"train/dr1/fcjf0": "train", "test/dr1/mdab0": "test", "test/dr2/faks0": "valid", "test/dr1/fxxx0": None}
    for folder in speakers:
        for sentence in ("sa1", "sx10"):
            put_utterance(tmp_path / "timit" / change(folder), sentence, upper)
    parts = timit.load(tmp_path)
    assert {p: [(u.speaker, u.sentence, u.dialect) for u in rows] for p, rows in parts.items()} == {
        "train": [("fcjf0", "sx10", 1)],
        "valid": [("faks0", "sx10", 2)],
        "test": [("mdab0", "sx10", 1)],
    }
    assert len(timit.load(tmp_path, sa=True)["train"]) == 2
    u = parts["train"][0]
    assert u.samples().tolist() == [1, 2, 3] and u.text() == "Her." and u.words() == [(200, 900, "her")]
    labels = timit.frame_labels(u.phones(), 7)
    assert [timit.PHONES_39[i] if i >= 0 else "" for i in labels] == ["", "", "er", "er", "er", "", ""]
    with pytest.raises(DataError, match=r"there is no \.mp3"):
        u.path("mp3")


def test_timit_sample_layout(tmp_path):
    for speaker in ("dr1-fvmh0", "dr5-mgak0", "dr6-fsdj0", "dr7-mtpg0", "dr8-fmld0"):
        put_utterance(tmp_path / speaker, "si836")
    parts = timit.load(tmp_path)
    assert {p: [u.dialect for u in rows] for p, rows in parts.items()} == {
        "train": [1, 5],
        "valid": [6],
        "test": [7, 8],
    }


def test_timit_folding():
    assert (len(timit.PHONES_61), len(timit.PHONES_48), len(timit.PHONES_39)) == (61, 48, 39)
    assert len(timit.CORE_TEST) == 24 and len(timit.DEVELOPMENT) == 50 and not timit.CORE_TEST & timit.DEVELOPMENT
    for phone, to_48, to_39 in (("ao", "ao", "aa"), ("ix", "ix", "ih"), ("bcl", "vcl", "sil"), ("q", None, None)):
        assert (timit.fold(phone, 48), timit.fold(phone, 39)) == (to_48, to_39)
    with pytest.raises(ValueError, match="'sil' is not one of TIMIT's 61"):
        timit.fold("sil")


@pytest.mark.fast(0)
@needs_mirror
def test_timit_sample_published():
    parts = timit.load()
    assert {p: (len(rows), len({u.speaker for u in rows})) for p, rows in parts.items()} == {
        "train": (80, 10),
        "valid": (16, 2),
        "test": (32, 4),
    }
    everything = timit.utterances()
    labels = [segment.label for u in everything for segment in u.phones()]
    assert len(everything) == 160 and len(labels) == 6185 and set(labels) == set(timit.PHONES_61)
    assert round(sum(len(u.samples()) for u in everything) / timit.RATE, 1) == 490.1


# Images


def idx(array):
    return struct.pack(f">BBBB{array.ndim}i", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def test_mnist_split_and_header(tmp_path):
    images = np.arange(12 * 4).reshape(12, 2, 2)
    for name, array in zip(mnist.FILES, (images, np.arange(12), images[:2], np.arange(2))):
        put(tmp_path / name, idx(array))
    data = mnist.load(tmp_path)
    assert {p: y.tolist() for p, (_, y) in data.items()} == {
        "train": list(range(10)),
        "valid": [10, 11],
        "test": [0, 1],
    }
    assert (data["valid"][0] == images[10:]).all()
    put(tmp_path / mnist.FILES[0], idx(images)[:-1])
    with pytest.raises(DataError, match="47 values, its header says 12 × 2 × 2"):
        mnist.load(tmp_path)
    put(tmp_path / mnist.FILES[0], b"\x1f\x8b\x08\x00")
    with pytest.raises(DataError, match="not an idx file of bytes; it begins with 1f8b0800"):
        mnist.load(tmp_path)


def test_moving_mnist_moves_and_bounces():
    images = np.full((3, 28, 28), 200, np.uint8)
    one = mnist.MovingMNIST(images, "train", 50, seed=4, digits=1)
    corners = []
    for i in range(len(one)):
        x = one[i]
        assert x.shape == (20, 64, 64) and (x.reshape(20, -1) > 0).sum(1).tolist() == [28 * 28] * 20  # never cut off
        corners.append([np.argwhere(frame)[0] for frame in x])
    steps = np.diff(np.array(corners), axis=1)
    lengths = np.hypot(*np.moveaxis(steps, -1, 0))
    assert lengths.max() < 3.6 + 1.5 and np.median(lengths) > 3.6 - 1  # 3.6 pixels per frame, rounded to whole ones
    assert (np.sign(steps[:, 1:]) * np.sign(steps[:, :-1]) < 0).any()  # some bounce


def test_moving_mnist_is_fixed_by_part_seed_and_number():
    images = np.random.default_rng(0).integers(0, 256, (50, 28, 28), np.uint8)
    make = lambda part="test", length=5, seed=1: mnist.MovingMNIST(images, part, length, seed)  # noqa: E731
    assert (make()[3] == make(length=9)[3]).all()
    for other in (make("train"), make(seed=2)):
        assert (make()[3] != other[3]).any()
    assert (make()[3] != make()[2]).any()
    with pytest.raises(IndexError):
        make()[5]


@pytest.mark.fast(0)
@needs_mirror
def test_moving_mnist_is_as_hard_as_published():
    """Sum over pixels, mean over the ten predicted frames: about 172 for black, 283 for the last frame seen."""
    images, _ = mnist.load()["test"]
    x = np.stack([frames for frames in mnist.MovingMNIST(images, "test", 200)]) / 255
    assert abs((x[:, 10:] ** 2).sum((2, 3)).mean() - 172) < 10
    assert abs(((x[:, 10:] - x[:, 9:10]) ** 2).sum((2, 3)).mean() - 283) < 15


# Signals


@pytest.mark.parametrize("key", ["bw_main_ch", "input_signal_bw"])
def test_opendpd_parts_and_gain(tmp_path, key):
    for part, rows in {"train": 4, "val": 2, "test": 1}.items():
        put(tmp_path / f"DPA_200MHz/{part}_input.csv", "I,Q\n" + "0.3,0.4\n" * rows)
        put(
            tmp_path / f"DPA_200MHz/{part}_output.csv",
            "I,Q\n" + "0.0,1.0\n" * (rows - 1) + f"1.2,{'3.0' if part == 'test' else '-0.5'}\n",
        )
    put(tmp_path / "DPA_200MHz/spec.json", json.dumps({"input_signal_fs": 800e6, key: 200e6}))
    data = opendpd.load("DPA_200MHz", tmp_path)
    assert [len(x) for x, _ in data[2:]] == [4, 2, 1] and data.test[1].tolist() == [[np.float32(1.2), 3]]
    assert (data.rate, data.bandwidth) == (800e6, 200e6)
    assert data.gain == pytest.approx(1.3 / 0.5)
    with pytest.raises(ValueError, match="no amplifier 'DPA'"):
        opendpd.load("DPA", tmp_path)


@pytest.mark.fast(0)
@needs_mirror
@pytest.mark.parametrize(
    "name, rows",
    [
        ("DPA_100MHz", (23_040, 7_680, 7_680)),
        ("DPA_200MHz", (23_040, 7_680, 7_680)),
        ("APA_200MHz", (58_980, 19_662, 19_662)),
    ],
)
def test_opendpd_published(name, rows):
    data = opendpd.load(name)
    assert tuple(len(x) for x, _ in data[2:]) == tuple(len(y) for _, y in data[2:]) == rows
    assert np.abs(data.train[0]).max() <= 1
