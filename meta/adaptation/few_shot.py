"""Few-shot adaptation of one player against fixed opponents: returns at every shot, on the same evaluation episodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from metaduel.agents.objective.config import LossConfig
from metaduel.agents.policies.base import Policy, Weights, stack
from metaduel.agents.policies.memory import MemoryPolicy
from metaduel.agents.trajectories import Trajectories
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.game import Player
from metaduel.envs.core.spec import Role
from metaduel.meta.adaptation.inner import adapt_step, rate_at
from metaduel.meta.problems.chains import ChainProblem
from metaduel.meta.problems.duels import DuelProblem, Matches
from metaduel.meta.problems.problem import Players, Problem


class FewShot(NamedTuple):
    """What an adaptation gave."""

    returns: Tensor  # [shots + 1, opponents, tasks, test episodes], undiscounted
    weights: Weights  # after the last shot, each [opponents * tasks, ...]


def adapt_and_test(
    duel: Duel,
    policy: Policy,
    role: Role,
    start: Weights,
    rates: Tensor,
    loss: LossConfig,
    tasks: Tensor,
    opponents: Sequence[Player],
    shots: int,
    episodes: int,
    test_episodes: int,
    adapt_seed: int,
    test_seed: int,
    deterministic: bool = False,
) -> FewShot:
    """Adapt on every (opponent, task) at once and test after every shot.

    Args:
        duel: the game; what ``role`` is shown is its choice.
        policy: the player's.
        role: whose seat.
        start: weights at shot 0.
        rates: [K], or [K, ...] as ``inner.step_sizes`` takes them; beyond K the last are kept. Not used with ``shots`` 0.
        loss: what adaptation minimises.
        tasks: [M, number of contexts].
        opponents: who sits in the other seat.
        shots: updates.
        episodes: episodes per update.
        test_episodes: fresh episodes per test; the same noise at every shot.
        adapt_seed: of the adaptation episodes.
        test_seed: of the test episodes; keep it far from ``adapt_seed``.
        deterministic: test with the mode of the action distribution instead of samples.
    """
    groups = [(player, tasks.shape[0]) for player in opponents]
    rows = tasks.repeat(len(opponents), 1)
    if role == "protagonist":
        matches = Matches(rows, against_adversaries=groups)
    else:
        matches = Matches(rows, against_protagonists=groups)
    support = DuelProblem(duel, {role: policy}, matches, episodes, adapt_seed, loss)
    query = DuelProblem(duel, {role: policy}, matches, test_episodes, test_seed, loss, deterministic)
    result = adapt_on(support, query, role, start, rates, shots)
    shape = (shots + 1, len(opponents), tasks.shape[0], test_episodes)
    return FewShot(result.returns.view(shape), result.weights)


class Playable(Problem, Protocol):
    """A problem whose episodes can be looked at."""

    policies: Mapping[Role, Policy]

    def collect(self, players: Players, shot: int) -> dict[Role, Trajectories]:
        """Play every task's episodes under the players' present weights."""
        ...


def adapt_on(support: Playable, query: Playable, role: Role, start: Weights, rates: Tensor, shots: int) -> FewShot:
    """Adapt on ``support`` and test on ``query`` (always its shot 0: the same noise) after every shot: by gradients, or by
    remembering where the policy has a memory that lasts.

    Returns:
        Returns [shots + 1, tasks, test episodes], and the weights after the last shot.
    """
    if isinstance(support.policies[role], MemoryPolicy):
        return _remember_on(support, query, role, start, shots)
    weights = {name: value.clone() for name, value in stack(start, support.tasks[role]).items()}
    returns = []
    for shot in range(shots + 1):
        returns.append(query.collect({role: weights}, 0)[role].returns)
        if shot < shots:
            players = {role: {name: value.detach().requires_grad_() for name, value in weights.items()}}
            losses = support.losses(players, shot)
            after = adapt_step(players, losses.support, {role: rate_at(rates, shot)}, create_graph=False)
            weights = {name: value.detach() for name, value in after[role].items()}
    return FewShot(torch.stack(returns), weights)


def _remember_on(support: Playable, query: Playable, role: Role, start: Weights, shots: int) -> FewShot:
    """``adapt_on`` for a player whose memory adapts: one set of weights for all tasks, and a memory for each."""
    if not isinstance(support, ChainProblem):
        raise InvalidInputError(f"{type(support).__name__}: a memory that lasts over episodes is not supported here")
    tasks = support.tasks[role]
    players = {role: {name: value.unsqueeze(0) for name, value in start.items()}}
    returns = []
    for shot in range(shots + 1):
        returns.append(query.collect(players, 0)[role].returns.view(tasks, -1))
        if shot < shots:
            players = support.remember(players, shot)
    weights = stack(start, tasks)
    if shots:
        weights["memory.start"] = players[role]["memory.start"].squeeze(0)
    return FewShot(torch.stack(returns), weights)
