"""Evaluate training runs of one family: everybody who can play, on the same tasks, into one table and its report.

Contenders, for each role: every run's player; for each meta-learned run a random start of the same seed; every scripted
player that reads no hidden context; if asked for, Stable-Baselines3's PPO from scratch (see ``scratch``). Inner rates that
were not meta-learned are tuned on validation first. Informed players don't adapt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from metaduel.agents.policies.base import stack
from metaduel.agents.rollout import Learner
from metaduel.agents.runtime import configure
from metaduel.benchmarks.core import few_shot
from metaduel.benchmarks.core.few_shot import RATES, Contender, Protocol, Result
from metaduel.benchmarks.core.progress import progress
from metaduel.benchmarks.core.scratch import Scratch, from_scratch
from metaduel.benchmarks.core.summary import AT_ADAPTED, AT_START, LEARNED, LEARNING, SCRATCH, key_shots, write_report
from metaduel.benchmarks.core.table import COLUMNS, UNTRAINED, Array, Table, concatenate, from_returns
from metaduel.envs.core.errors import InvalidInputError, unknown
from metaduel.envs.core.noise import derive_seed
from metaduel.envs.core.purposes import Purpose
from metaduel.envs.core.spec import OPPONENT_SPLITS, ROLES, GameSpec, Role, Split, other
from metaduel.envs.core.tasks import check_split, task_rows
from metaduel.meta.adaptation.inner import adapt
from metaduel.meta.problems.duels import DuelProblem, Matches
from metaduel.meta.problems.problem import Players
from metaduel.meta.runs.agent import Agent
from metaduel.meta.runs.checkpoint import read_config
from metaduel.meta.runs.load import Run, load
from metaduel.meta.runs.players import Network

CROSSED: tuple[Split, ...] = ("train", "held_out")
_DECIMALS = 6  # of a return in the table: returns are float32, the rest is noise that would triple the file


class Tuned(NamedTuple):
    """A rate that was tuned on validation."""

    method: str
    role: Role
    seed: int
    rate: float

    def __str__(self) -> str:
        """One line of a list."""
        edge = " (an end of the grid)" if self.rate in (RATES[0], RATES[-1]) else ""
        return f"{self.method}, {self.role}, seed {self.seed}: {self.rate:g}{edge}"


@dataclass(frozen=True)
class _Job:
    label: str
    work: Callable[[], list[Table]]


def evaluate(
    folders: Sequence[str | Path],
    out: str | Path,
    crossed: bool = True,
    quiet: bool = True,
    network: Network | None = None,
    ppo: Scratch | None = None,
    **protocol: Any,
) -> Table:
    """Evaluate run folders; ``protocol`` holds fields of ``Protocol``, see ``evaluate_runs``."""
    for name in protocol:
        if name not in Protocol.__dataclass_fields__:
            raise unknown("setting", name, Protocol.__dataclass_fields__)
    return evaluate_runs(
        [Path(folder) for folder in folders], Protocol(**protocol), Path(out), quiet, crossed, network=network, ppo=ppo
    )


def evaluate_runs(
    folders: Sequence[Path],
    protocol: Protocol,
    out: Path,
    quiet: bool = False,
    crossed: bool = True,
    tuning_tasks: int = 40,
    network: Network | None = None,
    ppo: Scratch | None = None,
) -> Table:
    """Evaluate run folders of one family; write ``report.md``, ``results.csv.gz`` and ``shots.png`` into ``out``.

    Args:
        folders: runs: meta-learned, joint and informed ones, any number of seeds of each.
        protocol: the headline panel. Contexts that the runs held fixed stay so unless it fixes some itself.
        out: folder for what is written; existing files of these names are replaced.
        quiet: no progress.
        crossed: also play seen and held-out tasks against training and held-out opponents.
        tuning_tasks: validation tasks that inner rates are tuned on.
        network: of the runs that have one of their own, see ``load``.
        ppo: also train SB3's PPO from scratch on so much of the headline panel, for every seed of the runs.

    Returns:
        The table; ``benchmarks.summary.sheets`` makes the report's tables of it.

    Raises:
        InvalidInputError: not run folders, runs that cannot be compared, or a protocol that cannot be played.
    """
    runs = [load(one, network=network if read_config(one).get("network") == "own" else None) for one in folders]
    _check(folders, runs)
    described = [_describe(folder, run) for folder, run in zip(folders, runs, strict=True)]
    # Runs of one method lie together, so that the table's methods come in order.
    runs.sort(key=lambda run: (_rank(run), run.config.method, run.config.seed))
    config = runs[0].config
    protocol = replace(protocol, fixed=protocol.fixed or tuple(config.fixed.items()))
    _check_protocol(protocol, config.spec)
    out.mkdir(parents=True, exist_ok=True)
    configure(config.threads)
    tuned: list[Tuned] = []
    tables: list[Table] = []
    jobs = _jobs(runs, protocol, crossed, tuning_tasks, tuned, ppo)
    with progress("contender", len(jobs), quiet) as show:
        for job in jobs:
            show(job.label)
            tables += job.work()
        show(None)
    table = concatenate(tables)
    table.write(out / "results.csv.gz")
    write_report(table, out, described, [str(one) for one in tuned])
    return table


def _rank(run: Run) -> int:
    return 2 if run.config.informed else 0 if run.config.configured.steps else 1


def _describe(folder: Path, run: Run) -> str:
    method = "informed" if run.config.informed else run.config.method
    best = ", ".join(f"{role} of iteration {number}" for role, number in run.iterations.items())
    steps = run.config.environment_steps
    length = f"{run.config.iterations} iterations" + (f" or {steps:,} environment steps" if steps else "")
    return f"{folder.name}: {method}, seed {run.config.seed}, {length} ({best})"


def _check(folders: Sequence[Path], runs: Sequence[Run]) -> None:
    """Refuse runs that cannot stand in one table."""
    if not runs:
        raise InvalidInputError("folders=[] must name at least one run folder")
    seen: dict[tuple[str, int], Path] = {}
    for folder, run in zip(folders, runs, strict=True):
        for name in ("game", "fixed", "horizon"):
            first, own = getattr(runs[0].config, name), getattr(run.config, name)
            if own != first:
                raise InvalidInputError(f"{folder} has {name} {own!r}, {folders[0]} {first!r}: evaluate them apart")
        if run.config.informed and run.config.configured.steps:
            raise InvalidInputError(
                f"{folder} is an informed run of method {run.config.method}: the ceiling must not adapt, train it with joint"
            )
        key = ("informed" if run.config.informed else run.config.method, run.config.seed)
        if key in seen:
            raise InvalidInputError(f"{folder} and {seen[key]} are both {key[0]} with seed {key[1]}: give one of them")
        seen[key] = folder


def _check_protocol(protocol: Protocol, spec: GameSpec) -> None:
    check_split(protocol.tasks)
    if protocol.opponents not in OPPONENT_SPLITS:
        raise unknown("split of opponents", protocol.opponents, OPPONENT_SPLITS)
    known = len(protocol.task_list(spec))
    if known < protocol.task_count:
        raise InvalidInputError(
            f"task_count={protocol.task_count}: the {protocol.tasks} list of {spec.name} holds {known} tasks"
        )


def _jobs(
    runs: Sequence[Run],
    protocol: Protocol,
    crossed: bool,
    tuning_tasks: int,
    tuned: list[Tuned],
    ppo: Scratch | None,
) -> list[_Job]:
    """Everything to be played, in the order of the table's rows; rates that get tuned are put into ``tuned``."""
    spec, horizon = runs[0].duel.spec, runs[0].config.horizon or None
    panels = [
        replace(protocol, tasks=tasks, opponents=opponents)
        for tasks in CROSSED
        for opponents in CROSSED
        if crossed and (tasks, opponents) != (protocol.tasks, protocol.opponents)
    ]
    jobs = []

    def add(player: Contender, adapts: bool, others: Sequence[Protocol]) -> None:
        label = f"{player.method}, {player.role}, seed {player.seed}"
        jobs.append(_Job(label, lambda: _play(player, adapts, protocol, others, tuning_tasks, tuned)))

    for role in ROLES:
        own = [run for run in runs if role in run.agents]
        if not own:
            continue
        learned, joint, informed = ([run for run in own if _rank(run) == rank] for rank in range(3))
        for run in learned:
            add(few_shot.contender(run, role), True, panels)
        seeds = [run.config.seed for run in learned]
        for i, run in enumerate(learned):
            if run.config.seed not in seeds[:i]:
                add(few_shot.random_start(run, role), True, ())
        for run in joint:
            add(few_shot.contender(run, role), True, panels)
        for run in informed:
            add(few_shot.contender(run, role), False, ())
        if ppo is not None:
            for seed in dict.fromkeys(run.config.seed for run in learned or joint):
                work = partial(_from_scratch, spec, role, protocol, ppo, seed, horizon)
                jobs.append(_Job(f"{SCRATCH}, {role}, seed {seed}", work))
        jobs.append(
            _Job(
                f"scripted players, {role}",
                lambda role=role: [  # type: ignore[misc]
                    _rows(result, spec, 1)
                    for result in few_shot.evaluate_scripted(spec, role, protocol, horizon=horizon)
                ],
            )
        )
    for run in runs:
        if _rank(run) == 0 and len(run.agents) == 2 and protocol.shots:
            label = f"{run.config.method}, both players, seed {run.config.seed}"
            jobs.append(_Job(label, lambda run=run: both_adapt(run, protocol)))  # type: ignore[misc]
    return jobs


