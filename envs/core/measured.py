"""What was measured about a game, as it lies in its folder: headroom, ratings and distances of its scripted players."""

from __future__ import annotations

import importlib.resources
import json
from typing import Any

from metaduel.envs.core.spec import GameSpec

FOLDER = "measured"


def file_name(spec: GameSpec) -> str:
    """Name of the file in ``<package>/measured``."""
    return f"{spec.name}-v{spec.version}.json"


def measured(spec: GameSpec) -> dict[str, Any]:
    """What is known about this version of a game: ``headroom`` and ``panel``, as ``benchmarks.tools.headroom`` and
    ``benchmarks.tools.panel`` give them. Empty where nothing has been measured.
    """
    file = importlib.resources.files(spec.package) / FOLDER / file_name(spec)
    if not file.is_file():
        return {}
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content
