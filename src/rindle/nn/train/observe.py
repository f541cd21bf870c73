"""Calibration through a model's own forward: hooks on its recurrent and linear modules see what they are given."""

from __future__ import annotations

import inspect

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from ...errors import RindleError
from ...file.dataset import Dataset
from ...scheme.rules import Rule
from ..calibrate.histogram import Histogram
from ..calibrate.median import Medians
from ..calibrate.plan import Recorder
from ..calibrate.wide import Sample, collect
from ..capture.stacks import Stack, kind_of, take, walk
from ..sequences import run_frames


class Observer:
    """histograms: (node, path) -> what was seen there. example: the model's input, where the first call had one tensor alone.

    stacks: path of a module in the model -> its Stack. medians: path -> what its rules want of every sequence. rules: (node, path)
    -> its rule. samples: as ``Plan.seen``.
    """

    def __init__(self, stacks: dict[str, Stack], medians: dict[str, Medians], rules: dict[tuple[str, str], Rule]):
        self.stacks, self.medians, self.rules = stacks, medians, rules
        self.samples: dict[tuple[str, str], Sample] = {}
        self.histograms: dict[tuple[str, str], Histogram] = {}
        self.example: torch.Tensor | None = None
        self.batches = self.frames = 0

    @torch.no_grad()
    def watch(self, model: nn.Module, calibration) -> None:
        """Runs the data through the model (in evaluation mode), and every module's part of it through Rindle's floats."""
        seen: set[str] = set()

        def look(path, kind):
            parameters = list(inspect.signature(kind.forward).parameters)

            def hook(module, args, kwargs, output):
                given = dict(zip(parameters[1:], args)) | kwargs
                found = self._observe(path, module, *(given.get(name) for name in parameters[1:]))
                if path not in seen:
                    _compare(path, kind, found, output)
                seen.add(path)
                return _like(found, output)  # what modules behind it see is then the same on every machine

            return hook

        def first(module, args, kwargs):
            self.batches += 1
            if self.batches == 1 and len(args) == 1 and not kwargs and isinstance(args[0], torch.Tensor):
                self.example = args[0].detach().cpu().clone()

        handles = [model.register_forward_pre_hook(first, with_kwargs=True)]
        for path in self.stacks:
            module = model.get_submodule(path)
            handles.append(module.register_forward_hook(look(path, kind_of(module, path)), with_kwargs=True))
        modes = {name: module.training for name, module in model.named_modules()}
        try:
            feed(model.eval(), calibration)
        finally:
            for handle in handles:
                handle.remove()
            for name, module in model.named_modules():
                module.training = modes[name]
        missed = [path or "the model" for path in self.stacks if path not in seen]
        if missed:
            raise RindleError(
                f"the calibration data never reached {', '.join(missed)}; give data that do, or remove it"
            )

    def _observe(self, path: str, module: nn.Module, input, states=None):
        stack = self.stacks[path]
        call = take(stack, input, states)
        self.frames += sum(len(frame) for frame in call.frames)

        def run(direction, frames, initial):
            name, recorder = stack.node_name(path, direction), Recorder(direction.layer(module).in_double())
            program = direction.program
            inputs = [tuple(value.double() for value in direction.inputs(frame).values()) for frame in frames]
            initial = {state: values.double() for state, values in initial.items()}
            outputs, finals = run_frames(recorder, inputs, initial)
            seen = recorder.values | dict(zip(program.inputs, map(list, zip(*inputs))))
            for one, values in seen.items():
                self._add(path, name, program.format_name(one), torch.cat(values))
            self.medians[path].add(name, program, seen, self.histograms)
            collect(self.samples, self.rules, name, program, seen)
            for state, values in initial.items():
                if values.any():
                    self._add(path, name, state, values)
            return outputs, finals

        return walk(stack, call, run)

    def _add(self, path: str, name: str, one: str, values: torch.Tensor) -> None:
        values = values.float()
        if not torch.isfinite(values).all():
            raise RindleError(f"{name}/{one} becomes NaN or infinite on the calibration data; check them and {path}")
        self.histograms.setdefault((name, one), Histogram()).add(values.cpu())


def feed(model: nn.Module, calibration) -> None:
    """calibration: a tensor or array, an iterable of batches (a pair of a data loader counts as its first part, a dict as
    keyword arguments), or a function that is called with the model and runs it.
    """
    if calibration is None:
        raise RindleError("calibration is missing; give real inputs, a hundred sequences or so are usually enough")
    if isinstance(calibration, Dataset):
        raise RindleError(
            "a Dataset does not say how the model wants its input; give batches, or a function of the model"
        )
    if callable(calibration) and not isinstance(calibration, torch.Tensor):
        calibration(model)
        return
    whole = isinstance(calibration, (torch.Tensor, np.ndarray))
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    empty = True
    for batch in [calibration] if whole else calibration:
        if isinstance(batch, dict):
            model(**{name: _tensor(value, device) for name, value in batch.items()})
        elif isinstance(batch, (tuple, list)) and not isinstance(batch, PackedSequence):
            model(_tensor(batch[0], device))
        else:
            model(_tensor(batch, device))
        empty = False
    if empty:
        raise RindleError("the calibration data are empty; give at least one sequence")


def _tensor(value, device):
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(value.astype(np.float32) if value.dtype == np.float64 else value)
    return value.to(device) if hasattr(value, "to") else value


def _like(found, wanted):
    """Tensors of float64, or tuples of them, with the dtype and place of what a module returned."""
    if isinstance(wanted, torch.Tensor):
        return found.to(wanted)
    if isinstance(wanted, PackedSequence):
        return wanted._replace(data=found.data.to(wanted.data))
    return tuple(map(_like, found, wanted))


def _compare(path: str, kind: type, found, wanted) -> None:
    """Rindle's float layers must compute what the module does, before any of it is quantized."""
    if isinstance(wanted, torch.Tensor):
        if not torch.allclose(found, wanted.double(), rtol=1e-3, atol=1e-4):
            off = (found - wanted).abs().max().item()
            raise RindleError(f"{path or 'the model'} differs from a {kind.__name__} of its parameters by {off:.2g}")
    elif isinstance(wanted, PackedSequence):
        _compare(path, kind, found.data, wanted.data)
    else:
        for one, other in zip(found, wanted):
            _compare(path, kind, one, other)
