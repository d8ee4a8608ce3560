"""Synapse: model inference that costs nothing when idle, on AWS and on one machine."""

__version__ = "0.1.0"
