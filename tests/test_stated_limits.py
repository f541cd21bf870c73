"""The limits of a file and of the integers stand in Python, in the core and in the documents: three times the same number.

A row says where: what Python has, expressions of the core with the number as their group, and a sentence with it. A pattern that no
longer finds its place fails, so that the row moves with the code.
"""

import re
from pathlib import Path

import pytest

from rindle.file import limits
from rindle.numbers import bounds, formats, tables
from rindle.program import nodes

ROOT = Path(__file__).parent.parent
FORMAT, NUMERICS = "format.md", "numerics.md"


def exponent(power: int) -> int:
    return power.bit_length() - 1


# name: (Python's, [(file of the core, pattern)], [(document, sentence)]); "#" stands for the number
ROWS = {
    "name": (limits.NAME, [("schema.h", "kMaxName = #;")], [(FORMAT, "Strings that name things have 1..# bytes")]),
    "depth": (limits.DEPTH, [("json.h", "kMaxDepth = #;")], [(FORMAT, "at most # levels deep")]),
    "size": (
        limits.SIZE,
        [("reader.h", "kMaxSize = #;"), ("document_nodes.cc", "kMaxFrames = #;")],
        [(FORMAT, r"A size \(features,\nrows, columns\) is 1..#,"), (FORMAT, r"p and q in 0..#, d·\(K−1\) ≤ 2²⁰")],
    ),
    "elements": (limits.ELEMENTS, [], [(FORMAT, "element count of one tensor is below #\\.")]),
    "elements, as a power": (exponent(limits.ELEMENTS), [("tensors.cc", r"kMaxElements = \(1LL << #\) - 1;")], []),
    "needs": (limits.NEEDS, [("reader.h", "kMaxFeatures = #;")], [(FORMAT, "uses in `needs`, 1..# names")]),
    "parts": (
        limits.PARTS,
        [("document_parts.cc", "kMaxParts = #;")],
        [(FORMAT, r'"document": DOCUMENT}, …\] }\s+2..# of them')],
    ),
    "nodes": (limits.NODES, [("document.cc", r'root\["nodes"\].items\(1, #\)')], [(FORMAT, "1..# of them")]),
    "sources": (
        nodes.ConcatNode.arity[1],
        [("document_nodes.cc", "kMaxInputs = #;")],
        [(FORMAT, "has an array of 2..# names"), (FORMAT, "is an array of 2..# names instead")],
    ),
    "window": (limits.WINDOW, [("document_nodes.cc", "kMaxWindow = #,")], [(FORMAT, "K, d and s in 1..#,")]),
    "operations": (
        limits.OPS,
        [("document_program.cc", r'field_\["ops"\].items\(1, #\)')],
        [(FORMAT, r'"ops": \[OP, …\] }\s+1..#\n')],
    ),
    "terms": (
        limits.TERMS,
        [("document_program.cc", r'\["terms"\].items\(1, #\)'), ("document_bounds.cc", r'\["terms"\].items\(1, #\)')],
        [(FORMAT, r"\[TERM, …\]` \(1..#\)")],
    ),
    "segments": (limits.SEGMENTS, [("document.cc", r"n > # \|\| ")], [(NUMERICS, "n a power of two ≤ # segments")]),
    "paths": (
        limits.PATHS,
        [("document.cc", "kMaxPathElements = #;")],
        [(FORMAT, "together have at most # elements")],
    ),
    "golden": (limits.GOLDEN, [("document.cc", r"golden.batch > # / golden.frames")], [(FORMAT, "B·T in 1..#\\.")]),
    "fraction bits": (
        formats.FRAC_LIMIT,
        [("document.cc", r'\["frac"\].integer\(-64, #\)')],
        [(FORMAT, "f in −64..#\\."), (NUMERICS, "frac any integer in −64..# ")],
    ),
    "least scale": (
        formats.MIN_STEP,
        [("document.cc", "scale >= # &&")],
        [(FORMAT, "float32, # ≤ s"), (NUMERICS, "float32 from # to 2⁶⁴")],
    ),
    "shift": (
        bounds.MAX_SHIFT,
        [("document_program.cc", r'\["shift"\].integer\(0, #\)')],
        [(NUMERICS, "0 ≤ s ≤ #, one s per affine")],
    ),
    "multiplier": (
        bounds.MAX_MULTIPLIER,
        [("document_program.cc", r'\["multiplier"\].integer\(0, # - 1\)')],
        [(NUMERICS, "0 ≤ M < # per term and row")],
    ),
    "sums": (
        bounds.LIMIT,
        [],
        [(NUMERICS, r"\+ \|b\[r\]\| \+ R < #"), (NUMERICS, "must stay below #; conversion")],
    ),
    "sums, as a power": (
        exponent(bounds.LIMIT),
        [("document_bounds.cc", r"kLimit = std::int64_t\{1\} << #;"), ("reader.h", r"kExact = std::ldexp\(1.0, #\)")],
        [],
    ),
}
SUPERSCRIPTS = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")


def number(text: str) -> float:
    """ "4096", "1 << 20", "(1 << 22)", "0x1p-64", "2²⁰"."""
    text = text.strip("()").replace("'", "")
    if "<<" in text:
        one, shift = text.replace("LL", "").split("<<")
        return int(one) << int(shift)
    if text.startswith("0x"):
        return float.fromhex(text)
    if re.fullmatch(r"2[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+", text):
        return 2.0 ** int(text[1:].translate(SUPERSCRIPTS))
    return int(text)


def stated(folder: Path, name: str, pattern: str) -> list[str]:
    """The numbers that a file states where the pattern finds it."""
    text = (folder / name).read_text(encoding="utf-8")
    of_core = r"([\d'xp.-]+|\(?1 << \d+\)?)"
    found = re.findall(pattern.replace("#", of_core if folder.name == "file" else r"(2[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+|\d+)"), text)
    assert found, f"{name} has no {pattern!r}"
    return found


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_python_the_core_and_the_documents_have_one_limit(row):
    ours, core, documents = row
    assert core or documents
    places = [(ROOT / "core/file", *place) for place in core] + [(ROOT / "docs", *place) for place in documents]
    for folder, name, pattern in places:
        for text in stated(folder, name, pattern):
            assert number(text) == ours, f"{name}: {pattern!r} is {text}, Python has {ours}"


def test_the_largest_table_that_is_made_is_the_largest_that_a_file_holds():
    assert tables.LARGEST == limits.SEGMENTS


def test_several_inputs_have_one_limit():
    assert nodes.ProgramNode.arity[1] == nodes.ConcatNode.arity[1]


def test_every_limit_of_files_has_a_row():
    of_files = {value for name, value in vars(limits).items() if name.isupper()}
    assert of_files <= {row[0] for row in ROWS.values()}
