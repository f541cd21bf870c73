"""What a file of format version 4 needs of its reader: named features. docs/format.md, section "Needs".

New features get a name here, not a version: a line in ``FEATURES``, and in ``kFeatures`` of core/file/document_needs.cc.
"""

from __future__ import annotations

from collections.abc import Callable

from ..errors import RindleError
from ..program.products import terms_of
from . import limits
from .fields import Fields, names, short

# name -> whether a model uses it. A model that uses none is written as the oldest version that can say what it is.
FEATURES: dict[str, Callable] = {
    "initial_states": lambda artifact: any(node.layer.initial for node in artifact.graph.programs),
    "levels": lambda artifact: any(one.product.format.levels for one in terms_of(artifact.graph)),
    "parts": lambda artifact: False,  # of the file around several models, never of a model: file/parts.py
}


class Version(int):
    """The format version of a file, and the features that it may use."""

    needs: tuple[str, ...] = ()

    @classmethod
    def read(cls, top: Fields, newest: int) -> Version:
        """Takes version and needs from the document. Raises RindleError for a feature that is not known, by its name."""
        version = cls(top.integer("version", 1, newest))
        if version < 4:
            return version
        version.needs = names(top.take("needs", list), "document.needs")
        if len(version.needs) > limits.NEEDS:
            raise RindleError(f"document.needs has {len(version.needs)} entries; at most {limits.NEEDS} are allowed")
        for name in version.needs:
            if name not in FEATURES:
                raise RindleError(f"document.needs: this file needs {short(name)}; update rindle to read it")
        if not version.needs or list(version.needs) != sorted(set(version.needs)):
            raise RindleError(
                f"document.needs is {list(version.needs)}; it must name one feature or more, sorted, each once"
            )
        return version

    def check_used(self, used: tuple[str, ...]) -> None:
        """Raises RindleError unless the file says that it needs what the model uses, which is ``features`` of it."""
        if self < 4:
            return
        for name in sorted(set(self.needs) ^ set(used)):
            which = (
                "names {!r}, which nothing in the file uses"
                if name in self.needs
                else "lacks {!r}, which the file uses"
            )
            raise RindleError(f"document.needs {which.format(name)}")


def features(artifact) -> tuple[str, ...]:
    """The names of what a model needs of version 4, sorted."""
    return tuple(sorted(name for name, uses in FEATURES.items() if uses(artifact)))
