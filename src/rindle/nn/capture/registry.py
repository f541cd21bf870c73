"""Modules of other packages, and users' own, that stand for recurrent layers: which class becomes what."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from ...errors import RindleError
from . import foreign

# class path -> what makes an equal module of Recurrent layers; a path, so that no package needs to be imported
CONVERTERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "sru.modules.SRU": foreign.sru,
    "speechbrain.nnet.RNN.LiGRU": foreign.speechbrain_ligru,
    "neural_networks.liGRU": foreign.kaldi_ligru,
}


def register(cls: type | str, convert: Callable[[nn.Module], nn.Module]) -> None:
    """Makes capture take modules of a class over, wherever they stand in a model.

    cls: the class, or its path "package.module.Class"; a subclass is not meant, it may compute something else. convert: from
    such a module, in evaluation, to an ``nn.Module`` with the same ``forward`` that is made of what capture knows,
    :class:`rindle.Recurrent` above all (``filled`` fills one). It gets a copy, and raises RindleError for what it cannot
    take over. An entry that is there already is replaced.
    """
    path = cls if isinstance(cls, str) else path_of(cls)
    if "." not in path or not callable(convert):
        raise RindleError(f"register takes a class, or its path, and a function, not {cls!r} and {convert!r}")
    CONVERTERS[path] = convert


def path_of(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def replaced(model: nn.Module) -> nn.Module:
    """The model with all registered modules replaced, in place where they are parts of it."""
    return _Replacement().visit(model, "")


class _Replacement:
    def __init__(self):
        self.made: dict[int, nn.Module] = {}  # a module that stands in several places stays one

    def visit(self, module: nn.Module, path: str) -> nn.Module:
        if id(module) not in self.made:
            convert = CONVERTERS.get(path_of(type(module)))
            self.made[id(module)] = module if convert is None else self._converted(module, convert, path)
            if convert is None:
                for name, child in list(module.named_children()):
                    setattr(module, name, self.visit(child, f"{path}.{name}" if path else name))
        return self.made[id(module)]

    @staticmethod
    def _converted(module: nn.Module, convert, path: str) -> nn.Module:
        where = f"the module {path!r}" if path else "the model"
        cls = path_of(type(module))
        try:
            made = convert(module)
        except RindleError as error:
            raise RindleError(f"{where} is a {cls}: {error}") from None
        if not isinstance(made, nn.Module):
            raise RindleError(
                f"{where} is a {cls}, whose registered function returns {made!r}; it must return a module"
            )
        return made.train(module.training)
