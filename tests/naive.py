"""A second, deliberately naive reading of docs/numerics.md and docs/format.md: Python integers and Fractions, one element
at a time, from the bytes of a file. It shares no code with rindle, so that a mistake there is not repeated here.
"""

import json
import struct
from fractions import Fraction
from math import floor

DTYPES = {"U8": ("B", 1), "I16": ("h", 2), "I32": ("i", 4), "I64": ("q", 8), "F32": ("f", 4)}


def bounds(fmt, product):
    """(2). fmt: a JSON object with bits, and signed if unsigned."""
    bits = fmt["bits"]
    if not fmt.get("signed", True):
        return 0, 2**bits - 1
    top = 2 ** (bits - 1) - 1
    return (-top - 1 if bits == 16 and not product else -top), top


def sat(v, lo, hi):
    """(5)."""
    return min(max(v, lo), hi)


def round_half_up(v, s):
    """(6): floor(v/2^s + ½)."""
    return (2 * v + 2**s) // 2 ** (s + 1) if s >= 1 else v * 2**-s


def elementwise(op, codes, fractions, result):
    """(10) to (14) on one element, before sat. Exact products and sums as (numerator, its fraction bits)."""
    v, f = codes, fractions
    if op in ("add", "sub"):
        terms = [(v[0], f[0]), (v[1] if op == "add" else -v[1], f[1])]
    elif op == "mul":
        terms = [(v[0] * v[1], f[0] + f[1])]
    elif op == "sum_of_products":
        terms = [(v[0] * v[1], f[0] + f[1]), (v[2] * v[3], f[2] + f[3])]
    elif op == "lerp":
        terms = [(v[0] * v[1], f[0] + f[1]), ((2 ** f[0] - v[0]) * v[2], f[0] + f[2])]
    finest = max(frac for _, frac in terms)
    exact = sum(numerator * 2 ** (finest - frac) for numerator, frac in terms)
    return round_half_up(exact, finest - result)


def table(entry, x, lo, hi, frac):
    """(17) to (19). entry: base, slope, x0, p, q, degree, flag."""
    n, p = len(entry["base"]), entry["p"]
    mirrored = entry["flag"] != "none"
    u = sat(abs(x) if mirrored else x - entry["x0"], 0, n * 2**p - 1)
    k, t = divmod(u, 2**p)
    y = entry["base"][k]
    if entry["degree"]:
        y = sat(y + round_half_up(entry["slope"][k] * t, entry["q"]), lo, hi)
    if mirrored and x < 0:
        y = sat(-y if entry["flag"] == "odd" else 2**frac - y, lo, hi)
    return y


def mean(codes):
    """(21): the exact average, rounded half up."""
    return floor(Fraction(sum(codes), len(codes)) + Fraction(1, 2))


