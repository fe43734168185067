"""What an update knows before training: its direction beside that of the undiscounted return.

An update from a few episodes is a noisy estimate. Its *signal* is the cosine of its gradient with the gradient of the
undiscounted return, which many episodes of the same task against the same opponent give. With a discount of which an update
carries no information the cosine is 0, and no method that adapts by updates can adapt; ``warn_of_noise`` says so before training.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from metaduel.agents.objective.config import LossConfig
from metaduel.agents.objective.packing import Index, log_probs
from metaduel.agents.policies.base import Policy, Weights, adapting
from metaduel.agents.trajectories import Trajectories
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.game import Player
from metaduel.envs.core.noise import derive_seed
from metaduel.envs.core.purposes import Purpose
from metaduel.envs.core.spec import ROLES, Role
from metaduel.meta.learners.learner import Learner
from metaduel.meta.learners.methods import find_method
from metaduel.meta.problems.duels import DuelProblem, Matchups
from metaduel.meta.problems.problem import Players
from metaduel.meta.runs.config import TrainConfig
from metaduel.meta.runs.source import DuelSource

ERRORS = 2.0  # standard errors that a cosine above noise lies above 0
AT_ONCE = 400_000  # environment steps of a rollout, at most, unless a single task has more
TRUE = LossConfig(discount=1.0, inner_discount=1.0)  # the undiscounted return, with a baseline of its own per task

# A warning's measurement: short, since every training waits for it.
TASKS, REPEATS = 32, 4
TRUE_STEPS = 150_000  # environment steps of the true gradients, about
DISCOUNTS = (0.0, 0.5, 0.9, 0.95, 1.0)  # to choose a better one from


@dataclass(frozen=True)
class Situation:
    """A player on tasks, each against one scripted opponent.

    Attributes:
        duel: the game.
        role: the player's seat.
        policy: its network.
        weights: its start on each task, [N, ...] each.
        rows: the tasks, [N, C].
        opponents: of each task, N of them; equal ones are neighbours.
        adapts: names of the weights that an update changes; None: all that adapt.
    """

    duel: Duel
    role: Role
    policy: Policy
    weights: Weights
    rows: Tensor
    opponents: Sequence[Player]
    adapts: Sequence[str] | None = None

    def part(self, where: slice) -> Situation:
        """Some of the tasks."""
        weights = {name: value[where] for name, value in self.weights.items()}
        return replace(self, weights=weights, rows=self.rows[where], opponents=self.opponents[where])

    def repeated(self, times: int) -> Situation:
        """Every task several times in a row."""
        weights = {name: value.repeat_interleave(times, 0) for name, value in self.weights.items()}
        met = [player for player in self.opponents for _ in range(times)]
        return replace(self, weights=weights, rows=self.rows.repeat_interleave(times, 0), opponents=met)

    def play(self, episodes: int, seed: int) -> Trajectories:
        """Episodes on every task: [N, T, E, ...]."""
        groups = [(some[0], len(some)) for some in (list(own) for _, own in itertools.groupby(self.opponents, id))]
        protagonist = self.role == "protagonist"
        matchups = Matchups(
            self.rows,
            against_adversaries=groups if protagonist else (),
            against_protagonists=() if protagonist else groups,
        )
        problem = DuelProblem(self.duel, {self.role: self.policy}, matchups, episodes, seed, TRUE)
        return problem.collect({self.role: self.weights}, 0)[self.role]

    def gradients(self, data: Trajectories, losses: Sequence[LossConfig]) -> Iterator[Tensor]:
        """The gradient of each loss's update on the same episodes: [N, weights], of a role's own losses."""
        leaves = {name: value.detach().requires_grad_() for name, value in adapting(self.weights).items()}
        chosen = [value for name, value in leaves.items() if self.adapts is None or name in self.adapts]
        index = Index(data.alive)
        log_prob = log_probs(self.policy, self.weights | leaves, data, index)
        for loss in losses:
            advantage = loss.support_advantages(data, index)
            # Where the weights have sampled the data, every surrogate has this gradient.
            objective = (log_prob * (advantage * data.alive)).sum()
            found = torch.autograd.grad(objective, chosen, retain_graph=True)
            yield torch.cat([gradient.flatten(1) for gradient in found], 1)


def situation(
    duel: Duel,
    role: Role,
    policy: Policy,
    starts: Sequence[Weights],
    rows: Tensor,
    opponents: Sequence[Player],
    adapts: Sequence[str] | None = None,
) -> Situation:
    """The player on every task of ``rows`` [N, C], against the opponents in equal shares.

    Args:
        duel: the game.
        role: the player's seat.
        policy: its network.
        starts: its weights: one start for all tasks, or one for each.
        rows: the tasks.
        opponents: scripted players.
        adapts: see ``Situation``.
    """
    n = len(rows)
    several = starts if len(starts) == n else [starts[0]] * n
    weights = {name: torch.stack([one[name].detach() for one in several]) for name in starts[0]}
    met = [opponents[i * len(opponents) // n] for i in range(n)]
    return Situation(duel, role, policy, weights, rows, met, adapts)


def true_gradients(where: Situation, episodes: int, seed: int, on_part: Callable[[], None] = lambda: None) -> Tensor:
    """The undiscounted return's gradient, [N, weights], from ``episodes`` episodes on each task."""
    found: list[Tensor] = []
    size = _at_once(where, episodes)
    for first in range(0, len(where.rows), size):
        part = where.part(slice(first, first + size))
        data = part.play(episodes, derive_seed(seed, Purpose.SIGNAL_TRUTH, first))
        found += part.gradients(data, [TRUE])
        on_part()
    return torch.cat(found)


