"""What one accelerator does: ``make bench-gpu``, prepared to be over within five minutes on an H100.

- Environment steps per second of every family: eager, compiled, and either one captured as a CUDA graph of many steps, which
  costs one start instead of one per kernel.
- W1, one meta-iteration of MAML on 2-D navigation; first-order MAML on Pursuit with the tasks of 64 runs; RL²; an evaluation.
  Their starts and tasks are moved to the accelerator; the learners are those of every other run.

Tables of training come first: they are the shortest. Families follow until the time is up; what is left is named.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from metaduel.agents.policies.base import Weights
from metaduel.benchmarks.core.report import Sheet
from metaduel.benchmarks.tools.speed.kinds import config_of
from metaduel.benchmarks.tools.speed.pairs import shown
from metaduel.benchmarks.tools.speed.steps import advance, compiler_missing, default_games, random_actions
from metaduel.benchmarks.tools.speed.workloads import PROTOCOL, SMALL, W1, compared
from metaduel.envs.core import registry
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.errors import one_line
from metaduel.envs.core.game import Episode, Pair, make_game
from metaduel.envs.core.spec import Role, other
from metaduel.envs.core.tasks import frozen_tasks, sample_tasks, task_rows
from metaduel.envs.players.names import load_player
from metaduel.meta.adaptation.adapters import adapter_of
from metaduel.meta.adaptation.few_shot import adapt_and_test
from metaduel.meta.learners.methods import find_method
from metaduel.meta.problems.duels import DuelProblem
from metaduel.meta.problems.problem import played
from metaduel.meta.runs.players import initial_weights
from metaduel.meta.runs.source import DuelSource

SECONDS = 270.0  # after which no further measurement is begun
GRAPHED = 20  # steps in a CUDA graph
NOT_MEASURED = "not measured: no accelerator"


class Size(NamedTuple):
    """How much is measured."""

    batches: tuple[int, ...]  # rows of the environment steps
    repeats: int
    runs: int  # whose tasks are trained on at once
    settings: Mapping[str, Any]  # of all runs, beside their own
    protocol: Mapping[str, Any]
    families: int | None = None  # None: all


FULL = Size((65_536, 1_048_576), 5, 64, {}, {**PROTOCOL, "task_count": 40})
DRY = Size((8,), 1, 2, SMALL, {**PROTOCOL, "episodes": 2, "test_episodes": 2, "task_count": 2}, 1)


def waited(device: torch.device) -> float:
    """The time once the device has done all that it was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()


def median_seconds(play: Callable[[], Any], device: torch.device, repeats: int) -> float:
    """Median seconds of a call, after one for warm-up."""
    play()
    times = []
    for _ in range(repeats):
        start = waited(device)
        play()
        times.append(waited(device) - start)
    return statistics.median(times)


class Steps:
    """Environment steps of a game on a device.

    Args:
        game: the family.
        batch: rows.
        device: where they are.
    """

    def __init__(self, game: str, batch: int, device: torch.device) -> None:
        spec = registry.find(game)
        self.duel, self.batch, self.device = Duel(make_game(spec)), batch, device
        tasks = sample_tasks(spec, min(batch, 256))
        row = torch.arange(batch, dtype=torch.int64, device=device)
        params = self.duel.params(task_rows(spec, tasks, {}).to(device)[row % len(tasks)])
        self.start = self.duel.reset(params, row, torch.zeros_like(row))
        one, two = random_actions(self.duel, batch, torch.Generator().manual_seed(0))
        self.actions = one.to(device), two.to(device)
        self.steps = min(GRAPHED, self.duel.horizon)

    def several(self, step: Callable[[Duel, Episode, Pair], Any]) -> Any:
        """Several steps with their observations; what they give last."""
        episode, seen = self.start, ()
        for _ in range(self.steps):
            episode, _, seen = step(self.duel, episode, self.actions)
        return episode, seen

    def rate(self, play: Callable[[], Any], repeats: int) -> float:
        """Environment steps per second of a call that plays several."""
        return self.batch * self.steps / median_seconds(play, self.device, repeats)