def unpack(data, bits, rows, columns):
    width = -(-columns * bits // 8)
    matrix = []
    for r in range(rows):
        row = int.from_bytes(data[r * width : (r + 1) * width], "little")
        codes = [(row >> (k * bits)) & (2**bits - 1) for k in range(columns)]
        matrix.append([code - 2**bits if code >= 2 ** (bits - 1) else code for code in codes])
    return matrix


class File:
    def __init__(self, data):
        (length,) = struct.unpack("<Q", data[:8])
        self.header = json.loads(data[8 : 8 + length])
        self.body = data[8 + length :]
        self.document = json.loads(self.header["__metadata__"]["rindle"])

    def bytes_of(self, name):
        start, end = self.header[name]["data_offsets"]
        return self.body[start:end]

    def tensor(self, name):
        letter, size = DTYPES[self.header[name]["dtype"]]
        data = self.bytes_of(name)
        return list(struct.unpack(f"<{len(data) // size}{letter}", data))


class Program:
    """One program node and one row: its state, and what it counts."""

    def __init__(self, file, entry, saturations, changes):
        self.file, self.p = file, entry
        self.saturations, self.changes = saturations, changes
        self.formats = {**entry["paths"], **entry["codes"], **entry["vectors"]}
        self.states = {state: [0] * self.formats[state]["size"] for state, _ in entry["states"]}
        self.held = {code: [0] * fmt["size"] for code, fmt in entry["codes"].items() if "theta" in fmt}

    def finish(self, path, values, counter):
        lo, hi = bounds(self.formats[path], path in self.p["codes"])
        self.saturations[counter] = self.saturations.get(counter, 0) + sum(not lo <= v <= hi for v in values)
        return [sat(v, lo, hi) for v in values]

    def frame(self, x):
        env = {self.p["input"]: x, **self.states}
        env |= {name: self.file.tensor(fmt["tensor"]) for name, fmt in self.p["vectors"].items()}
        for op in self.p["ops"]:
            getattr(self, f"_{op['op']}", self._elementwise)(op, env)
        self.states = {state: env[following] for state, following in self.p["states"]}
        return env[self.p["output"]]

    def _affine(self, op, env):
        sizes = [self.formats[gate]["size"] for gate in op["out"]]
        sums = self.file.tensor(op["bias"])
        for term in op["terms"]:
            first = sum(sizes[: op["out"].index(term["gates"][0])])
            rows = sum(self.formats[gate]["size"] for gate in term["gates"])
            code = env[term["in"]]
            matrix = unpack(self.file.bytes_of(term["weight"]), term["bits"], rows, len(code))
            for r, (row, multiplier) in enumerate(zip(matrix, self.file.tensor(term["multiplier"]))):
                sums[first + r] += multiplier * sum(w * v for w, v in zip(row, code))
        y = [round_half_up(v, op["shift"]) for v in sums]
        for gate, size in zip(op["out"], sizes):
            env[gate], y = self.finish(gate, y[:size], op["out"][0]), y[size:]

    def _requantize(self, op, env):
        out = op["out"]
        v = [round_half_up(a * op["multiplier"], op["shift"]) for a in env[op["in"]]]
        env[out] = self.finish(out, v, out)
        if out in self.held:
            theta = self.formats[out]["theta"]
            theta = self.file.tensor(theta) if isinstance(theta, str) else [theta] * len(v)
            fires = [abs(a - b) > limit for a, b, limit in zip(env[out], self.held[out], theta)]
            count, frames = self.changes.get(out, (0, 0))
            self.changes[out] = count + sum(fires), frames + 1
            self.held[out] = env[out] = [a if f else b for a, b, f in zip(env[out], self.held[out], fires)]

    def _elementwise(self, op, env):
        fractions = [self.formats[path]["frac"] for path in op["in"]]
        operands = zip(*(env[path] for path in op["in"]))
        v = [elementwise(op["op"], one, fractions, self.formats[op["out"]]["frac"]) for one in operands]
        env[op["out"]] = self.finish(op["out"], v, op["out"])

    def _clip(self, op, env):
        env[op["out"]] = [sat(v, op["lo"], op["hi"]) for v in env[op["in"]]]

    def _table(self, op, env):
        entry = dict(self.file.document["tables"][op["table"]])
        entry |= {part: self.file.tensor(entry[part]) for part in ("base", "slope") if part in entry}
        fmt = self.formats[op["out"]]
        env[op["out"]] = [table(entry, v, *bounds(fmt, False), fmt["frac"]) for v in env[op["in"]]]


def join(parts):
    return [code for part in parts for code in part]


def embedded(file, node, ids):
    vocabulary, bits = file.document["input"]["vocabulary"], node["format"]["bits"]
    rows = unpack(file.bytes_of(node["weight"]), bits, vocabulary, node["size"])
    return [rows[one] for one in ids]


def run(data, codes, lengths):
    """data: a file's bytes. codes: [B][T][I], or ids [B][T]. Returns outputs per row (of the row's own length),
    saturations, changes.
    """
    file = File(data)
    outputs, saturations, changes = [], {}, {}
    for row, length in zip(codes, lengths):
        values = {"input": ("sequence", row[:length])}
        for node in file.document["nodes"]:
            sources = node["input"] if node["kind"] == "concat" else [node["input"]]
            kind, value = values[sources[0]]
            if node["kind"] == "last":
                values[node["name"]] = "vector", value[-1]
            elif node["kind"] == "first":
                values[node["name"]] = "vector", value[0]
            elif node["kind"] == "mean":
                values[node["name"]] = "vector", [mean(column) for column in zip(*value)]
            elif node["kind"] == "concat":
                parts = [values[source][1] for source in sources]
                joined = [join(frames) for frames in zip(*parts)] if kind == "sequence" else join(parts)
                values[node["name"]] = kind, joined
            elif node["kind"] == "embedding":
                values[node["name"]] = kind, embedded(file, node, value)
            else:
                counts = [tally.setdefault(node["name"], {}) for tally in (saturations, changes)]
                program = Program(file, node["program"], *counts)
                frames = list(value) if kind == "sequence" else [value]
                order = range(len(frames) - 1, -1, -1) if node.get("reverse") else range(len(frames))
                y = [None] * len(frames)
                for t in order:
                    y[t] = program.frame(frames[t])
                values[node["name"]] = kind, (y if kind == "sequence" else y[0])
        outputs.append(values[file.document["output"]][1])
    return (
        outputs,
        {(node, op): count for node, one in saturations.items() for op, count in one.items()},
        {(node, code): count for node, one in changes.items() for code, count in one.items()},
    )


def state(data, codes):
    """The bytes of a stream's saved state after these frames, [T][I], or ids [T]; docs/format.md, "Saved state"."""
    file = File(data)
    values, saved = {"input": codes}, []
    for node in file.document["nodes"]:
        if node["kind"] == "concat":
            parts = [values[source] for source in node["input"]]
            vectors = any(part is None for part in parts)
            values[node["name"]] = None if vectors else [join(frames) for frames in zip(*parts)]
            continue
        source = values.get(node["input"])
        if node["kind"] == "embedding":
            values[node["name"]] = embedded(file, node, source)
            continue
        if node["kind"] != "program":
            values[node["name"]] = None  # a vector
            continue
        program = Program(file, node["program"], {}, {})
        values[node["name"]] = source and [program.frame(frame) for frame in source]
        for path, _ in node["program"]["states"]:
            saved += program.states[path]
        for op in node["program"]["ops"]:
            if op["op"] == "requantize" and op["out"] in program.held:
                saved += program.held[op["out"]]
    header = b"RNDLST1\0" + bytes.fromhex(file.document["id"])
    return header + struct.pack("<I", len(saved)) + struct.pack(f"<{len(saved)}h", *saved)
