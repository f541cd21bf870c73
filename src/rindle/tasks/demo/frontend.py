"""From sound to the frames a model hears, sample by sample if need be: log-mel energies every 10 ms, normalized causally.

Nothing here looks ahead, so a stream gives the frames of the whole recording, to the last bit, however it is cut.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...errors import RindleError, needs

RATE = 8000  # samples per second
HOP, WINDOW = 80, 200  # samples: 10 and 25 ms
BINS = 32  # mel filters from 60 to 3,800 Hz
FLOOR = 6.0  # log energies below it are silence to us: 16-bit quantization noise lies at about 4
PRIOR, TYPICAL = 20.0, 13.0  # the running mean starts as if 20 frames at the usual level of speech had been heard
SPREAD = 3.0  # what one is in a normalized frame, in nepers of energy


class LogMel:
    """Samples in pieces of any size, log-mel frames out as soon as their 25 ms are complete."""

    def __init__(self):
        with needs("the speech demo", "demo"):
            import kaldi_native_fbank as knf
        options = knf.FbankOptions()
        options.frame_opts.samp_freq = RATE
        options.frame_opts.dither = 0.0  # the same samples shall give the same frames
        options.frame_opts.snip_edges = True  # only whole windows: nothing is padded, nothing is looked ahead
        options.mel_opts.num_bins = BINS
        options.mel_opts.low_freq, options.mel_opts.high_freq = 60.0, 3800.0
        self._bank = knf.OnlineFbank(options)
        self._taken = 0

    def accept(self, samples: np.ndarray) -> np.ndarray:
        """samples: [n] in the range of 16-bit integers, of any real dtype. Returns float32 [frames, BINS], maybe none."""
        self._bank.accept_waveform(RATE, np.asarray(samples, np.float32).tolist())
        ready = self._bank.num_frames_ready
        # a copy each: the bank's memory moves when it takes more samples
        frames = [np.array(self._bank.get_frame(t), np.float32) for t in range(self._taken, ready)]
        self._bank.pop(ready - self._taken)
        self._taken = ready
        return np.stack(frames) if frames else np.empty((0, BINS), np.float32)


class Normalizer:
    """Subtracts from every mel bin its mean so far, which takes out loudness, microphone and room without looking ahead.

    The mean starts at a fixed value with the weight of PRIOR frames (as Kaldi's online CMVN does with global statistics), so
    the first frames are not lost. Make a new one for every word: a mean over minutes is another thing.
    """

    def __init__(self):
        self._sum = np.full(BINS, PRIOR * TYPICAL, np.float64)
        self._count = PRIOR

    def accept(self, frames: np.ndarray) -> np.ndarray:
        """float32 [n, BINS] log energies -> float32 [n, BINS]; n may be 0."""
        frames = np.maximum(frames, np.float32(FLOOR))
        # accumulate adds one after the other, so pieces of any size give the same sums
        sums = np.add.accumulate(np.concatenate([self._sum[None], frames]), axis=0)
        counts = self._count + np.arange(1, len(frames) + 1)
        self._sum, self._count = sums[-1], self._count + len(frames)
        return ((frames - sums[1:] / counts[:, None]) / SPREAD).astype(np.float32)


def logmel(samples: np.ndarray) -> np.ndarray:
    """Log-mel frames, float32 [T, BINS], of a whole recording: at least one frame, for which silence is appended."""
    samples = np.asarray(samples, np.float32)
    return LogMel().accept(np.pad(samples, (0, max(0, WINDOW - len(samples)))))


def normalize(frames: np.ndarray) -> np.ndarray:
    """What a model reads, float32 [T, BINS], of a whole recording's log-mel frames."""
    return Normalizer().accept(frames)


class Sound:
    """A sound file in pieces of 10 ms at RATE, mono, in the range of 16-bit integers: float32 [about HOP] each.

    Any PCM format that libsndfile reads; channels are averaged, another rate is resampled as the pieces come.
    """

    def __init__(self, path: str | Path):
        with needs("the speech demo", "demo"):
            import soundfile
            import soxr
        try:
            self._file = soundfile.SoundFile(path)
        except (OSError, soundfile.LibsndfileError) as error:
            raise RindleError(f"{path} is not a sound file that can be read: {error}") from None
        self.rate, self.seconds = self._file.samplerate, self._file.frames / self._file.samplerate
        self._resample = None
        if self.rate != RATE:
            self._resample = soxr.ResampleStream(self.rate, RATE, 1, dtype="float32").resample_chunk

    def __iter__(self):
        with self._file:
            blocks = self._file.blocks(max(1, self.rate // 100), dtype="float32", always_2d=True)
            for block in blocks:
                piece = block.mean(axis=1) * np.float32(32768)
                yield self._resample(piece) if self._resample else piece
            if self._resample:
                yield self._resample(np.empty(0, np.float32), last=True)
