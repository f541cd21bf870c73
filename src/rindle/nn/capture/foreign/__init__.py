"""Other packages' recurrent modules as ours, one file each; ``nn/registry.py`` says which class is whose."""

from .pytorch_kaldi import kaldi_ligru
from .speechbrain import speechbrain_ligru
from .sru import sru

__all__ = ["kaldi_ligru", "speechbrain_ligru", "sru"]
