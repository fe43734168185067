"""Trained players from run folders: they act and adapt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from metaduel.agents.adapters.protocol import Adapter, Experience, OneEpisode, SeatInfo, adaptation
from metaduel.agents.episodes import Step, pad_episodes
from metaduel.agents.objective.config import LossConfig
from metaduel.agents.policies.base import Policy, Weights
from metaduel.agents.rollout import Learner
from metaduel.agents.trajectories import Carry, Trajectories
from metaduel.envs.core.errors import InvalidInputError, check_whole
from metaduel.envs.core.game import View
from metaduel.envs.core.spec import Role
from metaduel.meta.adaptation.adapters import MemoryAdapter, adapter_of

Array = npt.NDArray[Any]


class State(NamedTuple):
    """The state that a network with a memory carries from step to step."""

    hidden: Array  # [B, units]
    before: Array  # [B, n] the next input's numbers after the observation
    rewarded: bool  # whether they hold the last reward


@dataclass(frozen=True)
class Agent:
    """A player that acts like a Stable-Baselines3 model and adapts in a few episodes.

    Attributes:
        role: its seat.
        policy: the network.
        weights: weights of one player, not stacked.
        rates: [K, ...] step sizes of its updates, see ``inner.step_sizes``; empty for a player that was not meta-trained.
        loss: the loss of its updates.
        observation_space: the observation space of its environments.
        action_space: their action space.
        seed: seed of its sampled actions.
        carry: for a player that adapted by remembering, the carry at the start of its episodes, [1, 1, ...].
    """

    role: Role
    policy: Policy
    weights: Weights
    rates: Tensor
    loss: LossConfig
    observation_space: gym.spaces.Box
    action_space: gym.spaces.Box | gym.spaces.Discrete
    seed: int = 0
    carry: Carry | None = None

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
            state: the memory of the episode, as the last call (and ``remember``) returned it; None at the start of an episode.
                Networks without a memory pass it through.
            episode_start: [B] bool: which rows begin an episode, for networks with a memory.
            deterministic: the mode of the distribution instead of a sample.

        Returns:
            Actions within the action space, [a] or [B, a] (or int64 scalars), and the new ``state``.

        Raises:
            InvalidInputError: a network with a memory has not received its last reward, see ``remember``.
        """
        batch = torch.from_numpy(np.atleast_2d(np.asarray(observation, np.float32)))
        uniforms = None if deterministic else self._rng.random((len(batch), self.policy.noise))  # type: ignore[attr-defined]
        if any(self.policy.carried):
            now = self._state(state, episode_start, len(batch))
            action, carry = self.choose(batch, _carry(now), uniforms)
            after = self.policy.remember(carry, action.unsqueeze(0), batch.new_zeros(1, len(batch)))
            state = State(after.memory[0].numpy(), after.before[0].numpy(), False)
        else:
            action, _ = self.choose(batch, self.begin(len(batch)), uniforms)
        chosen = self.policy.clip(action).numpy()
        return (chosen if np.ndim(observation) == 2 else chosen[0]), state

    def remember(self, state: State, reward: npt.ArrayLike) -> State:
        """Give a network with a memory the reward of its last action: once after every step, before ``predict``.

        Args:
            state: as ``predict`` returned it.
            reward: [B], or a number.

        Returns:
            The state for the next ``predict``.
        """
        before = state.before.copy()
        before[:, self.policy.action_size] = np.asarray(reward, np.float32)
        return State(state.hidden, before, True)

    def _state(self, state: State | None, episode_start: Any, rows: int) -> State:
        for name, given in (("state", None if state is None else state.hidden), ("episode_start", episode_start)):
            if given is not None and len(np.atleast_1d(given)) != rows:
                raise InvalidInputError(f"{name} has {len(np.atleast_1d(given))} rows, the observation {rows}")
        first = self.begin(rows)
        fresh = State(first.memory[0].numpy(), first.before[0].numpy(), True)
        if state is None:
            return fresh
        starting = np.zeros(rows, bool) if episode_start is None else np.asarray(episode_start, bool).reshape(rows)
        if not state.rewarded and not starting.all():
            raise InvalidInputError(
                "this player remembers its rewards: after every step, state = player.remember(state, reward)"
            )
        where = starting[:, None]
        return State(np.where(where, fresh.hidden, state.hidden), np.where(where, fresh.before, state.before), True)

    def begin(self, rows: int) -> Carry:
        """The carry with which episodes start: [1, rows, ...]."""
        if self.carry is not None:
            return self.carry.repeated(rows)
        return self.policy.initial_carry(self._prepared, rows)  # type: ignore[attr-defined]

    @torch.no_grad()
    def choose(self, observation: Tensor, carry: Carry, uniforms: Array | None) -> tuple[Tensor, Carry]:
        """Actions [B, a] as sampled, not clipped, and the carry after them.

        Args:
            observation: [B, d].
            carry: [1, B, ...].
            uniforms: [B, noise] in [0, 1); None: the distribution's mode.
        """
        prepared: Weights = self._prepared  # type: ignore[attr-defined]
        given = self.policy.input(observation.unsqueeze(0), carry)
        distribution, carry = self.policy.step(prepared, carry, given)
        if uniforms is None:
            return distribution.mode()[0], carry
        numbers = torch.from_numpy(uniforms).to(torch.float32)
        return distribution.sample(self.policy.prepare_noise(numbers))[0], carry

    @property
    def adapter(self) -> Adapter:
        """The adapter of this player."""
        adapter = adapter_of(self.role, self.policy, self.weights, self.rates, self.loss)
        return replace(adapter, carry=self.carry) if isinstance(adapter, MemoryAdapter) else adapter

    def after(self, player: Learner, row: int = 0, seed: int | None = None) -> Agent:
        """The agent of one row of an adapted player.

        Args:
            player: the adapted player, from ``adapter``.
            row: the row.
            seed: seed of the agent's sampled actions; None: this agent's.
        """
        carry = player.carry
        return replace(
            self,
            weights={name: value[row if len(value) > 1 else 0] for name, value in player.weights.items()},
            carry=None if carry is None else Carry(*(part[:, row : row + 1] for part in carry)),
            seed=self.seed if seed is None else seed,
        )

    def adapt(self, env: gym.Env[Any, Any], shots: int = 3, episodes: int = 5) -> Agent:
        """Adapt to the present task and opponent of ``env``, which is reset before every episode.

        Args:
            env: any Gymnasium environment of matching spaces.
            shots: number of updates.
            episodes: fresh episodes per update.

        Returns:
            The adapted player; this agent does not change.

        Raises:
            InvalidInputError: spaces that don't match, a player that has no inner rates, or bad numbers.
        """
        for name, value in (("shots", shots), ("episodes", episodes)):
            check_whole(name, value)
        if not self.adapter.adapts:
            raise InvalidInputError(
                "this player was trained without adaptation: it has no inner rates (use method maml)"
            )
        for space in ("observation_space", "action_space"):
            if getattr(env, space) != getattr(self, space):
                raise InvalidInputError(
                    f"env's {space} is {getattr(env, space)}; this player needs {getattr(self, space)}"
                )
        *_, player = adaptation(self.adapter, EnvironmentArena(self, env, episodes), shots)
        return self.after(cast(Learner, player), seed=self.seed + shots)


