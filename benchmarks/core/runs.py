"""Runs as measurements take them: loaded ones or their folders, one or several."""

from __future__ import annotations

import os
from collections.abc import Sequence

from metaduel.envs.core.arguments import AnyPath, several
from metaduel.meta.runs.load import Run, load

Runs = AnyPath | Run | Sequence[AnyPath | Run]


def named_runs(given: Runs) -> list[tuple[str, Run]]:
    """All runs, loaded, each with a name for a reader: its folder, or its method and seed.

    Raises:
        InvalidInputError: neither a ``Run`` nor a run folder.
    """
    return [
        (f"{one.config.method}, seed {one.config.seed}", one)
        if isinstance(one, Run)
        else (os.fspath(one) if isinstance(one, os.PathLike) else one, load(one))
        for one in several(given)
    ]
