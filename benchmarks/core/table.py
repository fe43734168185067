"""The one table of results: a row is one episode's return, and every metric, table and picture is computed from it alone.

| column | meaning |
|---|---|
| family, version | the game; results of two versions of a family never mix |
| role | the role of the player that adapts; the return is its own |
| method | the player's method: ``maml``, ``joint``, ``random_start``, a scripted player's name ... |
| seed | of the training run; ``UNTRAINED`` for a player that was not trained |
| task_split, task | the task: its place in the split's list, such as ``held_out:3``, or its id (``task_id``) |
| opponent_split, opponent | the player in the other seat |
| actions | ``sampled`` or ``mode``: the player's actions in the evaluation episodes |
| shot | updates so far |
| episode | number of the evaluation episode |
| return | undiscounted, in the game's reward units |

Names stay as they are written: ``read`` takes ``001``, ``1e5``, ``true`` and ``NA`` for names. To tasks' ids of earlier versions
it adds the letter that they lack. pandas guesses by default: a column of ``001`` and ``1e5`` becomes numbers, one of ``true``
booleans, and ``NA``, ``nan``, ``null`` and ``None`` missing values. To have names as they are:

    names = ["family", "role", "method", "task_split", "task", "opponent_split", "opponent", "actions"]
    pandas.read_csv("results.csv.gz", dtype=dict.fromkeys(names, str), keep_default_na=False)
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from metaduel.envs.core.arguments import AnyPath, as_path, several
from metaduel.envs.core.errors import InvalidInputError, unknown
from metaduel.envs.core.files import write_atomic
from metaduel.envs.core.spec import ROLES, GameSpec
from metaduel.envs.core.tasks import read_task_id

Column = npt.NDArray[Any]
Array = npt.NDArray[np.float64]

COLUMNS = (
    "family", "version", "role", "method", "seed", "task_split", "task", "opponent_split", "opponent", "actions", "shot",
    "episode", "return",
)  # fmt: skip
_WHOLE = ("version", "seed", "shot", "episode")
ACTIONS = ("sampled", "mode")
UNTRAINED = -1  # the seed of an untrained player; it is paired with every seed of another method

# Columns with a single value in rows that are averaged.
_FIXED = ("family", "role", "method", "task_split", "opponent_split", "actions", "shot")


class Table:
    """Rows of results.

    Args:
        columns: one value per row for each of ``COLUMNS``.

    Raises:
        InvalidInputError: a missing or unknown column, columns of different lengths, a value of the wrong type, a return that
            is not finite, or two versions of one family.
    """

    def __init__(self, columns: Mapping[str, npt.ArrayLike]) -> None:
        for name in columns:
            if name not in COLUMNS:
                raise unknown("column", name, COLUMNS)
        if missing := [name for name in COLUMNS if name not in columns]:
            raise InvalidInputError(f"the table has no column {missing[0]!r}; it needs {', '.join(COLUMNS)}")
        self._columns = {name: _typed(name, columns[name]) for name in COLUMNS}
        lengths = {name: len(column) for name, column in self._columns.items()}
        for name, length in lengths.items():
            if length != lengths["return"]:
                raise InvalidInputError(f"column {name!r} has {length} rows, 'return' has {lengths['return']}")
        self._check()

    def __repr__(self) -> str:
        methods = ", ".join(map(str, self.values("method")))
        return f"Table({len(self):,} rows of {len(COLUMNS)} columns; methods: {methods})"

    def _check(self) -> None:
        if not np.isfinite(self["return"]).all():
            row = int(np.flatnonzero(~np.isfinite(self["return"]))[0])
            raise InvalidInputError(f"row {row}: return={self['return'][row]} must be finite")
        for name, known in (("role", ROLES), ("actions", ACTIONS)):
            for value in self.values(name):
                if value not in known:
                    raise unknown(name, value, known)
        for family in self.values("family"):
            versions = sorted(set(self["version"][self["family"] == family].tolist()))
            if len(versions) > 1:
                ids = " and ".join([f"{family}-v{versions[0]}", *(f"v{v}" for v in versions[1:])])
                raise InvalidInputError(f"results of {ids} do not mix: keep a table for each")

    def __len__(self) -> int:
        """Number of rows."""
        return len(self._columns["return"])

    def __getitem__(self, name: str) -> Column:
        """A column: object array of strings, int64 or float64."""
        if name not in COLUMNS:
            raise unknown("column", name, COLUMNS)
        return self._columns[name]

    def values(self, name: str) -> list[Any]:
        """A column's different values, in order of first appearance."""
        return list(dict.fromkeys(self[name].tolist()))

    def append(self, *others: Table) -> Table:
        """A table with the rows of the others below."""
        parts = (self, *others)
        return Table({name: np.concatenate([part[name] for part in parts]) for name in COLUMNS})

    def filter(self, **wanted: Any) -> Table:
        """The rows where every named column has the given value, or one of a tuple, list or set of values."""
        keep = np.ones(len(self), np.bool_)
        for name, value in wanted.items():
            several = value if isinstance(value, (tuple, list, set, frozenset)) else (value,)
            column = self[name]
            keep &= np.logical_or.reduce([column == one for one in several] or [np.zeros(len(self), np.bool_)])
        return Table({name: column[keep] for name, column in self._columns.items()})

    def pivot(self, method: str, role: str, shot: int) -> Array:
        """Returns of a method: (seeds, tasks), averaged over episodes and then over opponents.

        Seeds and tasks are in sorted order, so that the arrays of two methods can be paired; ``pair`` checks that they have
        the same ones.

        Raises:
            InvalidInputError: no such rows; rows of several families, splits or kinds of actions, which have no common mean (use
                ``filter`` first); a (seed, task) lacks an opponent that others have; an episode occurs twice.
        """
        return self._pivot(method, role, shot)[0]

    def pair(self, a: str, b: str, role: str, shot: int, other_shot: int | None = None) -> tuple[Array, Array]:
        """The arrays of two methods, of the same seeds and tasks in the same order.

        Args:
            a: method.
            b: method.
            role: role of the player.
            shot: shot of ``a``, and of ``b`` too unless ``other_shot`` is given.
            other_shot: shot of ``b``; for a player that does not adapt it is 0.

        Returns:
            Two (seeds, tasks). A player that was not trained is repeated for every seed of the other.

        Raises:
            InvalidInputError: see ``pivot``; or the two don't have the same seeds and tasks.
        """
        first, seeds_a, tasks_a = self._pivot(a, role, shot)
        second, seeds_b, tasks_b = self._pivot(b, role, shot if other_shot is None else other_shot)
        if different := sorted(set(tasks_a) ^ set(tasks_b)):
            raise InvalidInputError(f"{a} and {b} can't be paired: only one of them has {_some('task', different)}")
        if seeds_a == [UNTRAINED] or seeds_b == [UNTRAINED]:
            shape = (max(len(seeds_a), len(seeds_b)), len(tasks_a))
            return np.broadcast_to(first, shape).copy(), np.broadcast_to(second, shape).copy()
        if unshared := sorted(set(seeds_a) ^ set(seeds_b)):
            raise InvalidInputError(f"{a} and {b} can't be paired: only one of them has {_some('seed', unshared)}")
        return first, second

    def _pivot(self, method: str, role: str, shot: int) -> tuple[Array, list[int], list[str]]:
        rows = self
        for name, value in (("role", role), ("method", method), ("shot", shot)):
            if value not in (known := rows.values(name)):
                known = [str(one) for one in known]
                raise unknown(name if rows is self else f"{name} of {method} as {role}", value, known)
            rows = rows.filter(**{name: value})
        for name in _FIXED:
            if len(rows.values(name)) > 1:
                raise InvalidInputError(f"{method}: rows of {name}={rows.values(name)} have no common mean: filter one")
        keys = [_codes(rows[name]) for name in ("seed", "task", "opponent", "episode")]
        shape = [len(labels) for labels, _ in keys]
        cell = np.ravel_multi_index([codes for _, codes in keys], shape)
        played = np.bincount(cell, minlength=int(np.prod(shape))).reshape(shape)
        if (played > 1).any():
            where = _name(keys, np.argwhere(played > 1)[0])
            raise InvalidInputError(f"{method} as {role}, shot {shot}: {where} occurs more than once")
        total = np.bincount(cell, rows["return"], int(np.prod(shape))).reshape(shape).sum(3)
        count = played.sum(3)
        if (count == 0).any():
            gaps = [_name(keys, index) for index in np.argwhere(count == 0)]
            more = f" and {len(gaps) - 3} more" if len(gaps) > 3 else ""
            raise InvalidInputError(f"{method} as {role}, shot {shot}: no rows for {'; '.join(gaps[:3])}{more}")
        return (total / count).mean(2), keys[0][0], keys[1][0]

    def write(self, path: AnyPath) -> None:
        """Write CSV, compressed if the name ends in ``.gz``. Atomic; the same table gives the same bytes."""
        path, text = as_path(path), io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(zip(*(self._columns[name].tolist() for name in COLUMNS), strict=True))
        content = text.getvalue().encode()
        write_atomic(path, gzip.compress(content, 6, mtime=0) if path.suffix == ".gz" else content)


