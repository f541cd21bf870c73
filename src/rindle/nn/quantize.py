"""One call from a trained torch model to a model of integers."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..errors import RindleError
from ..file.dataset import Dataset
from ..measure.analysis import Analysis, analyse, few
from ..scheme import rezk as presets
from ..scheme.rules import load_overrides, named_scheme
from .calibrate.groups import batches
from .calibrate.plan import Plan, calibrate
from .calibrate.wide import choices
from .capture.source import float_parameters, source_of
from .conversion.convert import convert, hash_of
from .conversion.rounding import Rounding, refine


def quantize(
    model,
    scheme="int8",
    calibration=None,
    overrides=None,
    *,
    accumulator: int | None = None,
    rounding: Rounding | None = None,
):
    """Quantizes a trained model after training.

    model: any ``nn.Module`` that maps one sequence, float or ids for an ``nn.Embedding``, to one tensor through recurrent
        layers (``nn.LSTM``, ``nn.GRU``, :class:`rindle.Recurrent`) and what docs/operations.md lists: Linear, convolutions,
        activations, arithmetic, joins and slices of features, mean, maximum, attention and the last frame over time; or the
        ``torch.export.ExportedProgram`` of one.
    scheme: a preset's name (``rindle.SCHEMES``, or ``rindle.presets``: "rezk-m1 skip=all"), "fixed(w,a)" with weights of w and
        codes of a bits, or a dict of rules.
    calibration: real sequences in the model's own layout ([B, T, I], or [T, B, I] where the model is not batch first;
        ids: [B, T] or [T, B]): a tensor, an array, or an iterable of them such as a DataLoader. Lengths may differ between
        batches. Or a :class:`rindle.file.dataset.Dataset`, which is batch first whatever the model is.
    overrides: path -> rule, as a dict or a .toml or .json file; see ``rindle.scheme``.
    accumulator: bits of the widest accumulator that a product may need, 32 for example; refused where one needs more, from the codes
        themselves. Short for the override "accumulator.*".
    rounding: steps, seed and progress of what the rules' words ask for (``gptq``, ``learned``, ``corrected``).

    Returns a :class:`rindle.Model`, whose input is always batch first. Raises RindleError, which names what is
    wrong, the value and the remedy. Warns (RindleWarning) of constant paths and rows of zeros.
    """
    return calibrated(model, scheme, calibration, overrides, accumulator=accumulator, rounding=rounding).model()


@dataclass(frozen=True)
class Calibrated:
    """A calibrated plan, and what the file will say of where it came from."""

    plan: Plan
    provenance: dict

    def model(self):
        """The :class:`rindle.Model`."""
        from ..engines.model import Model

        return Model(convert(self.plan, self.provenance))

    def analysis(self, model, data: Dataset) -> Analysis:
        """How the model differs from its float origin, path by path and along the sequences; of some rows of data, if there
        are many. ``rindle.measure.analysis.over_time`` picks the states and outputs.
        """
        return analyse(model.artifact, few(data), float_parameters(self.plan.graph))


def calibrated(
    model,
    scheme="int8",
    calibration=None,
    overrides=None,
    *,
    accumulator: int | None = None,
    rounding: Rounding | None = None,
) -> Calibrated:
    """:func:`quantize` up to its last step, where integers are made."""
    source = source_of(model)
    overrides = load_overrides(overrides)
    if accumulator is not None:
        overrides = {"accumulator.*": str(accumulator)} | overrides
        load_overrides(overrides)
    if calibration is None:
        raise RindleError("calibration is missing; give real sequences, a hundred or so are usually enough")
    if isinstance(calibration, Dataset):
        rows = [x for x, _ in calibration.batches()]
        graph, batch_first = source.capture(rows[0])
        calibration = rows if batch_first else [x.transpose(1, 0, 2) for x in rows]
    else:
        if not isinstance(calibration, (torch.Tensor, list, tuple)) and not hasattr(calibration, "ndim"):
            calibration = list(calibration)
        graph, batch_first = source.capture(next(iter(batches(calibration, True))))
    plan = calibrate(graph, calibration, batch_first, scheme, overrides, source.check)
    rounded = refine(plan, calibration, batch_first, rounding)
    provenance = {
        "model": {"class": source.name, "sha256": hash_of(source.state_dict())},
        "scheme": scheme,
        **choices(plan.held, overrides),
        "calibration": {"batches": plan.batches, "frames": plan.frames},
    }
    if rounded:
        provenance["rounding"] = rounded
    return Calibrated(plan, provenance)


def scheme_rules(model, scheme: str, example) -> dict[str, str]:
    """The plain rules that a preset (``rindle.presets``) is for this model, for :func:`rindle.prepare` or to change them.

    example: one batch in the model's own layout.
    """
    graph, _ = source_of(model).capture(next(iter(batches(example, True))))
    return dict(presets.rules(scheme, graph) if presets.is_preset(scheme) else named_scheme(scheme))
