"""Tasks: checking them, sampling them, and the frozen lists that results are reported on.

The splits are disjoint by construction: the first continuous context of a family lives on a lattice of 2^20 points, of
which train takes the even ones, validation those that are 1 modulo 4 and held_out those that are 3 modulo 4.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from metaduel.envs.core.errors import InvalidInputError, check_seed, check_whole, unknown
from metaduel.envs.core.spec import FROZEN_SPLITS, SPLITS, GameSpec, Split, Task

if TYPE_CHECKING:
    from torch import Tensor

FROZEN_SIZE = 100
_LATTICE = 1 << 20
_OLD_ID = re.compile(r"[0-9a-f]{10}")
# split -> (modulus, residue) of its lattice points
_RESIDUE: dict[str, tuple[int, int]] = {
    "train": (2, 0),
    "validation": (4, 1),
    "held_out": (4, 3),
    "extrapolation": (1, 0),
}


def check_split(split: str) -> Split:
    """Return ``split`` or raise the error that names the splits."""
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    return split  # type: ignore[return-value]


def check_task(spec: GameSpec, task: Mapping[str, object]) -> Task:
    """Fill in defaults and validate every value.

    Raises:
        InvalidInputError: not a mapping, an unknown context, or a value of the wrong type, NaN or out of bounds.
    """
    if not isinstance(task, Mapping):
        raise InvalidInputError(f"{spec.name}: task={task!r} must map context names to numbers")
    for name in task:
        if name not in spec.context_names:
            raise unknown(f"context of {spec.name}", name, spec.context_names)
    return {c.name: c.check(task.get(c.name, c.default), spec.name) for c in spec.contexts}


def task_id(task: Mapping[str, float]) -> str:
    """A short name for a complete task that tells nothing of its values: ``t`` and 10 hexadecimal digits of their hash.

    The letter keeps it a word: without one, readers of CSV files take ``0526144824`` and ``457e695297`` for numbers.
    """
    return task_ids(tuple(task), np.array([list(task.values())], np.float64))[0]


def task_ids(names: Sequence[str], rows: npt.NDArray[np.float64]) -> list[str]:
    """Name the tasks in ``rows`` [B, number of contexts], whose columns are called ``names``; see ``task_id``."""
    by_name = sorted(range(len(names)), key=names.__getitem__)
    content, width = (rows[:, by_name] + 0.0).tobytes(), rows.shape[1] * rows.itemsize  # + 0.0 makes one zero of two
    starts = range(0, len(content), width)
    return [f"t{hashlib.blake2b(content[i : i + width], digest_size=5).hexdigest()}" for i in starts]


def read_task_id(text: str) -> str:
    """A task's id as a file of results holds it. Ids without the letter are those of earlier versions; other names stay."""
    return f"t{text}" if _OLD_ID.fullmatch(text) else text


def digest(tasks: list[Task]) -> str:
    """SHA-256 of a task list: of its JSON with sorted keys."""
    return hashlib.sha256(json.dumps(tasks, sort_keys=True).encode()).hexdigest()


def draw(spec: GameSpec, split: Split, u: Tensor) -> Tensor:
    """Turn uniforms into context values of a split.

    Args:
        spec: the family.
        split: whose ranges and lattice to use.
        u: [B, number of contexts] in [0, 1), float64.

    Returns:
        [B, number of contexts] float64.
    """
    import torch

    pieces, ranges, whole, lattice = _ranges(spec, split)
    if ranges.shape[2] == 1:  # one range for every context, as all splits but extrapolation have
        fraction, (low, high) = u, ranges[:, :, 0].unbind(0)
    else:
        which = (u * pieces).long()
        fraction = u * pieces - which
        low, high = torch.gather(ranges, 2, which.T.expand(2, -1, -1)).transpose(1, 2).unbind(0)
    modulus, residue = _RESIDUE[split]
    point = torch.floor(torch.floor(fraction * _LATTICE) / modulus) * modulus + residue
    fraction = torch.where(lattice, point / _LATTICE, fraction)
    size = high - low
    return torch.where(whole, low + torch.floor(fraction * (size + 1)), low + size * fraction)


@lru_cache(maxsize=256)
def _ranges(spec: GameSpec, split: Split) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Per context: number of ranges [C], their ends [2, C, most ranges], whether whole [C], whether on the lattice [C]."""
    import torch

    ranges = [(c.extrapolation if split == "extrapolation" else ()) or (c.train,) for c in spec.contexts]
    continuous = [i for i, c in enumerate(spec.contexts) if not c.integer]
    if not continuous:
        raise TypeError(f"{spec.name}: needs a continuous context, or its splits can't be disjoint")
    most = max(map(len, ranges))
    padded = [[*r, *r[-1:] * (most - len(r))] for r in ranges]
    ends = torch.tensor(padded, dtype=torch.float64, device="cpu").permute(2, 0, 1)
    count = torch.tensor([len(r) for r in ranges], dtype=torch.float64, device="cpu")
    whole = torch.tensor([c.integer for c in spec.contexts], dtype=torch.bool, device="cpu")
    return count, ends.contiguous(), whole, torch.arange(len(ranges), dtype=torch.int64, device="cpu") == continuous[0]


def generate(spec: GameSpec, split: Split, n: int, seed: int) -> list[Task]:
    """Sample ``n`` tasks of a split's ranges and lattice; what the frozen lists were made with."""
    return [dict(zip(spec.context_names, row, strict=True)) for row in _rows(spec, split, n, seed).tolist()]


