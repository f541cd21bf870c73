"""A converted layer -> its program in the JSON document, and the tensors that this names."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np

from ..numbers.codes import Product
from ..numbers.formats import pack_weight
from ..numbers.tables import Table
from ..program.program import Op, Term, refuse_planes
from .artifact import Layer
from .fields import write_format


def write_program(node: str, layer: Layer, tensors: dict, tables: dict) -> dict:
    program = layer.program

    def path(name: str) -> dict:
        return {"size": program.sizes[name]} | write_format(layer.formats[name])

    codes, vectors = {}, {}
    for name in program.codes:
        codes[name] = path(name)
        theta = layer.thetas.get(name)
        if isinstance(theta, np.ndarray):
            theta_name = f"{node}/{name}.theta"
            tensors[theta_name] = theta.astype(np.int16)
            theta = theta_name
        if theta is not None:
            codes[name]["theta"] = theta
    for name in program.vectors:
        vectors[name] = path(name) | {"tensor": f"{node}/{name}"}
        tensors[f"{node}/{name}"] = layer.vectors[name].astype(np.int16)
    initial = {}
    for state, values in layer.initial.items():
        initial[state] = f"{node}/{state}.initial"
        tensors[initial[state]] = values.astype(np.int16)
    return {
        **({"initial": initial} if initial else {}),
        "cell": program.cell,
        "input": program.inputs[0] if len(program.inputs) == 1 else list(program.inputs),
        "states": [list(pair) for pair in program.states],
        "output": program.output,
        "paths": {p: path(p) for p in program.sizes if p not in program.codes and p not in program.vectors},
        "codes": codes,
        "vectors": vectors,
        "ops": [_write_op(node, layer, op, tensors, tables) for op in program.ops],
    }


def _write_op(node: str, layer: Layer, op: Op, tensors: dict, tables: dict) -> dict:
    constant = layer.constants.get(op.out[0])
    entry = {"op": op.kind, "out": list(op.out) if op.kind == "affine" else op.out[0]}
    if op.kind == "affine":
        bias = f"{node}/bias.{'_'.join(op.out)}"
        tensors[bias] = constant.bias.astype(np.int64)
        terms = [_write_term(node, term, p, tensors) for term, p in zip(op.terms, constant.products)]
        return entry | {"terms": terms, "bias": bias, "shift": constant.shift}
    entry["in"] = op.args[0] if len(op.args) == 1 else list(op.args)
    if op.kind == "requantize":
        entry |= {"multiplier": constant.multiplier, "shift": constant.shift}
    elif op.kind == "clip":
        entry |= {"lo": constant[0], "hi": constant[1]}
    elif op.kind == "table":
        entry["table"] = _write_table(constant, tensors, tables)
    return entry


def _write_term(node: str, term: Term, product: Product, tensors: dict) -> dict:
    refuse_planes([term.key], node, "which a file cannot hold")
    fmt = product.format
    name = f"{node}/weight.{term.key}"
    tensors[name] = pack_weight(product.weight, fmt)
    tensors[f"{name}.multiplier"] = product.multiplier.astype(np.int32)
    entry = {"in": term.code, "gates": list(term.gates), "weight": name, "multiplier": f"{name}.multiplier"}
    if term.conv is not None:
        entry["conv"] = {k: v if k == "groups" else list(v) for k, v in asdict(term.conv).items()}
    entry |= {"levels": fmt.levels} if fmt.levels else {"bits": fmt.bits}
    if product.row_scales is None:
        return entry | ({"frac": fmt.frac} if fmt.is_fixed else {"scale": fmt.step})
    tensors[f"{name}.scales"] = product.row_scales.astype(np.float32)
    return entry | {"scales": f"{name}.scales"}


def _write_table(table: Table, tensors: dict, tables: dict) -> str:
    """Equal tables are stored once."""
    parts = {"base": table.base} | ({"slope": table.slope} if table.degree else {})
    entry = {
        "function": table.function,
        "degree": table.degree,
        "flag": table.flag,
        "x0": table.x0,
        "p": table.p,
        "q": table.q,
        "max_error": table.max_error,
    }
    for number in range(len(tables) + 1):
        name = f"{table.function}.{number}"
        names = {part: f"table/{name}.{part}" for part in parts}
        if name not in tables:
            tables[name] = entry | names
            tensors.update({names[part]: values.astype(np.int16) for part, values in parts.items()})
            return name
        if tables[name] == entry | names and all(np.array_equal(tensors[names[p]], v) for p, v in parts.items()):
            return name
    raise AssertionError("unreachable: one of len + 1 names is free")
