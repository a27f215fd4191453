"""What a sampler of another library is: its order, its faults, and the method here that it equals."""

from .doctor import Finding, examine
from .subjects import Subject, of_config, parse

__all__ = ["Finding", "Subject", "examine", "of_config", "parse"]
