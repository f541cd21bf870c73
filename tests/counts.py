"""What the tests count to: `python tests/counts.py` prints it, `--write` puts it into docs/testing.md."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "testing.md"
BEGIN, END = "<!-- counts: begin -->", "<!-- counts: end -->"


def lines_of(*patterns: str) -> int:
    """Lines that are not blank, in the files that git has."""
    listed = subprocess.run(["git", "ls-files", "--", *patterns], check=True, capture_output=True, text=True, cwd=ROOT)
    return sum(bool(line.strip()) for name in listed.stdout.split() for line in (ROOT / name).read_text().splitlines())


def collected(*options: str) -> int:
    """The number of tests that pytest would run."""
    words = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *options]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, env=os.environ)
    found = re.search(r"(\d+)(?:/\d+)? tests collected", done.stdout)
    if found is None:
        raise SystemExit(done.stdout[-2000:] + done.stderr[-2000:])
    return int(found[1])


def calls(pattern: str, *files: str) -> int:
    """How often a pattern stands in these files."""
    return sum(len(re.findall(pattern, path.read_text())) for name in files for path in ROOT.glob(name))


def examples() -> dict[str, int]:
    """Examples of all laws together, by profile; a law that asks for no number tries 100."""
    from profiles import PROFILES

    asked = [
        int(n) for path in ROOT.glob("tests/test_*.py") for n in re.findall(r"@examples\((\d+)\)", path.read_text())
    ]
    laws = calls(r"(?m)^@given", "tests/test_*.py")
    usual = sum(asked) + 100 * (laws - len(asked))
    return {name: round(usual * share) for name, share in PROFILES.items()} | {"laws": laws}


def table() -> list[str]:
    """The counts as the lines of a table in Markdown."""
    from hostile_graphs import RULES

    tried = examples()
    rows = {
        "Lines of Rindle in Python": lines_of("src/*.py"),
        "Lines of its core in C++ and C, without tests": lines_of("core/*.cc", "core/*.h") - lines_of("core/tests/*"),
        "Lines of tests in Python": lines_of("tests/*.py"),
        "Lines of tests in C++ and C": lines_of("core/tests/*"),
        "Tests that pytest runs": collected(),
        "Of them in `make check`": collected("-m", "not slow"),
        "Laws that hypothesis draws examples for": tried["laws"],
        "Examples of all laws in `make check`, about": tried["quick"],
        "Examples of all laws in `make test`, about": tried["usual"],
        "Examples of all laws in `make everything`, about": tried["everything"],
        "Conditions checked by the core's own tests (`CHECK`)": calls(r"\bCHECK\(", "core/tests/*.cc"),
        "Released files that every later version must compute alike": len(
            list((ROOT / "tests/golden").glob("*.rindle"))
        ),
        "Rules of the file format, each broken and refused by both readers": len(RULES),
        "Mutated files read under sanitizers in `make test`": 20000,
    }
    return ["| what | number |", "|---|---|", *(f"| {what} | {number:,} |" for what, number in rows.items())]


def replace_block(begin: str, end: str, lines: list[str]) -> None:
    """Writes lines between two marks of docs/testing.md."""
    before, mark, rest = PAGE.read_text().partition(begin)
    _, other, after = rest.partition(end)
    if not mark or not other:
        raise SystemExit(f"{PAGE} has no {begin} … {end}")
    PAGE.write_text("\n".join([before + begin, *lines, end + after]))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    found = table()
    if sys.argv[1:] == ["--write"]:
        replace_block(BEGIN, END, found)
    print("\n".join(found))
