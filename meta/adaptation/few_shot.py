"""Few-shot adaptation of one player against fixed opponents: returns at every shot, on the same evaluation episodes."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from metaduel.agents.adapters.arena import GameArena
from metaduel.agents.adapters.protocol import Adapter, adaptation
from metaduel.agents.rollout import Actor
from metaduel.envs.core.errors import InvalidInputError, one_line
from metaduel.envs.core.game import Player
from metaduel.envs.core.simulator import Simulator
from metaduel.envs.core.spec import Role, other
from metaduel.meta.adaptation.adapters import GradientAdapter, MemoryAdapter
from metaduel.meta.adaptation.stacks import GradientStack, MemoryStack, groups, stack_of

BATCH_BYTES = 512 << 20  # of the tensors of a batch: several fit on a laptop, and more rows are no faster
_COPIES = 4  # of what is kept of a step, at most


class FewShot(NamedTuple):
    """The result of an adaptation."""

    returns: Tensor  # [shots + 1, opponents, tasks, test episodes], undiscounted
    players: Sequence[Actor]  # after every shot


class Failed(InvalidInputError):
    """A player that could not continue.

    Attributes:
        shot: number of updates so far.
        row: the row of opponents and tasks, if it failed in one row alone.
    """

    def __init__(self, why: str, shot: int, row: int | None) -> None:
        super().__init__(why)
        self.shot, self.row = shot, row


class Settings(NamedTuple):
    """The arguments of ``adapt_and_test``, without the adapter and its seed."""

    simulator: Simulator
    role: Role
    tasks: Tensor
    opponents: Sequence[Player]
    shots: int
    episodes: int
    test_episodes: int
    adapt_seed: int
    test_seed: int
    deterministic: bool = False

    def arenas(self, copies: int = 1) -> tuple[GameArena, GameArena]:
        """Where ``copies`` players adapt, and where they are tested."""
        where = (self.simulator, self.role, self.tasks, self.opponents)
        adapting = GameArena(*where, max(self.episodes, 1), self.adapt_seed, copies=copies)
        return adapting, GameArena(*where, self.test_episodes, self.test_seed, self.deterministic, copies)


def adapt_and_test(
    simulator: Simulator,
    adapter: Adapter,
    role: Role,
    tasks: Tensor,
    opponents: Sequence[Player],
    shots: int,
    episodes: int,
    test_episodes: int,
    adapt_seed: int,
    test_seed: int,
    deterministic: bool = False,
    seed: int | None = None,
) -> FewShot:
    """Adapt on every (opponent, task) at once and test after every shot.

    Args:
        simulator: the game or environment; it chooses what ``role`` observes.
        adapter: makes and updates the player.
        role: the seat of the player that adapts.
        tasks: [M, C] as ``Simulator.params`` takes them: a game's context values.
        opponents: the players in the other seat.
        shots: number of updates.
        episodes: episodes per update.
        test_episodes: fresh episodes per test; the same noise at every shot.
        adapt_seed: seed of the adaptation episodes.
        test_seed: seed of the test episodes; keep it far from ``adapt_seed``.
        deterministic: test with the most probable actions instead of samples.
        seed: seed of the player's own random numbers; None: ``adapt_seed``.

    Raises:
        Failed: the player does not fit the seat, returns an invalid action, or plays more episodes than its shot has.
    """
    settings = Settings(
        simulator, role, tasks, opponents, shots, episodes, test_episodes, adapt_seed, test_seed, deterministic
    )
    return _alone(settings, adapter, adapt_seed if seed is None else seed, keep=True)


def adapt_and_test_all(
    simulator: Simulator,
    adapters: Sequence[Adapter],
    role: Role,
    tasks: Tensor,
    opponents: Sequence[Player],
    shots: int,
    episodes: int,
    test_episodes: int,
    adapt_seed: int,
    test_seed: int,
    deterministic: bool = False,
    seeds: Sequence[int] | None = None,
) -> list[FewShot]:
    """As ``adapt_and_test`` for each of several adapters; those of the same kind, network and loss are played in one batch, or in
    as few as ``BATCH_BYTES`` allows. All meet the same noise.

    Args:
        simulator: see ``adapt_and_test``, as all others.
        adapters: the adapters.
        role: the seat.
        tasks: the tasks.
        opponents: the opponents.
        shots: number of updates.
        episodes: episodes per update.
        test_episodes: episodes per test.
        adapt_seed: seed of the adaptation episodes.
        test_seed: seed of the test episodes.
        deterministic: test with the most probable actions.
        seeds: for each adapter, the seed of its players' own random numbers; None: ``adapt_seed``.

    Returns:
        A result for each adapter: equal to that of ``adapt_and_test``, but for the rounding of products of another batch size.

    Raises:
        Failed: as in ``adapt_and_test``, of the first adapter that fails.
    """
    settings = Settings(
        simulator, role, tasks, opponents, shots, episodes, test_episodes, adapt_seed, test_seed, deterministic
    )
    results: dict[int, FewShot] = {}
    for batch in _played_in_batches(settings, adapters, seeds, keep=True):
        for i, one in batch.items():
            if isinstance(one, Failed):
                raise one
            results[i] = one
    return [results[i] for i in range(len(adapters))]


def outcomes(
    settings: Settings,
    adapters: Sequence[Adapter],
    seeds: Sequence[int] | None = None,
    after_batch: Callable[[int], None] = lambda count: None,
) -> list[Tensor | Failed]:
    """The returns of each adapter as ``adapt_and_test_all`` gives them, or, in their place, the error of an adapter that fails.
    Its players are not kept.

    Args:
        settings: the episodes.
        adapters: the adapters.
        seeds: see ``adapt_and_test_all``.
        after_batch: called after every batch with its number of adapters.
    """
    found: dict[int, Tensor | Failed] = {}
    for batch in _played_in_batches(settings, adapters, seeds, keep=False):
        found |= {i: one if isinstance(one, Failed) else one.returns for i, one in batch.items()}
        after_batch(len(batch))
    return [found[i] for i in range(len(adapters))]


def _played_in_batches(
    settings: Settings, adapters: Sequence[Adapter], seeds: Sequence[int] | None, keep: bool
) -> Iterator[dict[int, FewShot | Failed]]:
    """Each batch's results by the place of the adapter; ``keep``: with its players."""
    own = [settings.adapt_seed] * len(adapters) if seeds is None else list(seeds)
    for batch in _batches(settings, adapters):
        stack = stack_of([adapters[i] for i in batch], len(settings.tasks)) if len(batch) > 1 else None
        results: Iterable[FewShot | Failed] = []
        try:
            results = [] if stack is None else _together(settings, stack, keep)
        except Failed:  # each plays alone, so that it takes no other's result with it
            stack = None
        if stack is None:
            results = [_outcome(settings, adapters[i], own[i], keep) for i in batch]
        yield dict(zip(batch, results, strict=True))


