"""Learning peers: which player earns most against an opponent that learns at the same time (Kim et al., ICML 2021)?

A persona of a repeated matrix game begins with a table of its own and takes a policy-gradient step whenever its opponent does.
Both take seven updates, each from 64 trajectories. The result is the player's reward per step in the trajectories of every
l = 0..7, on personas that no player has met before. Players:

- *trained*: Meta-MAPG, Meta-PG and the like, trained against personas of the training split (``metaduel train``), which adapt
  with the step sizes that they learned;
- *tuned*: rules that need no training, from the same untrained network, with a rate that is chosen on personas of the validation
  split: REINFORCE follows the gradient of its own return; LOLA-DiCE looks ahead to the persona's learning from its own actions
  (it imagines that learning in episodes of its own, knows the persona's table, and takes a step at every l);
- *remembering*: RL^2, see ``remembering.py``;
- *static*: memory-1 tables that never change, such as tit-for-tat, which makes learning peers learn to cooperate;
- *exact* players: the start and the step sizes that Meta-MAPG (the optimum) and Meta-PG find on exact values, see ``optimum.py``.

The row of a persona is the mean return of its trajectories, as episode 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from metaduel.agents.objective.config import LossConfig
from metaduel.agents.policies.base import Policy, Weights, stack
from metaduel.agents.policies.tabular import TabularPolicy
from metaduel.benchmarks.core.metrics import Array, estimate, p_value
from metaduel.benchmarks.core.report import (
    COLOURS,
    RNG_SEED,
    Sheet,
    canvas,
    cell,
    cover_note,
    number,
    rendered,
    starred,
)
from metaduel.benchmarks.core.suite import Cell, Report, Suite, Together
from metaduel.benchmarks.core.table import UNTRAINED, Table
from metaduel.benchmarks.core.trainings import trained_together
from metaduel.benchmarks.studies import optimum, remembering
from metaduel.benchmarks.studies.optimum import Ascent
from metaduel.benchmarks.studies.remembering import Memory
from metaduel.envs.core.errors import InvalidInputError, check_whole, unknown
from metaduel.envs.core.files import write_atomic
from metaduel.envs.core.noise import derive_seed
from metaduel.envs.core.purposes import Purpose
from metaduel.envs.core.registry import find
from metaduel.envs.core.spec import ROLES, GameSpec, Role, Split
from metaduel.envs.core.tasks import task_rows
from metaduel.envs.repeated_matrix_game import PERSONAS
from metaduel.envs.repeated_matrix_game.opponents import memory_one_tables
from metaduel.meta.adaptation.inner import Through, adapt_step, leaves, rate_at, unroll
from metaduel.meta.problems.duels import DuelProblem, Matchups
from metaduel.meta.problems.personas import Personas
from metaduel.meta.problems.problem import Given, Losses, Players
from metaduel.meta.runs.config import TrainConfig
from metaduel.meta.runs.load import load
from metaduel.meta.runs.players import initial_weights, make_duel, make_policy

OWN: Role = ROLES[0]  # the player's seat
PEER: Role = ROLES[1]  # the persona's
EXACT = {"exact optimum": True, "exact Meta-PG": False}  # through the peer's updates?
SURE = 30.0  # logit of a static player's certain action


@dataclass(frozen=True, kw_only=True)
class Game:
    """A game's part of the suite.

    Attributes:
        personas: number of held-out personas, of the game's kinds in turn.
        validation_personas: number of personas for the choice of rates.
        static: memory-1 tables by their scripted players' names.
        settings: settings of the players' networks, losses and trainings in this game.
        trained: further settings of trained players in this game by name, and their number of ``seeds``.
        seeds: number of seeds of tuned players in this game by name, if not all.
    """

    personas: int
    validation_personas: int
    static: tuple[str, ...]
    settings: dict[str, Any]
    trained: dict[str, dict[str, Any]] = field(default_factory=dict)
    seeds: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("personas", "validation_personas"):
            check_whole(name, getattr(self, name))
        for count in self.seeds.values():
            check_whole("seeds", count)


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """A rule whose rate is chosen on validation.

    Attributes:
        look_aheads: number of the persona's updates that it imagines; 0: REINFORCE.
        rates: rates to choose from, of the discounted return.
    """

    look_aheads: int
    rates: tuple[float, ...]

    def __post_init__(self) -> None:
        check_whole("look_aheads", self.look_aheads, 0)
        if not self.rates or not all(rate > 0 for rate in self.rates):
            raise InvalidInputError(f"rates={self.rates!r} must be at least one number above 0")


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A comparison of two players, by the interval of a paired difference.

    Attributes:
        game: the game.
        method: the player that should earn more.
        factor: a factor of the other player's reward.
        other: the player that should earn less.
        shot: l; None: summed over all updates.
    """

    game: str
    method: str
    factor: float = 1.0
    other: str
    shot: int | None = None

    def __str__(self) -> str:
        """For a row of a sheet."""
        times = "" if self.factor == 1 else f"{self.factor:g} × "
        where = "sum" if self.shot is None else f"l = {self.shot}"
        return f"{self.method} − {times}{self.other}, {where}"