class EnvironmentArena:
    """One Gymnasium environment as an ``Arena``: its episodes are played one step at a time.

    Args:
        agent: the agent that plays in it.
        env: the environment.
        episodes: episodes per shot.
    """

    rows = 1

    def __init__(self, agent: Agent, env: gym.Env[Any, Any], episodes: int) -> None:
        self.agent, self.env, self.episodes = agent, env, episodes

    @property
    def seat(self) -> SeatInfo:
        """See ``Arena``."""
        own = self.agent
        return SeatInfo(
            type(self.env.unwrapped).__name__, own.role, own.observation_space, own.action_space, 0, own.seed
        )

    def shot(self, number: int) -> Experience:
        """See ``Arena``."""
        return EnvironmentExperience(self, number)


class EnvironmentExperience:
    """The episodes of one shot in a Gymnasium environment, see ``protocol.Experience``."""

    rows = 1

    def __init__(self, arena: EnvironmentArena, number: int) -> None:
        self._arena, self._number, self.episodes = arena, number, arena.episodes
        agent = arena.agent
        # The first shot continues the agent's own random numbers; each later one has numbers of its own.
        self._rng = agent._rng if number == 0 else np.random.default_rng(agent.seed + number)  # type: ignore[attr-defined]

    def play(self, player: Any) -> Trajectories:
        """See ``Experience``; ``player`` is a ``Learner``."""
        return pad_episodes([[self._episode(player)[0] for _ in range(self.episodes)]])

    def one_by_one(self) -> Iterator[OneEpisode]:
        """See ``Experience``."""
        for _ in range(self.episodes):
            yield EnvironmentEpisode(self)

    def environment(self, row: int) -> gym.Env[Any, Any]:
        """The environment itself; its episodes are not counted."""
        return self._arena.env

    def _episode(self, player: Learner) -> tuple[list[Step], Carry]:
        """One episode, and the carry after it."""
        agent, env = self._arena.agent.after(player), self._arena.env
        steps: list[Step] = []
        done, carry = False, agent.begin(1)
        observation, _ = env.reset()
        while not done:
            uniforms = self._rng.random((1, agent.policy.noise))
            own = torch.from_numpy(np.array(observation, np.float32)).view(1, -1)
            given = agent.policy.input(own.unsqueeze(0), carry)
            action, carry = agent.choose(own, carry, uniforms)
            observation, reward, terminated, truncated, _ = env.step(agent.policy.clip(action).numpy()[0])
            steps.append(Step(given[0, 0], action[0], float(reward)))
            carry = agent.policy.remember(carry, action.unsqueeze(0), own.new_full((1, 1), float(reward)))
            done = terminated or truncated
        with torch.no_grad():
            return steps, agent.policy.end_episode(agent._prepared, carry)  # type: ignore[attr-defined]


