"""All methods on several families: learners and baselines, in both roles, with equal budgets per player.

- **Budget**: every training ends when each of its players has played the same number of steps of its own (all K + 1 batches of an
  iteration); a method with more steps per iteration has fewer iterations.
- **Tuning**: every trained method, informed ones included, has the same number of tuning runs in a family, short trainings of
  another seed; the best on validation tasks against training opponents is chosen. Players whose rates were not learned or chosen
  in their own training have them tuned on validation tasks as well, from one grid for all.
- **PPO + fine-tuning**: methods with ``sb3`` are trained by Stable-Baselines3's PPO, see ``core.pretraining``; checkpoint and
  rate are chosen by fine-tuned validation.
- **Test**: returns at every shot on held-out tasks against held-out scripted opponents; against **rivals**, the players that some
  of the methods trained with the next seed; and against **responses**, PPO that trained against each adapted, frozen player (see
  ``exploitability.py``), of methods without ``sb3``.
- **Longer**: the best learners of each family and role, by the first part's rows, are trained again with a larger budget, each
  alone in its seat against scripted opponents.

Rows that are no test returns have splits of their own: ``TRIAL`` and ``CURVE`` rows are mean validation returns, and a curve's
shot is the number of the player's own steps in thousands; ``RIVAL`` and ``RESPONSE`` stand in place of the opponent's split.
``LONGER`` and ``LONGER_CURVE`` are test returns and curves of the second part.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from metaduel.benchmarks.core import few_shot
from metaduel.benchmarks.core.few_shot import Contender, Protocol
from metaduel.benchmarks.core.metrics import (
    Array,
    estimate,
    p_value,
    probability_of_improvement,
    recovered_fraction,
)
from metaduel.benchmarks.core.pretraining import PPOSettings, check_pretrainable, pretrained, split_settings
from metaduel.benchmarks.core.report import (
    COLOURS,
    RNG_SEED,
    Sheet,
    canvas,
    cell,
    cover_note,
    rendered,
    seed_values,
    starred,
)
from metaduel.benchmarks.core.suite import Cell, Report, Suite, Together, rows_of
from metaduel.benchmarks.core.table import COLUMNS, UNTRAINED, Table, concatenate, from_returns
from metaduel.benchmarks.core.trainings import VALIDATIONS, best_score, curve, learn_steps
from metaduel.benchmarks.tools import exploitability
from metaduel.benchmarks.tools.exploitability import Exploitation
from metaduel.envs.core.errors import InvalidInputError, check_whole, unknown
from metaduel.envs.core.files import write_atomic
from metaduel.envs.core.noise import derive_seed
from metaduel.envs.core.purposes import Purpose
from metaduel.envs.core.registry import find
from metaduel.envs.core.spec import ROLES, Role, other
from metaduel.envs.players.scripted import scripted
from metaduel.meta.adaptation.adapters import adapter_of
from metaduel.meta.learners.methods import find_method
from metaduel.meta.runs.config import TrainConfig, build
from metaduel.meta.runs.load import load
from metaduel.meta.runs.players import make_duel, make_policy

TRIAL, CURVE, RIVAL, RESPONSE = "tuning trial", "learning curve", "rival", "response"
LONGER, LONGER_CURVE = "longer", "longer curve"
RANDOM, SCRIPTED, INFORMED_SCRIPT = "random start", "scripted", "informed script"
TRIAL_SEED = 1000  # of the tuning runs


@dataclass(frozen=True, kw_only=True)
class InFamily:
    """A method's part in one family.

    Attributes:
        settings: settings of its runs there, over all others but a trial's.
        trials: settings of the tuning runs there; empty: the method's.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    trials: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Method:
    """A method's part of the suite.

    Attributes:
        settings: settings of its runs, in every family.
        trials: settings of the tuning runs, one of which is chosen.
        families: what is otherwise in a family.
        sb3: whether Stable-Baselines3's PPO trains it; its settings and trials may then hold those of ``PPOSettings``, and
            fine-tuning has the settings of the first baseline unless they name another method.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    trials: tuple[dict[str, Any], ...] = ({},)
    families: dict[str, InFamily] = field(default_factory=dict)
    sb3: bool = False

    def settings_in(self, family: str) -> dict[str, Any]:
        """Settings of its runs in a family."""
        return self.settings | self.families.get(family, InFamily()).settings

    def trials_in(self, family: str) -> tuple[dict[str, Any], ...]:
        """Settings of its tuning runs in a family."""
        return self.families.get(family, InFamily()).trials or self.trials


@dataclass(frozen=True, kw_only=True)
class Rivals:
    """Learned opponents.

    Attributes:
        methods: the methods whose players of the next seed are the rivals.
        tasks: number of held-out tasks, the first ones.
    """

    methods: tuple[str, ...] = ()
    tasks: int = 40


@dataclass(frozen=True, kw_only=True)
class Longer:
    """The second part: the best learners with a larger budget.

    Attributes:
        families: the families.
        steps: each player's own steps of a training.
        learners: number of learners for each family and role, the best by their mean return after the last shot.
        beside: methods that are trained as long in any case.
        seeds: training seeds.
    """

    families: tuple[str, ...]
    steps: int
    learners: int = 3
    beside: tuple[str, ...] = ()
    seeds: int = 5

    def __post_init__(self) -> None:
        for name in ("steps", "learners", "seeds"):
            check_whole(name, getattr(self, name))


@dataclass(frozen=True, kw_only=True)
class Comparison(Suite):
    """The protocol's numbers.

    Attributes:
        revision: of the code that results depend on; a new number makes every cell a new one.
        seeds: training seeds.
        steps: each player's own steps of a training.
        trial_steps: the same of a tuning run.
        evaluation: fields of ``Protocol``, of the held-out panel.
        settings: settings of all runs.
        families: settings of each family's runs.
        methods: by name; informed ones see hidden contexts and do not adapt.
        non_adapting: methods whose players are trained without learning to adapt; they are fine-tuned.
        baselines: those of them that the best learner is compared with; all methods are compared with the first.
        rivals: learned opponents.
        responses: settings of the responses to adapted players; None: no responses.
        longer: the second part; None: there is none.
    """

    revision: int = 1
    seeds: int
    steps: int
    trial_steps: int
    evaluation: dict[str, Any]
    settings: dict[str, Any]
    families: dict[str, dict[str, Any]]
    methods: dict[str, Method]
    non_adapting: tuple[str, ...]
    baselines: tuple[str, ...]
    rivals: Rivals = field(default_factory=Rivals)
    responses: Exploitation | None = None
    longer: Longer | None = None

    def __post_init__(self) -> None:
        check_whole("seeds", self.seeds, 2 if self.rivals.methods else 1)
        for name in ("steps", "trial_steps", "revision"):
            check_whole(name, getattr(self, name))
        longer = () if self.longer is None else self.longer.beside
        for name in (*self.non_adapting, *self.baselines, *self.rivals.methods, *longer):
            if name not in self.methods:
                raise unknown("method", name, self.methods)
        if not self.baselines or not set(self.baselines) <= set(self.non_adapting):
            raise InvalidInputError(
                f"baselines={list(self.baselines)} must be one or more of {list(self.non_adapting)}"
            )
        for reserved in (RANDOM, SCRIPTED):
            if reserved in self.methods:
                raise InvalidInputError(f"method {reserved!r} is always there: leave it out")
        for name in self.rivals.methods:
            if self.methods[name].sb3:
                raise InvalidInputError(f"rivals: {name!r} must be a method without sb3: rivals are saved runs")
        self._check_families()
        for family in self.families:
            counts = {name: len(own.trials_in(family)) for name, own in self.methods.items()}
            if len(set(counts.values())) > 1:
                raise InvalidInputError(
                    f"trials: every method must have the same number of them in {family}, not {counts}"
                )
            for name, own in self.methods.items():
                for trial in own.trials_in(family):
                    config = self.config(family, name, trial, 0)  # refuses bad settings before anything is played
                    if own.sb3:
                        check_pretrainable(config)
                        self.ppo(family, name, trial)
        if self.longer is not None:
            self._check_longer(self.longer)
        _ = self.protocol

    def _check_longer(self, longer: Longer) -> None:
        if longer.seeds > self.seeds:
            raise InvalidInputError(f"longer.seeds={longer.seeds} must be at most seeds={self.seeds}")
        for family in longer.families:
            for name in (*self._learners, *longer.beside):
                config = self.config(family, name, self.methods[name].trials_in(family)[0], 0)
                if find_method(config.method).meets:
                    raise InvalidInputError(
                        f"longer: {name!r} trains both players against each other, and the second part trains each alone: leave "
                        "it out"
                    )

    def _check_families(self) -> None:
        named = [family for own in self.methods.values() for family in own.families]
        for family in (*named, *(() if self.longer is None else self.longer.families)):
            if family not in self.families:
                raise unknown("family of the suite", family, self.families)

    @property
    def protocol(self) -> Protocol:
        """The panel."""
        for name in self.evaluation:
            if name not in Protocol.__dataclass_fields__:
                raise unknown("setting of evaluation", name, Protocol.__dataclass_fields__)
        return Protocol(**self.evaluation)

    def config(self, family: str, method: str, trial: Mapping[str, Any], seed: int) -> TrainConfig:
        """A training's settings, except its length and PPO's own."""
        part = self.methods[method]
        own = {**self.settings, **self.families[family], **part.settings_in(family), **trial, "seed": seed}
        if part.sb3:
            own, _ = split_settings(own)
        named = own.pop("method", self.baselines[0] if part.sb3 else method)
        return TrainConfig(game=family).override(method=named, **own)

    def ppo(self, family: str, method: str, trial: Mapping[str, Any]) -> PPOSettings:
        """PPO's own settings, of a method with ``sb3``."""
        _, own = split_settings({**self.methods[method].settings_in(family), **trial})
        made: PPOSettings = build(PPOSettings, own)
        return made

    def plan(self, family: str, method: str, trial: Mapping[str, Any], seed: int, steps: int, folder: Path) -> Plan:
        """A training."""
        ppo = self.ppo(family, method, trial) if self.methods[method].sb3 else None
        return Plan(self.config(family, method, trial, seed), steps, folder, ppo)

    def cells(self) -> list[Cell]:
        """See ``Suite.cells``: tuning runs, then all methods, seed by seed."""
        panel = {"evaluation": self.evaluation, "revision": self.revision}
        first: list[Cell] = []
        by_seed: list[list[Cell]] = [[] for _ in range(self.seeds)]
        against: list[list[Cell]] = [[] for _ in range(self.seeds)]
        for family in self.families:
            spec = find(family)
            first.append(Cell(f"{family}, {SCRIPTED}", spec, panel, partial(self._scripted, family)))
            runs: dict[tuple[str, int], Cell] = {}
            for name, own in self.methods.items():
                tuning = self._tuning(family, name, panel)
                tuned = (tuning.stem,) if len(own.trials_in(family)) > 1 else ()
                if tuned:
                    first.append(tuning)
                for seed, cells in enumerate(by_seed):
                    settings = {**tuning.settings, "steps": self.steps, "trial_steps": self.trial_steps, "seed": seed}
                    work = partial(self._learn, family, name, seed, tuning.stem)
                    plans = partial(self._plans, family, name, seed, tuning.stem)
                    runs[name, seed] = Cell(
                        f"{family}, {name}, seed {seed}", spec, settings, work, tuned,
                        None if own.sb3 else Together(f"{family}, {name}", plans, _learn_steps),
                    )  # fmt: skip
                    cells.append(runs[name, seed])
            for seed, cells in enumerate(by_seed):
                work = partial(self._random, family, seed)
                start = self.config(family, self.baselines[0], {}, seed).to_dict()
                cells.append(Cell(f"{family}, {RANDOM}, seed {seed}", spec, {**panel, "start": start}, work))
            for name, seed in runs:
                if name not in self._informed:
                    against[seed] += self._against(family, name, seed, runs)
        return [*first, *(cell_ for cells in (*by_seed, *against) for cell_ in cells)]

    def _tuning(self, family: str, name: str, panel: dict[str, Any]) -> Cell:
        """The tuning runs of a method in a family."""
        plans = [self.plan(family, name, t, TRIAL_SEED, 0, Path()) for t in self.methods[name].trials_in(family)]
        tried = [one.config.to_dict() | ({} if one.ppo is None else {"ppo": asdict(one.ppo)}) for one in plans]
        together = Together(f"{family}, {name}, trials", partial(self._trials, family, name), _learn_steps)
        return Cell(
            f"{family}, {name}, trials", find(family), {**panel, "steps": self.trial_steps, "trials": tried},
            partial(self._try, family, name), together=None if self.methods[name].sb3 else together,
        )  # fmt: skip

    def _against(self, family: str, name: str, seed: int, runs: Mapping[tuple[str, int], Cell]) -> Iterator[Cell]:
        """The cells of a trained player against rivals and responses."""
        spec, own = find(family), runs[name, seed]
        if self.rivals.methods:
            met = {rival: runs[rival, (seed + 1) % self.seeds].stem for rival in self.rivals.methods}
            settings = {"evaluation": self.evaluation, "run": own.stem, "rivals": met, "tasks": self.rivals.tasks}
            work = partial(self._meet, family, name, seed, own, met)
            yield Cell(f"{family}, {name} against rivals, seed {seed}", spec, settings, work, (own.stem, *met.values()))
        if self.responses is not None and not self.methods[name].sb3:
            settings = {"run": own.stem, **asdict(self.responses)}
            work = partial(self._respond, name, own.stem)
            yield Cell(f"{family}, response to {name}, seed {seed}", spec, settings, work, (own.stem,))

    def following(self, table: Table) -> list[Cell]:
        """See ``Suite.following``: the best learners with a larger budget, with the settings of their first part."""
        if self.longer is None:
            return []
        cells = []
        for seed in range(self.longer.seeds):
            for family in self.longer.families:
                for role in ROLES:
                    for name in self._longer(table, family, role):
                        trials = self.methods[name].trials_in(family)
                        trial = trials[_best_trial(table.filter(family=family), name, len(trials))]
                        plan = self.plan(family, name, {**trial, "roles": (role,)}, seed, self.longer.steps, Path())
                        settings = {
                            "evaluation": self.evaluation, "revision": self.revision, "steps": plan.steps,
                            "config": plan.config.to_dict(), "ppo": None if plan.ppo is None else asdict(plan.ppo),
                        }  # fmt: skip
                        together = Together(f"{family}, {name}, {role}", partial(_moved, plan), _learn_steps)
                        cells.append(
                            Cell(
                                f"{family}, {name} as {role}, longer, seed {seed}",
                                find(family),
                                settings,
                                partial(self._learn_longer, name, plan),
                                together=None if plan.ppo else together,
                            )
                        )
        return cells

    def _longer(self, table: Table, family: str, role: Role) -> list[str]:
        """The methods of the second part: the best learners, then those that are there in any case."""
        assert self.longer is not None
        best = self._ranked(self._panel(table).filter(family=family), role)[: self.longer.learners]
        return [*best, *(name for name in self.longer.beside if name not in best)]

    # The cells

    def _trials(self, family: str, name: str, folder: Path) -> list[Plan]:
        trials = self.methods[name].trials_in(family)
        return [self.plan(family, name, t, TRIAL_SEED, self.trial_steps, folder / str(i)) for i, t in enumerate(trials)]

    def _plans(self, family: str, name: str, seed: int, tuning: str, folder: Path) -> list[Plan]:
        """The training with the settings whose tuning run was best."""
        trials, chosen = self.methods[name].trials_in(family), 0
        if len(trials) > 1:
            chosen = _best_trial(rows_of(folder.parent.parent, tuning), name, len(trials))
        return [self.plan(family, name, trials[chosen], seed, self.steps, folder)]

    def _try(self, family: str, name: str, folder: Path) -> Table:
        """The tuning runs."""
        tables = []
        for i, plan in enumerate(self._trials(family, name, folder)):
            for one in self._trained(name, plan):
                tables.append(_validation(plan.config, _trial(name, i), TRIAL, one.role, [(0, one.score)]))
        return concatenate(tables)

    def _learn(self, family: str, name: str, seed: int, tuning: str, folder: Path) -> Table:
        """Train with the best settings, and test."""
        (plan,) = self._plans(family, name, seed, tuning, folder)
        return self._tested(name, plan, "held_out", CURVE)

    def _learn_longer(self, name: str, plan: Plan, folder: Path) -> Table:
        """Train for longer, and test."""
        (plan,) = _moved(plan, folder)
        return self._tested(name, plan, LONGER, LONGER_CURVE)

    def _tested(self, name: str, plan: Plan, split: str, curve_split: str) -> Table:
        tables = []
        for one in self._trained(name, plan):
            tables.append(self._test(one.player, split))
            tables.append(_validation(plan.config, name, curve_split, one.role, one.curve))
        return concatenate(tables)

    def _trained(self, name: str, plan: Plan) -> Iterator[Trained]:
        """The players of a training that is done, or by PPO, which is done now; with their rates."""
        config, folder = plan.config, plan.folder
        if plan.ppo is not None:
            for role in config.roles:
                found = pretrained(config, role, plan.ppo, plan.steps, self.protocol, name, folder)
                points = [(round(steps / 1000), score) for steps, score in found.curve]
                yield Trained(role, found.player, found.score, points)
            return
        if not (folder / "run").exists():
            raise InvalidInputError(
                f"{folder / 'run'}: there is no such run: the cell's table was kept without its trained players, which "
                f"another cell needs; remove {folder.name}.json from the suite's cells and from the kept ones to train again"
            )
        run = load(folder / "run")
        for role in run.agents:
            player = few_shot.contender(run, role, name)
            player = player if config.informed else self._tuned(player, folder)
            yield Trained(role, player, best_score(folder, role), curve(folder, role))

    def _random(self, family: str, seed: int, folder: Path) -> Table:
        """Untrained networks, fine-tuned."""
        config = self.config(family, self.baselines[0], {}, seed)
        duel, tables = make_duel(config), []
        for role in ROLES:
            policy = make_policy(config, duel, role)
            start = policy.init(derive_seed(seed, Purpose.RANDOM_START))
            adapter = adapter_of(role, policy, start, next(iter(start.values())).new_zeros(0), config.objective)
            player = Contender(RANDOM, seed, role, duel, adapter)
            tables.append(self._test(self._tuned(player, folder), "held_out"))
        return concatenate(tables)

    def _scripted(self, family: str, folder: Path) -> Table:
        """Every scripted player; those that read hidden contexts have names of their own."""
        spec, horizon = find(family), self.config(family, self.baselines[0], {}, 0).horizon or None
        tables = []
        for role in ROLES:
            known = scripted(spec, role)
            for one in few_shot.evaluate_scripted(spec, role, self.protocol, blind_only=False, horizon=horizon):
                name = one.method.removeprefix(f"{SCRIPTED}: ")
                method = f"{INFORMED_SCRIPT}: {name}" if known[name].informed else one.method
                tables.append(
                    self._rows(spec.name, one.returns[:1], role, method, UNTRAINED, "held_out", one.opponents)
                )
        return concatenate(tables)

    def _meet(self, family: str, name: str, seed: int, own: Cell, rivals: Mapping[str, str], folder: Path) -> Table:
        """Test against learned opponents."""
        work, tables = folder.parent, []
        tuning = own.needs[0] if own.needs else ""
        (plan,) = self._plans(family, name, seed, tuning, work / own.stem)
        protocol = replace(self.protocol, task_count=self.rivals.tasks)
        for one in self._trained(name, plan):
            names = [f"run:{work / stem / 'run'}" for stem in rivals.values()]
            returns = few_shot.against(one.player, protocol, names)
            tables.append(self._rows(family, returns, one.role, name, seed, RIVAL, list(rivals)))
        return concatenate(tables)

    def _respond(self, name: str, run: str, folder: Path) -> Table:
        """Train responses to the adapted players; a row is the mean return of the response's seat."""
        assert self.responses is not None
        mine = load(folder.parent / run / "run")
        tables = []
        for one in exploitability.exploit([mine], self.responses, folder, quiet=True):
            seat = ROLES[1 - ROLES.index(one.role)]  # type: ignore[arg-type]
            for player, value in ((one.opponent, one.opponent_return), ("PPO", one.response_return)):
                made = from_returns(
                    np.full((1, 1, 1, 1), value), find(mine.config.game), role=seat, method=f"{player} against {name}",
                    seed=one.seed, task_split="held_out", tasks=[one.task], opponent_split=RESPONSE, opponents=[name],
                    actions="sampled",
                )  # fmt: skip
                tables.append(made)
        return concatenate(tables)

    def _tuned(self, player: Contender, folder: Path) -> Contender:
        """The player with a tuned rate, if it has none of its own; the choice is kept."""
        if player.adapter.adapts:
            return player
        path = folder / f"rate-{player.role}.json"
        if path.exists():
            rate = float(json.loads(path.read_text(encoding="utf-8")))
        else:
            rate = few_shot.rate_of(few_shot.tune_rate(player, self.protocol))
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, json.dumps(rate).encode())
        return few_shot.with_rate(player, rate)

    def _test(self, player: Contender, split: str) -> Table:
        found = few_shot.evaluate(player, self.protocol)
        shots = len(found.returns) if player.adapter.adapts else 1
        game = player.duel.spec.name
        return self._rows(game, found.returns[:shots], player.role, player.method, player.seed, split, found.opponents)

    def _rows(self, game: str, returns: Array, role: Role, method: str, seed: int, split: str, opponents: Any) -> Table:
        # One row per task and shot: episodes and opponents are averaged over anyway.
        return from_returns(
            returns.mean((1, 3), keepdims=True).round(5), find(game), role=role, method=method, seed=seed,
            task_split=self.protocol.tasks, tasks=[f"{self.protocol.tasks}:{i}" for i in range(returns.shape[2])],
            opponent_split=split, opponents=[" + ".join(opponents)], actions=self.protocol.actions,
        )  # fmt: skip

    # The report

    def report(self, table: Table, out: Path) -> Report:
        """See ``Suite.report``."""
        sheets, pictures = [], {}
        panel = self._panel(table)
        sheets += [*self._recovered(panel), self._best_learners(panel)]
        for family in self.families:
            own = panel.filter(family=family)
            sheets += [self._returns(family, own, role) for role in ROLES]
            name = f"comparison-{family}.png"
            self._plot(table.filter(family=family), own, out / name)
            pictures[name] = f"{family}: return over shots, and validation return over each player's own steps"
        sheets.append(self._better(panel))
        if self.rivals.methods:
            sheets.append(self._rivals(table.filter(opponent_split=RIVAL)))
        if self.responses is not None:
            sheets.append(self._responses(table.filter(opponent_split=RESPONSE)))
        if self.longer is not None:
            sheets.append(self._longer_sheet(table))
            name = "comparison-longer.png"
            self._plot_longer(table, out / name)
            pictures[name] = "Validation return over each player's own steps: thin, the first part; thick, the second"
        return Report(starred(sheets), pictures)

    def _panel(self, table: Table) -> Table:
        """Rows of test returns against held-out scripted opponents."""
        return table.filter(task_split=self.protocol.tasks, opponent_split="held_out")

    @property
    def _informed(self) -> list[str]:
        """The methods that see hidden contexts."""
        return [name for name, own in self.methods.items() if {**self.settings, **own.settings}.get("informed")]

    @property
    def _adapting(self) -> list[str]:
        """The methods that adapt, baselines by fine-tuning."""
        return [*(name for name in self.methods if name not in self._informed), RANDOM]

    @property
    def _learners(self) -> list[str]:
        """The methods that learn to adapt."""
        return [name for name in self._adapting if name not in (*self.non_adapting, RANDOM)]

    def _ranked(self, own: Table, role: Role) -> list[str]:
        """The learners by their mean return after the last shot, best first."""
        last = self.protocol.shots
        return sorted(self._learners, key=lambda name: -own.pivot(name, role, last).mean())

    def _bounds(self, own: Table, role: Role) -> tuple[str, str]:
        """The best player that does not adapt, and the best trained informed one, by their means; the last may be missing."""
        part = own.filter(role=role)
        blind = [name for name in part.values("method") if name.startswith(f"{SCRIPTED}: ")]
        floor, ceiling = (
            max(names, key=lambda name: part.pivot(name, role, 0).mean(), default="")
            for names in ([*blind, *self.non_adapting], self._informed)
        )
        return floor, ceiling

    def _recovered(self, panel: Table) -> list[Sheet]:
        """What the methods recover of the headroom in each family and role, and the headroom's ends."""
        if not self._informed:
            return []
        last, columns, ends = self.protocol.shots, list[list[str]](), list[tuple[str, ...]]()
        arrays, bounds = list[Array](), list[Array]()
        for family, role in self._pairs:
            own = panel.filter(family=family, role=role)
            names = self._bounds(own, role)
            floor, ceiling = (own.pivot(name, role, 0) for name in names)
            bounds += [floor, ceiling]
            headroom = bool(ceiling.mean() > floor.mean())
            scripts = [name for name in own.values("method") if name.startswith(f"{INFORMED_SCRIPT}: ")]
            best = max(scripts, key=lambda name: own.pivot(name, role, 0).mean(), default="")
            script = f"{best}: {cell(estimate(own.pivot(best, role, 0), RNG_SEED))}" if best else "none"
            ends.append(
                (f"{family}, {role}", names[0], cell(estimate(floor, RNG_SEED)), names[1], cell(estimate(ceiling, RNG_SEED)),
                 script, "fraction" if headroom else "return minus the floor")
            )  # fmt: skip
            column = []
            for method in self._adapting:
                adapted = own.pivot(method, role, last)
                found = recovered_fraction(adapted, floor, ceiling) if headroom else adapted - floor.mean(0)
                arrays.append(found)
                column.append(cell(estimate(found, RNG_SEED)) + ("" if headroom else " †"))
            columns.append(column)
        rows = [(method, *values) for method, values in zip(self._adapting, zip(*columns, strict=True), strict=True)]
        pairs = [f"{family}, {role}" for family, role in self._pairs]
        note = (
            f"(return − floor) / (ceiling − floor) at shot {last}, means; floor and ceiling count as known. †: the ceiling is "
            f"not above the floor, and the value is the return minus the floor. {cover_note(arrays)}"
        )
        about = (
            "Floor: the best, on this panel, of the blind scripts and of "
            f"{', '.join(self.non_adapting)} at shot 0. Ceiling: the best trained informed player. Beside them the best script "
            f"that reads hidden contexts. Means. {cover_note(bounds)}"
        )
        header = ("family, role", "floor", "its return", "ceiling", "its return", "informed script", "measure")
        return [
            Sheet(f"Recovered fraction at shot {last}", ("method", *pairs), tuple(rows), note),
            Sheet("Floor and ceiling", header, tuple(ends), about),
        ]

    @property
    def _pairs(self) -> list[tuple[str, Role]]:
        return [(family, role) for family in self.families for role in ROLES]

    def _best_learners(self, panel: Table) -> Sheet:
        """The best learner of each family and role against the baselines."""
        last, lines, arrays = self.protocol.shots, list[tuple[str, ...]](), list[Array]()
        tests = list[tuple[int, int, float]]()
        for family, role in self._pairs:
            own = panel.filter(family=family)
            best = self._ranked(own, role)[0]
            arrays.append(own.pivot(best, role, last))
            cells = list[str]()
            for name in self.baselines:
                a, b = own.pair(best, name, role, last)
                tests.append((len(lines), 3 + len(cells), p_value(a - b)))
                cells.append(cell(estimate(a - b, RNG_SEED)))
                arrays.append(a - b)
            lines.append((f"{family}, {role}", best, cell(estimate(own.pivot(best, role, last), RNG_SEED)), *cells))
        header = ("family, role", "best learner", f"shot {last}", *(f"minus {name}" for name in self.baselines))
        note = (
            "Means, paired by seed and task. The learner is the best of "
            f"{len(self._learners)} on these very tasks, which favours it. {cover_note(arrays)}"
        )
        return Sheet("The best learner against fine-tuned baselines", header, tuple(lines), note, tuple(tests))

    def _returns(self, family: str, own: Table, role: Role) -> Sheet:
        last, lines, arrays = self.protocol.shots, list[tuple[str, ...]](), list[Array]()
        tests = list[tuple[int, int, float]]()
        shots, first = sorted({0, 1, last}), self.baselines[0]
        for method in own.filter(role=role).values("method"):
            part = own.filter(role=role, method=method)
            played = part.values("shot")
            found = [part.pivot(method, role, shot) for shot in shots if shot in played]
            arrays += found
            cells = [cell(estimate(one, RNG_SEED, "iqm")) for one in found]
            cells += [""] * (len(shots) - len(cells))
            gains = ["", ""]
            if method in self._adapting and method != first:
                a, b = own.pair(method, first, role, last)
                gains = [cell(estimate(a - b, RNG_SEED, "iqm")), seed_values(a - b, "iqm")]
                tests.append((len(lines), len(shots) + 2, p_value(a - b, "iqm")))
            lines.append((method, *cells, seed_values(found[-1], "iqm"), *gains))
        header = (
            "method", *(f"shot {shot}" for shot in shots), "each seed, last shot", f"minus {first}, shot {last}", "each seed",
        )  # fmt: skip
        note = f"Interquartile means over seeds and tasks. {cover_note(arrays, 'iqm')}"
        return Sheet(f"{family}: return as {role}", header, tuple(lines), note, tuple(tests))

    def _better(self, panel: Table) -> Sheet:
        """Probability that a run of the row's method beats one of the column's."""
        last, lines = self.protocol.shots, []
        for first in self._adapting:
            cells = []
            for second in self._adapting:
                wins = [
                    probability_of_improvement(own.pivot(first, role, last), own.pivot(second, role, last))
                    for own in (panel.filter(family=family) for family in self.families)
                    for role in ROLES
                ]
                cells.append("" if first == second else f"{np.mean(wins):.2f}")
            lines.append((first, *cells))
        note = f"At shot {last}, on a task chosen at random; means over families and roles. Above 0.5: the row's is better."
        return Sheet("Probability of improvement", ("method", *self._adapting), tuple(lines), note)

    def _rivals(self, table: Table) -> Sheet:
        last, lines, arrays = self.protocol.shots, [], []
        for method in (name for name in self._adapting if name != RANDOM):
            cells = []
            for family in self.families:
                for role in ROLES:
                    arrays.append(table.filter(family=family).pivot(method, role, last))
                    cells.append(f"{cell(estimate(arrays[-1], RNG_SEED, 'iqm'))} ({seed_values(arrays[-1], 'iqm')})")
            lines.append((method, *cells))
        header = ("method", *(f"{family}, {role}" for family in self.families for role in ROLES))
        note = (
            f"Interquartile means at shot {last} against the players that {' and '.join(self.rivals.methods)} trained with the "
            f"next seed, as they were trained; in parentheses each seed. {cover_note(arrays, 'iqm')}"
        )
        return Sheet("Against learned opponents of other seeds", header, tuple(lines), note)

    def _responses(self, table: Table) -> Sheet:
        assert self.responses is not None
        lines, arrays = [], []
        for method in (name for name in self._adapting if name != RANDOM and not self.methods[name].sb3):
            cells = []
            for family in self.families:
                for role in ROLES:
                    own = table.filter(family=family, opponent=method, role=other(role))
                    response = own.filter(method=f"PPO against {method}")
                    usual = own.filter(method=[name for name in own.values("method") if not name.startswith("PPO ")])
                    arrays.append(_seeds(response) - _seeds(usual))
                    cells.append(cell(estimate(arrays[-1], RNG_SEED)))
            lines.append((method, *cells))
        header = ("method", *(f"{family}, {role}" for family in self.families for role in ROLES))
        note = (
            f"What PPO gains over the scripted opponent in its seat after {self.responses.steps:,} steps against the adapted, "
            f"frozen player; {self.responses.tasks} held-out tasks. Lower is harder to exploit. {cover_note(arrays)}"
        )
        return Sheet("Gain of a learned response", header, tuple(lines), note)

    def _plot(self, table: Table, panel: Table, path: Path) -> None:
        figure = canvas(11.0, 7.0)
        grid = figure.subplots(2, 2)
        shots = range(self.protocol.shots + 1)
        curves = table.filter(opponent_split=CURVE)
        styles = [(colour, line) for line in ("-", "--") for colour in COLOURS]
        for column, role in enumerate(ROLES):
            above, below = grid[0][column], grid[1][column]
            for (colour, line), method in zip(styles, self._adapting, strict=False):
                found = [estimate(panel.pivot(method, role, shot), RNG_SEED, "iqm") for shot in shots]
                bars = np.abs(np.array([[e.interval.low - e.value, e.interval.high - e.value] for e in found])).T
                above.errorbar(
                    list(shots), [e.value for e in found], yerr=np.nan_to_num(bars), color=colour, linestyle=line, label=method,
                    capsize=2, linewidth=1.4,
                )  # fmt: skip
                own = curves.filter(role=role, method=method)
                if len(own):
                    below.plot(*_mean_curve(own), color=colour, linestyle=line, linewidth=1.4)
            if self._informed:
                _, best = self._bounds(panel, role)
                above.axhline(panel.pivot(best, role, 0).mean(), color="#555555", linestyle=":", linewidth=1.2)
            above.set_title(f"{panel['family'][0]}, {role}", loc="left", fontsize=10)
            above.set_xlabel("shot (dotted: informed)")
            above.set_xticks(list(shots))
            below.set_xlabel("million steps of the player")
            above.set_ylabel("held-out return")
            below.set_ylabel("validation return")
            for axes in (above, below):
                axes.spines[["top", "right"]].set_visible(False)
        grid[0][1].legend(fontsize=8, frameon=False, bbox_to_anchor=(1.0, 1.0), loc="upper left")
        write_atomic(path, rendered(figure, "png"))

    def _longer_sheet(self, table: Table) -> Sheet:
        """The best learners after both budgets."""
        assert self.longer is not None
        last, lines, arrays = self.protocol.shots, list[tuple[str, ...]](), list[Array]()
        tests = list[tuple[int, int, float]]()
        budgets = [f"{steps / 1e6:g} million steps" for steps in (self.steps, self.longer.steps)]
        for family in self.longer.families:
            for role in ROLES:
                short = self._panel(table).filter(family=family, seed=tuple(range(self.longer.seeds)))
                long = table.filter(family=family, opponent_split=LONGER)
                for method in self._longer(table, family, role):
                    before, after = (part.pivot(method, role, last) for part in (short, long))
                    arrays += [before, after]
                    tests.append((len(lines), 4, p_value(after - before, "iqm")))
                    found = (cell(estimate(one, RNG_SEED, "iqm")) for one in (before, after, after - before))
                    lines.append((f"{family}, {role}", method, *found, seed_values(after, "iqm")))
        header = ("family, role", "method", *budgets, "difference", "each seed, larger budget")
        beside = f"; {', '.join(self.longer.beside)} in any case" if self.longer.beside else ""
        note = (
            f"The {self.longer.learners} best learners of the first part, best first{beside}. Interquartile means at shot "
            f"{last}. In the second part each player learns alone in its seat. {cover_note(arrays, 'iqm')}"
        )
        return Sheet("The best learners with a larger budget", header, tuple(lines), note, tuple(tests))

    def _plot_longer(self, table: Table, path: Path) -> None:
        assert self.longer is not None
        families = self.longer.families
        figure = canvas(11.0, 3.2 * len(families))
        grid = figure.subplots(len(families), 2, squeeze=False)
        for row, family in zip(grid, families, strict=True):
            for axes, role in zip(row, ROLES, strict=True):
                for colour, method in zip(COLOURS, self._longer(table, family, role), strict=False):
                    for split, width in ((CURVE, 0.9), (LONGER_CURVE, 2.0)):
                        own = table.filter(family=family, role=role, method=method, opponent_split=split)
                        steps, values = _mean_curve(own)
                        axes.plot(steps, values, color=colour, linewidth=width, label=method if width > 1 else None)
                axes.set_title(f"{family}, {role}", loc="left", fontsize=10)
                axes.set_xscale("log")
                axes.set_xlabel("million steps of the player")
                axes.set_ylabel("validation return")
                axes.legend(fontsize=8, frameon=False)
                axes.spines[["top", "right"]].set_visible(False)
        write_atomic(path, rendered(figure, "png"))


