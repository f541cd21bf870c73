"""torch at its honest best: every eager form in which torch runs a model of ours, in float and in dynamic int8.

Its traps: with T = 1 and oneDNN, nn.LSTM repacks its weights at every call; quantize_dynamic does nothing to a module
that is itself the LSTM; more than one thread, or gradients, change what is timed.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle, islice

import numpy as np
import torch
from torch import nn

from ...errors import RindleError
from ...file.artifact import Artifact
from ...measure.timing import Contender
from .dequantize import Cells, Whole, stages

FLOAT, DYNAMIC = "torch float", "torch dynamic int8"
ENGINES = ("fbgemm", "x86", "onednn")  # of the quantized products; those that this build of torch has


class Rivals:
    """The torch forms of an artifact. Raises NoTorchForm, with the part, where torch lacks one."""

    def __init__(self, artifact: Artifact):
        chain = stages(artifact)
        self.version = torch.__version__
        self.streams = artifact.graph.whole_sequence is None
        self.forms: list[tuple[str, str, nn.Module]] = []
        make = {"cells": Cells, "layers": Whole} if self.streams else {"layers": Whole}
        for name, build in make.items():
            self.forms.append((FLOAT, name, build(chain)))
        for engine in ENGINES:
            if engine in torch.backends.quantized.supported_engines:
                for name, build in make.items():
                    self.forms.append((DYNAMIC, f"{name}, {engine}", dynamic(build(chain), engine)))

    @contextmanager
    def environment(self) -> Iterator[None]:
        """One thread, no gradients, denormals as they come."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with torch.inference_mode(), warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore"
                )  # torch warns of its own deprecations whenever a backend flag is touched
                yield
        finally:
            torch.set_num_threads(threads)

    def steps(self, frames: np.ndarray) -> list[Contender]:
        """One frame, batch 1, the states carried on. frames: float32 [N, I], in turn, over and over."""
        made = []
        for kind, name, module in self.forms:
            whole = isinstance(module, Whole)
            rows = [torch.from_numpy(np.array(frame[None, None] if whole else frame[None])) for frame in frames]
            made.append(Contender(kind, name, _stepping(module, rows)))
            if kind == FLOAT and whole:
                made.append(Contender(kind, f"{name}, no oneDNN", _stepping(module, rows), _without_onednn))
        return made

    def sequences(self, x: np.ndarray) -> list[Contender]:
        """Whole sequences in one call. x: float32 [B, T, I]."""
        made, batch = [], torch.from_numpy(x)
        for kind, name, module in self.forms:
            if isinstance(module, Whole):
                made.append(Contender(kind, name, _repeating(module, batch)))
                if kind == FLOAT:
                    made.append(Contender(kind, f"{name}, no oneDNN", _repeating(module, batch), _without_onednn))
        return made

    def outputs(self, x: np.ndarray) -> dict[tuple[str, str], np.ndarray]:
        """What every form computes from float32 [B, T, I]: (kind, name) -> [B, T, O] or [B, O]. Cells go frame by frame."""
        found, batch = {}, torch.from_numpy(x)
        with self.environment():
            for kind, name, module in self.forms:
                if isinstance(module, Whole):
                    found[kind, name] = module(batch)[0].numpy()
                    continue
                states, frames = None, []
                for frame in batch.unbind(1):
                    y, states = module(frame.contiguous(), states)
                    frames.append(y)
                found[kind, name] = torch.stack(frames, 1).numpy()
        return found


def dynamic(module: nn.Module, engine: str) -> nn.Module:
    """Quantized by torch.ao's quantize_dynamic, for one engine; refuses a module that it left as it was."""
    kinds = {nn.LSTM, nn.GRU, nn.LSTMCell, nn.GRUCell, nn.Linear}
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = engine
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecated without a successor for these modules
            made = torch.ao.quantization.quantize_dynamic(module, kinds, dtype=torch.qint8)
    finally:
        torch.backends.quantized.engine = before
    left = [type(one).__name__ for one in made.modules() if type(one) in kinds]
    if left or "Dynamic" not in repr(made):
        raise RindleError(
            f"quantize_dynamic left {', '.join(left) or 'everything'} in float: nothing int8 to compare with"
        )
    return made


def _without_onednn():
    return torch.backends.mkldnn.flags(enabled=False)


def _stepping(module: nn.Module, rows: list[torch.Tensor]):
    states, frames = None, cycle(rows)

    def loop(n: int) -> None:
        nonlocal states
        following = states
        for x in islice(frames, n):
            _, following = module(x, following)
        states = following

    return loop


def _repeating(module: nn.Module, x: torch.Tensor):
    def loop(n: int) -> None:
        for _ in range(n):
            module(x)

    return loop
