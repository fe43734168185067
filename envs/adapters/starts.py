"""Where the episodes of a batch's rows begin: which task each one has, which noise, and its first state.

All of it is known ahead: it follows from a row's seed, the number of its episode, and its settings. So the next episodes of
every row are made together, in blocks, and a reset copies one of them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from metaduel.envs.adapters.given import draw_tasks, fresh_seeds, resolve_task
from metaduel.envs.core import noise, tasks
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.game import Episode, Pair
from metaduel.envs.core.spec import FROZEN_SPLITS, Task
from metaduel.envs.core.trees import tree_map

BLOCK = 1 << 14  # starts that are kept ready, about
AT_ONCE = 2048  # that are made at once: more leave the processor's cache, and take several times as long each
DEPTH = (2, 8)  # a row's share of them, at least and at most
_CPU = torch.device("cpu")

Mask = npt.NDArray[np.bool_]
Items = list[tuple[int, Any]]  # rows with what each of them is given


class Start(NamedTuple):
    """Where episodes begin."""

    values: Tensor  # [n, C] float64: the tasks' context values
    key: Tensor  # [n] int64: the noise keys
    state: Any  # the first states
    protagonist: Tensor  # [n, d] what it sees there
    adversary: Tensor  # [n, d]


class Starts:
    """The starts of a batch's episodes, made ahead; a row's are the same in any batch, and whenever they are made.

    Args:
        duel: the game.
        rows: how many rows, B.
        device: where starts are made and kept. Tasks are drawn on the processor, so that they are the same everywhere.

    Attributes:
        episode: [B] int64, on the device: resets since the row was seeded, less one.
        values: [B, C] float64, on the device: tasks of the current episodes.
        splits: [B] object array: where tasks are sampled.
    """

    _changed: bool  # whether nothing has begun since seeds or settings changed

    def __init__(self, duel: Duel, rows: int, device: torch.device = _CPU) -> None:
        contexts = len(duel.spec.contexts)
        self.duel, self.rows, self.device = duel, rows, device
        self.episode = torch.full((rows,), -1, dtype=torch.int64, device=device)
        # In memory the rows come last, as in a game's params, which are made of it.
        self.values = torch.zeros(contexts, rows, dtype=torch.float64, device=device).t()
        self.splits = np.full(rows, "train", object)
        self._seed = fresh_seeds(rows)
        self._samplings = np.zeros(rows, np.int64)  # calls of ``sample_tasks`` since the row was seeded
        self._given = torch.zeros(rows, contexts, dtype=torch.float64, device=_CPU)
        self._sampled = torch.ones(rows, dtype=torch.bool, device=_CPU)
        self._every = torch.arange(rows, dtype=torch.int64, device=device)
        self._depth = min(max(BLOCK // rows, DEPTH[0]), DEPTH[1])
        self.change(splits=self.splits)

    # Settings

    def reseed(self, row: int, seed: int) -> None:
        """Seed a row: its next episode is its first again."""
        self._seed[row], self.episode[row], self._samplings[row] = seed, -1, 0
        self._forget()

    def reseed_all(self, first: int) -> None:
        """Seed row i with ``first + i``."""
        self._seed = first + torch.arange(self.rows, dtype=torch.int64, device=_CPU)
        self.episode, self._samplings = torch.full_like(self.episode, -1), np.zeros_like(self._samplings)
        self._forget()

    def per_row(self, name: str, value: Any, mask: Mask | None = None) -> Items:
        """Pair the rows of ``mask`` (all by default) with their items; a list gives one for each row of the batch, whatever
        the mask.

        Raises:
            InvalidInputError: a list of another length.
        """
        chosen = range(self.rows) if mask is None else np.flatnonzero(mask).tolist()
        if not isinstance(value, (list, tuple, np.ndarray)):
            return [(row, value) for row in chosen]
        if len(value) != self.rows:
            raise InvalidInputError(f"{name}: a list of {len(value)} must have one item for each of {self.rows} rows")
        return [(row, value[row]) for row in chosen]

    def check_tasks(self, items: Items) -> tuple[Tensor, Tensor]:
        """Context values [B, C] of given tasks, and whether rows sample theirs [B] bool (None). Changes nothing.

        Raises:
            InvalidInputError: no task of the family.
        """
        given, sampled = self._given.clone(), self._sampled.clone()
        parsed: dict[int, Tensor] = {}
        for row, item in items:
            sampled[row] = item is None
            if item is not None:
                if id(item) not in parsed:
                    full = resolve_task(self.duel, item)
                    parsed[id(item)] = given.new_tensor([full[name] for name in self.duel.spec.context_names])
                given[row] = parsed[id(item)]
        return given, sampled

    def check_splits(self, items: Items) -> npt.NDArray[np.object_]:
        """The splits of all rows [B], with those that are given. Changes nothing.

        Raises:
            InvalidInputError: no split, or a frozen list that is damaged.
        """
        splits = self.splits.copy()
        for row, item in items:
            splits[row] = tasks.check_split(item)
        for split in set(splits.tolist()) & set(FROZEN_SPLITS):
            tasks.frozen_tasks(
                self.duel.spec, split
            )  # now, if its file is damaged, rather than half-way through a reset
        return splits

    def change(self, given: tuple[Tensor, Tensor] | None = None, splits: npt.NDArray[np.object_] | None = None) -> None:
        """Take checked tasks and splits, for every row's next episodes."""
        if given is not None:
            self._given, self._sampled = given
        if splits is not None:
            self.splits = splits
        self._some_sampled, self._all_sampled = bool(self._sampled.any()), bool(self._sampled.all())
        self._one_split = len(set(self.splits.tolist())) == 1
        self._forget()

    def given(self, row: int) -> Task | None:
        """The task that a row was given; None: tasks are sampled."""
        return None if self._sampled[row] else self._named(self._given[row])

    def current(self, row: int) -> Task:
        """The task of a row's current episode."""
        return self._named(self.values[row])

    def _named(self, values: Tensor) -> Task:
        return dict(zip(self.duel.spec.context_names, values.tolist(), strict=True))

    def sample_tasks(self, n: int, row: int) -> list[Task]:
        """Sample ``n`` tasks of the row's split, other ones at every call; a row seeded again repeats its calls."""
        seed = noise.derive_seed(int(self._seed[row]), int(self._samplings[row]))
        found = tasks.sample_tasks(self.duel.spec, n, self.splits[row], seed)
        self._samplings[row] += 1
        return found

    # Episodes

    def begin(self, rows: Episode | None, index: Tensor | None = None) -> Episode:
        """Start the next episode in some rows. Writes into no tensor of ``rows``.

        Args:
            rows: where all rows are; None: nowhere yet, and all of them start.
            index: [n] int64: which of them start; None: all.

        Returns:
            Where all rows are then.
        """
        chosen = self._every if index is None else index
        start, slot = self._next(chosen)
        self._begun = start, chosen, slot
        self.values.index_copy_(0, chosen, _take(start.values, slot))
        params, key = self.duel.params(self.values), _take(start.key, slot)
        if rows is None:
            return Episode(params, start.state, key, torch.zeros_like(key))
        state = tree_map(lambda old, new: _put(old, chosen, _take(new, slot)), rows.state, start.state)
        return Episode(params, state, _put(rows.key, chosen, key), rows.step.index_fill(0, chosen, 0))

    def observations(self, seen: Pair | None) -> Pair:
        """What both see in all rows, if those that have just begun are told from the others.

        Args:
            seen: what they see in the rows that play on; None: all rows have begun.
        """
        start, chosen, slot = self._begun
        first = _take(start.protagonist, slot), _take(start.adversary, slot)
        return first if seen is None else (_put(seen[0], chosen, first[0]), _put(seen[1], chosen, first[1]))

    def _next(self, index: Tensor) -> tuple[Start, Tensor | None]:
        """The next starts of the rows at ``index``, which go on to them: starts, and which of these; None: all, in order."""
        episode = self.episode.index_select(0, index) + 1
        slot = None
        if self._changed:
            # The first ones after a change are made alone: settings that change with every reset would waste the others.
            self._changed, start = False, self._make(index, episode)
        else:
            if self._made is None or bool((self._made.index_select(0, index) <= episode).any()):
                self._fill()
            start, slot = self._kept, self._slot(index, episode)
        self.episode.index_copy_(0, index, episode)
        return start, slot

    def _forget(self) -> None:
        """Drop what was made ahead: seeds or settings are others now."""
        self._kept: Any = None  # Start of [depth * B] rows; a row's k-th episode is at ``_slot``
        self._made: Tensor | None = None  # [B] int64: a row's episodes from the next one to before this one are kept
        self._changed = True

    def _slot(self, row: Tensor, episode: Tensor) -> Tensor:
        return episode % self._depth * self.rows + row

    def _fill(self) -> None:
        """Make what is missing of every row's next ``depth`` episodes."""
        upcoming = self.episode + 1
        ahead = torch.arange(self._depth, dtype=torch.int64, device=self.device)
        number = upcoming + ahead.unsqueeze(1)  # [depth, B]
        missing = number >= (upcoming if self._made is None else self._made)
        rows, episodes = missing.nonzero()[:, 1], number[missing]
        pieces = -(-len(rows) // AT_ONCE)
        for row, episode in zip(rows.chunk(pieces), episodes.chunk(pieces), strict=True):
            self._keep(self._make(row, episode), self._slot(row, episode))
        self._made = upcoming + self._depth

    def _keep(self, start: Start, slot: Tensor) -> None:
        if self._kept is None:
            size = self._depth * self.rows
            # One row after the other in memory, as they will be read.
            self._kept = tree_map(lambda leaf: leaf.new_empty(size, *leaf.shape[1:]), start)
        tree_map(lambda kept, new: kept.index_copy_(0, slot, new), self._kept, start)

    def _make(self, row: Tensor, episode: Tensor) -> Start:
        """Starts of rows' episodes: [n] int64 each."""
        row, episode = row.cpu(), episode.cpu()
        key = noise.episode_key(self._seed[row], episode)
        values = self._draw(row, key).to(self.device)
        begun = self.duel.start(self.duel.params(values), key.to(self.device))
        return Start(values, begun.key, begun.state, *self.duel.observe(begun))

    def _draw(self, row: Tensor, key: Tensor) -> Tensor:
        """Context values of new episodes: [n, C] float64."""
        given = self._given[row]
        if not self._some_sampled:
            return given
        if self._one_split:
            values = draw_tasks(self.duel.spec, self.splits[0], key)
        else:
            splits, values = self.splits[row.numpy()], given.clone()
            for split in dict.fromkeys(splits.tolist()):
                rows = torch.from_numpy(np.flatnonzero(splits == split))
                values[rows] = draw_tasks(self.duel.spec, split, key[rows])
        return values if self._all_sampled else torch.where(self._sampled[row].unsqueeze(1), values, given)


def _take(tensor: Tensor, index: Tensor | None) -> Tensor:
    return tensor if index is None else tensor.index_select(0, index)


def _put(tensor: Tensor, index: Tensor, rows: Tensor) -> Tensor:
    """A copy with other rows at ``index``, which lies in memory as the tensor did: ``index_copy`` would put the rows first."""
    return tensor.clone().index_copy_(0, index, rows)
