"""What is compared: each method is a scheme for w-bit weights and a-bit activations, and the rows say where each is measured."""

ELEMENTWISE = {"*": "fixed16 max(1.25)"}


def plain(w: int, a: int):
    """The paper's method, reconstructed from its abstract and tables (its text is not known to us): per matrix a power-of-two
    scale that covers the largest weight, Qm.n; embedding, input and hidden codes of a bits, and sigmoid and tanh results too.
    Accumulators, pre-activations and the cell state are wide (16 bits), and so is the state that the GRU mixes: kinder to it
    than a bits everywhere would be.
    """
    gates = f"fixed{a} max"
    return {
        "*": "fixed16 max",
        "weight.*": f"fixed{w} max",
        "code.*": f"fixed{a} max",
        "*.sigmoid": gates,
        "*.tanh": gates,
    }, None


def shifts(w: int, a: int):
    """Powers of two as well, so that all rescaling is a shift; by least squared error, and 16 bits inside."""
    return ELEMENTWISE | {"weight.*": f"fixed{w} mmse", "code.*": f"fixed{a} mmse"}, None


def rows(w: int, a: int):
    """Any scale, for weights one per row, by least squared error."""
    return ELEMENTWISE | {"weight.*": f"int{w} mmse", "code.*": f"int{a} mmse"}, None


def feedback(w: int, a: int):
    """As `rows`, and the weights' codes with error feedback over the joint columns of x and h, on what the quantized recurrence
    gives (GPTQ), and the biases corrected: docs/rounding.md.
    """
    return ELEMENTWISE | {"weight.*": f"int{w} mmse gptq corrected", "code.*": f"int{a} mmse"}, None


def recurrent(w: int, a: int):
    """w bits in the recurrent matrices alone, as `feedback` has them, and 8 in all others."""
    scheme, _ = feedback(w, a)
    return scheme | {"weight.*": "int8 mmse", "weight.*.h": scheme["weight.*"]}, None


METHODS = {"plain": plain, "shifts": shifts, "rows": rows, "feedback": feedback, "recurrent": recurrent}

PTB = [
    ("plain", 11, 10),
    *[(method, 8, 8) for method in ("plain", "shifts", "rows")],
    *[(method, 8, 3) for method in ("plain", "rows", "feedback")],
    ("feedback", 3, 8),
]
IMDB = [("rows", 8, 8), *[(method, 3, 8) for method in ("plain", "feedback", "recurrent")]]
ROWS = {"ptb-lstm": PTB, "ptb-gru": PTB, "imdb-lstm": IMDB, "imdb-gru": IMDB}
