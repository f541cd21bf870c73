"""The C functions that the exported text calls: of the files beside this one, those that it needs."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

FILES = ("operations.c", "products.c", "delta.c")


@lru_cache(maxsize=1)
def _blocks() -> list[tuple[frozenset[str], str]]:
    """Paragraphs of the files, with the names that each defines."""
    text = "\n\n".join(Path(__file__).with_name(name).read_text(encoding="utf-8").strip() for name in FILES)
    blocks = []
    for block in text.split("\n\n"):
        defined = re.findall(r"^static inline [\w ]+?\*?(rindle_\w+)\(", block, re.MULTILINE)
        defined += re.findall(r"^(?:typedef .*|\}) (rindle_\w+);", block, re.MULTILINE)
        blocks.append((frozenset(defined), block))
    return blocks


def needed(text: str) -> str:
    """The paragraphs whose names the text uses, those that they use in turn, and the one of the feature macros if it is used."""
    wanted, chosen = set(re.findall(r"\brindle_\w+", text)), set()
    while True:
        found = {i for i, (defined, _) in enumerate(_blocks()) if defined & wanted} - chosen
        if not found:
            break
        chosen |= found
        for i in found:
            wanted |= set(re.findall(r"\brindle_\w+", _blocks()[i][1]))
    body = "\n\n".join(block for i, (_, block) in enumerate(_blocks()) if i in chosen)
    head = (
        [block for defined, block in _blocks() if not defined]
        if re.search(r"\bRINDLE_(DSP|MVE|APART|INTO)\b", body + text)
        else []
    )
    return "\n\n".join([*head, body])
