"""Listens to a sound file as if it came from a microphone, and says which digits it hears, when it hears them.

    rindle demo --data fsdd                                                   # makes a model; see docs/speech.md
    python examples/listen.py build/demo/fsdd/yweweler-delta.rindle digits.wav

The file goes through in pieces of 10 ms: resample, log-mel frame, is anyone speaking, one `Stream.step`. Nothing looks ahead.
In silence the network is not run at all; a word begins with a fresh state and ends with a fifth of a second of silence.
"""

from __future__ import annotations

import argparse
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

import rindle
from rindle.measure.evaluate import probabilities
from rindle.tasks.demo.digits import DIGITS
from rindle.tasks.demo.frontend import BINS, HOP, RATE, WINDOW, LogMel, Normalizer, Sound

SECONDS = HOP / RATE  # of one frame


class Silence:
    """Tells speech from silence by a frame's loudest band: 4 nepers (17 dB) above the background opens a word, less than 2.5
    for 0.2 s closes it. The background follows the quietest at once, and rises by 3 nepers a second.
    """

    OPENS, CLOSES, PAUSE, QUIET = 4.0, 2.5, 20, 8.0

    def __init__(self):
        self.background, self.speaking, self.still = 12.0, False, 0

    def accept(self, frame: np.ndarray) -> bool:
        """frame: float32 [BINS] log energies. Returns whether someone is speaking."""
        loud = max(float(frame.max()), self.QUIET)
        self.background = min(loud, self.background + 3.0 * SECONDS)
        above = loud - self.background
        if not self.speaking:
            self.speaking, self.still = above > self.OPENS, 0
        else:
            self.still = 0 if above > self.CLOSES else self.still + 1
            self.speaking = self.still < self.PAUSE
        return self.speaking


@dataclass(frozen=True)
class Heard:
    """start, end: seconds from the beginning of the sound. final: the word is over; else it is a guess on the way."""

    start: float
    end: float
    digit: int
    probability: float
    final: bool


class Listener:
    """Samples in, words out. Keeps a tenth of a second, so that a word's soft beginning is not lost."""

    BEFORE, SHORTEST, LONGEST = (
        10,
        8,
        250,
    )  # frames: kept from before a word; a shorter sound is a click, a longer one noise

    def __init__(self, model: rindle.Model):
        if (model.input_size, model.output_size) != (BINS, len(DIGITS)):
            raise rindle.RindleError(
                f"the model maps {model.input_size} features to {model.output_size} scores; this listens with {BINS} to "
                f"{len(DIGITS)}: use a model that `rindle demo --data fsdd` made"
            )
        self.stream, self.mel, self.silence = model.stream(), LogMel(), Silence()
        self.before: deque[np.ndarray] = deque(maxlen=self.BEFORE)
        self.time, self.start, self.word = 0, None, []  # frames so far; a word's first; its probabilities [10] by frame

    def accept(self, samples: np.ndarray) -> Iterator[Heard]:
        """samples: float32 [n] at 8 kHz, in the range of 16-bit integers. Yields what is heard in them."""
        for frame in self.mel.accept(samples):
            yield from self._frame(frame)
            self.time += 1

    def finish(self) -> Iterator[Heard]:
        """The sound is over: so is a word that was going on."""
        if self.start is not None:
            yield from self._end(self.silence.still)

    def _frame(self, frame: np.ndarray) -> Iterator[Heard]:
        speaking = self.silence.accept(frame)
        if speaking and self.start is None:
            self.start, self.word, self.normalizer = self.time - len(self.before), [], Normalizer()
            self.stream.reset()
            for earlier in self.before:
                self._step(earlier)
        if self.start is None:
            self.before.append(frame)
        elif speaking:
            digit = self._step(frame)
            if len(self.word) > self.SHORTEST and digit != int(self.word[-2].argmax()):
                yield self._heard(self.time + 1, digit, final=False)
        else:
            yield from self._end(self.silence.PAUSE)

    def _step(self, frame: np.ndarray) -> int:
        scores = self.stream.step(self.normalizer.accept(frame[None])[0])
        self.word.append(probabilities(scores))
        return int(self.word[-1].argmax())

    def _end(self, still: int) -> Iterator[Heard]:
        """still: frames of silence at the end, which are no part of the word."""
        end = self.start + len(self.word) - max(0, still - 1)
        if self.SHORTEST <= end - self.start - len(self.before) <= self.LONGEST:
            yield self._heard(end, int(self.word[-1].argmax()), final=True)
        self.start = None
        self.before.clear()

    def _heard(self, end: int, digit: int, final: bool) -> Heard:
        last = WINDOW / RATE - SECONDS  # a frame reaches that much beyond its hop
        return Heard(self.start * SECONDS, end * SECONDS + last, digit, float(self.word[-1][digit]), final)


def listen(model: rindle.Model, pieces: Iterable[np.ndarray]) -> Iterator[Heard]:
    listener = Listener(model)
    for piece in pieces:
        yield from listener.accept(piece)
    yield from listener.finish()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", help="a .rindle file of `rindle demo --data fsdd`")
    parser.add_argument("sound", help="any PCM .wav file (or .flac), of any rate")
    parser.add_argument("--guesses", action="store_true", help="also show every change of mind within a word")
    parser.add_argument("--sure", type=float, default=0.5, help="below this probability a word is marked with ?")
    options = parser.parse_args()
    try:
        model, sound = rindle.load(options.model), Sound(options.sound)
        words = 0
        for heard in listen(model, sound):
            words += heard.final
            if heard.final or options.guesses:
                mark = "…" if not heard.final else "?" if heard.probability < options.sure else " "
                print(
                    f"{heard.start:7.2f}–{heard.end:.2f} s  {DIGITS[heard.digit]:5} {mark} {heard.probability:.2f}",
                    flush=True,
                )
        print(f"{sound.seconds:.2f} s of sound at {sound.rate} Hz, {words} words")
    except rindle.RindleError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
