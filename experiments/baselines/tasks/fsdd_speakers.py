"""Spoken digits of a speaker that training has not heard (four train, one validates, one tests); otherwise as `fsdd`."""

from .fsdd import METRIC, model, settings
from .fsdd import Task as SameSpeakers

__all__ = ["METRIC", "Task", "model", "settings"]


class Task(SameSpeakers):
    SPLIT = "by_speaker"