def graphed(play: Callable[[], Any], device: torch.device) -> Callable[[], Any]:
    """The same work as one CUDA graph; as it is where there are none."""
    if device.type != "cuda":
        return play
    side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):  # what is allocated and compiled once must be there before the capture
        for _ in range(2):
            play()
    torch.cuda.current_stream(device).wait_stream(side)
    graph, kept = torch.cuda.CUDAGraph(), []
    with torch.cuda.graph(graph):
        kept.append(play())  # its memory is the graph's for as long as this lives

    def replay() -> list[Any]:
        graph.replay()
        return kept

    return replay


@torch.no_grad()
def family_rows(game: str, size: Size, device: torch.device) -> Iterator[tuple[str, ...]]:
    """Rates of a family: one row per way, one cell per batch size; a way that fails says why."""
    compiles = device.type == "cuda" or not compiler_missing()
    for way in ("eager", "eager, graphed", *(("compiled", "compiled, graphed") if compiles else ())):
        cells = []
        for batch in size.batches:
            try:
                cells.append(shown(1 / _rate(game, batch, way, size.repeats, device), "steps/s"))
            except Exception as error:  # one family's failure must not cost the measurements of the others
                cells.append(f"failed: {one_line(error, 80)}")
        yield (game, way, *cells)


def _rate(game: str, batch: int, way: str, repeats: int, device: torch.device) -> float:
    found, step = Steps(game, batch, device), advance
    if way.startswith("compiled"):
        torch.compiler.reset()
        step = torch.compile(advance, dynamic=False)
    play = graphed(lambda: found.several(step), device) if way.endswith("graphed") else lambda: found.several(step)
    return found.rate(play, repeats)


class DeviceRun:
    """A training run whose starts and tasks are on a device.

    Args:
        settings: of the run, see ``kinds.config_of``.
        device: where it is.
    """

    def __init__(self, settings: Mapping[str, Any], device: torch.device) -> None:
        config = config_of(1, settings)
        self.source, self.device, self.done, self.config = DuelSource(config), device, 0, config
        start: dict[Role, Weights] = {
            role: {name: value.to(device) for name, value in weights.items()}
            for role, weights in initial_weights(self.source.policies, config.seed).items()
        }
        heads = {role: policy.head_names for role, policy in self.source.policies.items()}
        self.learner = find_method(config.method).learner(start, config.configured, heads)

    def iterate(self) -> int:
        """One outer step; the environment steps that it took."""
        given = self.source.problem(self.done)
        assert isinstance(given, DuelProblem)
        self.done += 1
        matchups = replace(given.matchups, tasks=given.matchups.tasks.to(self.device))
        problem = DuelProblem(given.duel, given.policies, matchups, given.episodes, given.seed, given.objectives)
        update = self.learner.update(problem)
        drawn = itertools.chain.from_iterable(update.shots)
        chained = 0 if update.chain is None else update.chain.environment_steps
        return chained + sum(played(batch).environment_steps for batch in drawn)


def training_row(name: str, settings: Mapping[str, Any], size: Size, device: torch.device) -> tuple[str, ...]:
    """Seconds of an iteration, and environment steps per second."""
    run, steps = DeviceRun({**settings, **size.settings}, device), []
    seconds = median_seconds(lambda: steps.append(run.iterate()), device, size.repeats)
    return name, shown(seconds, "s"), shown(seconds / statistics.median(steps), "steps/s")