def read(path: AnyPath) -> Table:
    """Read a table that ``Table.write`` wrote.

    Raises:
        InvalidInputError: no such file, or one that is truncated, has other columns or holds a value of the wrong type.
    """
    path = as_path(path)
    if not path.is_file():
        raise InvalidInputError(f"{path}: no such table of results")
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{path}: corrupt or truncated table ({error})") from None
    header, *rows = list(csv.reader(io.StringIO(text))) or [[]]
    for number, row in enumerate(rows, 2):
        if len(row) != len(header):
            raise InvalidInputError(f"{path}: line {number} has {len(row)} values, the header {len(header)}")
    found = (
        dict(zip(header, zip(*rows, strict=True), strict=True)) if rows else dict.fromkeys(header, tuple[str, ...]())
    )
    if "task" in found:
        found["task"] = tuple(map(read_task_id, found["task"]))
    try:
        return Table(found)
    except InvalidInputError as error:
        raise InvalidInputError(f"{path}: {error}") from None


def from_returns(
    returns: npt.ArrayLike,
    spec: GameSpec,
    *,
    role: str,
    method: str,
    seed: int,
    task_split: str,
    tasks: Sequence[str],
    opponent_split: str,
    opponents: Sequence[str],
    actions: str,
) -> Table:
    """Make a table of one player's returns.

    Args:
        returns: [shots + 1, opponents, tasks, episodes], as ``adapt_and_test`` gives them.
        spec: the family.
        role: role of the player.
        method: name of the method.
        seed: seed of the training run, or ``UNTRAINED``.
        task_split: split of all tasks.
        tasks: their ids.
        opponent_split: split of all opponents.
        opponents: their names.
        actions: ``sampled`` or ``mode``.
    """
    array, tasks, opponents = np.asarray(returns, np.float64), several(tasks), several(opponents)
    if array.ndim != 4 or array.shape[1:3] != (len(opponents), len(tasks)):
        raise InvalidInputError(
            f"returns of shape {array.shape} must be [shots + 1, {len(opponents)} opponents, {len(tasks)} tasks, episodes]"
        )
    shot, opponent, task, episode = (index.ravel() for index in np.indices(array.shape))
    same = {
        "family": spec.name, "version": spec.version, "role": role, "method": method, "seed": seed,
        "task_split": task_split, "opponent_split": opponent_split, "actions": actions,
    }  # fmt: skip
    columns: dict[str, Any] = {name: np.full(array.size, value, object) for name, value in same.items()}
    columns |= {"shot": shot, "episode": episode, "return": array.ravel()}
    columns["task"] = np.array(tasks, object)[task]
    columns["opponent"] = np.array(opponents, object)[opponent]
    return Table(columns)


