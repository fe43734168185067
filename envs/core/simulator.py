"""The seam between players and what they play in: one thing that rollouts, arenas and sources of tasks step.

``Duel`` is the simulator of our games, ``adapters.parallel.ParallelSimulator`` that of a user's PettingZoo environments. A
simulator of another kind, such as a rigid-body engine, needs the methods below and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from gymnasium import spaces
from torch import Tensor

from metaduel.envs.core import noise
from metaduel.envs.core.game import Pair, Player, View
from metaduel.envs.core.spec import Role


class Rows(Protocol):
    """Episodes that are being played, one in each row. Only the simulator that started them looks further into them.

    Scripted players of a game may look at ``params`` and ``state``, which are part of the world (``game.View``).
    """

    @property
    def params(self) -> Any:
        """The rows' tasks, as ``Simulator.params`` gave them: a tree of [B, ...] tensors."""
        ...

    @property
    def state(self) -> Any:
        """What a ``View`` shows of the rows: a tree of [B, ...] tensors."""
        ...

    @property
    def key(self) -> Tensor:
        """[B] int64: the episodes' noise keys."""
        ...

    @property
    def step(self) -> Tensor:
        """[B] int64: steps played."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Of observations, rewards and the noise of players."""
        ...


class Stepped(Protocol):
    """What a step gives: ``duel.Transition``, or the same with players that leave."""

    @property
    def reward(self) -> Tensor:
        """[B, 2] (protagonist, adversary); 0 for a player that had left."""
        ...

    @property
    def terminated(self) -> Tensor:
        """[B] bool: the rules ended the episode."""
        ...

    @property
    def truncated(self) -> Tensor:
        """[B] bool: a clock did, and the rules did not."""
        ...

    @property
    def left(self) -> Tensor | None:
        """[B, 2] bool: whether (protagonist, adversary) is out from now on, which may be before the episode is over; None: both
        play until then.
        """
        ...


class Simulator(Protocol):
    """A two-player world in which many episodes are played side by side.

    Attributes:
        name: of the game or environment.
        horizon: the most steps that an episode can have.
        at_once: the rows of a batch are stepped together, so that more of them cost little. Otherwise each row has an environment
            of its own, and rollouts play a task's episodes one after another, in as many environments as there are tasks.
        states: how many different observations there are, where what both players see is one-hot; else 0.
    """

    @property
    def name(self) -> str:
        """See the class."""
        ...

    @property
    def horizon(self) -> int:
        """See the class."""
        ...

    @property
    def at_once(self) -> bool:
        """See the class."""
        ...

    @property
    def states(self) -> int:
        """See the class."""
        ...

    def observation_space(self, role: Role) -> spaces.Box:
        """What the role sees: a one-dimensional Box."""
        ...

    def action_space(self, role: Role) -> spaces.Box | spaces.Discrete:
        """What the role does: a one-dimensional Box, or Discrete from 0."""
        ...

    def mask(self, role: Role) -> slice | None:
        """Where in the role's observation it stands which actions are legal, 1 or 0 each; None: all always are."""
        ...

    def params(self, tasks: Tensor) -> Any:
        """Tasks as ``start`` takes them: a tree of [B, ...] tensors, of which rows may be taken (``trees.take_rows``).

        Args:
            tasks: [B, C] numbers: a game's context values, or whatever stands for a task.
        """
        ...

    def apart(self) -> Simulator:
        """The same world for episodes that are played while others of this one are going on."""
        ...

    def start(self, params: Any, key: Tensor, /) -> Any:
        """Start one episode per row; the rows, see ``Rows``.

        Args:
            params: the rows' tasks.
            key: [B] int64, from which everything random in the episodes follows.
        """
        ...

    def observe(self, rows: Any, /) -> Pair:
        """What (protagonist, adversary) see: [B, d_p], [B, d_a]; zeros for a player that has left."""
        ...

    def numbers(self, key: Tensor, steps: int, dtype: torch.dtype) -> Sequence[Tensor] | None:
        """What ``step`` takes as its ``numbers`` at each of the first ``steps`` steps; None: it takes none."""
        ...

    def step(
        self, rows: Any, actions: Pair, /, numbers: Tensor | None = None, active: Tensor | None = None
    ) -> tuple[Any, Stepped]:
        """Play one step. ``rows`` itself may not be used any more.

        Args:
            rows: where the episodes are.
            actions: (protagonist's, adversary's): [B, a] floats within the space, or [B] int64.
            numbers: of this step, see ``numbers``; drawn here if they are not given.
            active: [B] bool: rows whose episode is not over; the others are not stepped. None: all. A simulator that steps all
                rows at once may step them all the same, if nothing comes of it in the active ones.

        Returns:
            The rows after the step, and what it gave; of rows that are not active, anything finite.
        """
        ...


def ask(
    player: Player, seat: int, rows: Rows, observation: Tensor, reward: Tensor, memory: Tensor
) -> tuple[Tensor, Tensor]:
    """A player's actions, with the numbers that belong to its seat at this step, and its new memory.

    Args:
        player: who is asked.
        seat: 0 or 1.
        rows: where the episodes are.
        observation: [B, d] the seat's own.
        reward: [B] the seat's own, of the step before; 0 at the first.
        memory: [B, player.memory].
    """
    numbers = noise.uniform(rows.key, rows.step, noise.SEAT[seat], player.noise, rows.dtype)
    return player.act(View(rows.params, rows.state, observation, rows.step, reward), memory, numbers)
