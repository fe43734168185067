"""A cell's work, in a module that another process can import."""

import time
import uuid
from functools import partial

from metaduel.benchmarks.core.suite import Together
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


def together(name, log):
    """Cells that are trained together; every training leaves a line with the names of its cells."""
    return Together(name, plans, partial(train, log))


def plans(folder):
    return [folder.name.split("-")[0]]


def train(log, given):
    if "broken" in given:
        raise InvalidInputError("it diverged")
    (log / uuid.uuid4().hex).write_text(" ".join(given))


def trained(log):
    return [path.read_text().split() for path in sorted(log.iterdir(), key=lambda one: one.stat().st_mtime_ns)]