def evaluation_row(size: Size, device: torch.device) -> tuple[str, ...]:
    """Seconds of a few-shot evaluation of both roles, and its cells per second."""
    run = DeviceRun({**compared("fomaml", game="Pursuit"), **size.settings}, device)
    spec, duel, protocol = run.config.spec, run.source.duel, size.protocol
    rows = task_rows(spec, frozen_tasks(spec, "held_out")[: protocol["task_count"]], {}).to(device)
    cells = 0

    def evaluate() -> None:
        nonlocal cells
        cells = 0
        for role, policy in run.source.policies.items():
            rates = run.learner.rates(role)
            adapter = adapter_of(role, policy, run.learner.start[role], rates, run.config.objective)
            opponents = [load_player(duel, other(role), name) for name in spec.opponents[other(role)]["held_out"]]
            shots, episodes, tests = (protocol[name] for name in ("shots", "episodes", "test_episodes"))
            found = adapt_and_test(duel, adapter, role, rows, opponents, shots, episodes, tests, 0, 1 << 40)
            cells += found.returns[..., 0].numel()

    seconds = median_seconds(evaluate, device, size.repeats)
    return "evaluation, Pursuit, first-order MAML", shown(seconds, "s"), shown(seconds / cells, "cells/s")


def training_rows(size: Size, device: torch.device) -> Iterator[tuple[str, ...]]:
    """The tables of training and evaluation, row by row; one that fails says why."""
    tasks = size.settings.get("tasks", 20)
    joined = size._replace(settings={**size.settings, "tasks": tasks * size.runs})
    fomaml = compared("fomaml", game="Pursuit")
    measures: dict[str, Callable[[], tuple[str, ...]]] = {
        "W1, Adam": lambda: training_row("W1, Adam", W1, size, device),
        "Pursuit, fomaml": lambda: training_row(
            f"Pursuit, first-order MAML, {size.runs} x {tasks} tasks", fomaml, joined, device
        ),
        "Pursuit, RL²": lambda: training_row("Pursuit, RL²", compared("rl2", game="Pursuit"), size, device),
        "evaluation": lambda: evaluation_row(size, device),
    }  # fmt: skip
    for name, measure in measures.items():
        try:
            yield measure()
        except Exception as error:  # as with families
            yield name, f"failed: {one_line(error, 120)}", ""


def within(end: float, makers: Iterable[tuple[str, Callable[[], Iterable[tuple[str, ...]]]]]) -> tuple[Any, list[str]]:
    """Rows of all makers until the time is up, and the names of those that were left out."""
    rows: list[tuple[str, ...]] = []
    left: list[str] = []
    for name, make in makers:
        if time.monotonic() >= end:
            left.append(name)
        else:
            rows += make()
    return tuple(rows), left


def gpu_sheets(dry: bool) -> Iterator[Sheet]:
    """The tables, each when it is done.

    Args:
        dry: on the processor, and so small that the figures mean nothing; every line runs.
    """
    device, size = (torch.device("cpu"), DRY) if dry else (torch.accelerator.current_accelerator(), FULL)
    if device is None:
        yield Sheet("On an accelerator", ("workload", "seconds", "rate"), (), NOT_MEASURED)
        return
    where = (
        "the processor, a dry run"
        if dry
        else f"one {torch.cuda.get_device_name(device)}"
        if device.type == "cuda"
        else str(device)
    )
    end = time.monotonic() + SECONDS
    rows = tuple(training_rows(size, device))
    note = f"Medians of {size.repeats}. The work of {size.runs} stacked runs is that of one run with the tasks of all."
    yield Sheet(f"Training and evaluation on {where}", ("workload", "seconds", "rate"), rows, note)
    yield families_sheet(size, device, where, end, _first(default_games(), "Pursuit")[: size.families])


def families_sheet(size: Size, device: torch.device, where: str, end: float, games: Sequence[str]) -> Sheet:
    """Environment steps per second of families until the time is up."""
    makers = [(game, lambda game=game: family_rows(game, size, device)) for game in games]
    found, left = within(end, makers)
    header = ("game", "way", *(f"{batch:,} rows" for batch in size.batches))
    note = f"A step is step + noise + observation; a graph has {GRAPHED} steps."
    return Sheet(
        f"Environment steps per second on {where}", header, found,
        note + (f" Not measured, the time was up: {', '.join(left)}." if left else ""),
    )  # fmt: skip


def _first(names: list[str], name: str) -> list[str]:
    return [name, *(one for one in names if one != name)]
