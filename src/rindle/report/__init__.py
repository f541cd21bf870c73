"""The report: what models cost and what they gave, on one page. ``collect`` measures, ``figures`` and ``page`` only show."""

from .collect import collect

__all__ = ["collect"]
