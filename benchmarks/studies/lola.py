"""LOLA-DiCE on the iterated prisoner's dilemma (Foerster et al., ICML 2018): do two learners that look ahead cooperate?

Two tables of five probabilities, one per player, learn from each other by the gradient of ``lola_dice``: each imagines a number
of updates of the other, and follows its own return after them, through those updates. Without a look-ahead both are naive, and
defect. Protocol of the authors' code: plain gradient descent of minus the discounted return, a fixed outer rate, starts drawn
anew; no value function is learned.

All runs of a cell are played in one batch, and are independent. The reported returns are exact: the expected return per step of
the two final tables, undiscounted, over the game's horizon (``memory_one_values``).

Rates refer to one logit per state and to the discounted return, as in the paper. Our tables have two logits, one for each action,
which move in opposite directions, and a loss per step of the horizon; both are accounted for.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metaduel.agents.objective.config import LossConfig
from metaduel.agents.policies.base import Weights
from metaduel.agents.policies.tabular import TabularPolicy
from metaduel.benchmarks.core.metrics import Array, estimate, mean
from metaduel.benchmarks.core.report import COLOURS, RNG_SEED, Sheet, canvas, cell, cover_note, number, rendered
from metaduel.benchmarks.core.suite import Cell, Report, Suite
from metaduel.benchmarks.core.table import Table
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.errors import InvalidInputError, check_whole
from metaduel.envs.core.files import write_atomic
from metaduel.envs.core.game import make_game
from metaduel.envs.core.noise import derive_seed
from metaduel.envs.core.purposes import Purpose
from metaduel.envs.core.registry import find
from metaduel.envs.core.spec import ROLES, Role
from metaduel.envs.core.tasks import task_rows
from metaduel.envs.repeated_matrix_game.values import memory_one_values
from metaduel.meta.adaptation.outer import Named, OuterOptimiser
from metaduel.meta.learners.learner import Starts
from metaduel.meta.learners.maml import MAML
from metaduel.meta.learners.mapg import MAPGConfig, look_ahead
from metaduel.meta.problems.duels import DuelProblem, Matchups
from metaduel.meta.problems.problem import Part, Players

SPEC = find("IteratedPrisonersDilemma")
TASK = {"reward": -1.0, "sucker": -3.0, "temptation": 0.0, "punishment": -2.0}  # LOLA's payoffs, points
VALIDATION = "validation"  # task split of the runs for choosing inner rates; the others are held_out

# Mean return per step of (player 1, player 2) after 200 epochs, five runs, recomputed from the authors' result files.
PUBLISHED = {
    "naive": (-1.99, -1.99),
    "1 look-ahead": (-1.24, -1.13),
    "2 look-aheads": (-1.15, -1.09),
    "3 look-aheads": (-1.13, -1.08),
}


@dataclass(frozen=True, kw_only=True)
class Lola(Suite):
    """The protocol's numbers.

    Attributes:
        look_aheads: numbers of the opponent's updates that each player imagines; 0: naive.
        inner_lr: rates of the imagined updates to choose from.
        outer_lr: rate of the outer steps.
        seeds: number of reported runs.
        validation_seeds: number of runs for choosing the inner rate.
        epochs: outer steps.
        episodes: episodes per epoch and update.
        discount: discount of the objective.
        start_std: standard deviation of the starts' logits.
        cooperates: a run has ended in cooperation if both players' expected returns exceed this, points per step.
        every: epochs between rows.
    """

    look_aheads: tuple[int, ...]
    inner_lr: tuple[float, ...]
    outer_lr: float
    seeds: int
    validation_seeds: int
    epochs: int
    episodes: int
    discount: float
    start_std: float
    cooperates: float
    every: int

    def __post_init__(self) -> None:
        for name in ("seeds", "validation_seeds", "epochs", "episodes", "every"):
            check_whole(name, getattr(self, name))
        for count in self.look_aheads:
            check_whole("look_aheads", count, 0)
        if not self.look_aheads or not self.inner_lr or not all(rate > 0 for rate in (*self.inner_lr, self.outer_lr)):
            raise InvalidInputError("look_aheads and inner_lr need at least one value each, and rates must be above 0")
        if self.epochs % self.every:
            raise InvalidInputError(f"every={self.every} must divide epochs={self.epochs}")

    def cells(self) -> list[Cell]:
        """One cell for every number of look-aheads and inner rate."""
        names = (
            "outer_lr", "seeds", "validation_seeds", "epochs", "episodes", "discount", "start_std", "every"
        )  # fmt: skip
        shared = {name: getattr(self, name) for name in names}
        return [
            Cell(
                method(count, rate),
                SPEC,
                {**shared, "look_aheads": count, "inner_lr": rate},
                partial(self._play, count, rate),
            )
            for count in self.look_aheads
            for rate in self._rates(count)
        ]

    def _rates(self, count: int) -> tuple[float, ...]:
        return self.inner_lr if count else (0.0,)

    def _play(self, count: int, rate: float, folder: Path) -> Table:
        return self.rows(learn(self, count, rate), count, rate)

    def rows(self, values: Array, count: int, rate: float) -> Table:
        """The tidy table of a cell from the expected returns of ``learn``; shot: epochs."""
        shot, run, seat = (index.ravel() for index in np.indices(values.shape))
        validating = run >= self.seeds
        same: dict[str, Any] = {
            "family": SPEC.name, "version": SPEC.version, "method": method(count, rate), "task": "LOLA's payoffs",
            "opponent_split": "learned", "opponent": "the other learner", "actions": "sampled", "episode": 0,
        }  # fmt: skip
        columns = {name: np.full(values.size, value, object) for name, value in same.items()}
        return Table(
            columns
            | {
                "role": np.array(ROLES, object)[seat],
                "seed": run,
                "task_split": np.where(validating, VALIDATION, "held_out").astype(object),
                "shot": shot * self.every,
                "return": values.ravel().round(6),
            }
        )

    def report(self, table: Table, out: Path) -> Report:
        """See ``Suite.report``."""
        chosen = {count: self.chosen(table, count) for count in self.look_aheads}
        self._plot(table, chosen, out / "lola.png")
        pictures = {"lola.png": "Expected return per step over epochs, at the inner rates that were chosen"}
        return Report([self._headline(table, chosen), self._rates_sheet(table, chosen)], pictures)

    def chosen(self, table: Table, count: int) -> float:
        """The rate with the best final mean return of both players, in the validation runs."""
        part = table.filter(task_split=VALIDATION)
        return max(self._rates(count), key=lambda rate: mean(self._at_end(part, count, rate).mean(2)))

    def _at_end(self, table: Table, count: int, rate: float) -> Array:
        """[runs, 1, 2] points per step of both players."""
        name = method(count, rate)
        return np.stack([table.pivot(name, role, self.epochs) for role in ROLES], -1) / SPEC.horizon

    def _cooperating(self, ends: Array) -> str:
        both = np.all(ends > self.cooperates, axis=(1, 2)).tolist()
        return f"{sum(both)} of {len(both)}"

    def _headline(self, table: Table, chosen: dict[int, float]) -> Sheet:
        rows = [
            (f"{name} (published)", "", *(number(value) for value in values), "") for name, values in PUBLISHED.items()
        ]
        arrays = []
        for count, rate in chosen.items():
            ends = self._at_end(table.filter(task_split="held_out"), count, rate)
            arrays.append(ends[..., 0])
            players = (cell(estimate(ends[..., seat], RNG_SEED)) for seat in range(2))
            rows.append((label(count), f"{rate:g}" if count else "", *players, self._cooperating(ends)))
        header = ("look-aheads", "inner rate", "player 1", "player 2", "runs that end in cooperation")
        note = (
            f"Points per step after {self.epochs} epochs. Inner rates: the best of {', '.join(f'{r:g}' for r in self.inner_lr)} "
            f"in {self.validation_seeds} other runs. Cooperation: both players expect more than {number(self.cooperates)}, "
            f"half-way between mutual defection (−2) and mutual cooperation (−1). Published: five runs. {cover_note(arrays)}"
        )
        return Sheet("LOLA-DiCE beside the published rows", header, tuple(rows), note)

    def _rates_sheet(self, table: Table, chosen: dict[int, float]) -> Sheet:
        part, rows, arrays = table.filter(task_split="held_out"), [], []
        for count in (count for count in self.look_aheads if count):
            for rate in self.inner_lr:
                ends = self._at_end(part, count, rate)
                arrays.append(ends.mean(2))
                mark = "chosen" if rate == chosen[count] else ""
                rows.append(
                    (label(count), f"{rate:g}", cell(estimate(arrays[-1], RNG_SEED)), self._cooperating(ends), mark)
                )
        header = ("look-aheads", "inner rate", "mean of both players", "runs that end in cooperation", "")
        return Sheet("Every inner rate", header, tuple(rows), cover_note(arrays))

    def _plot(self, table: Table, chosen: dict[int, float], path: Path) -> None:
        part, shots = table.filter(task_split="held_out"), list(range(0, self.epochs + 1, self.every))
        figure = canvas(6.4, 4.0)
        axes = figure.subplots()
        for colour, (count, rate) in zip(COLOURS, chosen.items(), strict=False):
            values = np.stack([[part.pivot(method(count, rate), role, shot)[:, 0] for role in ROLES] for shot in shots])
            runs = values.mean(1) / SPEC.horizon  # [looks, runs]
            axes.fill_between(shots, runs.min(1), runs.max(1), color=colour, alpha=0.15, linewidth=0)
            axes.plot(shots, runs.mean(1), color=colour, linewidth=1.6, label=label(count))
        for value, text in ((-1.0, "both cooperate"), (-2.0, "both defect")):
            axes.axhline(value, color="#555555", linestyle=":", linewidth=1)
            axes.annotate(text, (self.epochs, value), textcoords="offset points", xytext=(0, 3), ha="right", fontsize=8)
        axes.set_xlabel("epochs")
        axes.set_ylabel("points per step, mean of both players")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=9, frameon=False)
        axes.set_title("Mean over runs; bands from the worst run to the best", fontsize=10, loc="left")
        write_atomic(path, rendered(figure, "png"))


def label(count: int) -> str:
    """A number of look-aheads in words."""
    return {0: "naive", 1: "1 look-ahead"}.get(count, f"{count} look-aheads")


def method(count: int, rate: float) -> str:
    """The name of a cell, and of its method in the table."""
    return f"{label(count)}, inner rate {rate:g}" if count else label(count)


class Descent(OuterOptimiser):
    """Plain gradient descent of named tensors, without bounds.

    Args:
        params: leaves that are updated in place.
        lr: step size.
    """

    def __init__(self, params: Named, lr: float) -> None:
        super().__init__(params, lr, optimistic=False, momentum=0.0, max_norm=float("inf"))

    @torch.no_grad()
    def step(self, gradients: Named, lr_scale: float = 1.0) -> float:
        """See ``OuterOptimiser.step``."""
        for name, param in self.params.items():
            param -= self.lr * lr_scale * gradients[name]
        return float(torch.stack([(g * g).sum() for g in gradients.values()]).sum().sqrt())


class SideBySide(Starts):
    """Independent pairs of learners: the starts are stacked, one for each pair."""

    def stacked(self, role: Role, tasks: int) -> Weights:
        """See ``Starts``."""
        return self.weights[role]

    def shared(self, players: Players, part: Part) -> Players:
        """See ``Starts``; no two pairs share one."""
        return players


def learn(suite: Lola, count: int, rate: float) -> Array:
    """Play all runs of a cell, the validation runs last.

    Returns:
        Expected returns [looks, runs, 2] of both players at the start and after every ``every`` epochs, in points.
    """
    runs = suite.seeds + suite.validation_seeds
    duel, rows = Duel(make_game(SPEC)), task_rows(SPEC, [TASK] * runs, {})
    policies = {role: TabularPolicy(duel.game.states, duel.game.states, duel.action_space(role)) for role in ROLES}
    loss = LossConfig("dice", suite.discount, suite.discount, normalise=False, exact_discount=True)
    learner = make(suite, count, rate, duel.horizon)
    payoffs = duel.game.params([TASK], torch.float64).payoffs
    looks = [expected(learner.start, payoffs, duel.horizon)]
    for epoch in range(suite.epochs):
        seed = derive_seed(Purpose.LOLA_EPOCH, epoch)
        learner.update(DuelProblem(duel, policies, Matchups(rows, duels=runs), suite.episodes, seed, loss))
        if (epoch + 1) % suite.every == 0:
            looks.append(expected(learner.start, payoffs, duel.horizon))
    return torch.stack(looks).numpy()


def make(suite: Lola, count: int, rate: float, horizon: int) -> MAML:
    """The learner of all runs."""
    generator = torch.Generator().manual_seed(Purpose.LOLA_START)
    runs = suite.seeds + suite.validation_seeds
    start: Players = {}
    for role in ROLES:
        logit = suite.start_std * torch.randn(runs, 5, generator=generator, dtype=torch.float32, device="cpu")
        start[role] = {"table": torch.stack([logit, torch.zeros_like(logit)], -1)}
    # Two logits move apart twice as fast as one moves; losses are per step, and the outer one is the mean over the runs.
    scale = horizon / 2
    config = MAPGConfig(
        steps=count, inner_lr=(rate or 1.0) * scale, outer_lr=suite.outer_lr * scale * runs, terms=("peer",), peer=True,
        learn_inner_lr=False, inner_lr_per="step", outer_shots="last", recompute=True,
    )  # fmt: skip
    return MAML(start, config, objective=look_ahead, starts=SideBySide(start, config.outer_lr, Descent))


def expected(start: Players, payoffs: Tensor, horizon: int) -> Tensor:
    """Expected undiscounted returns [runs, 2] of both players, in points."""
    tables = [start[role]["table"].detach().double().softmax(-1) for role in ROLES]
    return memory_one_values(tables[0], tables[1], payoffs, 1.0, horizon)