def _play(
    player: Contender,
    adapts: bool,
    protocol: Protocol,
    others: Sequence[Protocol],
    tuning_tasks: int,
    tuned: list[Tuned],
) -> list[Table]:
    """One contender on the headline panel, and on the others at the shots that are reported there."""
    adapts = adapts and protocol.shots > 0
    if adapts and not player.adapter.adapts:
        player = few_shot.tune_rate(player, protocol, tasks=tuning_tasks)
        tuned.append(Tuned(player.method, player.role, player.seed, round(few_shot.rate_of(player), 6)))
    spec, shots = player.duel.spec, protocol.shots + 1 if adapts else 1
    tables = [_rows(few_shot.evaluate(player, protocol), spec, shots)]
    for panel in others:
        rows = _rows(few_shot.evaluate(player, panel), spec, shots)
        tables.append(rows.filter(shot=(0, *key_shots(protocol.shots))))
    return tables


def _rows(result: Result, spec: GameSpec, shots: int) -> Table:
    """A block of the tidy table: the first ``shots`` shots."""
    protocol = result.protocol
    return from_returns(
        result.returns[:shots].round(_DECIMALS), spec, role=result.role, method=result.method,
        seed=UNTRAINED if result.seed < 0 else result.seed, task_split=protocol.tasks, tasks=_task_names(protocol),
        opponent_split=protocol.opponents, opponents=result.opponents, actions=protocol.actions,
    )  # fmt: skip


