"""State dicts that the first form of quantize_dynamic made: W·x of the first layer in ``product.*`` buffers, whole cells of integers
behind it in the bytes of a .rindle file, ``_extra_state``. They load as what they mean in real values.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ...engines.real import dequantized
from ...file.container import loads
from ..capture.stacks import Direction, Stack
from .dequantize import laid_out


def first_form(
    state: dict, prefix: str, stack: Stack, path: str
) -> Iterator[tuple[Direction, dict[str, torch.Tensor]]]:
    """Each direction with its parameters by their own names, float32, and takes their entries out of the state dict; nothing where
    the state dict is not of the first form.
    """
    if f"{prefix}product.weight" not in state:
        return
    weight, steps, bias = (state.pop(f"{prefix}product.{name}").cpu() for name in ("weight", "steps", "bias"))
    weight = weight.float() * steps[:, None]
    if stack.style == "linear":
        yield stack.directions[0], {"weight": weight} | ({"bias": bias} if "bias" in stack.directions[0].names else {})
        return
    data = state.pop(f"{prefix}_extra_state").cpu().numpy().tobytes()
    nodes = loads(data, f"the state of {path or 'the module'}").graph.programs
    start = 0
    for direction, node in zip(stack.directions, nodes, strict=True):
        blocks = {block: torch.from_numpy(values).float() for block, values in dequantized(node.layer).items()}
        if direction in stack.layers[0]:
            blocks = {_origin(block, direction): value for block, value in blocks.items()}
            for name in node.layer.program.inputs:  # "i_x", or a gate of x alone, whose bias stood beside the product
                gate = name if name in direction.program.sizes else name.removesuffix("_x")
                end = start + direction.program.sizes[gate]
                blocks[f"{gate}.{direction.program.inputs[0]}"] = weight[start:end]
                if gate == name:
                    blocks[gate] = bias[start:end]
                start = end
        parameters = laid_out(direction.cell, blocks)
        yield direction, {own: parameters[name] for name, own in direction.names.items()}


def _origin(block: str, direction: Direction) -> str:
    """ "i_h.h" was "i.h" of the cell, and "i_h" its bias."""
    gate, _, source = block.partition(".")
    gate = gate if gate in direction.program.sizes else gate.removesuffix("_h")
    return f"{gate}.{source}" if source else gate
