"""The page of ``rindle inspect --hardware``: what ``measure.widths`` found, as Markdown."""

from __future__ import annotations

from ..measure.widths import Choice, Hardware, ProductNeeds, TableNeeds


def markdown(found: Hardware, title: str) -> str:
    """The guideline of one model as a page."""
    sections = (_summary(found), _formats(found), _products(found), _sums(found), _tables(found), _memory(found))
    return "\n".join((f"# {title}", *(line for section in sections for line in section))) + "\n"


def _summary(found: Hardware):
    widest = max((one.multiplier for one in found.products), default=0)
    arithmetic = f"rescaling multiplies, by numbers of up to {widest} bits" if widest else "requantizations multiply"
    if found.shifts_only:
        arithmetic = "shifts only: every rescaling is by a power of two"
    yield f"- arithmetic: {arithmetic}"
    yield f"- widest accumulator: {found.accumulator} bits, of {_worst(found.products)}"
    yield f"- widest sum of accumulators and bias: {max((one.bits for one in found.sums), default=0)} bits"
    yield f"- widest element-wise intermediate: {max(found.elementwise.values(), default=0)} bits"


def _formats(found: Hardware):
    yield "\n## Formats"
    yield "Why each is as it is; *reach* is the largest value that it holds.\n"
    yield from _rows("path | elements | format | reach | rule | reason", map(_format, found.choices))


def _format(one: Choice) -> tuple:
    return one.name, one.size, one.format, f"{one.reach:.6g}", one.rule, one.reason.replace("|", "\\|")


def _products(found: Hardware):
    yield "\n## Products"
    yield "*accumulator*: signed bits for Σ\\|w\\|·max\\|x\\| of the worst row, from the codes themselves: no data can pass it.\n"
    yield from _rows(
        "matrix | rows x columns | weights | rule | code | worst row | Σ\\|w\\|·max\\|x\\| | accumulator | rescaling",
        map(_product, found.products),
    )


def _product(one: ProductNeeds) -> tuple:
    shape, rescaling = f"{one.rows} x {one.columns}", f"x {one.multiplier} bits" if one.multiplier else "shift"
    accumulator = f"{one.accumulator} bits"
    return one.name, shape, one.weight, one.rule, one.code, one.row, f"{one.reach:,}", accumulator, rescaling


def _sums(found: Hardware):
    yield "\n## Sums and element-wise operations"
    yield "Signed bits before the rounding shift; of a sum, Σ M·acc + b, from the codes, of the rest from the formats.\n"
    sums = [(one.name, f"sum of {one.terms}", one.bits, one.bias or "none", one.shift) for one in found.sums]
    rest = [(name, "element-wise", bits, "", "") for name, bits in found.elementwise.items()]
    yield from _rows("path | kind | bits | bias | shift", sums + rest)


def _tables(found: Hardware):
    if found.tables:
        yield "\n## Tables"
        yield "Of \\|x\\|, the other half mirrored; *error* is the largest one over all codes, against the real function.\n"
        head = "function | form | segments | \\|x\\| up to | bits | error | used by"
        yield from _rows(head, map(_table, found.tables))


def _table(one: TableNeeds) -> tuple:
    users, error = ", ".join(one.used_by), f"{one.max_error:.2g}"
    return one.function, one.form, one.segments, f"{one.reach:g}", f"{one.bits:,}", error, users


def _memory(found: Hardware):
    yield "\n## Memory"
    yield "Packed without padding.\n"
    memory = [(what, f"{bits:,}", f"{-(-bits // 8):,}") for what, bits in found.memory.items() if bits]
    total = sum(found.memory.values())
    yield from _rows("what | bits | bytes", memory)
    yield f"| **total** | {total:,} | {-(-total // 8):,} |"


def _worst(products) -> str:
    if not products:
        return "no product"
    worst = max(products, key=lambda one: one.reach)
    return f"row {worst.row} of {worst.name}"


def _rows(head: str, rows):
    """Lines of a Markdown table. head: its columns between bars, those in a word escaped."""
    columns = head.replace("\\|", "\0").count("|") + 1
    yield f"| {head} |"
    yield "|" + "---|" * columns
    for row in rows:
        yield "| " + " | ".join(map(str, row)) + " |"
