"""Few-shot evaluation: contenders adapt to held-out tasks against held-out opponents, and are tested after every shot.

Adaptation and test episodes have disjoint noise; the test episodes are the same for every shot and every contender.
Players of a run have rates of their own; those without, such as random starts, have one tuned on the validation split against
training opponents, never on reported results. A contender sees hidden contexts only if it was trained as the informed player.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from torch import Tensor

from metaduel.agents.adapters.protocol import Adapter, FixedPlayer
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.errors import InvalidInputError, check_whole
from metaduel.envs.core.game import Player, make_game
from metaduel.envs.core.noise import derive_seed
from metaduel.envs.core.purposes import Purpose
from metaduel.envs.core.spec import GameSpec, Role, Split, Task, other
from metaduel.envs.core.tasks import frozen_tasks, sample_tasks, task_rows
from metaduel.envs.players.names import load_player, names
from metaduel.envs.players.scripted import scripted
from metaduel.meta.adaptation.adapters import GradientAdapter
from metaduel.meta.adaptation.few_shot import Failed, Settings, outcomes
from metaduel.meta.runs.load import Run

Found = TypeVar("Found")

# Seeds of the protocol, apart from those of training (which start from the run's own seed).
RATES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0)


@dataclass(frozen=True)
class Protocol:
    """Settings of an evaluation.

    Attributes:
        tasks: the split of the tasks; ``train`` means fresh tasks of the training split ('seen').
        opponents: ``held_out`` or ``train`` scripted opponents, or ``listed`` ones.
        shots: number of updates.
        episodes: fresh episodes per update.
        test_episodes: test episodes per task, opponent and shot.
        task_count: number of tasks of the split.
        actions: test with sampled actions or with the distribution's mode.
        fixed: contexts held at one value.
        listed: the opponents of a list: their names, and for each what ``load_player`` takes.
    """

    tasks: Split = "held_out"
    opponents: Split | Literal["listed"] = "held_out"
    shots: int = 5
    episodes: int = 5
    test_episodes: int = 20
    task_count: int = 100
    actions: str = "sampled"
    fixed: tuple[tuple[str, float], ...] = ()
    listed: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        for name in ("episodes", "test_episodes", "task_count"):
            check_whole(name, getattr(self, name))
        check_whole("shots", self.shots, 0)
        if self.actions not in ("sampled", "mode"):
            raise InvalidInputError(f"actions={self.actions!r} must be 'sampled' or 'mode'")

    def task_list(self, spec: GameSpec) -> list[Task]:
        """The tasks, in order."""
        if self.tasks == "train":
            tasks = sample_tasks(spec, self.task_count, "train", derive_seed(0, Purpose.SEEN_TASKS))
        else:
            tasks = frozen_tasks(spec, self.tasks)[: self.task_count]
        return [{**task, **dict(self.fixed)} for task in tasks]

    def opponent_names(self, spec: GameSpec, role: Role) -> tuple[str, ...]:
        """The names of the opponents that ``role`` meets, in the order of ``panel``."""
        if self.opponents == "listed":
            return tuple(name for name, _ in self.listed)
        return tuple(names(spec, other(role), self.opponents))

    def panel(self, duel: Duel, role: Role) -> dict[str, Player]:
        """The opponents that ``role`` meets, by name.

        Raises:
            InvalidInputError: an opponent cannot be loaded for the other seat.
        """
        seat = other(role)
        if self.opponents == "listed":
            return {name: load_player(duel, seat, one) for name, one in self.listed}
        return {name: load_player(duel, seat, name) for name in self.opponent_names(duel.spec, role)}


class Contender(NamedTuple):
    """A player under evaluation, of one training seed."""

    method: str
    seed: int
    role: Role
    duel: Duel  # as the player sees it
    adapter: Adapter


class Result(NamedTuple):
    """The returns of one contender: a block of the tidy table."""

    method: str
    seed: int
    role: Role
    protocol: Protocol
    opponents: tuple[str, ...]
    returns: npt.NDArray[np.float64]  # [shots + 1, opponents, tasks, test episodes]


def contender(run: Run, role: Role, method: str | None = None) -> Contender:
    """The player of a run, with the rates that it learned or that were tuned in its validation."""
    agent = run.agent(role)
    name = method or ("informed" if run.config.informed else run.config.method)
    agent = replace(agent, rates=agent.rates[:0]) if run.config.informed else agent
    return Contender(name, run.config.seed, role, run.duel, agent.adapter)


def random_start(run: Run, role: Role) -> Contender:
    """The same network with fresh weights, of the run's seed; its rate is not tuned yet."""
    agent = run.agent(role)
    weights = agent.policy.init(derive_seed(run.config.seed, Purpose.RANDOM_START))
    fresh = replace(agent, weights=weights, rates=agent.rates[:0])
    return Contender("random start", run.config.seed, role, run.duel, fresh.adapter)