class Plan(NamedTuple):
    """A training."""

    config: TrainConfig
    steps: int  # each player's own
    folder: Path
    ppo: PPOSettings | None = None  # None: of metaduel's own


class Trained(NamedTuple):
    """A trained player."""

    role: Role
    player: Contender  # with its rate
    score: float  # the best on validation tasks
    curve: list[tuple[int, float]]  # thousands of its own steps, and the score there


def _learn_steps(plans: Sequence[Plan]) -> None:
    learn_steps([(one.config, one.steps, one.folder) for one in plans])


def _moved(plan: Plan, folder: Path) -> list[Plan]:
    return [plan._replace(folder=folder)]


def _trial(name: str, number: int) -> str:
    return f"{name}, trial {number}"


def _best_trial(table: Table, name: str, count: int) -> int:
    """The number of the tuning run with the best score, summed over the roles."""
    if count == 1:
        return 0
    rows = table.filter(opponent_split=TRIAL)
    return int(np.argmax([rows.filter(method=_trial(name, i))["return"].sum() for i in range(count)]))


def _validation(config: TrainConfig, method: str, split: str, role: Role, points: list[tuple[int, float]]) -> Table:
    """Rows of mean validation returns."""
    shots, values = np.array(points).T
    whole = from_returns(
        values.round(5).reshape(-1, 1, 1, 1), config.spec, role=role, method=method, seed=config.seed, task_split="validation",
        tasks=["mean"], opponent_split=split, opponents=["mean"], actions="sampled",
    )  # fmt: skip
    return Table({name: whole[name] for name in COLUMNS} | {"shot": shots.astype(np.int64)})


def _mean_curve(own: Table) -> tuple[Array, Array]:
    """Millions of steps, and the mean validation return over the seeds, which are validated at different times."""
    runs = [own.filter(seed=seed) for seed in own.values("seed")]
    end = min(run["shot"].max() for run in runs)
    steps = np.linspace(1, VALIDATIONS, VALIDATIONS) / VALIDATIONS * end
    values: Array = np.mean([np.interp(steps, run["shot"], run["return"]) for run in runs], 0)
    return steps / 1000, values


def _seeds(table: Table) -> Array:
    """[seeds, tasks] of rows whose methods are one player's opponents in turn."""
    seeds, tasks = sorted(table.values("seed")), sorted(table.values("task"))
    return np.array([[table.filter(seed=seed, task=task)["return"].mean() for task in tasks] for seed in seeds])