@dataclass(frozen=True, kw_only=True)
class Peers(Suite):
    """The protocol's numbers.

    Attributes:
        seeds: training seeds of players without a number of their own.
        shots: updates.
        episodes: trajectories per update.
        settings: settings of all trainings, in all games.
        games: by name.
        trained: trained players' settings by name, ``method`` among them, and their number of ``seeds``, if it is another.
        tuned: by name.
        remembering: by name.
        optimum: the search for the exact optimum, and its games.
        claims: the comparisons.
    """

    seeds: int
    shots: int
    episodes: int
    settings: dict[str, Any]
    games: dict[str, Game]
    trained: dict[str, dict[str, Any]]
    tuned: dict[str, Tuned]
    remembering: dict[str, Memory]
    optimum: Ascent
    claims: tuple[Claim, ...]

    def __post_init__(self) -> None:
        for name in ("seeds", "shots", "episodes"):
            check_whole(name, getattr(self, name))
        for changes in (
            *self.trained.values(),
            *(one for game in self.games.values() for one in game.trained.values()),
        ):
            check_whole("seeds", changes.get("seeds", 1))
        for game in (*self.games, *self.optimum.games):
            if find(game).name not in PERSONAS:
                raise unknown("repeated matrix game", game, PERSONAS)
        for name, own in self.games.items():
            for what, named, players in (
                ("trained player", list(own.trained), list(self.trained)),
                ("tuned player", list(own.seeds), list(self.tuned)),
            ):
                for player in named:
                    if player not in players:
                        raise unknown(what, player, players)
            for static in own.static:
                if static not in (tables := memory_one_tables(name)):
                    raise unknown(f"memory-1 table of {name}", static, tables)
        for claim in self.claims:
            if claim.game not in self.games:
                raise unknown("game of a claim", claim.game, self.games)
            if claim.shot is not None and not 0 <= claim.shot <= self.shots:
                raise InvalidInputError(
                    f"shot={claim.shot!r} of the claim {claim} must be from 0 to shots={self.shots}"
                )
            for method in (claim.method, claim.other):
                if method not in (known := self._methods(claim.game)):
                    raise unknown("method of a claim", method, known)

    def _methods(self, game: str) -> list[str]:
        exact = list(EXACT) if game in self.optimum.games else []
        return [*self.trained, *self.remembering, *self.tuned, *map(spoken, self.games[game].static), *exact]

    def config(self, game: str, **changes: Any) -> TrainConfig:
        """The settings of a player in a game."""
        own = {"episodes": self.episodes, "steps": self.shots, "roles": [OWN], **self.settings}
        settings = {**own, **self.games[game].settings, **changes}
        settings.pop("seeds", None)
        return TrainConfig(game=game).override(**settings)

    def _untrained(self, game: str, seed: int = 0) -> TrainConfig:
        return self.config(game, method="maml", surrogate="dice", seed=seed)

    def cells(self) -> list[Cell]:
        """See ``Suite.cells``."""
        return [one for game in self.games for one in self._cells(game)]

    def _cells(self, game: str) -> Iterator[Cell]:
        own, spec = self.games[game], find(game)
        test = {"personas": own.personas, "shots": self.shots, "episodes": self.episodes}

        def made(
            name: str,
            config: TrainConfig,
            play: Callable[[Path], Table],
            together: Together | None = None,
            **more: Any,
        ) -> Cell:
            return Cell(f"{game}, {name}", spec, {**test, **more, **config.to_dict()}, play, together=together)

        for static in own.static:
            yield made(spoken(static), self._untrained(game), partial(self._static, game, static))
        if game in self.optimum.games:
            validated: dict[str, Any] = {"ascent": self.optimum.plain(), "validation_personas": own.validation_personas}
            for name in EXACT:
                yield made(name, self._untrained(game), partial(self._exact, game, name), **validated)
        players = {
            name: {"seeds": self.seeds, **one, **own.trained.get(name, {})} for name, one in self.trained.items()
        }
        counts = {name: own.seeds.get(name, self.seeds) for name in self.tuned}
        most = max(self.seeds, *(changes["seeds"] for changes in players.values()), *counts.values())
        for seed in range(most):
            for name, changes in players.items():
                if seed >= changes["seeds"]:
                    continue
                config = self.config(game, **{**changes, "seed": seed})
                together = trained_together(f"{game}, {name}", config)
                yield made(f"{name}, seed {seed}", config, partial(self._trained, game, name, config), together)
            for name, rule in self.tuned.items():
                if seed >= counts[name]:
                    continue
                config = self._untrained(game, seed)
                tuned = {**asdict(rule), "validation_personas": own.validation_personas}
                yield made(f"{name}, seed {seed}", config, partial(self._tuned, game, name, rule, config), **tuned)
            for name, memory in self.remembering.items():
                if seed >= self.seeds:
                    continue
                config = memory.config(self.config(game, method="maml", seed=seed))
                play = partial(self._remembering, game, name, memory, config)
                yield made(f"{name}, seed {seed}", config, play, memory=memory.plain(), test_episodes=self.episodes)

    # The players

    def _static(self, game: str, name: str, folder: Path) -> Table:
        config = self._untrained(game)
        duel = make_duel(config)
        policy = TabularPolicy(duel.game.states, duel.observation_space(OWN).shape[0], duel.action_space(OWN))
        table = memory_one_tables(game)[name].float().log().clamp(min=-SURE)
        return self._test(game, spoken(name), UNTRAINED, config, policy, {"table": table}, still)

    def _trained(self, game: str, name: str, config: TrainConfig, folder: Path) -> Table:
        run = load(folder)
        agent = run.protagonist
        return self._test(game, name, config.seed, config, agent.policy, agent.weights, follow(agent.rates))

    def _tuned(self, game: str, name: str, rule: Tuned, config: TrainConfig, folder: Path) -> Table:
        policy = make_policy(config, make_duel(config), OWN)
        start = initial_weights({OWN: policy}, config.seed)[OWN]
        scores = []
        for rate in rule.rates:
            meeting = meet(self, config, policy, "validation", self.games[game].validation_personas)
            returns = play(meeting, start, self._rule(rule, meeting, rate), self.shots)
            scores.append(float(np.nan_to_num(returns[1:].mean(), nan=-np.inf)))
        best = rule.rates[int(np.argmax(scores))]
        meeting = meet(self, config, policy, "held_out", self.games[game].personas)
        returns = play(meeting, start, self._rule(rule, meeting, best), self.shots)
        return rows(returns, find(game), name, config.seed)

    def _rule(self, rule: Tuned, meeting: Meeting, rate: float) -> Rule:
        size = meeting.persona.step_size.new_tensor([[rate * meeting.problem.duel.horizon]])
        return look_ahead(meeting, rule.look_aheads, size[0]) if rule.look_aheads else follow(size)

    def _remembering(self, game: str, name: str, memory: Memory, config: TrainConfig, folder: Path) -> Table:
        them = personas(config, make_policy(config, make_duel(config), OWN))
        policy, weights = remembering.learn(memory, config, them)
        meeting = meet(self, config, policy, "held_out", self.games[game].personas)
        returns = remembering.play(meeting.problem, weights, meeting.persona, self.shots, them)
        return rows(returns.double().numpy(), find(game), name, config.seed)

    def _exact(self, game: str, name: str, folder: Path) -> Table:
        spec, own, config = find(game), self.games[game], self._untrained(game)
        them = personas(config, make_policy(config, make_duel(config), OWN))
        validation, tests = (
            them.sample(own.validation_personas, "validation", Purpose.PEERS_DRAW).weights["table"],
            them.sample(own.personas, "held_out", Purpose.PEERS_DRAW).weights["table"],
        )
        returns = optimum.best(self.optimum, spec, config, self.shots, validation, tests, EXACT[name])
        return rows(returns, spec, name, UNTRAINED)

    def _test(
        self, game: str, name: str, seed: int, config: TrainConfig, policy: Policy, start: Weights, rule: Rule
    ) -> Table:
        meeting = meet(self, config, policy, "held_out", self.games[game].personas)
        return rows(play(meeting, start, rule, self.shots), find(game), name, seed)

    # The report

    def report(self, table: Table, out: Path) -> Report:
        """See ``Suite.report``."""
        sheets, pictures = [], {}
        for game in self.games:
            own = table.filter(family=game)
            for kind in (*PERSONAS[game], None):
                sheets.append(self._curves(game, own, kind))
            if any(claim.game == game for claim in self.claims):
                sheets.append(self._tested(game, own))
            name = f"peers-{game}.png"
            self._plot(game, own, out / name)
            pictures[name] = f"Reward per step at every l, {game}"
        return Report(starred(sheets), pictures)

    def _curves(self, game: str, own: Table, kind: str | None) -> Sheet:
        lines, arrays = [], []
        for method in own.values("method"):
            found = [rewards(own, method, shot, kind) for shot in range(self.shots + 1)]
            arrays += found[:1]
            cells = (number(float(one.mean())) for one in found)
            lines.append((method, *cells, cell(estimate(sum(found[1:]), RNG_SEED))))
        peers = f"{kind} personas" if kind else "all personas"
        header = ("player", *(f"l = {shot}" for shot in range(self.shots + 1)), f"sum, l = 1 .. {self.shots}")
        count = arrays[0].shape[1]
        note = f"{count} held-out personas, {self.episodes} trajectories each. {cover_note(arrays)}"
        return Sheet(f"{game}: reward per step against {peers}", header, tuple(lines), note)

    def _tested(self, game: str, own: Table) -> Sheet:
        kinds, lines, arrays = (*PERSONAS[game], None), list[tuple[str, ...]](), list[Array]()
        tests = list[tuple[int, int, float]]()
        for claim in (claim for claim in self.claims if claim.game == game):
            cells = list[str]()
            for kind in kinds:
                found = self._difference(own, claim, kind)
                arrays.append(found)
                tests.append((len(lines), 1 + len(cells), p_value(found)))
                cells.append(cell(estimate(found, RNG_SEED)))
            lines.append((str(claim), *cells))
        header = ("paired difference", *(kind or "all" for kind in kinds))
        return Sheet(
            f"{game}: paired differences",
            header,
            tuple(lines),
            cover_note(arrays),
            tuple(tests),
        )

    def _difference(self, own: Table, claim: Claim, kind: str | None) -> Array:
        shots = range(1, self.shots + 1) if claim.shot is None else [claim.shot]
        first, second = (
            np.sum([rewards(own, method, shot, kind) for shot in shots], 0) for method in (claim.method, claim.other)
        )
        both = min(len(first), len(second))  # of players with more seeds than the other, the seeds of both
        if both > 1:
            first, second = first[:both], second[:both]
        difference: Array = first - claim.factor * second  # players of one seed or none are one row
        return difference

    def _plot(self, game: str, own: Table, path: Path) -> None:
        kinds, learners = PERSONAS[game], [*self.trained, *self.tuned, *self.remembering]
        methods = list(dict.fromkeys((*learners, *own.values("method"))))  # a learner has one colour in all games
        figure = canvas(4.2 * len(kinds), 4.4)
        shots = np.arange(self.shots + 1)
        panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
        for axes, kind in zip(panels, kinds, strict=True):
            for i, method in enumerate(methods):
                found = [estimate(rewards(own, method, int(shot), kind), RNG_SEED) for shot in shots]
                colour, dashed = COLOURS[i % len(COLOURS)], i >= len(COLOURS)
                values = [one.value for one in found]
                axes.plot(shots, values, color=colour, linestyle="--" if dashed else "-", linewidth=1.6, label=method)
                low, high = np.array([one.interval[:2] for one in found]).T
                axes.fill_between(shots, low, high, color=colour, alpha=0.15, linewidth=0)
            axes.set_title(f"{kind} personas", fontsize=10, loc="left")
            axes.set_xlabel("l: updates of both")
            axes.set_xticks(shots)
            axes.grid(axis="y", color="#e3e3e3", linewidth=0.7)
            axes.spines[["top", "right"]].set_visible(False)
        panels[0].set_ylabel("reward per step")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=9)
        figure.suptitle(f"{game}: held-out personas that learn, too", fontsize=11)
        write_atomic(path, rendered(figure, "png"))