def evaluate(player: Contender, protocol: Protocol) -> Result:
    """Adapt and test one contender on every (task, opponent) of the protocol.

    Raises:
        Failed: it cannot continue.
    """
    return result(evaluate_all([player], protocol)[0])


def evaluate_all(
    players: Sequence[Contender],
    protocol: Protocol,
    after_batch: Callable[[int], None] = lambda count: None,
    tested: Sequence[int] | None = None,
) -> list[Result | Failed]:
    """As ``evaluate`` for each of several contenders, in as few batches as memory allows; a contender that fails has its error
    in the place of its result.

    Args:
        players: the contenders, of any roles and games.
        protocol: the panel.
        after_batch: called after every batch with its number of contenders.
        tested: the shots after which they are tested; the returns of others are NaN. None: all.
    """
    found = _run(players, protocol, Purpose.ADAPT, Purpose.TEST, None, after_batch, tested)
    return [
        returns
        if isinstance(returns, Failed)
        else Result(one.method, one.seed, one.role, protocol, protocol.opponent_names(one.duel.spec, one.role), returns)
        for one, returns in zip(players, found, strict=True)
    ]


def against(player: Contender, protocol: Protocol, opponents: Sequence[Any]) -> npt.NDArray[np.float64]:
    """As ``evaluate``, against whatever ``load_player`` takes: returns [shots + 1, opponents, tasks, test episodes]."""
    loaded = [load_player(player.duel, other(player.role), name) for name in opponents]
    return result(_run([player], protocol, Purpose.ADAPT, Purpose.TEST, loaded)[0])


def result(found: Found | Failed) -> Found:
    """One result of ``evaluate_all`` or ``tune_rates``.

    Raises:
        Failed: the error in its place.
    """
    if isinstance(found, Failed):
        raise found
    return found


def _run(
    players: Sequence[Contender],
    protocol: Protocol,
    adapt: Purpose,
    test: Purpose,
    opponents: Sequence[Player] | None = None,
    after_batch: Callable[[int], None] = lambda count: None,
    tested: Sequence[int] | None = None,
) -> list[npt.NDArray[np.float64] | Failed]:
    """Returns [shots + 1, opponents, tasks, test episodes] of each contender, or its error; of one that does not adapt, the same
    at every shot. NaN where it is not tested.
    """
    adapt_seed, groups = derive_seed(0, adapt), dict[Any, list[int]]()
    for i, one in enumerate(players):
        groups.setdefault((one.role, _world(one.duel), one.adapter.adapts), []).append(i)
    found: dict[int, npt.NDArray[np.float64] | Failed] = {}
    for group in groups.values():
        first, shots = players[group[0]], protocol.shots if players[group[0]].adapter.adapts else 0
        panel = list(protocol.panel(first.duel, first.role).values()) if opponents is None else opponents
        settings = Settings(
            first.duel, first.role, task_rows(first.duel.spec, protocol.task_list(first.duel.spec), {}), panel, shots,
            protocol.episodes, protocol.test_episodes, adapt_seed, derive_seed(0, test), protocol.actions == "mode",
            tested if shots else None,
        )  # fmt: skip
        seeds = [derive_seed(adapt_seed, players[i].seed) if players[i].seed > 0 else adapt_seed for i in group]
        results = outcomes(settings, [players[i].adapter for i in group], seeds, after_batch)
        for i, returns in zip(group, results, strict=True):
            found[i] = returns if isinstance(returns, Failed) else _every_shot(returns, protocol.shots, settings.tested)
    return [found[i] for i in range(len(players))]


def _world(duel: Duel) -> Any:
    """Equal for duels in which the same players meet the same tasks."""
    if type(duel) is not Duel:
        return id(duel)
    return duel.spec.id, type(duel.game), duel.horizon, duel.informed, duel.dtype


def _every_shot(returns: Tensor, shots: int, tested: Collection[int] | None) -> npt.NDArray[np.float64]:
    """Returns at every shot; those of a player that does not adapt are known at shot 0 alone, and are the same at all."""
    known: npt.NDArray[np.float64] = returns.double().numpy()
    if tested is None:
        return known if len(known) > shots else np.repeat(known, shots + 1, 0)
    every = np.full((shots + 1, *known.shape[1:]), np.nan)
    every[sorted(tested)] = known
    return every


