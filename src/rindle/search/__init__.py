"""Searches over a model's free choices. They take a callable that evaluates a candidate, and know no model."""
