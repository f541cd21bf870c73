"""Products of which every term has one code format and one weight rule."""

from __future__ import annotations

from dataclasses import replace

from ...numbers.formats import Format
from ...program.program import Op, Program, Term
from ...scheme.rules import Rule


def lower(
    program: Program, codes: dict[tuple[str, str], Format], weights: dict[tuple[str, str], Rule]
) -> tuple[Program, dict[str, Format]]:
    """Splits products so that each term has one code format and one weight rule.

    codes, weights: (gate, source) -> its format or rule. A source whose gates all use one format keeps its one
    code path; otherwise each format gets a code path named after its gates. Returns the program and its codes' formats.
    """
    users: dict[str, dict[Format, list[str]]] = {}  # code path -> format -> gates
    for op in program.affines:
        for term in op.terms:
            for gate in term.gates:
                gates = users.setdefault(term.code, {}).setdefault(codes[gate, term.source], [])
                gates.append(gate)
    names: dict[tuple[str, Format], str] = {}
    for code, by_format in users.items():
        for fmt, gates in by_format.items():
            names[code, fmt] = code if len(by_format) == 1 else f"{code}.{'+'.join(gates)}"
    ops: list[Op] = []
    for op in program.ops:
        if op.out[0] in users:
            ops += [replace(op, out=(names[op.out[0], fmt],)) for fmt in users[op.out[0]]]
            continue
        terms: list[Term] = []
        for term in op.terms:
            previous = None
            for gate in term.gates:
                key = codes[gate, term.source], weights[gate, term.source]
                if key == previous:
                    terms[-1] = replace(terms[-1], gates=(*terms[-1].gates, gate))
                else:
                    terms.append(replace(term, code=names[term.code, key[0]], gates=(gate,)))
                previous = key
        ops.append(replace(op, terms=tuple(terms)))
    sizes = {path: size for path, size in program.sizes.items() if path not in users}
    sizes |= {name: program.sizes[code] for (code, _), name in names.items()}
    lowered = replace(program, ops=tuple(ops), sizes=sizes, codes=tuple(names.values()))
    return lowered, {name: fmt for (_, fmt), name in names.items()}
