"""Outer steps that converge where two players learn from each other: ``metaduel dynamics``.

MAML trains both players of one play of rock-paper-scissors with random payoffs. A gain of one player is a loss of the other, so
that simultaneous steps may cycle for ever. The distance of both from an equilibrium after adapting to a held-out task is exact:
half of NashConv, 0 only at an equilibrium (``one_shot_exploitability``). Four outer steps, each an Adam step:

- *plain*: simultaneous.
- *optimistic*: extrapolated by the step before (Daskalakis, Ilyas, Syrgkanis and Zeng, ICLR 2018), the default of every method.
- *extragradient*: from the present weights, along the gradients at the end of a first step (Korpelevich, 1976; Adam's moments
  from both, as in ExtraAdam, Gidel et al., ICLR 2019). Twice the gradients, and twice the episodes, per iteration.
- *averaged*: plain steps, but the result is the mean of all starts and log step sizes so far.

Each is run without momentum and with Adam's usual 0.9; with exact gradients, where every joint action is an episode with its
probability as weight, and with gradients from sampled plays.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from rich.progress import track
from torch import Tensor

from metaduel.agents.objective.config import LossConfig
from metaduel.agents.objective.losses import policy_gradient_loss
from metaduel.agents.policies.base import Weights, stack
from metaduel.agents.policies.mlp import MLPPolicy
from metaduel.agents.runtime import configured
from metaduel.benchmarks.core.metrics import estimate
from metaduel.benchmarks.core.report import COLOURS, RNG_SEED, Sheet, canvas, cell, cover_note, number, rendered
from metaduel.benchmarks.tools.enumerated import Listing
from metaduel.envs.core.arguments import AnyPath, as_path
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.files import write_atomic
from metaduel.envs.core.game import make_game
from metaduel.envs.core.noise import derive_seed
from metaduel.envs.core.purposes import Purpose
from metaduel.envs.core.registry import find
from metaduel.envs.core.spec import ROLES, Role, Task
from metaduel.envs.core.tasks import frozen_tasks, sample_tasks, task_rows
from metaduel.envs.repeated_matrix_game.values import one_shot_exploitability
from metaduel.meta.adaptation.inner import adapt
from metaduel.meta.adaptation.outer import OuterOptimiser
from metaduel.meta.adaptation.work import Work
from metaduel.meta.learners.learner import Learner, Optimiser, Starts, Update, adam
from metaduel.meta.learners.maml import MAML, MAMLConfig
from metaduel.meta.problems.duels import DuelProblem, Matchups
from metaduel.meta.problems.problem import Losses, Players, Problem, Tasks

SPEC = find("RockPaperScissors")
POLICY = MLPPolicy(10, SPEC.action_spaces["protagonist"], hidden=())
TASKS, TESTS, EPISODES = 10, 40, 20  # per iteration; held out; sampled plays of each
EVERY = 5  # iterations between measurements
FIXED = {"permutation": 0.0}  # the usual order: paper beats rock, and so on
SLACK = 0.05  # points above uniform players' exploitability; a run below holds
MOMENTA = (0.0, 0.9)


# The game


class AllPlays(Listing):
    """Every joint action once per task, weighted by its probability: a ``Problem`` whose losses are exact.

    Args:
        payoffs: [N, 3, 3, 2] points.
    """

    def __init__(self, payoffs: Tensor) -> None:
        self.payoffs = payoffs
        self.tasks: dict[Role, int] = dict.fromkeys(ROLES, len(payoffs))

    def losses(self, players: Players, shot: int, joint: bool = False) -> Losses:
        """See ``Problem.losses``."""
        log_probs = {role: first_play(weights) for role, weights in players.items()}
        plays = torch.arange(9, dtype=torch.int64, device="cpu")  # 3 * the protagonist's action + the adversary's
        own = {
            "protagonist": log_probs["protagonist"][:, plays // 3],
            "adversary": log_probs["adversary"][:, plays % 3],
        }
        both = own["protagonist"] + own["adversary"]
        result: dict[Role, Tensor] = {}
        for seat, role in enumerate(ROLES):
            reward = self.payoffs.flatten(1, 2)[:, None, :, seat]  # [N, 1, 9]
            log_prob = (both if joint else own[role]).unsqueeze(1)
            alive, weight = torch.ones_like(reward), both.detach().exp()
            result[role] = policy_gradient_loss(log_prob, reward, alive, "dice", 1, weight)
        return Losses(result, result)

    def without(self, role: Role, tasks: Collection[int]) -> AllPlays:
        """See ``Problem.without``."""
        return AllPlays(self.payoffs[[n for n in range(len(self.payoffs)) if n not in tasks]])


def first_play(weights: Weights) -> Tensor:
    """Log-probabilities [N, 3] of the first play, at the empty observation."""
    bias = weights["layer0.bias"]
    nothing = torch.eye(10, dtype=bias.dtype, device=bias.device)[:1].expand(len(bias), 1, 10)
    return torch.log_softmax(POLICY.outputs(POLICY.prepare(weights), nothing)[:, 0], -1)


def payoffs(tasks: Sequence[Task]) -> Tensor:
    """[N, 3, 3, 2] points of (protagonist, adversary), float64."""
    values: Tensor = make_game(SPEC).params(list(tasks), torch.float64).payoffs
    return values


def exact(tasks: Sequence[Task], seed: int) -> Problem:
    """A batch whose gradients are exact."""
    return AllPlays(payoffs(tasks))


def sampled(tasks: Sequence[Task], seed: int) -> Problem:
    """A batch whose gradients come from ``EPISODES`` plays of each task; the query has a baseline, the mean."""
    loss = LossConfig("dice", inner_baseline=False, normalise=False)
    matchups = Matchups(task_rows(SPEC, tasks, {}), duels=len(tasks))
    return DuelProblem(Duel(make_game(SPEC), 1), dict.fromkeys(ROLES, POLICY), matchups, EPISODES, seed, loss)


BATCHES = {"exact": exact, "sampled": sampled}  # gradients


# The outer steps


class Plain(Learner):
    """Both players take Adam's step at once.

    Args:
        start: initial weights per player.
        config: settings.
        optimiser: makes the outer optimisers; None: plain ones.
    """

    def __init__(self, start: Players, config: MAMLConfig, optimiser: Optimiser | None = None) -> None:
        def plain(params: Weights, lr: float) -> OuterOptimiser:
            return OuterOptimiser(params, lr, False, config.momentum, config.max_norm)

        self.maml = MAML(start, config, starts=Starts(start, config.outer_lr, optimiser or plain))
        self.starts, self.parts = self.maml.starts, self.maml.parts

    @property
    def log_rates(self) -> dict[Role, Tensor]:
        """Logarithms of the inner step sizes."""
        assert self.maml.inner is not None
        return self.maml.inner.log_rates

    def updating(self, problem: Tasks, lr_scale: float = 1.0) -> Work[Update]:
        """See ``Learner.updating``."""
        return (yield from self.maml.updating(problem, lr_scale))

    def judged(self) -> tuple[Players, dict[Role, Tensor]]:
        """The starts and log step sizes that are tested."""
        return self.start, self.log_rates


class Optimistic(Plain):
    """The default of every method."""

    def __init__(self, start: Players, config: MAMLConfig) -> None:
        super().__init__(start, config, adam(len(start), config.momentum, config.max_norm))


class Extragradient(Plain):
    """Both look ahead, and step from their present weights along the gradients there."""

    def updating(self, problem: Tasks, lr_scale: float = 1.0) -> Work[Update]:
        """See ``Learner.updating``."""
        before = _copy(self.start, self.log_rates)
        update = yield from super().updating(problem, lr_scale)
        ahead = self.maml.gradients(problem)
        with torch.no_grad():
            for leaf, value in zip(_leaves(self.start, self.log_rates), _leaves(*before), strict=True):
                leaf.copy_(value)
        return update._replace(metrics=self.maml.step(ahead, lr_scale))


class Averaged(Plain):
    """Plain steps; the mean of all starts and log step sizes so far is tested."""

    def __init__(self, start: Players, config: MAMLConfig) -> None:
        super().__init__(start, config)
        self._mean, self._steps = _copy(self.start, self.log_rates), 0

    def updating(self, problem: Tasks, lr_scale: float = 1.0) -> Work[Update]:
        """See ``Learner.updating``."""
        update = yield from super().updating(problem, lr_scale)
        self._steps += 1
        with torch.no_grad():
            for mean, value in zip(_leaves(*self._mean), _leaves(self.start, self.log_rates), strict=True):
                mean.lerp_(value, 1 / self._steps)
        return update

    def judged(self) -> tuple[Players, dict[Role, Tensor]]:
        """See ``Plain``."""
        return self._mean


OUTER: dict[str, type[Plain]] = {
    "optimistic": Optimistic,
    "extragradient": Extragradient,
    "plain": Plain,
    "averaged": Averaged,
}


def _copy(start: Players, log_rates: dict[Role, Tensor]) -> tuple[Players, dict[Role, Tensor]]:
    copied: Players = {r: {n: value.detach().clone() for n, value in w.items()} for r, w in start.items()}
    return copied, {role: value.detach().clone() for role, value in log_rates.items()}


def _leaves(start: Players, log_rates: dict[Role, Tensor]) -> list[Tensor]:
    return [value for weights in start.values() for value in weights.values()] + list(log_rates.values())


# The results


class Curve(NamedTuple):
    """Exploitability of the adapted players, over training."""

    batch: str  # a key of BATCHES
    outer: str  # a key of OUTER
    momentum: float
    iterations: tuple[int, ...]  # [P] number done at each measurement
    exploitability: npt.NDArray[np.float64]  # [seeds, P, tests] points

    def late(self) -> npt.NDArray[np.float64]:
        """Means [seeds, tests] over the last third of training."""
        after = 2 * self.iterations[-1] / 3
        chosen = [i for i, iteration in enumerate(self.iterations) if iteration >= after]
        late: npt.NDArray[np.float64] = self.exploitability[:, chosen].mean(1)
        return late


def adapted(start: Players, log_rates: dict[Role, Tensor], problem: Problem) -> Players:
    """Both players after their update, from one start each."""
    players: Players = {role: stack(start[role], n) for role, n in problem.tasks.items()}
    *_, now = adapt(problem, players, {role: value.exp().detach() for role, value in log_rates.items()}, 1)
    return now.players


def exploitability(players: Players, table: Tensor) -> Tensor:
    """[N] points, for ``payoffs`` [N, 3, 3, 2]."""
    row, column = (first_play(players[role]).detach().double().exp() for role in ROLES)
    return one_shot_exploitability(row, column, table[..., 0])


def uniform(tests: Sequence[Task]) -> float:
    """Mean exploitability of uniform players."""
    still: Players = {role: {n: torch.zeros_like(v)[None] for n, v in POLICY.init(0).items()} for role in ROLES}
    players: Players = {r: {n: v.expand(len(tests), *v.shape[1:]) for n, v in w.items()} for r, w in still.items()}
    return float(exploitability(players, payoffs(tests)).mean())


def make(outer: str, momentum: float, seed: int, outer_lr: float, dtype: torch.dtype) -> Plain:
    """A learner of both players, which start with different preferences."""
    generator = torch.Generator().manual_seed(derive_seed(seed, Purpose.DYNAMICS_START))
    start: Players = {role: POLICY.init(0, dtype) for role in ROLES}
    for weights in start.values():
        weights["layer0.bias"] += torch.randn(3, generator=generator, dtype=dtype, device=generator.device)
    return OUTER[outer](start, MAMLConfig(steps=1, inner_lr=0.1, outer_lr=outer_lr, momentum=momentum))


def train(batch: str, outer: str, momentum: float, seed: int, iterations: int, outer_lr: float) -> Tensor:
    """Exploitability [P, tests] of the adapted players at the start and after every ``EVERY`` iterations."""
    learner = make(outer, momentum, seed, outer_lr, torch.float64 if batch == "exact" else torch.float32)
    tests = held_out()
    table = payoffs(tests)
    looks = []
    for done in range(iterations + 1):
        if done % EVERY == 0:
            problem = BATCHES[batch](tests, derive_seed(seed, Purpose.DYNAMICS_TEST))
            looks.append(exploitability(adapted(*learner.judged(), problem), table))
        if done < iterations:
            sample = sample_tasks(SPEC, TASKS, "train", derive_seed(seed, Purpose.DYNAMICS_TRAIN, done))
            plays = derive_seed(seed, Purpose.DYNAMICS_PLAYS, done)
            problem = BATCHES[batch]([{**task, **FIXED} for task in sample], plays)
            learner.update(problem, 1.0 - 0.9 * done / iterations)  # as in training runs
    return torch.stack(looks)


def held_out() -> list[Task]:
    """Held-out payoffs."""
    return [{**task, **FIXED} for task in frozen_tasks(SPEC, "held_out")[:TESTS]]


def curves(seeds: int, iterations: int, outer_lr: float) -> list[Curve]:
    """Every outer step, with and without momentum, on exact and on sampled gradients."""
    looks = tuple(range(0, iterations + 1, EVERY))
    cases = [(batch, momentum, outer) for batch in BATCHES for momentum in MOMENTA for outer in OUTER]
    return [
        Curve(
            batch, outer, momentum, looks,
            torch.stack([train(batch, outer, momentum, seed, iterations, outer_lr) for seed in range(seeds)]).numpy(),
        )
        for batch, momentum, outer in track(cases, "outer steps", disable=not sys.stderr.isatty())
    ]  # fmt: skip


def sheet(found: Sequence[Curve], outer_lr: float) -> Sheet:
    """Late exploitability of every outer step; one row each, one column per kind of gradients."""
    bar, arrays, rows = uniform(held_out()) + SLACK, [], []
    for momentum in MOMENTA:
        for outer in OUTER:
            row = [outer, f"{momentum:g}"]
            for batch in BATCHES:
                (curve,) = (c for c in found if (c.batch, c.outer, c.momentum) == (batch, outer, momentum))
                arrays.append(curve.late())
                means = arrays[-1].mean(1)
                row += [
                    cell(estimate(arrays[-1], RNG_SEED)),
                    number(means.max()),
                    f"{(means <= bar).sum()} of {len(means)}",
                ]
            rows.append(tuple(row))
    header = ("outer step", "momentum", *(name for batch in BATCHES for name in (batch, "worst seed", "hold")))
    note = (
        f"Half of NashConv of the adapted players on {TESTS} held-out tasks, points, mean over the last third of "
        f"{found[0].iterations[-1]} iterations at an outer rate of {outer_lr:g}, with exact gradients and with those of "
        f"{EPISODES} sampled plays per task and shot. Uniform players: {number(bar - SLACK)}; a seed holds where its mean is at "
        f"most {SLACK:g} above that. {cover_note(arrays)}"
    )
    return Sheet("Exploitability late in training, random-payoff rock-paper-scissors", header, tuple(rows), note)


def plot(found: Sequence[Curve], path: Path) -> None:
    """A panel for each kind of gradients and momentum; means over seeds, and the range of the seeds."""
    figure = canvas(9.0, 6.0, dpi=110)
    panels = figure.subplots(len(MOMENTA), len(BATCHES), sharex=True, sharey=True, squeeze=False)
    even = uniform(held_out())
    for line, momentum in zip(panels, MOMENTA, strict=True):
        for axes, batch in zip(line, BATCHES, strict=True):
            for curve in (c for c in found if (c.batch, c.momentum) == (batch, momentum)):
                colour, means = COLOURS[list(OUTER).index(curve.outer)], curve.exploitability.mean(2)
                axes.fill_between(curve.iterations, means.min(0), means.max(0), color=colour, alpha=0.15, linewidth=0)
                axes.plot(curve.iterations, means.mean(0), color=colour, label=curve.outer, linewidth=1.5)
            axes.axhline(even, color="#555555", linestyle=":", linewidth=1, label="uniform players")
            axes.set_title(f"{batch} gradients, momentum {momentum:g}", fontsize=9)
            axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[-1]:
        axes.set_xlabel("iterations", fontsize=9)
    panels[0][0].set_ylim(bottom=0)  # of all panels: they share it
    figure.supylabel("exploitability of the adapted players, points", fontsize=9)
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=9)
    figure.suptitle("Rock-paper-scissors with random payoffs, held-out tasks", fontsize=10)
    write_atomic(path, rendered(figure, path.suffix[1:]))


@configured(1)
def compare(seeds: int, iterations: int, outer_lr: float, out: AnyPath) -> Sheet:
    """Outer steps where two players learn from each other, as a table, which is written with a picture.

    Args:
        seeds: training seeds of each outer step.
        iterations: outer steps of each training.
        outer_lr: initial step size; decays to a tenth.
        out: folder for dynamics.md and dynamics.png.

    Raises:
        InvalidInputError: a number that is too small.
    """
    for name, value, low in (("seeds", seeds, 1), ("iterations", iterations, EVERY)):
        if value < low:
            raise InvalidInputError(f"{name}={value} must be at least {low}")
    if not outer_lr > 0:
        raise InvalidInputError(f"outer_lr={outer_lr!r} must be above 0")
    out = as_path(out, "out")
    found = curves(seeds, iterations, outer_lr)
    made = sheet(found, outer_lr)
    write_atomic(out / "dynamics.md", made.markdown().encode())
    plot(found, out / "dynamics.png")
    return made