def rewards(own: Table, method: str, shot: int, kind: str | None) -> Array:
    """(seeds, personas) points per step; of one kind of persona, or of all."""
    tasks = [task for task in own.values("task") if kind is None or task.startswith(f"{kind}:")]
    found: Array = own.filter(task=tasks).pivot(method, OWN, shot) / find(own["family"][0]).horizon
    return found


def spoken(name: str) -> str:
    """A scripted player's name in words."""
    return name.replace("_", "-")


# A player and its peers


class Meeting(NamedTuple):
    """A player and the personas that it meets, one in every task."""

    problem: DuelProblem
    imagined: DuelProblem  # the same with other noise, for players that look ahead
    persona: Given


Rule = Callable[[Players, Losses, int], Weights]  # (both, their losses, shot): the player's weights after its update


def personas(config: TrainConfig, network: Policy) -> Personas:
    """The personas of a game."""
    return Personas(
        make_duel(config), PEER, network, config.objective, config.persona_lr, config.learner.inner_lr_of(PEER)
    )


def meet(suite: Peers, config: TrainConfig, policy: Policy, split: Split, count: int) -> Meeting:
    """A meeting with ``count`` personas of a split; all players meet the same personas, with the same noise."""
    duel, them = make_duel(config), personas(config, policy)
    rows = task_rows(config.spec, [{}] * count, config.fixed)
    policies: Mapping[Role, Policy] = {OWN: policy, PEER: them.policy}
    losses: Mapping[Role, LossConfig] = {OWN: config.objective.of(OWN), PEER: them.loss}
    problem, imagined = (
        DuelProblem(duel, policies, Matchups(rows, duels=count), suite.episodes, derive_seed(purpose, count), losses)
        for purpose in (Purpose.PEERS_MEET, Purpose.PEERS_IMAGINE)
    )
    return Meeting(problem, imagined, them.sample(count, split, Purpose.PEERS_DRAW))


