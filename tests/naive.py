"""A second, deliberately naive reading of docs/numerics.md and docs/format.md: Python integers and Fractions, one element
at a time, from the bytes of a file. It shares no code with rindle, so that a mistake there is not repeated here.
"""

import json
import math
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


# name -> what the codes 0, 1, 2, … of a weight are worth
LEVELS = {"binary": (-1, 1), "uniform2": (-3, -1, 1, 3)}


def unpack(data, bits, rows, columns, levels=None):
    width = -(-columns * bits // 8)
    matrix = []
    for r in range(rows):
        row = int.from_bytes(data[r * width : (r + 1) * width], "little")
        codes = [(row >> (k * bits)) & (2**bits - 1) for k in range(columns)]
        if levels:
            matrix.append([levels[code] for code in codes])
            continue
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
        self.states |= {state: list(file.tensor(name)) for state, name in entry.get("initial", {}).items()}
        self.held = {code: [0] * fmt["size"] for code, fmt in entry["codes"].items() if "theta" in fmt}

    def finish(self, path, values, counter):
        lo, hi = bounds(self.formats[path], path in self.p["codes"])
        self.saturations[counter] = self.saturations.get(counter, 0) + sum(not lo <= v <= hi for v in values)
        return [sat(v, lo, hi) for v in values]

    def frame(self, *inputs):
        names = self.p["input"] if isinstance(self.p["input"], list) else [self.p["input"]]
        env = {**dict(zip(names, inputs, strict=True)), **self.states}
        env |= {name: self.file.tensor(fmt["tensor"]) for name, fmt in self.p["vectors"].items()}
        for op in self.p["ops"]:
            getattr(self, f"_{op['op']}", self._elementwise)(op, env)
        self.states = {state: env[following] for state, following in self.p["states"]}
        return env[self.p["output"]]

    def _affine(self, op, env):
        sizes = [self.formats[gate]["size"] for gate in op["out"]]
        conv = op["terms"][0].get("conv")
        pixels = conv["result"][0] * conv["result"][1] if conv else 1
        sums = [bias for bias in self.file.tensor(op["bias"]) for _ in range(pixels)]
        for term in op["terms"]:
            first = sum(sizes[: op["out"].index(term["gates"][0])])
            rows = sum(self.formats[gate]["size"] for gate in term["gates"]) // pixels
            code = env[term["in"]]
            columns = weights_of_a_row(term["conv"], len(code)) if conv else len(code)
            levels = LEVELS[term["levels"]] if "levels" in term else None
            bits = term["bits"] if levels is None else (len(levels) - 1).bit_length()
            matrix = unpack(self.file.bytes_of(term["weight"]), bits, rows, columns, levels)
            for r, (row, multiplier) in enumerate(zip(matrix, self.file.tensor(term["multiplier"]))):
                for pixel in range(pixels):
                    read = patch(term["conv"], code, rows, r, pixel) if conv else code
                    sums[first + r * pixels + pixel] += multiplier * sum(w * v for w, v in zip(row, read, strict=True))
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


def weights_of_a_row(conv, elements):
    height, width = conv["image"]
    return elements // (height * width) // conv["groups"] * conv["kernel"][0] * conv["kernel"][1]


def patch(conv, image, rows, r, pixel):
    """(7c): what row r's weights multiply at an element of the result, zeros outside the image."""
    (height, width), (sh, sw), (dh, dw), (ph, pw) = (conv[key] for key in ("image", "stride", "dilation", "padding"))
    channels = len(image) // (height * width) // conv["groups"]
    first = r * conv["groups"] // rows * channels
    i, j = divmod(pixel, conv["result"][1])
    codes = []
    for c in range(first, first + channels):
        for a in range(conv["kernel"][0]):
            for b in range(conv["kernel"][1]):
                y, x = i * sh + a * dh - ph, j * sw + b * dw - pw
                inside = 0 <= y < height and 0 <= x < width
                codes.append(image[(c * height + y) * width + x] if inside else 0)
    return codes


def window(node, frames):
    """(23)."""
    zeros, reach = [0] * len(frames[0]), node["dilation"] * (node["size"] - 1)
    padded = [zeros] * node["before"] + frames + [zeros] * node["after"]
    starts = range(0, len(padded) - reach, node["stride"])
    return [join(padded[t + k * node["dilation"]] for k in range(node["size"])) for t in starts]


def softmax(x):
    shares = [math.exp(v - max(x)) for v in x]
    return [share / sum(shares) for share in shares]


ELEMENT_WISE = {
    "relu": lambda v: max(v, 0.0),
    "sigmoid": lambda v: 1 / (1 + math.exp(-v)) if v >= 0 else 1 - 1 / (1 + math.exp(v)),
    "tanh": math.tanh,
    "gelu": lambda v: v * (1 + math.erf(v / math.sqrt(2))) / 2,
    "gelu_tanh": lambda v: v * (1 + math.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3))) / 2,
}


