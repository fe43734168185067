"""Re-exports that are imported when they are first used: a package that offers what needs torch is imported without it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def exports(package: str, places: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return a package's ``__getattr__`` and ``__dir__`` (PEP 562) for names whose modules ``places`` gives."""

    def get(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(places[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    return get, lambda: sorted({*vars(sys.modules[package]), *places})


def moved(package: str, places: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a ``__getattr__`` for a package that was a module once: names that it held say where they are now."""

    def get(name: str) -> Any:
        if name in places:
            raise ImportError(f"{package}.{name} has moved: {places[name]} (docs/migration.md)")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return get