def concatenate(tables: Iterable[Table]) -> Table:
    """One table from one or more."""
    first, *others = tables
    return first.append(*others)


def _typed(name: str, values: npt.ArrayLike) -> Column:
    kind = np.int64 if name in _WHOLE else np.float64 if name == "return" else object
    try:
        column: Column = np.asarray(values, dtype=kind)
        if name in _WHOLE and column.size and np.asarray(values).dtype.kind == "f":
            raise ValueError("not floating point")
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInputError(
            f"column {name!r} must hold {'numbers' if kind is np.float64 else 'whole numbers'} ({error})"
        ) from None
    if column.ndim != 1:
        raise InvalidInputError(f"column {name!r} of shape {column.shape} must have one dimension")
    if kind is object:
        for value in set(column.tolist()):
            if not isinstance(value, str) or not value:
                raise InvalidInputError(f"column {name!r}: {value!r} must be a name")
    return column


def _codes(column: Column) -> tuple[list[Any], npt.NDArray[np.int64]]:
    """Sorted different values, and the index of each row's value."""
    labels = sorted(set(column.tolist()))
    index = {label: i for i, label in enumerate(labels)}
    return labels, np.fromiter((index[value] for value in column.tolist()), np.int64, len(column))


def _name(keys: Sequence[tuple[list[Any], Any]], index: npt.NDArray[np.int64]) -> str:
    names = ("seed", "task", "opponent", "episode")
    parts = zip(names, keys, index.tolist(), strict=False)
    return ", ".join(f"{name} {labels[i]}" for name, (labels, _), i in parts)


def _some(what: str, values: Sequence[Any]) -> str:
    text = ", ".join(str(value) for value in values[:5])
    return f"{what} {text}" + (f" and {len(values) - 5} more" if len(values) > 5 else "")