def float_frame(file, node, x, y=None):
    """One frame of a float node, from the values of one."""
    op = node["op"]
    tensors = {key: file.tensor(node[key]) for key in ("weight", "bias") if key in node}
    if op in ELEMENT_WISE:
        return [ELEMENT_WISE[op](v) for v in x]
    if op in ("add", "mul"):
        return [a + b if op == "add" else a * b for a, b in zip(x, y, strict=True)]
    if op in ("softmax", "log_softmax"):
        size = len(x) // node["groups"]
        parts = join(softmax(x[i : i + size]) for i in range(0, len(x), size))
        if op == "softmax":
            return parts
        return [v - max(g) - math.log(sum(math.exp(w - max(g)) for w in g)) for g in split(x, size) for v in g]
    if op == "linear":
        rows = split(tensors["weight"], len(x))
        return [
            math.fsum(w * v for w, v in zip(row, x)) + b for row, b in zip(rows, tensors.get("bias", [0.0] * len(rows)))
        ]
    mean = math.fsum(x) / len(x)
    deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in x) / len(x) + node["epsilon"])
    scales, shifts = tensors.get("weight", [1.0] * len(x)), tensors.get("bias", [0.0] * len(x))
    return [(v - mean) / deviation * scale + shift for v, scale, shift in zip(x, scales, shifts)]


def split(x, size):
    return [x[i : i + size] for i in range(0, len(x), size)]


def attention(scores, values):
    weights = softmax([score for (score,) in scores])
    return [math.fsum(w * v for w, v in zip(weights, column)) for column in zip(*values)]


