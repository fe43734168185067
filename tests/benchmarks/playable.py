"""What a cell does, where another process can import it."""

import time

from metaduel.envs.core.errors import InvalidInputError


def work(needed, rows, folder):
    """Gives the rows; what is needed must be there already, and a cell named "broken" is."""
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
