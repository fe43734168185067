"""What updates and outer steps know before training, per role of a game: ``metaduel signal``.

- **Inner signal**: the mean cosine of an update's gradient, from as few episodes as a shot has, with the gradient of the
  undiscounted return from many episodes of the same task against the same opponent, over discounts and clips of the update. One
  collection of episodes serves all of them. Where it is 0, an update is noise and no method that adapts by updates can adapt.
- **Outer noise**: the mean cosine of independent outer gradients of a method, from fresh tasks and noise against the same
  opponents, over numbers of tasks. Below about ``ENOUGH`` an outer step is mostly noise.

Cosines do not depend on step sizes, nor on the divisor of a loss.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metaduel.agents.policies.base import Weights
from metaduel.agents.runtime import configured
from metaduel.benchmarks.core.progress import Show, progress
from metaduel.benchmarks.core.report import Sheet
from metaduel.envs.core.arguments import AnyPath
from metaduel.envs.core.errors import InvalidInputError, check_whole
from metaduel.envs.core.noise import derive_seed
from metaduel.envs.core.purposes import Purpose
from metaduel.envs.core.spec import ROLES, Role
from metaduel.meta.learners.methods import METHODS, find_method
from metaduel.meta.problems.problem import Players
from metaduel.meta.runs.config import TrainConfig
from metaduel.meta.runs.load import load
from metaduel.meta.runs.players import initial_weights
from metaduel.meta.runs.signal import (
    ERRORS,
    Situation,
    above_noise,
    mean_and_error,
    signals,
    situation,
    true_gradients,
    true_parts,
)
from metaduel.meta.runs.source import DuelSource

DISCOUNTS = (0.0, 0.5, 0.8, 0.9, 0.95, 1.0)
CLIPS = (0.0, 2.0, 0.4)
ENOUGH = 0.2  # cosine of independent outer gradients that recommended settings have, at least
# Where nothing else is said: no baseline per task, which would fit a few episodes' outcomes, and one per batch outside.
USUAL: dict[str, Any] = {"inner_baseline": False, "baseline": "batch"}
_OWN = ("inner_discount", "inner_clip")
_OPTIONS = {"game": "GAME", "method": "--methods", "tasks": "--outer-tasks", "episodes": "--episodes", "seed": "--seed"}
# Work is counted in tasks of an outer step.
_ROLLOUT = 200  # of the true gradient, about
_SHOWN = 800  # between two signs of progress
_UPDATES = 6  # such rollouts that a table of discounts and clips takes as long as, about


@dataclass(frozen=True)
class Measurement:
    """Sizes of a measurement.

    Attributes:
        episodes: episodes per shot; each has a table of its own columns.
        tasks: tasks, each against one of the training opponents, from a random start of its own.
        truth: episodes per task of the gradient that updates are compared with.
        repeats: updates per task.
        methods: whose outer gradients are compared; none: none are.
        outer_tasks: tasks of an outer step.
        batches: independent outer gradients, and up to twice as many where a gradient has fewer tasks than the largest.
        seed: of all random numbers.
    """

    episodes: tuple[int, ...] = (5, 20)
    tasks: int = 48
    truth: int = 600
    repeats: int = 4
    methods: tuple[str, ...] = ("joint", "fomaml")
    outer_tasks: tuple[int, ...] = (20, 100, 200, 400)
    batches: int = 12
    seed: int = 0

    def gradients(self, tasks: int) -> int:
        """Number of outer gradients of that many tasks."""
        return min(2 * self.batches, self.batches * max(self.outer_tasks) // tasks)

    def __post_init__(self) -> None:
        for name in ("tasks", "truth", "batches"):
            check_whole(name, getattr(self, name), {"tasks": 2, "truth": 2, "batches": 3}[name])
        check_whole("repeats", self.repeats)
        for name in ("episodes", "outer_tasks"):
            for one in getattr(self, name):
                check_whole(name, one)
        if not self.episodes:
            raise InvalidInputError("episodes=() must name at least one number of episodes per shot")
        for name in self.methods:
            if find_method(name).memory is not None or not hasattr(find_method(name).learner, "gradients"):
                known = [m.name for m in METHODS.values() if m.memory is None and hasattr(m.learner, "gradients")]
                raise InvalidInputError(
                    f"methods: {name} has no outer gradient of one step; those that have: {', '.join(known)}"
                )


class Inner(NamedTuple):
    """A role's inner signal with one number of episodes.

    Attributes:
        cosines: per (discount, clip), [tasks].
        agreement: [tasks], the cosine of two halves of the true gradient's episodes.
    """

    cosines: dict[tuple[float, float], Tensor]
    agreement: Tensor

    @property
    def best(self) -> tuple[float, float]:
        """The discount and clip with the highest mean."""
        return max(self.cosines, key=lambda one: float(self.cosines[one].mean()))

    @property
    def level(self) -> list[tuple[float, float]]:
        """Others whose tasks' differences to the best are not above noise."""
        top = self.cosines[self.best]
        return [one for one, own in self.cosines.items() if one != self.best and not above_noise(top - own)]


