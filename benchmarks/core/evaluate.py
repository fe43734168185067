"""The few-shot evaluation of all kinds of players, on the same tasks, into one table and its report.

Contenders, for each role: every entry (see ``entries``); for each meta-learned run a random start of the same seed; every
scripted player that reads no hidden context; optionally, Stable-Baselines3's PPO from scratch (see ``scratch``). Players of
runs have rates of their own; those without have one tuned on validation first. Informed players don't adapt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from metaduel.agents.adapters.numpy_objects import NumpyAdapter
from metaduel.agents.policies.base import stack
from metaduel.agents.rollout import Learner
from metaduel.agents.runtime import configured
from metaduel.benchmarks.core import few_shot
from metaduel.benchmarks.core.entries import Entries, Entry, entries_of, opponents_of, path_kept
from metaduel.benchmarks.core.few_shot import Contender, Protocol, Result
from metaduel.benchmarks.core.progress import Show, progress
from metaduel.benchmarks.core.scratch import Scratch, from_scratch
from metaduel.benchmarks.core.summary import AT_ADAPTED, AT_START, LEARNED, LEARNING, SCRATCH, key_shots, write_report
from metaduel.benchmarks.core.table import COLUMNS, UNTRAINED, Array, Table, concatenate, from_returns
from metaduel.envs.core.arguments import AnyPath, as_path, several
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.errors import InvalidInputError, unknown
from metaduel.envs.core.game import make_game
from metaduel.envs.core.noise import derive_seed
from metaduel.envs.core.purposes import Purpose
from metaduel.envs.core.registry import find
from metaduel.envs.core.spec import OPPONENT_SPLITS, ROLES, GameSpec, Role, Split, other
from metaduel.envs.core.tasks import check_split, task_rows
from metaduel.meta.adaptation.adapters import GradientAdapter
from metaduel.meta.adaptation.few_shot import Failed
from metaduel.meta.adaptation.inner import adapt
from metaduel.meta.problems.duels import DuelProblem, Matchups
from metaduel.meta.problems.problem import Players
from metaduel.meta.runs.agent import Agent
from metaduel.meta.runs.load import Run
from metaduel.meta.runs.players import Network

CROSSED: tuple[Split, ...] = ("train", "held_out")
_DECIMALS = 6  # of a return in the table: returns are float32, the rest is noise that would triple the file


class Tuned(NamedTuple):
    """An inner rate that was tuned on validation tasks."""

    method: str
    role: Role
    seed: int
    rate: float

    def __str__(self) -> str:
        """One line of a list."""
        edge = " (an end of the grid)" if self.rate in (few_shot.RATES[0], few_shot.RATES[-1]) else ""
        return f"{self.method}, {self.role}, seed {self.seed}: {self.rate:g}{edge}"


@dataclass(frozen=True)
class _Job:
    """A part of the table.

    Attributes:
        label: its name.
        work: makes the rows.
    """

    label: str
    work: Callable[[], list[Table]]


@dataclass(frozen=True)
class _Seat:
    """A contender's part of the table.

    Attributes:
        label: its name.
        player: the contender.
        adapts: whether its rows have every shot. It has a tuned rate then, if it has none.
        panels: the headline panel, and others, of which the rows have the reported shots.
    """

    label: str
    player: Contender
    adapts: bool
    panels: Sequence[Protocol]

    @property
    def untuned(self) -> bool:
        """Whether it needs a rate."""
        return self.adapts and not self.player.adapter.adapts

    @property
    def plays(self) -> int:
        """The number of its panels, and of the rates that it tries."""
        return len(self.panels) + len(few_shot.RATES) * self.untuned


class EvaluationFailed(InvalidInputError):
    """An entry failed during the evaluation.

    Attributes:
        table: rows of the entries that were finished before; None: there are none.
    """

    def __init__(self, why: str, table: Table | None) -> None:
        super().__init__(why)
        self.table = table


@path_kept()
def evaluate(
    entries: Entries,
    game: str | GameSpec | None = None,
    roles: Sequence[str] | None = None,
    tasks: str = "held_out",
    opponents: Any = "held_out",
    shots: int = 3,
    episodes: int = 5,
    test_episodes: int = 10,
    task_count: int = 40,
    out: AnyPath | None = None,
    *,
    actions: str = "sampled",
    baselines: bool = True,
    crossed: bool = False,
    ppo: Scratch | None = None,
    network: Network | None = None,
    quiet: bool = True,
) -> Table:
    """Few-shot evaluation of all kinds of players, in one table: on tasks and against opponents that they never met.

    Every entry adapts to each (task, opponent) for ``shots`` shots of ``episodes`` episodes, and is tested after every shot on
    the same fresh episodes as all others. It sees only its own observations and rewards.

    Args:
        entries: one, a sequence, or a mapping from names to one or (one per training seed) several: run folders, ``Run``s,
            ``Agent``s, ``Adapter``s, learners in NumPy, models of Stable-Baselines3 or their files, players, scripted players'
            names, ``"module:name"``. Runs and agents play the game that they were trained on, with its horizon and its fixed
            contexts. See ``benchmarks.core.entries``.
        game: the family's name, id or spec; by default that of the runs and agents.
        roles: the seats to evaluate; None: every seat that all entries, and the opponents on the other side, can take.
        tasks: the split of the tasks: ``held_out``, ``validation``, ``extrapolation``, or ``train`` for fresh training tasks.
        opponents: ``held_out``, ``train``, or players: scripted names, ``run:FOLDER``, ``sb3:FILE``, paths, ``Run``s, ``Agent``s,
            models of Stable-Baselines3, in a sequence or in a mapping from names.
        shots: updates.
        episodes: fresh episodes for each update.
        test_episodes: test episodes for each task, opponent and shot.
        task_count: number of tasks of the split.
        out: a folder for ``results.csv.gz``, ``report.md`` and ``shots.png``; None: nothing is written.
        actions: test with ``sampled`` actions, or with each policy's ``mode``. A saved model that is not fine-tuned plays its
            mode either way, unless its name ends in ``?sample=1``.
        baselines: beside the entries, a random start for every meta-learned run, with a tuned rate, and every scripted player
            that reads no hidden context.
        crossed: runs also play seen and held-out tasks against training and held-out opponents.
        ppo: also train SB3's PPO from scratch on this part of the panel, for every seed of the runs.
        network: makes the networks of runs with their own, see ``load``.
        quiet: no progress.

    Returns:
        The table: a row for every episode's return; ``benchmarks.core.summary.sheets`` makes the report's tables from it.

    Raises:
        InvalidInputError: entries that cannot be in one table, or settings that cannot be played; nothing was played.
        EvaluationFailed: an entry does not fit its seat, returns an invalid action, or plays more episodes than its shots have.
            The error names the entry and the shot, the task and the opponent where one row is at fault, and holds the rows of
            all finished entries, which are written, too.
    """
    target = None if out is None else as_path(out, "out")
    spec = find(game) if game is not None else None
    made = entries_of(entries, spec, network)
    spec = _game(made, spec)
    listed = () if isinstance(opponents, str) and opponents in OPPONENT_SPLITS else opponents_of(opponents)
    split: Any = "listed" if listed else opponents
    fixed = next((tuple(entry.config.fixed.items()) for entry in made if entry.config is not None), ())
    protocol = Protocol(check_split(tasks), split, shots, episodes, test_episodes, task_count, actions, fixed, listed)
    _check_protocol(protocol, spec)
    duel = _duel(made, spec)
    chosen = _roles(made, duel, roles)
    for entry in made if actions == "mode" else ():
        own = entry.make(duel, chosen[0]).adapter
        if isinstance(own, NumpyAdapter) or getattr(getattr(own, "player", None), "sample", False):
            raise InvalidInputError(f"actions='mode': entry {entry.name!r} chooses by itself: leave it at 'sampled'")
    reasons = {role: why for role in chosen if (why := _no_panel(protocol, duel, role)) is not None}
    if roles is None and len(reasons) < len(chosen):
        chosen = tuple(role for role in chosen if role not in reasons)
    elif reasons:
        role, why = next(iter(reasons.items()))
        unknown_name = isinstance(opponents, str) or (len(listed) == 1 and ":" not in str(listed[0][0]))
        splits = f"; or name a split: {', '.join(OPPONENT_SPLITS)}" if unknown_name else ""
        raise InvalidInputError(f"opponents of the {role}: {why}{splits}")
    if crossed and listed:
        raise InvalidInputError(
            "crossed=True plays training and held-out opponents: leave it out with a list of opponents"
        )
    for name, given in (("crossed", crossed), ("ppo", ppo is not None)):
        if given and all(entry.run is None for entry in made):
            raise InvalidInputError(f"{name} has no effect without a run among the entries: leave it out")
    plan = _Plan(made, chosen, duel, protocol, baselines, crossed, 40, ppo)
    return plan.play(target, quiet)


def evaluate_runs(
    folders: AnyPath | Run | Sequence[AnyPath | Run],
    protocol: Protocol,
    out: AnyPath,
    quiet: bool = False,
    crossed: bool = True,
    tuning_tasks: int = 40,
    network: Network | None = None,
    ppo: Scratch | None = None,
) -> Table:
    """Evaluate run folders of one family and the baselines; write ``report.md``, ``results.csv.gz`` and ``shots.png``.

    Args:
        folders: run folders or ``Run``s, one or several: meta-learned, joint and informed ones, any number of seeds of each.
        protocol: the headline panel. Contexts that the runs held fixed stay fixed unless the protocol fixes some itself.
        out: folder for these files; existing ones are replaced.
        quiet: no progress.
        crossed: also play seen and held-out tasks against training and held-out opponents.
        tuning_tasks: number of validation tasks for tuning inner rates.
        network: makes the networks of runs with their own, see ``load``.
        ppo: also train SB3's PPO from scratch on this part of the headline panel, for every seed of the runs.

    Returns:
        The table; ``benchmarks.core.summary.sheets`` makes the report's tables from it.

    Raises:
        InvalidInputError: not run folders, runs that cannot be compared, or a protocol that cannot be played.
    """
    target = as_path(out, "out")
    made = entries_of(several(folders), network=network)
    spec = _game(made, None)
    for entry in made:
        if entry.run is None:
            raise InvalidInputError(f"{entry.source} is no run folder: evaluate it with metaduel.evaluate")
    run = made[0].run
    assert run is not None
    protocol = replace(protocol, fixed=protocol.fixed or tuple(run.config.fixed.items()))
    _check_protocol(protocol, spec)
    roles = tuple(role for role in ROLES if any(entry.run is not None and role in entry.run.agents for entry in made))
    return _Plan(made, roles, _duel(made, spec), protocol, True, crossed, tuning_tasks, ppo).play(target, quiet)


def _rank(run: Run) -> int:
    return 2 if run.config.informed else 0 if run.config.configured.steps else 1


def _game(entries: Sequence[Entry], spec: GameSpec | None) -> GameSpec:
    """The game that all entries play; refuses runs and agents that cannot be in one table."""
    trained = [(entry, entry.config) for entry in entries if entry.config is not None]
    for entry, config in trained:
        first = trained[0][1]
        for name in ("game", "fixed", "horizon"):
            right, own = getattr(first, name), getattr(config, name)
            if own != right:
                raise InvalidInputError(
                    f"{entry.source} has {name} {own!r}, {trained[0][0].source} {right!r}: evaluate them apart"
                )
        if config.informed and config.configured.steps:
            raise InvalidInputError(
                f"{entry.source} is informed and of method {config.method}: the ceiling must not adapt, train it with joint"
            )
    found = trained[0][1].spec if trained else spec
    if found is not None and spec is not None and found.id != spec.id:
        known = found.name if found.name != spec.name else found.id
        raise InvalidInputError(f"game={spec.name!r}: {trained[0][0].source} was trained on {known}")
    if found is None:
        raise InvalidInputError("game=None: name the game, since no entry is a run or an agent that was trained on one")
    return found


def _duel(entries: Sequence[Entry], spec: GameSpec) -> Duel:
    """The game as uninformed players see it."""
    horizon = next((entry.config.horizon for entry in entries if entry.config is not None), 0)
    return Duel(make_game(spec), horizon or None)


def _roles(entries: Sequence[Entry], duel: Duel, asked: Sequence[str] | None) -> tuple[Role, ...]:
    """The seats to evaluate; refuses entries that cannot take them."""
    if asked is not None:
        roles = tuple(duel.spec.check_role(role) for role in several(asked))
        if not roles or len(set(roles)) < len(roles):
            raise InvalidInputError(f"roles={asked!r} must name protagonist, adversary, or both once")
    else:
        roles = ROLES
    reasons = {role: [(e, why) for e in entries if (why := e.why_not(duel, role)) is not None] for role in roles}
    possible = tuple(role for role in roles if not reasons[role])
    if possible and (asked is None or possible == roles):
        return possible
    role = next(role for role in roles if reasons[role])
    entry, why = reasons[role][0]
    raise InvalidInputError(f"entry {entry.name!r} cannot play the {role}: {why}")


def _no_panel(protocol: Protocol, duel: Duel, role: Role) -> str | None:
    """Why a role has no opponents; None: it has some."""
    try:
        protocol.panel(duel, role)
    except InvalidInputError as error:
        return str(error)
    return None


def _check_protocol(protocol: Protocol, spec: GameSpec) -> None:
    check_split(protocol.tasks)
    if protocol.opponents != "listed" and protocol.opponents not in OPPONENT_SPLITS:
        raise unknown("split of opponents", protocol.opponents, OPPONENT_SPLITS)
    known = len(protocol.task_list(spec))
    if known < protocol.task_count:
        raise InvalidInputError(
            f"task_count={protocol.task_count}: the {protocol.tasks} list of {spec.name} holds {known} tasks"
        )


def _random_starts(learned: Sequence[Entry], role: Role) -> list[Contender]:
    """One random start for each seed: that of a run that adapts by gradients, if there is one."""
    runs = [entry.run for entry in learned if entry.run is not None]
    runs.sort(key=lambda run: run.agent(role).policy.lasting)
    first = {run.config.seed: run for run in reversed(runs)}
    return [few_shot.random_start(first[seed], role) for seed in sorted(first)]


@dataclass
class _Plan:
    """The plan of an evaluation.

    Attributes:
        entries: the entries.
        roles: the seats.
        duel: the game as uninformed players see it.
        protocol: the headline panel.
        baselines: see ``evaluate``.
        crossed: see ``evaluate``.
        tuning_tasks: number of validation tasks for tuning inner rates.
        ppo: see ``evaluate``.
        tuned: the tuned rates.
    """

    entries: Sequence[Entry]
    roles: tuple[Role, ...]
    duel: Duel
    protocol: Protocol
    baselines: bool
    crossed: bool
    tuning_tasks: int
    ppo: Scratch | None
    tuned: list[Tuned] = field(default_factory=list)

    def play(self, out: Path | None, quiet: bool) -> Table:
        """Play, and write the results."""
        with configured(next((entry.config.threads for entry in self.entries if entry.config is not None), 1)):
            return self._play(out, quiet)

    def _play(self, out: Path | None, quiet: bool) -> Table:
        jobs = self.jobs()
        seats = {i: job for i, job in enumerate(jobs) if isinstance(job, _Seat)}
        others = {i: job for i, job in enumerate(jobs) if isinstance(job, _Job)}
        total = sum(seat.plays for seat in seats.values()) + len(others)
        with progress("play", total, quiet) as show:
            show(next(iter(jobs)).label)
            found = dict(zip(seats, self._contenders(list(seats.values()), show), strict=True))
            self._finished(jobs, found, out)
            for i, job in others.items():
                show(job.label, 0)
                try:
                    found[i] = job.work()
                except Failed as error:
                    found[i] = error
                self._finished(jobs, found, out)
                show(job.label)
            show(None, 0)
        table = concatenate(self._finished(jobs, found, out))
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            table.write(out / "results.csv.gz")
            protocol = self.protocol
            budget = f"{protocol.shots} shots of {protocol.episodes} episodes, {protocol.test_episodes} test episodes"
            described = [f"Protocol: {budget} for each of {protocol.task_count} tasks and each opponent"]
            described += [entry.described or f"{entry.name}: {entry.source}" for entry in self.entries]
            write_report(table, out, described, [str(one) for one in self.tuned])
        return table

    def _contenders(self, seats: Sequence[_Seat], show: Show) -> list[list[Table] | Failed]:
        """The rows of all contenders, or their errors: each panel is played by all of them at once."""
        players = self._tuned_players(seats, show)
        rows: list[list[Table] | Failed] = [one if isinstance(one, Failed) else [] for one in players]
        panels: list[Protocol] = []
        for panel in (panel for seat in seats for panel in seat.panels):
            panels += [] if panel in panels else [panel]
        for panel in panels:
            going = {
                i: one for i, one in enumerate(players) if panel in seats[i].panels and not isinstance(one, Failed)
            }
            tested = None if panel == self.protocol else (0, *key_shots(panel.shots))
            after_batch = partial(show, f"{len(going)} contenders, {panel.tasks} tasks, {panel.opponents} opponents")
            after_batch(0)
            results = few_shot.evaluate_all(list(going.values()), panel, after_batch, tested)
            for i, result in zip(going, results, strict=True):
                known = rows[i]
                if not isinstance(known, Failed):  # else it failed on a panel before
                    rows[i] = result if isinstance(result, Failed) else [*known, self._block(seats[i], result)]
        return rows

    def _tuned_players(self, seats: Sequence[_Seat], show: Show) -> list[Contender | Failed]:
        """The contenders with rates; those that were tuned are recorded."""
        players: list[Contender | Failed] = [seat.player for seat in seats]
        untuned = [i for i, seat in enumerate(seats) if seat.untuned]
        label = f"{len(untuned)} contenders, {len(few_shot.RATES)} rates"
        tuned = few_shot.tune_rates(
            [seats[i].player for i in untuned], self.protocol, tasks=self.tuning_tasks,
            after_batch=lambda count: show(label, count),
        )  # fmt: skip
        for i, one in zip(untuned, tuned, strict=True):
            players[i] = one
            if not isinstance(one, Failed):
                self.tuned.append(Tuned(one.method, one.role, one.seed, round(few_shot.rate_of(one), 6)))
        return players

    def _block(self, seat: _Seat, result: Result) -> Table:
        """A contender's rows of one panel."""
        shots = self.protocol.shots + 1 if seat.adapts else 1
        if result.protocol is seat.panels[0]:
            return _rows(result, seat.player.duel.spec, shots)
        tested = (0, *key_shots(self.protocol.shots))
        returns = result.returns.copy()
        returns[[shot for shot in range(len(returns)) if shot not in tested]] = 0.0  # these rows are left out
        return _rows(result._replace(returns=returns), seat.player.duel.spec, shots).filter(shot=tested)

    def _finished(
        self, jobs: Sequence[_Job | _Seat], found: Mapping[int, list[Table] | Failed], out: Path | None
    ) -> list[Table]:
        """The rows that there are, in order.

        Raises:
            EvaluationFailed: of the first job that failed; the rows of all others are written.
        """
        tables: list[Table] = []
        errors: list[tuple[_Job | _Seat, Failed]] = []
        for i in sorted(found):
            one = found[i]
            if isinstance(one, Failed):
                errors.append((jobs[i], one))
            else:
                tables += one
        if not errors:
            return tables
        finished = concatenate(tables) if tables else None
        if out is not None and finished is not None:
            finished.write(out / "results.csv.gz")
        raise EvaluationFailed(self._where(*errors[0]), finished) from errors[0][1]

    def _where(self, job: _Job | _Seat, error: Failed) -> str:
        """One line that names the failed entry, the task, the opponent and the shot."""
        place = ""
        if error.row is not None:
            role = next(role for role in ROLES if f", {role}" in job.label)
            names = list(self.protocol.panel(self.duel, role))
            size = len(_task_names(self.protocol))
            task = _task_names(self.protocol)[error.row % size]
            place = f", task {task}, opponent {names[error.row // size % len(names)]}"
        return f"entry {job.label}{place}, shot {error.shot}: {error}"

    def jobs(self) -> list[_Job | _Seat]:
        """The parts of the table in order."""
        jobs: list[_Job | _Seat] = []
        for role in self.roles:
            own = [entry for entry in self.entries if entry.run is None or role in entry.run.agents]
            learned, joint, informed = ([e for e in own if e.run is not None and _rank(e.run) == n] for n in range(3))
            others = [entry for entry in own if entry.run is None]
            for some in (learned, joint, informed):  # runs of one method lie together, so that methods come in order
                some.sort(key=lambda entry: (entry.name, entry.seed))
            jobs += [self._seat(entry, role, self._panels) for entry in learned]
            if self.baselines:
                jobs += [self._seat_of(one, True, ()) for one in _random_starts(learned, role)]
            jobs += [self._seat(entry, role, self._panels) for entry in joint]
            jobs += [self._seat(entry, role, (), adapts=False) for entry in informed]
            for entry in others:
                informed_agent = entry.config is not None and entry.config.informed
                jobs.append(self._seat(entry, role, (), adapts=not informed_agent))
            if self.ppo is not None:
                for seed in dict.fromkeys(entry.seed for entry in learned or joint):
                    work = partial(self._from_scratch, role, self.ppo, seed)
                    jobs.append(_Job(f"{SCRATCH}, {role}, seed {seed}", work))
            if self.baselines:
                taken = {entry.name for entry in others}
                jobs.append(_Job(f"scripted players, {role}", partial(self._scripted, role, taken)))
        for entry in self.entries:
            run = entry.run
            if run is not None and _rank(run) == 0 and self.roles == ROLES and len(run.agents) == 2 and self.both:
                label = f"{entry.name}, both players, seed {entry.seed}"
                jobs.append(_Job(label, partial(both_adapt, run, self.protocol, entry.name)))
        return jobs

    @property
    def both(self) -> bool:
        """Whether the players of a run meet each other, too."""
        return self.baselines and self.protocol.shots > 0

    @property
    def _panels(self) -> Sequence[Protocol]:
        """The panels of runs beside the headline panel."""
        return [
            replace(self.protocol, tasks=tasks, opponents=opponents)
            for tasks in CROSSED
            for opponents in CROSSED
            if self.crossed and (tasks, opponents) != (self.protocol.tasks, self.protocol.opponents)
        ]

    def _seat(self, entry: Entry, role: Role, panels: Sequence[Protocol], adapts: bool = True) -> _Seat:
        player = entry.make(self.duel, role)._replace(seed=entry.seed)
        gradient = isinstance(player.adapter, GradientAdapter)
        return self._seat_of(player, adapts and (player.adapter.adapts or gradient), panels)

    def _seat_of(self, player: Contender, adapts: bool, panels: Sequence[Protocol]) -> _Seat:
        seed = "" if player.seed == UNTRAINED else f", seed {player.seed}"
        label = f"{player.method}, {player.role}{seed}"
        return _Seat(label, player, adapts and self.protocol.shots > 0, [self.protocol, *panels])

    def _scripted(self, role: Role, taken: set[str]) -> list[Table]:
        found = few_shot.evaluate_scripted(self.duel.spec, role, self.protocol, horizon=self.duel.horizon)
        return [_rows(result, self.duel.spec, 1) for result in found if result.method not in taken]

    def _from_scratch(self, role: Role, ppo: Scratch, seed: int) -> list[Table]:
        """SB3's PPO on a part of the headline panel."""
        spec, protocol = self.duel.spec, self.protocol
        opponents, returns = from_scratch(spec, role, protocol, ppo, seed, self.duel.horizon)
        table = from_returns(
            returns.round(_DECIMALS), spec, role=role, method=SCRATCH, seed=seed, task_split=protocol.tasks,
            tasks=_task_names(protocol)[: returns.shape[2]], opponent_split=protocol.opponents, opponents=opponents,
            actions=protocol.actions,
        )  # fmt: skip
        return [table]