def scale_of(file, name):
    """What one code of a node's value, or of the input, is worth; 1 for float values."""
    document = file.document
    nodes = {node["name"]: node for node in document["nodes"]}
    while name != "input" and nodes[name]["kind"] not in ("program", "embedding", "float"):
        source = nodes[name]["input"]
        name = source[0] if isinstance(source, list) else source
    if name != "input" and nodes[name]["kind"] == "float":
        return 1.0
    if name == "input":
        fmt = document["input"]["format"]
    elif nodes[name]["kind"] == "embedding":
        fmt = nodes[name]["format"]
    else:
        fmt = nodes[name]["program"]["paths"][nodes[name]["program"]["output"]]
    return 2.0 ** -fmt["frac"] if "frac" in fmt else fmt["scale"]


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
            sources = node["input"] if isinstance(node["input"], list) else [node["input"]]
            kind, value = values[sources[0]]
            if node["kind"] == "last":
                values[node["name"]] = "vector", value[-1]
            elif node["kind"] == "first":
                values[node["name"]] = "vector", value[0]
            elif node["kind"] == "mean":
                values[node["name"]] = "vector", [mean(column) for column in zip(*value)]
            elif node["kind"] == "max":
                values[node["name"]] = "vector", [max(column) for column in zip(*value)]
            elif node["kind"] == "window":
                values[node["name"]] = kind, window(node, value)
            elif node["kind"] == "gather":
                index = file.tensor(node["index"])
                chosen = [[frame[i] for i in index] for frame in (value if kind == "sequence" else [value])]
                values[node["name"]] = kind, (chosen if kind == "sequence" else chosen[0])
            elif node["kind"] == "float":
                read = []
                for source in sources:
                    scale, (_, codes_or_values) = scale_of(file, source), values[source]
                    frames = codes_or_values if kind == "sequence" else [codes_or_values]
                    read.append([[v * scale for v in frame] for frame in frames])
                if node["op"] == "attention":
                    values[node["name"]] = "vector", attention(*read)
                    continue
                y = [float_frame(file, node, *frames) for frames in zip(*read, strict=True)]
                values[node["name"]] = kind, (y if kind == "sequence" else y[0])
            elif node["kind"] == "concat":
                parts = [values[source][1] for source in sources]
                joined = [join(frames) for frames in zip(*parts)] if kind == "sequence" else join(parts)
                values[node["name"]] = kind, joined
            elif node["kind"] == "embedding":
                values[node["name"]] = kind, embedded(file, node, value)
            else:
                counts = [tally.setdefault(node["name"], {}) for tally in (saturations, changes)]
                program = Program(file, node["program"], *counts)
                read = [values[source][1] for source in sources]
                frames = list(zip(*read, strict=True)) if kind == "sequence" else [read]
                order = range(len(frames) - 1, -1, -1) if node.get("reverse") else range(len(frames))
                y = [None] * len(frames)
                for t in order:
                    y[t] = program.frame(*frames[t])
                values[node["name"]] = kind, (y if kind == "sequence" else y[0])
        (output,) = file.document.get("outputs") or [file.document["output"]]
        outputs.append(values[output][1])
    return (
        outputs,
        {(node, op): count for node, one in saturations.items() for op, count in one.items()},
        {(node, code): count for node, one in changes.items() for code, count in one.items()},
    )


def state(data, codes):
    """The bytes of a stream's saved state after these frames, [T][I], or ids [T]; docs/format.md, "Saved state"."""
    file = File(data)
    values, saved, sizes = {"input": codes}, [], {"input": file.document["input"].get("size", 1)}
    for node in file.document["nodes"]:
        kind, name = node["kind"], node["name"]
        sources = node["input"] if isinstance(node["input"], list) else [node["input"]]
        read = [values[source] for source in sources]  # frames; None of a vector
        vector = any(part is None for part in read)
        width = sum(sizes[source] for source in sources)
        if kind == "embedding":
            values[name], width = embedded(file, node, read[0]), node["size"]
        elif kind == "program":
            program = Program(file, node["program"], {}, {})
            values[name] = None if vector else [program.frame(*frames) for frames in zip(*read, strict=True)]
            width = program.formats[node["program"]["output"]]["size"]
            for path, _ in node["program"]["states"]:
                saved += program.states[path]
            for op in node["program"]["ops"]:
                if op["op"] == "requantize" and op["out"] in program.held:
                    saved += program.held[op["out"]]
        elif vector or kind in ("last", "float"):
            values[name] = None
            width = len(file.tensor(node["index"])) if kind == "gather" else width
        elif kind == "concat":
            values[name] = [join(frames) for frames in zip(*read)]
        elif kind == "gather":
            index = file.tensor(node["index"])
            values[name], width = [[frame[i] for i in index] for frame in read[0]], len(index)
        elif kind == "window":
            past = node["dilation"] * (node["size"] - 1)
            frames = [[0] * width] * past + list(read[0])
            saved += join(frames[len(frames) - past :])
            values[name], width = window(node, read[0]) if read[0] else [], width * node["size"]
        sizes[name] = width
    header = b"RNDLST1\0" + bytes.fromhex(file.document["id"])
    return header + struct.pack("<I", len(saved)) + struct.pack(f"<{len(saved)}h", *saved)
