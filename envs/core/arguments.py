"""Arguments in the forms in which users write them: paths with ``~``, and one thing where several are expected."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence, Set, ValuesView
from pathlib import Path
from typing import Any

import numpy as np

from metaduel.envs.core.errors import InvalidInputError

AnyPath = str | os.PathLike[str]


def as_path(value: AnyPath, name: str = "path") -> Path:
    """A path as a shell reads it: ``~`` and ``~user`` in front are home folders, unless there is no such user.

    Args:
        value: the path.
        name: the argument's name, for the message.

    Raises:
        InvalidInputError: no path.
    """
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(path, str) or not path:
        raise InvalidInputError(f"{name}={value!r} must be a path: a string or an os.PathLike")
    return Path(os.path.expanduser(path))


def several(value: Any) -> list[Any]:
    """What is given as a list: a string, a path, a mapping, a named tuple and any other single thing is a list of one."""
    single = isinstance(value, (str, bytes, os.PathLike, Mapping)) or hasattr(value, "_fields")
    if not single and isinstance(value, (Sequence, Set, Iterator, ValuesView, np.ndarray)):
        return list(value)
    return [value]