def _rows(result: Result, spec: GameSpec, shots: int) -> Table:
    """A block of the tidy table: the first ``shots`` shots."""
    protocol = result.protocol
    return from_returns(
        result.returns[:shots].round(_DECIMALS), spec, role=result.role, method=result.method,
        seed=UNTRAINED if result.seed < 0 else result.seed, task_split=protocol.tasks, tasks=_task_names(protocol),
        opponent_split=protocol.opponents, opponents=result.opponents, actions=protocol.actions,
    )  # fmt: skip


def _task_names(protocol: Protocol) -> list[str]:
    return [f"{protocol.tasks}:{i}" for i in range(protocol.task_count)]


def both_adapt(run: Run, protocol: Protocol, name: str | None = None) -> list[Table]:
    """A run's two players against each other, adapting at once for all shots, and tested on the same episodes in every
    combination of adapted or not.

    Args:
        run: a run that trained both.
        protocol: tasks, shots and episodes.
        name: name in the column ``method``; None: the run's method.

    Returns:
        Rows of opponent split ``LEARNED``. Opponent ``LEARNING``: both at the same shot, for every shot; ``AT_START`` and
        ``AT_ADAPTED``: the opponent at shot 0 and at the last shot, the player at either.
    """
    spec, config, last = run.duel.spec, run.config, protocol.shots
    rows = task_rows(spec, protocol.task_list(spec), {})
    matchups, policies = Matchups(rows, duels=len(rows)), {role: run.agent(role).policy for role in ROLES}
    support = DuelProblem(
        run.duel, policies, matchups, protocol.episodes, derive_seed(0, Purpose.ADAPT), config.objective
    )
    mode = protocol.actions == "mode"
    query = DuelProblem(
        run.duel, policies, matchups, protocol.test_episodes, derive_seed(0, Purpose.TEST), config.objective, mode
    )
    history = _adapt_at_once(support, run, last)

    def test(protagonist: int, adversary: int) -> dict[Role, Array]:
        players: dict[Role, Learner] = {
            "protagonist": history[protagonist]["protagonist"],
            "adversary": history[adversary]["adversary"],
        }
        carries = {role: player.carry for role, player in players.items() if player.carry is not None}
        data = query.collect({role: player.weights for role, player in players.items()}, 0, carries)
        return {role: one.returns.double().numpy().round(_DECIMALS) for role, one in data.items()}

    played = {(a, b): test(a, b) for a, b in {*((k, k) for k in range(last + 1)), (0, last), (last, 0)}}
    tables = []
    for seat, role in enumerate(ROLES):
        wanted = {
            LEARNING: [(k, k) for k in range(last + 1)],
            AT_START: [(k, 0) for k in (0, last)],
            AT_ADAPTED: [(k, last) for k in (0, last)],
        }
        for opponent, pairs in wanted.items():
            returns = np.stack([played[pair if seat == 0 else pair[::-1]][role] for pair in pairs])[:, None]
            block = from_returns(
                returns, spec, role=role, method=name or config.method, seed=config.seed, task_split=protocol.tasks,
                tasks=_task_names(protocol), opponent_split=LEARNED, opponents=[f"{other(role)} {opponent}"],
                actions=protocol.actions,
            )  # fmt: skip
            shots = np.array([own for own, _ in pairs])[block["shot"]]
            tables.append(Table({name: block[name] for name in COLUMNS} | {"shot": shots}))
    return tables