class EnvironmentEpisode:
    """One episode in a Gymnasium environment, see ``protocol.OneEpisode``."""

    def __init__(self, experience: EnvironmentExperience) -> None:
        self._experience = experience

    def play(self, player: Any) -> Trajectories:
        """See ``OneEpisode``."""
        steps, carry = self._experience._episode(player)
        return pad_episodes([[steps]])._replace(carry=carry)


class AgentPlayer:
    """An agent in a seat of the batched core; acts with samples from the seat's noise.

    The seat's memory holds the carry of a network that has one.
    """

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.noise = agent.policy.noise
        self.memory = sum(agent.policy.carried)

    def act(self, view: View, memory: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """See ``core.Player.act``."""
        policy = self.agent.policy
        if not self.memory:
            action, _ = self.agent.choose(view.observation, self.agent.begin(len(memory)), noise.numpy())
            return policy.clip(action), memory
        if view.reward is None:
            raise InvalidInputError("this player remembers its rewards: the View needs the seat's last one")
        hidden, before = torch.split(memory, list(policy.carried), 1)
        first = (view.step == 0).unsqueeze(1)
        hidden = torch.where(first, self.agent.begin(len(memory)).memory[0], hidden)
        before = before.clone()
        before[:, policy.action_size] = view.reward
        carry = Carry(hidden.unsqueeze(0), before.unsqueeze(0))
        action, carry = self.agent.choose(view.observation, carry, noise.numpy())
        after = policy.remember(carry, action.unsqueeze(0), torch.zeros_like(view.reward).unsqueeze(0))
        return policy.clip(action), torch.cat([after.memory[0], after.before[0]], 1)


def _carry(state: State) -> Carry:
    hidden, before = (
        torch.as_tensor(part, dtype=torch.float32, device="cpu").unsqueeze(0) for part in (state.hidden, state.before)
    )
    return Carry(hidden, before)
