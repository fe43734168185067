"""Trained players: what a run folder gives back, and how they act and adapt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from metaduel.agents.episodes import Step, pad_episodes
from metaduel.agents.policies import Policy, Weights
from metaduel.agents.rollout import Trajectories
from metaduel.envs.core import Duel, View
from metaduel.envs.errors import InvalidInputError
from metaduel.envs.spec import ROLES, Role
from metaduel.meta.checkpoint import load_checkpoint, read_config
from metaduel.meta.config import ForeignConfig, TrainConfig
from metaduel.meta.duels import LossConfig
from metaduel.meta.few_shot import rate_at
from metaduel.meta.foreign import Factory, action_space, describe, make_policies, observation_space
from metaduel.meta.inner import adapt_step
from metaduel.meta.source import make_duel, make_policy
from metaduel.meta.trainer import BEST


@dataclass(frozen=True)
class Agent:
    """A player that acts like a Stable-Baselines3 model and adapts in a few episodes.

    Attributes:
        role: its seat.
        policy: the network.
        weights: of one player, not stacked.
        rates: [K, ...] step sizes of its updates, see ``inner.step_sizes``; none for a player that was not meta-trained.
        loss: what adaptation minimises.
        observation_space: of the environments that it plays in.
        action_space: the same.
        seed: of its sampled actions.
    """

    role: Role
    policy: Policy
    weights: Weights
    rates: Tensor
    loss: LossConfig
    observation_space: gym.spaces.Box
    action_space: gym.spaces.Box | gym.spaces.Discrete
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "_rng", np.random.default_rng(self.seed))
        prepared = self.policy.prepare({name: value.unsqueeze(0) for name, value in self.weights.items()})
        object.__setattr__(self, "_prepared", prepared)

    def predict(
        self,
        observation: np.ndarray[Any, Any],
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray[Any, Any], Any]:
        """Choose actions, with the signature of Stable-Baselines3's ``predict``.

        Args:
            observation: [d] or [B, d].
            state: passed through; this player has no memory within an episode.
            episode_start: not used.
            deterministic: the mode of the distribution instead of a sample.

        Returns:
            Actions within the action space, [a] or [B, a] (or int64 scalars), and ``state``.
        """
        batch = np.atleast_2d(np.asarray(observation, np.float32))
        uniforms = None if deterministic else self._rng.random((len(batch), self.policy.noise))  # type: ignore[attr-defined]
        action, _ = self._choose(torch.as_tensor(batch), uniforms)
        chosen = self.policy.clip(action).numpy()
        return (chosen if np.ndim(observation) == 2 else chosen[0]), state

    def _choose(self, observation: Tensor, uniforms: np.ndarray[Any, Any] | None) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            distribution = self.policy.distribution(self._prepared, observation.unsqueeze(0))  # type: ignore[attr-defined]
            if uniforms is None:
                action = distribution.mode()
            else:
                numbers = torch.as_tensor(uniforms, dtype=observation.dtype)
                action = distribution.sample(self.policy.prepare_noise(numbers))
        return action[0], observation

    def adapt(self, env: gym.Env[Any, Any], shots: int = 3, episodes: int = 5) -> Agent:
        """Adapt to whatever task and opponent ``env`` has now; ``env`` is reset before every episode.

        Args:
            env: any Gymnasium environment of matching spaces.
            shots: updates.
            episodes: fresh episodes per update.

        Returns:
            The adapted player; this one is left as it is.

        Raises:
            InvalidInputError: spaces that don't match, a player that has no inner rates, or bad numbers.
        """
        for name, value in (("shots", shots), ("episodes", episodes)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InvalidInputError(f"{name}={value!r} must be a whole number of at least 1")
        if not len(self.rates):
            raise InvalidInputError(
                "this player was trained without adaptation: it has no inner rates (use method maml)"
            )
        for space in ("observation_space", "action_space"):
            if getattr(env, space) != getattr(self, space):
                raise InvalidInputError(
                    f"env's {space} is {getattr(env, space)}; this player needs {getattr(self, space)}"
                )
        agent = self
        for shot in range(shots):
            data = agent._play(env, episodes)
            weights = {name: value.unsqueeze(0).requires_grad_() for name, value in agent.weights.items()}
            loss, *_ = self.loss.of(self.role).evaluate(self.policy, weights, data)
            rates = {self.role: rate_at(self.rates, shot)}
            after = adapt_step({self.role: weights}, {self.role: loss}, rates, create_graph=False)[self.role]
            agent = replace(
                self, weights={n: v.detach().squeeze(0) for n, v in after.items()}, seed=self.seed + shot + 1
            )
        return agent

    def _play(self, env: gym.Env[Any, Any], episodes: int) -> Trajectories:
        """Episodes as [1, T, E] tensors, T the longest."""
        played: list[list[Step]] = []
        for _ in range(episodes):
            steps: list[Step] = []
            done = False
            observation, _ = env.reset()
            while not done:
                uniforms = self._rng.random((1, self.policy.noise))  # type: ignore[attr-defined]
                action, row = self._choose(torch.as_tensor(np.array(observation, np.float32)).view(1, -1), uniforms)
                chosen = self.policy.clip(action).numpy()[0]
                observation, reward, terminated, truncated, _ = env.step(chosen)
                steps.append(Step(row[0], action[0], float(reward)))
                done = terminated or truncated
            played.append(steps)
        return pad_episodes([played])


class AgentPlayer:
    """An agent in a seat of the batched core; acts with samples from the seat's noise."""

    memory = 0

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.noise = agent.policy.noise

    def act(self, view: View, memory: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """See ``core.Player.act``."""
        action, _ = self.agent._choose(view.observation, noise.numpy())
        return self.agent.policy.clip(action), memory


@dataclass(frozen=True)
class Trained:
    """What every run folder gives back.

    Attributes:
        agents: the players.
        iterations: at which iteration each player's weights were best in validation.
    """

    agents: dict[Role, Agent]
    iterations: dict[Role, int]

    @property
    def protagonist(self) -> Agent:
        """The protagonist."""
        return self.agent("protagonist")

    @property
    def adversary(self) -> Agent:
        """The adversary."""
        return self.agent("adversary")

    def agent(self, role: Role) -> Agent:
        """The player of that role.

        Raises:
            InvalidInputError: the run did not train one.
        """
        if role not in self.agents:
            raise InvalidInputError(f"this run trained no {role}: it has {', '.join(self.agents)}")
        return self.agents[role]


@dataclass(frozen=True)
class Run(Trained):
    """A run on a family.

    Attributes:
        config: its settings.
        duel: its game.
    """

    config: TrainConfig
    duel: Duel


@dataclass(frozen=True)
class ForeignRun(Trained):
    """A run on somebody's own environments. Its agents' observation spaces are flat: where the environment's own are not,
    wrap it in ``gymnasium.wrappers.FlattenObservation``, or pass ``gymnasium.spaces.flatten(space, observation)``.

    Attributes:
        config: its settings.
    """

    config: ForeignConfig


@overload
def load(folder: str | Path) -> Run: ...
@overload
def load(folder: str | Path, task_set: Factory) -> ForeignRun: ...
def load(folder: str | Path, task_set: Factory | None = None) -> Run | ForeignRun:
    """Read a run folder: each role's best weights on the validation split.

    Args:
        folder: the run's.
        task_set: for a run on somebody's own environments, the function that makes them.

    Raises:
        InvalidInputError: not a run folder, or its checkpoint is missing, corrupt or of another version; ``task_set`` is
            missing, too much, or makes other environments.
    """
    folder = Path(folder)
    values = read_config(folder)
    if task_set is None:
        if "environment" in values:
            raise InvalidInputError(
                f"{folder} was trained on environments of its own ({values['environment']}): load(folder, task_set=...)"
            )
        values.pop("task_list", None)
        config = TrainConfig.from_dict(values)
        duel = make_duel(config)
        policies = {role: make_policy(config, duel, role) for role in ROLES if role in config.roles}
        seats = {role: (duel.observation_space(role), duel.action_space(role)) for role in policies}
        return Run(*_players(folder, policies, seats, config.loss), config, duel)
    if "environment" not in values:
        raise InvalidInputError(f"{folder} was trained on the family {values.get('game')}: load it without task_set")
    own, env = ForeignConfig.from_dict(values), task_set()
    found = describe(env)
    for name, value in found.items():
        if getattr(own, name) != value:
            raise InvalidInputError(f"{folder} was trained with {name} {getattr(own, name)}, task_set makes {value}")
    pairs = zip(ROLES, env.possible_agents, strict=True)
    seats = {role: (observation_space(env, agent), action_space(env, agent)) for role, agent in pairs}
    return ForeignRun(*_players(folder, make_policies(env, own), seats, own.loss), own)


def _players(
    folder: Path, policies: Mapping[Role, Policy], seats: Mapping[Role, tuple[Any, Any]], loss: LossConfig
) -> tuple[dict[Role, Agent], dict[Role, int]]:
    """Each role's best weights, and the iteration that they are from."""
    tensors, state = load_checkpoint(folder / BEST)
    agents: dict[Role, Agent] = {}
    for role, policy in policies.items():
        prefix = f"{role}/start/"
        weights = {n.removeprefix(prefix): v for n, v in tensors.items() if n.startswith(prefix)}
        expected = {name: value.shape for name, value in policy.init(0).items()}
        if {name: value.shape for name, value in weights.items()} != expected:
            raise InvalidInputError(
                f"{folder}: the {role}'s weights don't fit the config.yaml, or this version's spaces"
            )
        # In the policy's own order, which the rates follow; a file has its own.
        weights = {name: weights[name] for name in expected}
        agents[role] = Agent(role, policy, weights, tensors[f"{role}/rates"], loss, *seats[role])
    return agents, {role: state["best"][f"{role}/iteration"] for role in agents}


def load_player(duel: Duel, role: Role, path: str) -> AgentPlayer:
    """The player behind ``run:FOLDER``, unadapted, for ``role``'s seat.

    Raises:
        InvalidInputError: no such run, or its spaces don't match the seat.
    """
    run = load(path)
    agent = run.agent(role)
    if agent.observation_space != duel.observation_space(role) or agent.action_space != duel.action_space(role):
        raise InvalidInputError(
            f"run:{path} was trained on {run.config.game}: its spaces don't match {duel.spec.name}'s {role}"
        )
    return AgentPlayer(agent)