class Outer(NamedTuple):
    """The mean cosine of a role's independent outer gradients, and its standard error."""

    cosine: float
    error: float

    @property
    def above_noise(self) -> bool:
        """See ``meta.runs.signal``."""
        return self.cosine > ERRORS * self.error

    @property
    def enough(self) -> bool:
        """Whether outer steps have a direction."""
        return self.cosine >= ENOUGH and self.above_noise


class Found(NamedTuple):
    """A game's signal.

    Attributes:
        config: the settings.
        measurement: the sizes.
        start: the start's name.
        inner: per role and number of episodes.
        outer: per method, role and number of tasks; numbers after the one that is enough for every role are left out.
    """

    config: TrainConfig
    measurement: Measurement
    start: str
    inner: dict[Role, dict[int, Inner]]
    outer: dict[str, dict[Role, dict[int, Outer]]]

    def enough(self, method: str, role: Role) -> int | None:
        """The smallest measured number of tasks whose cosine is ``ENOUGH`` and above noise; None: none's is."""
        return next((n for n, one in self.outer[method][role].items() if one.enough), None)


@configured(1)
def measure(
    game: str,
    settings: Mapping[str, Any],
    measurement: Measurement,
    run: AnyPath | None = None,
    quiet: bool = False,
) -> Found:
    """Measure both roles' signal.

    Args:
        game: the game's name.
        settings: settings of a training, over ``USUAL`` or over the run's own.
        measurement: the sizes.
        run: a run folder whose start is measured; None: random starts.
        quiet: no progress.

    Raises:
        InvalidInputError: a setting, a method or a run that cannot be measured.
    """
    for name, option in _OPTIONS.items():
        if name in settings:
            raise InvalidInputError(f"set: {name}={settings[name]!r} is no setting here: give {option}")
    trained = None if run is None else load(run)
    if trained is None:
        config = TrainConfig(game=game, method="fomaml").override(**{**USUAL, **settings})
    else:
        config = trained.config
        if config.game != TrainConfig(game=game).spec.name:
            raise InvalidInputError(f"{run} is a run on {config.game}, not on {game}")
        if find_method(config.method).memory is not None:
            raise InvalidInputError(f"{run}: method {config.method} adapts by remembering, not by updates")
        config = config.override(method="fomaml", peer=False, recompute=None, roles=tuple(trained.agents)).override(
            **settings
        )
    config.refuse_idle(settings)
    source = DuelSource(config)
    starts = None if trained is None else {role: agent.weights for role, agent in trained.agents.items()}
    situations = {role: _situation(source, role, starts, measurement) for role in config.roles}
    truth = sum(2 * true_parts(one, measurement.truth // 2) for one in situations.values())
    updates = len(situations) * len(measurement.episodes) * _UPDATES
    outer = len(measurement.methods) * sum(n * measurement.gradients(n) for n in measurement.outer_tasks)
    with progress("signal", (truth + updates) * _ROLLOUT + outer, quiet) as show:
        show("inner signal")
        inner = {role: _inner(config, one, measurement, show) for role, one in situations.items()}
        chosen = {} if trained is not None else _chosen(inner, settings, measurement.episodes[0])
        config = config.override(**chosen, episodes=measurement.episodes[0])
        noise = {
            method: _outer(config.override(method=method), starts, measurement, show) for method in measurement.methods
        }
    return Found(config, measurement, "random starts" if run is None else f"the start of {run}", inner, noise)


def _situation(
    source: DuelSource, role: Role, starts: Mapping[Role, Weights] | None, measurement: Measurement
) -> Situation:
    policy, seat, n = source.policies[role], ROLES.index(role), measurement.tasks
    own = (
        [policy.init(derive_seed(measurement.seed, Purpose.SIGNAL_START, seat, i)) for i in range(n)]
        if starts is None
        else [starts[role]]
    )
    rows = source.training_tasks(n, derive_seed(measurement.seed, Purpose.SIGNAL_TASKS, seat))
    return situation(source.duel, role, policy, own, rows, source.opponents[role])


def _inner(config: TrainConfig, where: Situation, measurement: Measurement, show: Show) -> dict[int, Inner]:
    """A role's signal per number of episodes."""
    seat, own = ROLES.index(where.role), config.loss.of(where.role)
    label = f"{where.role}: inner signal"
    first, second = (
        true_gradients(
            where, measurement.truth // 2, derive_seed(measurement.seed, seat, half), lambda: show(label, _ROLLOUT)
        )
        for half in range(2)
    )
    agreement = torch.cosine_similarity(first, second, 1)
    grid = [(discount, clip) for discount in DISCOUNTS for clip in (CLIPS if own.normalise else (0.0,))]
    losses = [replace(own, inner_discount=discount, inner_clip=clip) for discount, clip in grid]
    found = {}
    for episodes in measurement.episodes:
        rows = signals(
            where, first + second, losses, episodes, measurement.repeats, derive_seed(measurement.seed, seat)
        )
        found[episodes] = Inner(dict(zip(grid, rows, strict=True)), agreement)
        show(label, _UPDATES * _ROLLOUT)
    return found


def _chosen(inner: Mapping[Role, Mapping[int, Inner]], given: Mapping[str, Any], episodes: int) -> dict[str, float]:
    """The best discount and clip per role as settings, where none were given."""
    chosen: dict[str, float] = {}
    for role, found in inner.items():
        prefix = "adversary_" if role == "adversary" and len(inner) > 1 else ""
        for name, value in zip(_OWN, found[episodes].best, strict=True):
            if name not in given and prefix + name not in given:
                chosen[prefix + name] = value
    return chosen


def _outer(
    config: TrainConfig, starts: Mapping[Role, Weights] | None, measurement: Measurement, show: Show
) -> dict[Role, dict[int, Outer]]:
    """A method's cosines per role and number of tasks."""
    found: dict[Role, dict[int, Outer]] = {}
    left = sum(n * measurement.gradients(n) for n in measurement.outer_tasks)
    for tasks in measurement.outer_tasks:
        rows: dict[Role, list[Tensor]] = {role: [] for role in config.roles}
        own = config.override(tasks=tasks, seed=measurement.seed)
        label, done = f"{config.method}: outer gradients of {tasks} tasks", 0
        for gradients in _gradients(own, starts, measurement.gradients(tasks)):
            for role, gradient in gradients.items():
                rows[role].append(gradient)
            done += tasks
            if done % _SHOWN < tasks:
                show(label, done)
                left, done = left - done, 0
        show(label, done)
        left -= done
        for role, several in rows.items():
            found.setdefault(role, {})[tasks] = agreement(torch.stack(several))
        if all(one[tasks].enough for one in found.values()):
            break
    if left:
        show(f"{config.method}: {tasks} tasks are enough", left)
    return found


def _gradients(
    config: TrainConfig, starts: Mapping[Role, Weights] | None, batches: int
) -> Iterator[dict[Role, Tensor]]:
    """Outer gradients with respect to the starts [weights], of fresh tasks against the same opponents."""
    source, method = DuelSource(config), find_method(config.method)
    start: Players = dict(starts or initial_weights(source.policies, config.seed, source.statistics))
    heads = {role: policy.head_names for role, policy in source.policies.items()}
    learner: Any = method.learner(start, config.configured, heads)
    every = math.lcm(*(len(players) for players in source.opponents.values()))  # iterations between equal opponents
    for i in range(batches):
        found = learner.gradients(source.problem(every * i))
        yield {role: torch.cat([x.flatten() for x in own.values()]) for role, (own, _) in found.items()}


def agreement(gradients: Tensor) -> Outer:
    """The mean cosine between different rows of [n, weights], n at least 3, with its jackknife standard error."""
    unit = torch.nn.functional.normalize(gradients.double(), dim=1)
    cosines = unit @ unit.T
    n = len(unit)
    of_one = cosines.sum(1) - cosines.diagonal()
    total = of_one.sum()
    without = (total - 2 * of_one) / ((n - 1) * (n - 2))
    error = ((without - without.mean()).square().sum() * (n - 1) / n).sqrt()
    return Outer(float(total / (n * (n - 1))), float(error))


def sheets(found: Found) -> list[Sheet]:
    """The tables, for the terminal and as Markdown."""
    result = [_inner_sheet(found, role) for role in found.inner]
    return result + ([_outer_sheet(found)] if found.outer else [])


def _inner_sheet(found: Found, role: Role) -> Sheet:
    own = found.inner[role]
    clips = list(dict.fromkeys(clip for _, clip in next(iter(own.values())).cosines))
    header = ("inner discount", *(f"{episodes} episodes, {_clip(clip)}" for episodes in own for clip in clips))
    rows = [
        (f"{discount:g}", *(_cell(*_of(one.cosines[discount, clip])) for one in own.values() for clip in clips))
        for discount in DISCOUNTS
    ]
    agreed, error = mean_and_error(next(iter(own.values())).agreement)
    m = found.measurement
    notes = [
        f"Mean cosine of an update with the gradient of the undiscounted return from {m.truth} episodes of the same task and "
        f"opponent, over {m.tasks} tasks x {m.repeats} updates, with its standard error over tasks; in brackets where it is "
        f"not above noise ({ERRORS:g} standard errors). The halves of the {m.truth} episodes agree to {agreed:.2f} ± {error:.2f}."
    ]
    for episodes, one in own.items():
        mean, _ = mean_and_error(one.cosines[one.best])
        if not above_noise(one.cosines[one.best]):
            notes.append(f"With {episodes} episodes no update is above noise.")
            continue
        level = ", ".join(f"{_setting(*other)}" for other in one.level)
        notes.append(
            f"Best with {episodes} episodes: {_setting(*one.best)} ({mean:.2f})"
            + (f"; not distinguishable from it: {level}." if level else ".")
        )
    return Sheet(
        f"Inner signal of the {role}: {found.config.spec.id}, {found.start}", header, tuple(rows), " ".join(notes)
    )


def _of(values: Tensor) -> tuple[float, float, bool]:
    return *mean_and_error(values), above_noise(values)


def _cell(mean: float, error: float, above: bool) -> str:
    text = f"{mean:.2f} ± {error:.2f}".replace("-", "−")
    return text if above else f"({text})"


def _clip(clip: float) -> str:
    return f"clip {clip:g}" if clip else "no clip"


def _setting(discount: float, clip: float) -> str:
    return f"{discount:g} with {_clip(clip)}"


def _outer_sheet(found: Found) -> Sheet:
    rows = []
    for method, own in found.outer.items():
        for role, cosines in own.items():
            cells = [
                _cell(one.cosine, one.error, one.above_noise) if one else ""
                for one in (cosines.get(n) for n in found.measurement.outer_tasks)
            ]
            enough = found.enough(method, role)
            most = max(cosines)
            rows.append((method, role, *cells, f"more than {most}" if enough is None else str(enough)))
    header = (
        *("method", "role"),
        *(f"{n} tasks" for n in found.measurement.outer_tasks),
        f"tasks for {ENOUGH:g}, of those measured",
    )
    loss = found.config.loss
    told = "; ".join(
        f"{role}: {_setting(own.inner_discount, own.inner_clip)}"
        for role, own in ((role, loss.of(role)) for role in found.inner)
    )
    counts = " or ".join(str(n) for n in dict.fromkeys(map(found.measurement.gradients, found.measurement.outer_tasks)))
    note = (
        f"Mean cosine of {counts} independent outer gradients against the same opponents, with its jackknife "
        f"standard error; {found.config.episodes} episodes per task and shot. Discount and clip of the updates: {told}."
    )
    return Sheet(f"Outer gradients: {found.config.spec.id}, {found.start}", header, tuple(rows), note)
