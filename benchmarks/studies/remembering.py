"""RL^2 against personas: a player whose memory lasts over all shots of a meeting, while the persona learns with gradients.

A persona that takes one update from many trajectories meets as many copies of the player at once. Each copy has a memory of its
own from its first trajectory to its last: line e remembers the e-th trajectory of every shot. The persona is a part of the world;
its learning is not differentiated. The player's actions in one shot change the persona's actions, and so the rewards, in later
shots. So the discount must reach over the shots.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
from torch import Tensor

from metaduel.agents.policies.base import Policy, Weights
from metaduel.agents.policies.memory import MemoryPolicy
from metaduel.agents.trajectories import Carry, Trajectories
from metaduel.envs.core.errors import check_whole
from metaduel.envs.core.noise import derive_seed
from metaduel.envs.core.purposes import Purpose
from metaduel.envs.core.spec import ROLES, Role
from metaduel.envs.core.tasks import task_rows
from metaduel.meta.adaptation.inner import adapt_step, constants, leaves
from metaduel.meta.learners.rl2 import RL2
from metaduel.meta.problems.chains import Chain
from metaduel.meta.problems.duels import DuelProblem, Matchups
from metaduel.meta.problems.personas import Personas
from metaduel.meta.problems.problem import Given, Players
from metaduel.meta.runs.config import TrainConfig
from metaduel.meta.runs.players import initial_weights, make_duel, make_policy

OWN: Role = ROLES[0]  # the player's seat
PEER: Role = ROLES[1]  # the persona's


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Settings of the training of a player with a memory.

    Attributes:
        units: width of its memory.
        iterations: batches.
        personas: per batch.
        lines: trajectories per persona and shot in training.
        discount: of its own returns, over the whole meeting.
        outer_lr: Adam's step size at the start; decays to a tenth.
        outer_steps: steps on every batch.
    """

    units: int
    iterations: int
    personas: int
    lines: int
    discount: float
    outer_lr: float
    outer_steps: int

    def __post_init__(self) -> None:
        for name in ("units", "iterations", "personas", "lines", "outer_steps"):
            check_whole(name, getattr(self, name))

    def plain(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def config(self, base: TrainConfig) -> TrainConfig:
        """A run's settings with these."""
        return base.override(
            method="rl2", hidden=[self.units], persona_share=0.0, iterations=self.iterations, tasks=self.personas,
            episodes=self.lines, discount=self.discount, episode_discount=self.discount, outer_lr=self.outer_lr,
            outer_steps=self.outer_steps, normalise=True, exact_discount=False,
        )  # fmt: skip


def learn(memory: Memory, config: TrainConfig, them: Personas) -> tuple[Policy, Weights]:
    """Train against personas of the training split; return the policy and its weights after the last iteration."""
    duel = make_duel(config)
    policy = make_policy(config, duel, OWN)
    learner = RL2(initial_weights({OWN: policy}, config.seed), cast(Any, config.configured))
    rows = task_rows(config.spec, [{}] * memory.personas, config.fixed)
    for iteration in range(memory.iterations):
        problem = DuelProblem(
            duel, {OWN: policy, PEER: them.policy}, Matchups(rows, duels=memory.personas), memory.lines,
            derive_seed(config.seed, Purpose.REMEMBERING_TRAIN, iteration), config.objective,
        )  # fmt: skip
        persona = them.sample(memory.personas, "train", config.seed, iteration)
        weights = {name: value.detach().unsqueeze(0) for name, value in learner.start[OWN].items()}
        episodes = meeting(problem, weights, persona, config.configured.steps, them)
        chain = Chain({OWN: cast(MemoryPolicy, policy)}, {OWN: episodes}, {OWN: config.objective}, problem.seed)
        learner.learn(chain, 1.0 - 0.9 * iteration / memory.iterations)
    return policy, {name: value.detach() for name, value in learner.start[OWN].items()}


def play(problem: DuelProblem, weights: Weights, persona: Given, shots: int, them: Personas) -> Tensor:
    """Mean returns [shots + 1, personas] of the player, unstacked ``weights``."""
    one = {name: value.unsqueeze(0) for name, value in weights.items()}
    episodes = meeting(problem, one, persona, shots, them)
    return torch.stack([data.returns.view(problem.tasks[PEER], -1).mean(1) for data in episodes])


def meeting(problem: DuelProblem, weights: Weights, persona: Given, shots: int, them: Personas) -> list[Trajectories]:
    """The player's trajectories [1, T, personas x lines, ...] of every shot, with memories that last."""
    players: Players = {OWN: weights, PEER: persona.weights}
    carries: dict[Role, Carry] = {}
    kept = []
    for shot in range(shots + 1):
        data = problem.collect(players, shot, carries)
        kept.append(data[OWN])
        carry = data[OWN].carry
        assert carry is not None
        carries = {OWN: carry}
        peer = leaves({PEER: {name: value.clone() for name, value in players[PEER].items()}})
        loss, _ = them.loss.evaluate(them.policy, peer[PEER], data[PEER], problem.duel.horizon)
        after = adapt_step(peer, {PEER: loss}, {PEER: persona.step_size}, create_graph=False)
        players = {OWN: weights, **constants(after)}
    return kept