def tune_rate(
    player: Contender, protocol: Protocol, rates: Sequence[float] | None = None, tasks: int = 40
) -> Contender:
    """As ``tune_rates``, for one contender.

    Raises:
        InvalidInputError: it does not adapt by gradient steps.
        Failed: it cannot continue.
    """
    return result(tune_rates([player], protocol, rates, tasks)[0])


def tune_rates(
    players: Sequence[Contender],
    protocol: Protocol,
    rates: Sequence[float] | None = None,
    tasks: int = 40,
    after_batch: Callable[[int], None] = lambda count: None,
) -> list[Contender | Failed]:
    """Give each contender the constant rate with the best mean return over all shots, on the validation split against training
    opponents. All contenders try all rates in as few batches as memory allows.

    Args:
        players: the contenders.
        protocol: shots and episodes.
        rates: the grid; None: ``RATES``.
        tasks: number of validation tasks, at most.
        after_batch: called after every batch with its number of trials.

    Raises:
        InvalidInputError: a contender that does not adapt by gradient steps.
    """
    grid = RATES if rates is None else rates
    trials = [with_rate(player, rate) for player in players for rate in grid]
    found = _validated(trials, protocol, tasks, after_batch)
    tuned: list[Contender | Failed] = []
    for first in range(0, len(trials), len(grid)):
        own = found[first : first + len(grid)]
        failed = next((one for one in own if isinstance(one, Failed)), None)
        scores = [one for one in own if not isinstance(one, Failed)]
        tuned.append(trials[first + int(np.argmax(scores))] if failed is None else failed)
    return tuned


def validation_scores(players: Sequence[Contender], protocol: Protocol, tasks: int = 40) -> list[float]:
    """The scores by which ``tune_rates`` chooses, of contenders as they are; a player that does not adapt has its return.

    Raises:
        Failed: a contender cannot continue.
    """
    return [result(one) for one in _validated(players, protocol, tasks)]


def _validated(
    players: Sequence[Contender],
    protocol: Protocol,
    tasks: int,
    after_batch: Callable[[int], None] = lambda count: None,
) -> list[float | Failed]:
    """Mean returns over the shots after adaptation, on the validation split against training opponents; -inf where one is not a
    number: a rate that diverges gets the lowest score.
    """
    on = replace(protocol, tasks="validation", opponents="train", task_count=min(tasks, protocol.task_count))
    after = range(1, protocol.shots + 1)
    found = _run(players, on, Purpose.TUNE_ADAPT, Purpose.TUNE_TEST, None, after_batch, after)
    return [one if isinstance(one, Failed) else float(np.nan_to_num(one[1:].mean(), nan=-np.inf)) for one in found]


def with_rate(player: Contender, rate: float) -> Contender:
    """A contender with one constant rate for all its updates.

    Raises:
        InvalidInputError: it does not adapt by gradient steps.
    """
    adapter = _gradient(player)
    like = next(iter(adapter.weights.values()))
    return player._replace(adapter=replace(adapter, rates=like.new_full((1,), rate)))


def rate_of(player: Contender) -> float:
    """The first step size of a contender that has one for all weights."""
    return float(_gradient(player).rates[0])


def _gradient(player: Contender) -> GradientAdapter:
    if not isinstance(player.adapter, GradientAdapter):
        raise InvalidInputError(f"{player.method} adapts without gradient steps: it has no rate")
    return player.adapter


def evaluate_scripted(
    spec: GameSpec, role: Role, protocol: Protocol, blind_only: bool = True, horizon: int | None = None
) -> list[Result]:
    """Returns of every scripted player of a role, on the same test episodes; players that read hidden contexts are left out
    unless ``blind_only`` is False. ``horizon``: steps per episode, if it is not the family's own.
    """
    duel = Duel(make_game(spec), horizon)
    players = [
        Contender(f"scripted: {name}", -1, role, duel, FixedPlayer(player))
        for name, player in scripted(spec, role).items()
        if not (blind_only and player.informed)
    ]
    return [result(one) for one in evaluate_all(players, protocol)]


def evaluate_player(
    spec: GameSpec, role: Role, protocol: Protocol, method: str, player: Player, horizon: int | None = None
) -> Result:
    """Returns of a player that does not adapt, under the name ``method``: the same at every shot."""
    return evaluate(Contender(method, -1, role, Duel(make_game(spec), horizon), FixedPlayer(player)), protocol)
