"""Few-shot adaptation of one player against fixed opponents: returns at every shot, on the same evaluation episodes."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from metaduel.agents.adapters.arena import GameArena
from metaduel.agents.adapters.protocol import Adapter, adaptation
from metaduel.agents.rollout import Actor
from metaduel.agents.trajectories import Trajectories
from metaduel.envs.core.errors import InvalidInputError, one_line
from metaduel.envs.core.game import Player
from metaduel.envs.core.simulator import Simulator
from metaduel.envs.core.spec import Role, other
from metaduel.meta.adaptation.adapters import GradientAdapter, MemoryAdapter
from metaduel.meta.adaptation.stacks import GradientStack, MemoryStack, groups, stack_of

BATCH_BYTES = 1 << 30  # of a batch's tensors: with what else a process holds, it stays within 2 GiB


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
    """The arguments of ``adapt_and_test``, without the adapter and its seed, and the shots that are tested."""

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
    tested: Collection[int] | None = None  # shots after which there is a test; None: all

    @property
    def rows(self) -> int:
        """The rows of one adapter."""
        return len(self.opponents) * len(self.tasks)

    def tests(self, shot: int) -> bool:
        """Whether there is a test after a shot."""
        return self.tested is None or shot in self.tested

    def by_copy(self, played: Trajectories) -> Tensor:
        """The returns of a test with several players: [copies, opponents, tasks, test episodes]."""
        return played.returns.view(len(self.opponents), -1, len(self.tasks), self.test_episodes).transpose(0, 1)

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
    """The returns of each adapter as ``adapt_and_test_all`` gives them, of the tested shots alone; of one that fails, its error.
    Players are not kept.

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
    shape = (1, len(settings.opponents), len(settings.tasks), settings.test_episodes)
    players: list[Actor] = []
    returns: list[Tensor] = []
    loop = adaptation(adapter, adapting, settings.shots, seed)
    for shot in range(settings.shots + 1):
        with _failing_at(shot):
            player = next(loop)
            players += [player] if keep else []
            if settings.tests(shot):
                returns.append(test.test(player).returns.view(shape))
    return FewShot(torch.cat(returns), players)


def _together(settings: Settings, stack: GradientStack | MemoryStack, keep: bool) -> list[FewShot]:
    """The results of a stack's adapters."""
    adapting, test = settings.arenas(len(stack.starts))
    with _failing_at(0):
        player = stack.start(adapting.seat, adapting.rows)
        alone = [one.start(adapting.seat, settings.rows, 0) for one in stack.adapters] if keep else []
        returns = [settings.by_copy(test.test(player))[stack.places]] if settings.tests(0) else []
    players: list[list[Actor]] = [[one] for one in alone]
    later, test = settings.arenas(len(stack.adapters)) if settings.shots else (adapting, test)
    for shot in range(1, settings.shots + 1):
        with _failing_at(shot):
            experience = (adapting if shot == 1 else later).shot(shot - 1)
            player = stack.first(player, experience) if shot == 1 else stack.update(player, experience)  # type: ignore[arg-type]
            for i, own in enumerate(players):
                own.append(stack.part(player, i))  # type: ignore[arg-type]
            returns += [settings.by_copy(test.test(player))] if settings.tests(shot) else []
    return [FewShot(own, players[i] if keep else []) for i, own in enumerate(torch.stack(returns, 1))]


@contextmanager
def _failing_at(shot: int) -> Iterator[None]:
    """Errors within become ``Failed`` at this shot."""
    try:
        yield
    except InvalidInputError as error:
        raise Failed(str(error), shot, getattr(error, "row", None)) from error
    except Exception as error:  # the player may be foreign code
        why = one_line(error, 200)
        raise Failed(f"it raises {type(error).__name__}: {why}", shot, None) from error


def _at_once(settings: Settings, adapter: Adapter) -> int:
    """How many adapters with this one's network play in one batch."""
    if not isinstance(adapter, GradientAdapter | MemoryAdapter):
        return 1
    weights = adapter.weights
    simulator, role = settings.simulator, settings.role
    rows, horizon = len(settings.opponents) * len(settings.tasks), simulator.horizon
    seen = simulator.observation_space(role).shape[0] + simulator.observation_space(other(role)).shape[0]
    units = sum(value.numel() for value in weights.values() if value.dim() == 1)  # about the network's neurons
    # Counted so that predicted peaks are those measured: steps are kept one by one and then joined; an update keeps each layer
    # for its backward pass, and the baseline's features in double precision; a player's weights are kept with their gradients.
    tested = settings.test_episodes * horizon * 2 * (seen + 8)
    update = settings.episodes * horizon * (2 * units + 3 * seen) if settings.shots else 0
    stored = (settings.shots + 4) * sum(value.numel() for value in weights.values())
    return max(1, BATCH_BYTES // (4 * rows * (max(tested, update) + stored)))


@dataclass(frozen=True)
class Evaluating:
    """Few-shot tests of adapters; see ``outcomes``."""

    adapters: Sequence[Adapter]
    settings: Settings

    @property
    def kind(self) -> Hashable | None:
        """See ``Piece``."""
        own = self.settings
        opponents, numbers = tuple(id(one) for one in own.opponents), own[4:]
        return (Evaluating, id(own.simulator), own.role, own.tasks.numpy().tobytes(), opponents, numbers)

    def do(self) -> list[Tensor | Failed]:
        """Of each adapter its returns [tested shots, opponents, tasks, episodes], or its error."""
        return outcomes(self.settings, self.adapters)

    def do_all(self, pieces: Sequence[Evaluating]) -> list[list[Tensor | Failed]]:
        """See ``Piece``."""
        found = iter(outcomes(self.settings, [adapter for one in pieces for adapter in one.adapters]))
        return [[next(found) for _ in one.adapters] for one in pieces]