def play(meeting: Meeting, start: Weights, rule: Rule, shots: int) -> Array:
    """Train both; mean returns [shots + 1, personas] of the player."""
    problem, persona = meeting.problem, meeting.persona
    players: Players = {OWN: stack(start, problem.tasks[OWN]), PEER: persona.weights}
    returns: list[Tensor] = []
    for shot in range(shots + 1):
        now = leaves({r: {name: value.clone() for name, value in weights.items()} for r, weights in players.items()})
        batch = problem.draw(now, shot)
        returns.append(batch.returns[OWN])
        if shot < shots:
            losses = batch.losses(now)
            after = adapt_step(now, losses.support, {PEER: persona.step_size}, create_graph=False, moving=(PEER,))
            players = {OWN: rule(now, losses, shot), PEER: after[PEER]}
    found: Array = torch.stack(returns).double().numpy()
    return found


def still(players: Players, losses: Losses, shot: int) -> Weights:
    """The rule of a player that does not change."""
    return players[OWN]


def follow(rates: Tensor) -> Rule:
    """The rule that follows the gradient of the player's own return; rates [K, ...] as ``inner.step_sizes`` takes them."""

    def rule(players: Players, losses: Losses, shot: int) -> Weights:
        return adapt_step(players, losses.support, {OWN: rate_at(rates, shot)}, create_graph=False, moving=(OWN,))[OWN]

    return rule