def true_parts(where: Situation, episodes: int) -> int:
    """Number of times that ``true_gradients`` calls ``on_part``."""
    return -(-len(where.rows) // _at_once(where, episodes))


def _at_once(where: Situation, episodes: int) -> int:
    """Tasks of a rollout."""
    return max(1, AT_ONCE // (episodes * where.duel.horizon))


def signals(
    where: Situation, truth: Tensor, losses: Sequence[LossConfig], episodes: int, repeats: int, seed: int
) -> Iterator[Tensor]:
    """Each loss's cosines of updates from a few episodes with the true gradient: [N], means over repetitions. All losses are
    evaluated on the same episodes.

    Args:
        where: the player, the tasks and the opponents.
        truth: from ``true_gradients``.
        losses: the role's own.
        episodes: of an update.
        repeats: updates on every task.
        seed: of the episodes' noise.
    """
    many = where.repeated(repeats)
    data = many.play(episodes, derive_seed(seed, Purpose.SIGNAL_UPDATE, episodes))
    for gradient in many.gradients(data, losses):
        cosines = torch.cosine_similarity(gradient, truth.repeat_interleave(repeats, 0), 1)
        yield cosines.view(-1, repeats).mean(1)


def mean_and_error(values: Tensor) -> tuple[float, float]:
    """The mean over independent values [n], and its standard error."""
    return float(values.mean()), float(values.std() / len(values) ** 0.5)


def above_noise(values: Tensor) -> bool:
    """Whether the mean of independent values [n] is above 0 by more than chance."""
    mean, error = mean_and_error(values)
    return mean > ERRORS * error


def warn_of_noise(
    configs: Sequence[TrainConfig], source: DuelSource, learners: Sequence[Learner], folders: Sequence[Path]
) -> None:
    """Print a line on standard error for each inner discount with which an update from a run's start carries no information, and
    the better one. Measures once per distinct setting, on about a second's worth of episodes, with noise of its own.

    Args:
        configs: of runs of one world that are trained together; those without an inner step are passed over.
        source: of the first one.
        learners: of each, at its start.
        folders: of each; runs that have begun are passed over.
    """
    seen = set()
    for config, learner, folder in zip(configs, learners, folders, strict=True):
        if not config.configured.steps or find_method(config.method).memory is not None:
            continue
        for role in config.roles:
            loss = replace(config.objective.of(role), surrogate=None, discount=TRUE.discount, baseline=TRUE.baseline)
            setting = (role, loss, config.episodes, config.configured.adapts)
            if setting in seen or (folder / "config.yaml").is_file():
                continue
            seen.add(setting)
            line = _warning(config, source, role, loss, learner.start)
            if line:
                print(f"metaduel: {line}", file=sys.stderr, flush=True)


def _warning(config: TrainConfig, source: DuelSource, role: Role, loss: LossConfig, start: Players) -> str | None:
    """A role's warning; None: its updates carry information, or no other discount is known to be better."""
    policy = source.policies[role]
    adapts = policy.head_names if config.configured.adapts == "head" else None
    seed = derive_seed(Purpose.SIGNAL_TASKS, ROLES.index(role))
    rows = source.training_tasks(TASKS, seed)
    where = situation(source.duel, role, policy, [start[role]], rows, source.opponents[role], adapts)
    episodes = min(300, max(20, TRUE_STEPS // (TASKS * source.duel.horizon)))
    discounts = [loss.inner_discount, *(one for one in DISCOUNTS if one != loss.inner_discount)]
    losses = [replace(loss, inner_discount=one) for one in discounts]
    truth = true_gradients(where, episodes, seed)
    own, *others = signals(where, truth, losses, config.episodes, REPEATS, seed)
    best = max(range(len(others)), key=lambda i: float(others[i].mean()))
    if above_noise(own) or not above_noise(others[best]) or not above_noise(others[best] - own):
        return None
    common = role == "protagonist" or config.loss.adversary_inner_discount is None
    name = "inner_discount" if common else "adversary_inner_discount"
    (mean, error), (better, _) = mean_and_error(own), mean_and_error(others[best])
    return (
        f"{name}={loss.inner_discount:g}: at the start an update of the {role} from {config.episodes} episodes carries no "
        f"information above noise: its cosine with the return's gradient is {mean:.2f} +- {error:.2f}; with {name}="
        f"{discounts[best + 1]:g} it is {better:.2f}, see `metaduel signal {config.spec.name}`"
    )
