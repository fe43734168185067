"""Trained players: what a run folder gives back, and how they act and adapt."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from metaduel.agents.episodes import Step, pad_episodes
from metaduel.agents.objective.config import LossConfig
from metaduel.agents.policies.base import Policy, Weights
from metaduel.agents.policies.distributions import Distribution
from metaduel.agents.policies.memory import MemoryPolicy
from metaduel.agents.policies.recurrent import RecurrentPolicy
from metaduel.agents.trajectories import Trajectories
from metaduel.envs.core.errors import InvalidInputError, check_whole
from metaduel.envs.core.game import View
from metaduel.envs.core.spec import Role
from metaduel.meta.adaptation.inner import adapt_step, rate_at

Array = npt.NDArray[Any]


class State(NamedTuple):
    """What a network with a memory carries from step to step."""

    hidden: Array  # [B, units]
    before: Array  # [B, n] what the next input holds beside the observation
    told: bool  # whether the last reward is in there


_NO_STATE = State(np.zeros((1, 0)), np.zeros((1, 0)), True)


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
            state: what a network with a memory remembers of its episode, as the last call (and ``remember``) gave it; None at
                the start of one. Passed through by others.
            episode_start: [B] bool: which rows begin an episode, for networks with a memory.
            deterministic: the mode of the distribution instead of a sample.

        Returns:
            Actions within the action space, [a] or [B, a] (or int64 scalars), and the new ``state``.

        Raises:
            InvalidInputError: a network with a memory has not been told its last reward, see ``remember``.
        """
        batch = torch.as_tensor(np.atleast_2d(np.asarray(observation, np.float32)))
        uniforms = None if deterministic else self._rng.random((len(batch), self.policy.noise))  # type: ignore[attr-defined]
        if isinstance(self.policy, RecurrentPolicy):
            state = self._state(self.policy, state, episode_start, len(batch))
            action, _, hidden = self._recall(self.policy, batch, state, uniforms)
            before = self.policy.remember(action.unsqueeze(0), action.new_zeros(1, len(batch), dtype=batch.dtype))[0]
            state = State(hidden.numpy(), before.numpy(), False)
        else:
            action, _ = self._choose(batch, uniforms)
        chosen = self.policy.clip(action).numpy()
        return (chosen if np.ndim(observation) == 2 else chosen[0]), state

    def remember(self, state: State, reward: npt.ArrayLike) -> State:
        """Tell a network with a memory what its last action was rewarded with: once after every step, before ``predict``.

        Args:
            state: as ``predict`` gave it.
            reward: [B], or a number.

        Returns:
            The state for the next ``predict``.
        """
        before = state.before.copy()
        before[:, self.policy.action_size] = np.asarray(reward, np.float32)
        return State(state.hidden, before, True)

    def _state(self, policy: RecurrentPolicy, state: State | None, episode_start: Any, rows: int) -> State:
        for name, given in (("state", None if state is None else state.hidden), ("episode_start", episode_start)):
            if given is not None and len(np.atleast_1d(given)) != rows:
                raise InvalidInputError(f"{name} has {len(np.atleast_1d(given))} rows, the observation {rows}")
        blank = np.zeros((rows, policy.remembered[1]), np.float32)
        fresh = State(self._begin(policy, rows), blank, True)
        if state is None:
            return fresh
        starting = np.zeros(rows, bool) if episode_start is None else np.asarray(episode_start, bool).reshape(rows)
        if not state.told and not starting.all():
            raise InvalidInputError(
                "this player remembers its rewards: after every step, state = player.remember(state, reward)"
            )
        where = starting[:, None]
        return State(np.where(where, fresh.hidden, state.hidden), np.where(where, fresh.before, state.before), True)

    def _begin(self, policy: RecurrentPolicy, rows: int) -> Array:
        if isinstance(policy, MemoryPolicy):
            return policy.begin(self._prepared, rows)[0].numpy()  # type: ignore[attr-defined]
        return np.zeros((rows, policy.remembered[0]), np.float32)

    @torch.no_grad()
    def _recall(
        self, policy: RecurrentPolicy, observation: Tensor, state: State, uniforms: Array | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The action, the network's input and its new memory, one row each."""
        given = torch.cat([observation, torch.as_tensor(state.before)], 1)
        out, hidden = policy.advance(self._prepared, given.unsqueeze(0), torch.as_tensor(state.hidden).unsqueeze(0))  # type: ignore[attr-defined]
        return self._pick(policy.head(self._prepared, out), uniforms), given, hidden[0]  # type: ignore[attr-defined]

    def _choose(self, observation: Tensor, uniforms: Array | None) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            distribution = self.policy.distribution(self._prepared, observation.unsqueeze(0))  # type: ignore[attr-defined]
            return self._pick(distribution, uniforms), observation

    def _pick(self, distribution: Distribution, uniforms: Array | None) -> Tensor:
        if uniforms is None:
            return distribution.mode()[0]
        numbers = torch.as_tensor(uniforms, dtype=torch.float32)
        return distribution.sample(self.policy.prepare_noise(numbers))[0]

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
            check_whole(name, value)
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
            if isinstance(self.policy, MemoryPolicy):
                agent = replace(agent._remembering(env, episodes), seed=self.seed + shot + 1)
                continue
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
        return pad_episodes([[self._episode(env)[0] for _ in range(episodes)]])

    def _remembering(self, env: gym.Env[Any, Any], episodes: int) -> Agent:
        """The player with the memory that it has after some episodes."""
        assert isinstance(self.policy, MemoryPolicy)
        agent = self
        for _ in range(episodes):
            _, state = agent._episode(env)
            before, hidden = (torch.as_tensor(part).unsqueeze(0) for part in (state.before, state.hidden))
            with torch.no_grad():
                memory = self.policy.close(agent._prepared, before, hidden)[0, 0]  # type: ignore[attr-defined]
            after = replace(agent, weights={**agent.weights, "memory.start": memory})
            object.__setattr__(after, "_rng", agent._rng)  # type: ignore[attr-defined]
            agent = after
        return agent

    def _episode(self, env: gym.Env[Any, Any]) -> tuple[list[Step], State]:
        """One episode, and the state that a network with a memory is left with."""
        steps: list[Step] = []
        done = False
        state = self._state(self.policy, None, None, 1) if isinstance(self.policy, RecurrentPolicy) else _NO_STATE
        observation, _ = env.reset()
        while not done:
            uniforms = self._rng.random((1, self.policy.noise))  # type: ignore[attr-defined]
            own = torch.as_tensor(np.array(observation, np.float32)).view(1, -1)
            if isinstance(self.policy, RecurrentPolicy):
                action, row, hidden = self._recall(self.policy, own, state, uniforms)
            else:
                action, row = self._choose(own, uniforms)
            observation, reward, terminated, truncated, _ = env.step(self.policy.clip(action).numpy()[0])
            steps.append(Step(row[0], action[0], float(reward)))
            if isinstance(self.policy, RecurrentPolicy):
                before = self.policy.remember(action.unsqueeze(0), torch.full((1, 1), float(reward)))[0]
                state = State(hidden.numpy(), before.numpy(), True)
            done = terminated or truncated
        return steps, state


class AgentPlayer:
    """An agent in a seat of the batched core; acts with samples from the seat's noise.

    The memory of a network that has one is the seat's: what it remembers, and what its next input holds beside the observation.
    """

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.noise = agent.policy.noise
        self.memory = sum(agent.policy.remembered) if isinstance(agent.policy, RecurrentPolicy) else 0

    def act(self, view: View, memory: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """See ``core.Player.act``."""
        policy = self.agent.policy
        if not isinstance(policy, RecurrentPolicy):
            action, _ = self.agent._choose(view.observation, noise.numpy())
            return policy.clip(action), memory
        if view.reward is None:
            raise InvalidInputError("this player remembers its rewards: the View needs the seat's last one")
        hidden, before = torch.split(memory, list(policy.remembered), 1)
        first = (view.step == 0).unsqueeze(1)
        hidden = torch.where(first, torch.as_tensor(self.agent._begin(policy, len(memory))), hidden)
        before = before.clone()
        before[:, policy.action_size] = view.reward
        state = State(hidden.numpy(), before.numpy(), True)
        action, _, hidden = self.agent._recall(policy, view.observation, state, noise.numpy())
        chosen = policy.remember(action.unsqueeze(0), torch.zeros_like(view.reward).unsqueeze(0))[0]
        return policy.clip(action), torch.cat([hidden, chosen], 1)