def look_ahead(meeting: Meeting, count: int, rate: Tensor) -> Rule:
    """LOLA-DiCE: the rule that follows the gradient of the player's own return after ``count`` updates of the persona, through
    those updates.
    """

    def rule(players: Players, losses: Losses, shot: int) -> Weights:
        theirs = meeting.persona.step_size.expand(count, 1)
        rates = {OWN: torch.zeros_like(theirs), PEER: theirs}
        through = Through(joint=True, recompute=True)
        history, _ = unroll(meeting.imagined, players, rates, count, through, (PEER,), first=shot * (count + 1))
        own = players[OWN]
        gradients = torch.autograd.grad(history[-1].query[OWN].sum(), list(own.values()))
        return {name: value - rate * g for (name, value), g in zip(own.items(), gradients, strict=True)}

    return rule


def rows(returns: Array, spec: GameSpec, method: str, seed: int) -> Table:
    """The tidy table of one player: ``returns`` [shots + 1, personas], of the kinds in turn."""
    kinds = PERSONAS[spec.name]
    shot, persona = (index.ravel() for index in np.indices(returns.shape))
    names = [f"{kinds[i % len(kinds)]}:{i // len(kinds)}" for i in range(returns.shape[1])]
    same: dict[str, Any] = {
        "family": spec.name, "version": spec.version, "role": OWN, "method": method, "seed": seed, "task_split": "held_out",
        "opponent_split": "held_out", "opponent": "learning persona", "actions": "sampled", "episode": 0,
    }  # fmt: skip
    columns = {name: np.full(returns.size, value, object) for name, value in same.items()}
    columns |= {"shot": shot, "task": np.array(names, object)[persona], "return": returns.ravel().round(6)}
    return Table(columns)
