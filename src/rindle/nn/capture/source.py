"""Where a model comes from: a module in hand, an exported program, a ``.pt2`` file, or ``package.module:factory``."""

from __future__ import annotations

import importlib
import math
import sys
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ...errors import RindleError
from ...file.dataset import Dataset
from ...program.graph import Graph
from ..numerics import Real, run_real
from .check import compare
from .frontend import capture, read_exported
from .weights import load_weights


def load_model(text: str, weights: str | Path | None = None) -> nn.Module | torch.export.ExportedProgram:
    """A ``.pt2`` file of ``torch.export.save``, or what ``package.module:factory`` returns when called without arguments.

    The latter imports and runs code, the current directory first on the path; weights, a safetensors file of its
    ``state_dict``, is loaded into it. Raises RindleError for what cannot be found, read or called.
    """
    if text.endswith(".pt2"):
        if weights is not None:
            raise RindleError(f"{text} carries its weights; --weights is for package.module:factory")
        return _load_exported(Path(text))
    factory = named(text, "the model", "a .pt2 file of torch.export.save, or ")
    try:
        model = factory()
    except TypeError as error:
        raise RindleError(f"{text} must be callable without arguments: {error}") from None
    if not isinstance(model, nn.Module):
        raise RindleError(f"{text} returns a {type(model).__name__}; it must return a torch.nn.Module")
    return model.eval() if weights is None else load_weights(model, weights).eval()


def named(text: str, what: str, otherwise: str = ""):
    """What ``package.module:name`` names. It imports, and so runs, that module; the current directory is first on the path."""
    module_name, colon, name = text.partition(":")
    if not colon or not all(part.isidentifier() for part in (*module_name.split("."), name)):
        kind = "factory" if otherwise else "function"
        raise RindleError(f"{what} is {text!r}; give {otherwise}package.module:{kind}")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return getattr(importlib.import_module(module_name), name)
    except ModuleNotFoundError as error:
        raise RindleError(f"{text}: there is no module {error.name!r}, here or installed") from None
    except AttributeError:
        raise RindleError(f"{text}: the module {module_name} has no {name!r}") from None


def _load_exported(path: Path) -> torch.export.ExportedProgram:
    if not path.is_file():
        raise RindleError(f"{path} cannot be read: there is no such file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.load(path)
    except Exception as error:  # torch names no type for what a broken file raises
        first = str(error).strip().split("\n")[0]
        raise RindleError(f"{path} is not a file that torch.export.save wrote: {first}") from error


def source_of(model) -> Module | Exported:
    if isinstance(model, nn.Module):
        return Module(model)
    if isinstance(model, torch.export.ExportedProgram):
        return Exported(model)
    raise RindleError(f"model is a {type(model).__name__}; it must be a torch.nn.Module, or an exported one")


class Module:
    """A module in hand: captured at the example's shape, and checked on whatever the calibration data hold."""

    def __init__(self, model: nn.Module):
        self.model, self.name = model, type(model).__name__

    def state_dict(self) -> dict[str, torch.Tensor]:
        return self.model.state_dict()

    def capture(self, example: np.ndarray) -> tuple[Graph, bool]:
        self.features = example.shape[2:]
        graph, self.batch_first = capture(self.model, torch.from_numpy(np.ascontiguousarray(example)))
        self.frames = example.shape[1 if self.batch_first else 0]
        return graph, self.batch_first

    def check(self, x: torch.Tensor, y: torch.Tensor) -> None:
        """The captured graph must compute what the model does, before any of it is quantized."""
        was_training = self.model.training
        x = x.unflatten(2, self.features) if x.ndim > 2 else x
        compare(self.name, self.model.eval(), x, y, self.batch_first, self.frames)
        self.model.train(was_training)


class Exported:
    """An exported program. It runs at the shape of its export alone, so that is where it is checked, and once."""

    check = None

    def __init__(self, program: torch.export.ExportedProgram):
        self.program = program
        stacks = (node.meta.get("nn_module_stack") for node in program.graph.nodes)
        roots = Counter(
            str(next(iter(stack.values()))[1]) for stack in stacks if stack
        )  # a size may have none of its own
        self.name = roots.most_common(1)[0][0].rsplit(".", 1)[-1] if roots else "ExportedProgram"

    def state_dict(self) -> dict[str, torch.Tensor]:
        return dict(self.program.state_dict)

    def capture(self, example: np.ndarray) -> tuple[Graph, bool]:
        graph, batch_first = read_exported(self.program)
        features = math.prod(example.shape[2:])
        if features != graph.input_size:
            raise RindleError(f"the calibration data have {features} features; the model takes {graph.input_size}")
        users = set(self.program.graph_signature.user_inputs)
        (shape,) = (node.meta["val"].shape for node in self.program.graph.nodes if node.name in users)
        # a dynamic dimension keeps the example's size; 1 would be a special case to torch.export
        first, second = (
            size if isinstance(size, int) else max(2, given) for size, given in zip(shape[:2], example.shape[:2])
        )
        fitted = example[np.arange(first) % example.shape[0]][:, np.arange(second) % example.shape[1]]
        x = torch.from_numpy(np.ascontiguousarray(fitted if batch_first else fitted.swapaxes(0, 1)))
        y = run_graph(graph, x.flatten(2) if x.ndim > 2 else x)
        compare(self.name, self.program.module(), x, y, batch_first, x.shape[1])
        return graph, batch_first


@torch.no_grad()
def run_graph(graph: Graph, x: torch.Tensor) -> torch.Tensor:
    """A captured graph in float, on [B, T, I]."""
    return run_real(graph, {node.name: Real(node.layer) for node in graph.programs}, x)[0]


def float_outputs(graph: Graph, data: Dataset) -> np.ndarray:
    """A captured graph in float on data: float32 [N, T, O], 0 past a row's length, or [N, O], as ``Model.run`` lays out."""
    whole = None
    for x, rows in data.batches():
        y = run_graph(graph, torch.from_numpy(np.ascontiguousarray(x))).numpy()
        if whole is None:
            frames = (graph.frames(graph.output, data.x.shape[1]),) if y.ndim == 3 else ()
            whole = np.zeros((len(data), *frames, y.shape[-1]), np.float32)
        if y.ndim == 3:
            whole[rows, : y.shape[1]] = y
        else:
            whole[rows] = y
    return whole


def float_parameters(graph: Graph) -> dict[str, dict[str, np.ndarray]]:
    """Node -> block -> float64 array: the parameters of a captured graph, for those who know no torch."""
    return {
        node.name: {block: value.detach().double().numpy() for block, value in node.layer.blocks.items()}
        for node in graph.programs
    }