def _adapt_at_once(support: DuelProblem, run: Run, shots: int) -> list[dict[Role, Learner]]:
    """Both players at every shot."""
    agents: dict[Role, Agent] = {role: run.agent(role) for role in support.tasks}
    if all(agent.policy.lasting for agent in agents.values()):
        return _remember_at_once(support, agents, shots)
    players: Players = {role: stack(agent.weights, support.tasks[role]) for role, agent in agents.items()}
    rates = {role: agent.rates for role, agent in agents.items()}
    history = adapt(support, {r: {n: v.clone() for n, v in w.items()} for r, w in players.items()}, rates, shots)
    return [{role: Learner(agent.policy, now.players[role]) for role, agent in agents.items()} for now in history]


def _remember_at_once(support: DuelProblem, agents: dict[Role, Agent], shots: int) -> list[dict[Role, Learner]]:
    weights: Players = {role: stack(agent.weights, support.tasks[role]) for role, agent in agents.items()}
    carries = {role: agent.policy.initial_carry(weights[role], 1) for role, agent in agents.items()}
    history = [carries]
    for shot in range(shots):
        history.append(support.in_turn(weights, shot * support.episodes, support.episodes, history[-1])[1])
    return [
        {role: Learner(agent.policy, weights[role], carry=now[role]) for role, agent in agents.items()}
        for now in history
    ]