def _from_scratch(
    spec: GameSpec, role: Role, protocol: Protocol, ppo: Scratch, seed: int, horizon: int | None
) -> list[Table]:
    """SB3's PPO on a part of the headline panel."""
    opponents, returns = from_scratch(spec, role, protocol, ppo, seed, horizon)
    table = from_returns(
        returns.round(_DECIMALS), spec, role=role, method=SCRATCH, seed=seed, task_split=protocol.tasks,
        tasks=_task_names(protocol)[: returns.shape[2]], opponent_split=protocol.opponents, opponents=opponents,
        actions=protocol.actions,
    )  # fmt: skip
    return [table]


def _task_names(protocol: Protocol) -> list[str]:
    return [f"{protocol.tasks}:{i}" for i in range(protocol.task_count)]


def both_adapt(run: Run, protocol: Protocol) -> list[Table]:
    """A run's two players against each other, adapting at once for all shots, and tested on the same episodes in every
    combination of adapted or not.

    Returns:
        Rows of opponent split ``LEARNED``. Opponent ``LEARNING``: both at the same shot, for every shot; ``AT_START`` and
        ``AT_ADAPTED``: the other player at shot 0 and at the last shot, the own player at either.
    """
    spec, config, last = run.duel.spec, run.config, protocol.shots
    rows = task_rows(spec, protocol.task_list(spec), {})
    matches, policies = Matches(rows, duels=len(rows)), {role: run.agent(role).policy for role in ROLES}
    support = DuelProblem(
        run.duel, policies, matches, protocol.episodes, derive_seed(0, Purpose.ADAPT), config.objective
    )
    mode = protocol.actions == "mode"
    query = DuelProblem(
        run.duel, policies, matches, protocol.test_episodes, derive_seed(0, Purpose.TEST), config.objective, mode
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
                returns, spec, role=role, method=config.method, seed=config.seed, task_split=protocol.tasks,
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