def _batches(settings: Settings, adapters: Sequence[Adapter]) -> list[list[int]]:
    """The places of the adapters of each batch."""
    if not settings.simulator.at_once:  # every row has an environment of its own
        return [[i] for i in range(len(adapters))]
    found = []
    for group in groups(adapters):
        parts = math.ceil(len(group) / _at_once(settings, adapters[group[0]]))
        size = math.ceil(len(group) / parts)
        found += [group[first : first + size] for first in range(0, len(group), size)]
    return found


def _outcome(settings: Settings, adapter: Adapter, seed: int, keep: bool) -> FewShot | Failed:
    try:
        return _alone(settings, adapter, seed, keep)
    except Failed as error:
        return error


def _alone(settings: Settings, adapter: Adapter, seed: int, keep: bool) -> FewShot:
    adapting, test = settings.arenas()
    players, returns = _played(settings.shots, adaptation(adapter, adapting, settings.shots, seed), test, keep)
    shape = (settings.shots + 1, len(settings.opponents), len(settings.tasks), settings.test_episodes)
    return FewShot(returns.view(shape), players)


def _together(settings: Settings, stack: GradientStack | MemoryStack, keep: bool) -> list[FewShot]:
    """The results of a stack's adapters."""
    count, shots = len(stack.adapters), settings.shots
    adapting, test = settings.arenas(count)
    players, returns = _played(shots, adaptation(stack, adapting, shots, settings.adapt_seed), test, keep)
    shape = (shots + 1, len(settings.opponents), count, len(settings.tasks), settings.test_episodes)
    parts = returns.view(shape).unbind(2)
    return [FewShot(own.contiguous(), [stack.part(one, i) for one in players]) for i, own in enumerate(parts)]  # type: ignore[arg-type]


def _played(shots: int, loop: Iterator[Actor], test: GameArena, keep: bool) -> tuple[list[Actor], Tensor]:
    """The players at every shot, if they are kept, and their returns in the test episodes: [shots + 1, ...]."""
    players: list[Actor] = []
    returns: list[Tensor] = []
    for shot in range(shots + 1):
        try:
            player = next(loop)
            players += [player] if keep else []
            returns.append(test.test(player).returns)
        except InvalidInputError as error:
            raise Failed(str(error), shot, getattr(error, "row", None)) from error
        except Exception as error:  # the player may be foreign code
            why = one_line(error, 200)
            raise Failed(f"it raises {type(error).__name__}: {why}", shot, None) from error
    return players, torch.stack(returns)


def _at_once(settings: Settings, adapter: Adapter) -> int:
    """How many adapters with this one's network play in one batch."""
    if not isinstance(adapter, GradientAdapter | MemoryAdapter):
        return 1
    weights = adapter.weights
    simulator, role = settings.simulator, settings.role
    rows, horizon = len(settings.opponents) * len(settings.tasks), simulator.horizon
    seen = simulator.observation_space(role).shape[0] + simulator.observation_space(other(role)).shape[0]
    units = sum(value.numel() for value in weights.values() if value.dim() == 1)  # about the network's neurons
    # Trajectories are kept step by step and then joined; an update keeps what its backward pass needs, and the baseline's fit.
    tested = settings.test_episodes * horizon * _COPIES * (seen + 8)
    update = settings.episodes * horizon * (_COPIES * units + 6 * seen) if settings.shots else 0
    stored = (settings.shots + _COPIES) * sum(value.numel() for value in weights.values())
    return max(1, BATCH_BYTES // (4 * rows * (max(tested, update) + stored)))


@dataclass(frozen=True)
class Testing:
    """A few-shot test of an adapter; see ``few_shot.adapt_and_test``."""

    adapter: Adapter
    settings: Settings

    @property
    def kind(self) -> Hashable | None:
        """See ``Piece``."""
        own = self.settings
        opponents, numbers = tuple(id(one) for one in own.opponents), own[4:]
        return (Testing, id(own.simulator), own.role, own.tasks.numpy().tobytes(), opponents, numbers)

    def do(self) -> Tensor:
        """The returns [shots + 1, opponents, tasks, episodes].

        Raises:
            Failed: a player that could not continue.
        """
        (found,) = self.do_all([self])
        if isinstance(found, Failed):
            raise found
        return found

    def do_all(self, pieces: Sequence[Testing]) -> list[Tensor | Failed]:
        """See ``Piece``."""
        return outcomes(self.settings, [one.adapter for one in pieces])
