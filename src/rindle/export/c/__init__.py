"""C99 for microcontrollers: one header and one source file with integers only, and a program that checks them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...errors import RindleError
from ...program.nodes import ProgramNode
from ...program.products import terms_of_node
from .arrays import RESERVED, comment
from .folder import write_folder
from .model import ModelWriter, check

COMMAND = "cc -std=c99 -O2 {name}.c golden.c main.c -o golden && ./golden"


@dataclass(frozen=True)
class Export:
    """What was written. files: names in the folder. flash: what the constant arrays hold -> bytes. ram: bytes of the state
    struct. check: the command that compiles the folder and replays the golden vector.
    """

    folder: Path
    name: str
    files: tuple[str, ...]
    flash: dict[str, int]
    ram: int
    check: str


def to_c(artifact, folder, name: str = "model", force: bool = False) -> Export:
    """Writes a model as C99 into a folder: NAME.h, NAME.c, golden.c, main.c and README.md.

    artifact: a ``rindle.file.artifact.Artifact``, or a ``rindle.Model``. name: a C identifier, which begins all public names.
    force: replace these files in a folder that is not empty. Raises RindleError for a node that has no form in C, by its
    name, with the reason and the remedy; nothing is then written.
    """
    artifact = getattr(artifact, "artifact", artifact)
    check_name(name)
    check(artifact)
    writer = ModelWriter(artifact, name)
    files = {
        f"{name}.h": writer.header,
        f"{name}.c": writer.source,
        "golden.c": writer.golden,
        "main.c": MAIN.replace("NAME", name),
    }
    made = Export(
        Path(folder),
        name,
        (*files, "README.md"),
        writer.constants.sizes,
        writer.state.size,
        COMMAND.format(name=name),
    )
    write_folder(made.folder, files | {"README.md": readme(artifact, made)}, force)
    return made


def check_name(name: str) -> None:
    usable = name.isidentifier() and name.isascii() and name not in RESERVED | {"golden", "main"}
    if not usable or name.lower().startswith(("rindle", "_")):
        raise RindleError(
            f"the name {name!r} cannot begin names in C; give one of letters, digits and _ that is no word of C, not "
            f"main, golden or rindle…"
        )


MAIN = """\
/* Replays the golden vector. */
#include <stdio.h>

int NAME_golden(void);

int main(void)
{
    const int wrong = NAME_golden();
    if (wrong != 0) {
        printf("golden: %d codes differ\\n", wrong);
        return 1;
    }
    puts("golden: pass");
    return 0;
}
"""


def readme(artifact, made: Export) -> str:
    graph, name, upper = artifact.graph, made.name, made.name.upper()
    rows = [f"| {kind} | {size:,} |" for kind, size in made.flash.items()]
    nodes = "\n".join(f"- `{comment(node.name)}`: {_describe(graph, node)}" for node in graph.nodes)
    frame = f"int16_t x[{upper}_INPUTS], y[{upper}_OUTPUTS];"
    call = f"{name}_step(&state, x, y); /* codes in, codes out */"
    scales = f"value = code · scale: x has `{upper}_INPUT_SCALE`, y has `{upper}_OUTPUT_SCALE`."
    if graph.vocabulary:
        frame = f"int16_t y[{upper}_OUTPUTS];"
        call = f"{name}_step(&state, id, y); /* an id 0 .. {upper}_VOCABULARY - 1 in, codes out */"
        scales = f"value = code · scale: y has `{upper}_OUTPUT_SCALE`."
    return f"""\
# {name}

A network of integers in C99, made by Rindle: no malloc, no C library, no floating point, no
division. It gives the same integers as the model file that it was made from.

```
{made.check}
```

prints `golden: pass`. In a program, `{name}.h` and `{name}.c` are all there is:

```c
static {name}_state state;
{frame}

{name}_reset(&state); /* before the first frame of a sequence */
{call}
```

{scales} A code must lie within its format's range.

{nodes}

## Sizes

Counted from the arrays, in bytes; code and stack come on top, and depend on compiler and flags.

| flash | bytes |
|---|---|
{chr(10).join(rows)}
| all constants | {sum(made.flash.values()):,} |

| RAM | bytes |
|---|---|
| `{name}_state`: states, held codes and their sums, scratch | {made.ram:,} |

The compiler must shift negative integers arithmetically, as all that we know of do; the file does not compile where one does
not. With `__ARM_FEATURE_DSP` or `__ARM_FEATURE_MVE` products take Arm's SIMD instructions, with the same results.
"""


def _describe(graph, node) -> str:
    size = f"{graph.size_of(node.name)} features"
    if not isinstance(node, ProgramNode):
        return f"{node.kind}, {size}"
    program, layer = node.layer.program, node.layer
    bits = sorted({one.product.format.bits for one in terms_of_node(node)})
    held = ", held inputs: " + ", ".join(comment(code) for code in layer.thetas) if layer.thetas else ""
    return f"{comment(program.cell)}, {size}, weights of {', '.join(map(str, bits)) or 'no'} bits{held}"
