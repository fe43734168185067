"""A cell's work, in a module that another process can import."""

import time

from metaduel.envs.core.errors import InvalidInputError


def work(needed, rows, folder):
    """Return the rows; the cells that it needs must be finished. A cell named "broken" fails."""
    finished = {path.name.split("-")[0] for path in (folder.parent.parent / "cells").glob("*.json")}
    assert set(needed) <= finished
    if rows["method"][0] == "broken":
        raise InvalidInputError("out of order")
    return rows


def save_when_interrupted(rows, folder):
    """Takes a while, unless Ctrl-C comes, and a moment to save then."""
    folder.mkdir(parents=True)
    try:
        (folder / "begun").touch()
        time.sleep(60)
    except KeyboardInterrupt:
        time.sleep(0.5)
        (folder / "saved").touch()
        raise
    return rows