def training_rows(spec: GameSpec, n: int, seed: int, fixed: Mapping[str, float]) -> Tensor:
    """Fresh training tasks as rows [n, number of contexts] float64, the same for the same seed, with some contexts held fixed at
    valid values.
    """
    rows = _rows(spec, "train", n, seed)
    for name, value in fixed.items():
        rows[:, spec.context_names.index(name)] = value
    return rows


def _rows(spec: GameSpec, split: Split, n: int, seed: int) -> Tensor:
    import torch

    from metaduel.envs.core import noise

    episode = torch.arange(n, dtype=torch.int64, device="cpu")
    key = noise.episode_key(torch.full_like(episode, seed), episode)
    u = noise.uniform(key, torch.zeros_like(key), noise.TASK, len(spec.contexts), torch.float64)
    return draw(spec, split, u)


def sample_tasks(spec: GameSpec, n: int, split: str = "train", seed: int = 0) -> list[Task]:
    """Sample ``n`` tasks.

    From train: fresh ones, the same for the same ``seed``. From a frozen split: ``n`` distinct ones of its list, in an
    order given by ``seed``.

    Raises:
        InvalidInputError: an unknown split, or more tasks than a frozen list holds.
    """
    name = check_split(split)
    n, seed = check_whole("n", n, unit=" task"), check_seed(seed)
    if name == "train":
        return generate(spec, name, n, seed)
    tasks = frozen_tasks(spec, name)
    if n > len(tasks):
        raise InvalidInputError(f"n={n}: the {split} list of {spec.name} holds {len(tasks)} tasks")
    order = np.random.default_rng(seed).permutation(len(tasks))[:n]
    return [tasks[i] for i in order]


@lru_cache(maxsize=64)
def _frozen(package: str, file: str) -> dict[str, list[Task]]:
    try:
        content = json.loads((importlib.resources.files(package) / "tasks" / file).read_text(encoding="utf-8"))
        lists = {split: (content[split]["tasks"], content[split]["sha256"]) for split in FROZEN_SPLITS}
    except (ImportError, OSError, ValueError, LookupError, TypeError) as error:
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InvalidInputError(
            f"{package}/tasks/{file} must be what metaduel.envs.core.tasks.frozen_json gives for the family ({why})"
        ) from None
    for split, (tasks, wanted) in lists.items():
        if digest(tasks) != wanted:
            raise InvalidInputError(
                f"{package}/tasks/{file}: the frozen {split} list does not match its hash: "
                f"reinstall {package.partition('.')[0]}"
            )
    return {split: tasks for split, (tasks, _) in lists.items()}


def frozen_tasks(spec: GameSpec, split: str) -> list[Task]:
    """The frozen list of a split (validation, held_out or extrapolation), checked against its hash.

    Raises:
        InvalidInputError: a split without a list, or a file that is missing, was changed, or is of other contexts.
    """
    if check_split(split) == "train":
        raise InvalidInputError("split='train' has no frozen list: sample from it")
    tasks = [dict(task) for task in _frozen(spec.package, spec.frozen_file)[split]]
    if tasks and set(tasks[0]) != set(spec.context_names):
        raise InvalidInputError(
            f"{spec.name}: {spec.frozen_file} has contexts {', '.join(tasks[0])}, not {', '.join(spec.context_names)}"
        )
    return tasks


def frozen_json(spec: GameSpec) -> str:
    """The content of a family's task file: three lists with their hashes. Written once per version, by its author."""
    content: dict[str, Any] = {"game": spec.id}
    for number, split in enumerate(FROZEN_SPLITS):
        tasks = generate(spec, split, FROZEN_SIZE, seed=1_000_003 * (number + 1))
        content[split] = {"sha256": digest(tasks), "tasks": tasks}
    return json.dumps(content, indent=1) + "\n"


def find_task(spec: GameSpec, name: str) -> Task:
    """The task that a string such as ``held_out:3`` names."""
    split, _, index = name.partition(":")
    tasks = frozen_tasks(spec, split) if split in FROZEN_SPLITS else None
    if tasks is None or not index.isdigit() or int(index) >= len(tasks):
        raise InvalidInputError(
            f"task={name!r} must be SPLIT:INDEX with a frozen split "
            f"({', '.join(FROZEN_SPLITS)}) and an index below {FROZEN_SIZE}"
        )
    return tasks[int(index)]


def task_rows(spec: GameSpec, tasks: Sequence[Task], fixed: Mapping[str, float]) -> Tensor:
    """Validated tasks as rows [M, number of contexts] float64, with some contexts held fixed."""
    import torch

    full = [check_task(spec, {**task, **fixed} if isinstance(task, Mapping) else task) for task in tasks]
    rows = [[task[name] for name in spec.context_names] for task in full]
    return torch.tensor(rows, dtype=torch.float64, device="cpu")
