"""metaduel: learning to adapt to adversaries.

Importing it registers every family with Gymnasium and PettingZoo, those of installed packages included, and imports no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from metaduel import clone as _clone  # noqa: F401 (before all others: it finds them)
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.lazy import exports
from metaduel.envs.core.registry import find, games, opponents, register, specs
from metaduel.envs.core.spec import GameSpec, Task
from metaduel.envs.core.tasks import sample_tasks as _sample_tasks
from metaduel.moved import install

if TYPE_CHECKING:
    __version__: str
    from metaduel.benchmarks.core.evaluate import evaluate
    from metaduel.envs.adapters.batched import make_batched as make_batched
    from metaduel.envs.adapters.sb3 import make_sb3 as make_sb3
    from metaduel.envs.players.zoo import sample_opponents
    from metaduel.meta.runs.load import load
    from metaduel.meta.runs.train import TaskList, train_meta_adversarial

# What needs torch is imported when it is first used: name -> where it is.
_PLACES = {
    "TaskList": "metaduel.meta.runs.train",
    "evaluate": "metaduel.benchmarks.core.evaluate",
    "load": "metaduel.meta.runs.load",
    "make_batched": "metaduel.envs.adapters.batched",
    "make_sb3": "metaduel.envs.adapters.sb3",
    "sample_opponents": "metaduel.envs.players.zoo",
    "train_meta_adversarial": "metaduel.meta.runs.train",
}

__all__ = [
    "GameSpec",
    "InvalidInputError",
    "Task",
    "TaskList",
    "evaluate",
    "find",
    "games",
    "load",
    "make_batched",
    "make_sb3",
    "opponents",
    "register",
    "sample_opponents",
    "sample_tasks",
    "train_meta_adversarial",
]

_public, __dir__ = exports(__name__, {**_PLACES, "__version__": ""})


def sample_tasks(game: str | GameSpec, n: int, split: str = "train", seed: int = 0) -> list[Task]:
    """Sample ``n`` tasks of a family: fresh ones from ``train``, distinct ones of the list from a frozen split.

    Raises:
        InvalidInputError: an unknown game or split, or more tasks than the frozen list holds.
    """
    return _sample_tasks(find(game), n, split, seed)


def __getattr__(name: str) -> Any:
    return _version() if name == "__version__" else _public(name)


def _version() -> str:
    """The installed version, from pyproject.toml; ``0+unknown`` in a checkout that is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("metaduel")
    except PackageNotFoundError:
        return "0+unknown"


install()
specs()  # last, so that what a package's entry point loads finds all of the above
