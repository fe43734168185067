"""Few-shot evaluation: contenders adapt to held-out tasks against held-out opponents, and are tested after every shot.

Adaptation and test episodes have disjoint noise; the test episodes are the same for every shot and every contender.
Inner rates that were not meta-learned are tuned on the validation split against training opponents, never on reported
results. A contender sees hidden contexts only if it was trained as the informed player.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

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
from metaduel.meta.adaptation.few_shot import adapt_and_test
from metaduel.meta.runs.load import Run

# Seeds of the protocol, apart from those of training (which start from the run's own seed).
RATES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


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

    def panel(self, duel: Duel, role: Role) -> dict[str, Player]:
        """The opponents that ``role`` meets, by name.

        Raises:
            InvalidInputError: an opponent cannot be loaded for the other seat.
        """
        seat = other(role)
        if self.opponents == "listed":
            return {name: load_player(duel, seat, one) for name, one in self.listed}
        return {name: load_player(duel, seat, name) for name in names(duel.spec, seat, self.opponents)}


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
    """The player of a run, with its learned rates."""
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
    """Adapt and test one contender on every (task, opponent) of the protocol."""
    opponents = protocol.panel(player.duel, player.role)
    returns = _run(
        player, protocol, list(opponents.values()), derive_seed(0, Purpose.ADAPT), derive_seed(0, Purpose.TEST)
    )
    return Result(player.method, player.seed, player.role, protocol, tuple(opponents), returns)


def against(player: Contender, protocol: Protocol, opponents: Sequence[Any]) -> npt.NDArray[np.float64]:
    """As ``evaluate``, against whatever ``load_player`` takes: returns [shots + 1, opponents, tasks, test episodes]."""
    loaded = [load_player(player.duel, other(player.role), name) for name in opponents]
    return _run(player, protocol, loaded, derive_seed(0, Purpose.ADAPT), derive_seed(0, Purpose.TEST))


def _run(
    player: Contender, protocol: Protocol, opponents: Sequence[Player], adapt_seed: int, test_seed: int
) -> npt.NDArray[np.float64]:
    shots = protocol.shots if player.adapter.adapts else 0
    result = adapt_and_test(
        player.duel, player.adapter, player.role, task_rows(player.duel.spec, protocol.task_list(player.duel.spec), {}),
        opponents, shots=shots, episodes=protocol.episodes, test_episodes=protocol.test_episodes,
        adapt_seed=adapt_seed, test_seed=test_seed, deterministic=protocol.actions == "mode",
        seed=derive_seed(adapt_seed, player.seed) if player.seed > 0 else adapt_seed,
    ).returns.double().numpy()  # fmt: skip
    return result if shots else np.repeat(result, protocol.shots + 1, 0)


def tune_rate(player: Contender, protocol: Protocol, rates: Sequence[float] = RATES, tasks: int = 40) -> Contender:
    """Give a contender the constant rate with the best mean return over all shots, on the validation split against
    training opponents.

    Raises:
        InvalidInputError: it does not adapt by gradient steps.
    """
    on = replace(protocol, tasks="validation", opponents="train", task_count=min(tasks, protocol.task_count))
    opponents = list(on.panel(player.duel, player.role).values())
    trials = [with_rate(player, rate) for rate in rates]
    found = [
        _run(one, on, opponents, derive_seed(0, Purpose.TUNE_ADAPT), derive_seed(0, Purpose.TUNE_TEST))
        for one in trials
    ]
    # A rate that diverges gets the lowest score.
    scores = [float(np.nan_to_num(returns[1:].mean(), nan=-np.inf)) for returns in found]
    return trials[int(np.argmax(scores))]


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
    return [
        evaluate_player(spec, role, protocol, f"scripted: {name}", player, horizon)
        for name, player in scripted(spec, role).items()
        if not (blind_only and player.informed)
    ]


def evaluate_player(
    spec: GameSpec, role: Role, protocol: Protocol, method: str, player: Player, horizon: int | None = None
) -> Result:
    """Returns of a player that does not adapt, under the name ``method``: the same at every shot."""
    return evaluate(Contender(method, -1, role, Duel(make_game(spec), horizon), FixedPlayer(player)), protocol)
