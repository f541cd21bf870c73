"""Speech samples and their log-mel features, in NumPy."""

import wave
from functools import cache
from pathlib import Path

import numpy as np


def read_audio(file: str | Path) -> tuple[np.ndarray, int]:
    """16-bit mono samples and their rate, from a RIFF file or from NIST SPHERE as TIMIT is distributed."""
    with open(file, "rb") as stream:
        start = stream.read(8)
        if start == b"NIST_1A\n":
            return read_sphere(Path(file))
    with wave.open(str(file), "rb") as sound:
        if (sound.getnchannels(), sound.getsampwidth()) != (1, 2):
            raise ValueError(
                f"{file}: {sound.getnchannels()} channels of {8 * sound.getsampwidth()} bits; 1 of 16 bits is wanted"
            )
        return np.frombuffer(sound.readframes(sound.getnframes()), "<i2"), sound.getframerate()


def read_sphere(file: Path) -> tuple[np.ndarray, int]:
    data = file.read_bytes()
    size = int(data[8:16])
    lines = (line.split(maxsplit=2) for line in data[16:size].decode("latin-1").splitlines())
    header = {line[0]: line[2] for line in lines if len(line) == 3}
    coding = header.get("sample_coding", "pcm")
    if coding != "pcm" or header.get("sample_n_bytes", "2") != "2" or header.get("channel_count", "1") != "1":
        raise ValueError(f"{file}: SPHERE with coding {coding}; plain 16-bit mono samples are wanted (use sph2pipe)")
    order = "<" if header.get("sample_byte_format", "01") == "01" else ">"
    count = int(header["sample_count"])
    return np.frombuffer(data, f"{order}i2", count, size).astype("<i2"), int(header["sample_rate"])


def logmel(samples: np.ndarray, rate: int, bins: int = 40, low: float = 20.0, high: float | None = None) -> np.ndarray:
    """Log-mel energies, float32 (frames, bins): 25 ms windows every 10 ms, no padding, no dither, no pre-emphasis.

    Frame t is samples[hop·t : hop·t + window], Hamming; triangles of height 1 equally spaced on mel from `low` to
    `high` Hz (default 0.475 of the rate); the logarithm of the sum plus 1e-6.
    """
    window, hop = rate // 40, rate // 100
    if len(samples) < window:
        samples = np.pad(samples, (0, window - len(samples)))
    frames = 1 + (len(samples) - window) // hop
    scaled = samples.astype(np.float64) / 32768 if samples.dtype == np.int16 else samples.astype(np.float64)
    pieces = np.lib.stride_tricks.sliding_window_view(scaled, window)[::hop][:frames]
    size = 1 << (window - 1).bit_length()
    power = np.abs(np.fft.rfft(pieces * np.hamming(window), size)) ** 2
    return np.log(power @ filters(bins, low, high or 0.475 * rate, rate, size) + 1e-6).astype(np.float32)


@cache
def filters(bins: int, low: float, high: float, rate: int, size: int) -> np.ndarray:
    """(frequencies, bins): triangles between neighbours of `bins` + 2 edges, mel(f) = 2595 log10(1 + f / 700)."""
    edges = np.linspace(*(2595 * np.log10(1 + np.array([low, high]) / 700)), bins + 2)
    edges = 700 * (10 ** (edges / 2595) - 1)
    f = np.arange(size // 2 + 1)[:, None] * (rate / size)
    rise = (f - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - f) / (edges[2:] - edges[1:-1])
    return np.maximum(0, np.minimum(rise, fall))
