"""Sentences of common words, the same ones in every benchmark and for every system."""

from __future__ import annotations

import random

COMMON = (
    "the a of to in is it that for was on with as his they at be this from have or by one had not "
    "but what all were when we there can an your which their said if do will each about how up out "
    "them then she many some so these would other into has more her two like him see time could "
    "no make than first been its who now people my made over did down only way find use may water "
    "long little very after words called just where most know engine vector sentence market history"
)
WORDS = COMMON.split()


def sentence(draw: random.Random, at_most: int) -> str:
    """Between four and `at_most` words."""
    return " ".join(draw.choices(WORDS, k=draw.randint(4, at_most)))
