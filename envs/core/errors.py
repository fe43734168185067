"""The one error that means 'what you passed cannot work': the command line prints it in one line and exits with 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

import numpy as np


class InvalidInputError(ValueError):
    """Bad input: the message names the argument, the value, and what would be right."""


def unknown(what: str, value: object, known: Iterable[str]) -> InvalidInputError:
    """Make the error for a name that is not in ``known``, with the nearest valid one, whatever the case."""
    names = sorted(known)
    folded = {name.lower(): name for name in names}
    near = difflib.get_close_matches(str(value).lower(), folded, n=1, cutoff=0.4)
    hint = f" (did you mean {folded[near[0]]!r}?)" if near else ""
    return InvalidInputError(f"unknown {what} {value!r}{hint}; known: {', '.join(names) or 'none'}")


def without_effect(name: str, value: object, why: str) -> InvalidInputError:
    """Make the error for a setting that would be accepted and ignored."""
    return InvalidInputError(f"{name}={value!r} has no effect: {why}; leave it out")


def check_whole(name: str, value: object, least: int = 1, unit: str = "") -> int:
    """Return a whole number of at least ``least``, which may be NumPy's, or raise the error that says what it must be."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)) or value < least:
        raise InvalidInputError(f"{name}={value!r} must be a whole number of at least {least}{unit}")
    return int(value)


def check_seed(seed: object) -> int:
    """Return ``seed``, which may be NumPy's, or raise the error that says what it must be."""
    if isinstance(seed, (bool, np.bool_)) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < 1 << 63:
        raise InvalidInputError(f"seed={seed!r} must be a whole number in [0, 2^63)")
    return int(seed)


def one_line(value: object, limit: int = 120) -> str:
    """Text without line breaks, cut to ``limit`` characters."""
    text = " ".join(str(value).split())
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
