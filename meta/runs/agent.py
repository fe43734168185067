"""Trained players from run folders: they act and adapt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
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
from metaduel.envs.adapters.gymnasium import seat_of
from metaduel.envs.core.arguments import as_path
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.errors import InvalidInputError, check_whole, one_line
from metaduel.envs.core.fit import misfit
from metaduel.envs.core.game import View
from metaduel.envs.core.simulator import Simulator
from metaduel.envs.core.spec import Role
from metaduel.meta.adaptation.adapters import GradientAdapter, GradientPlayer, MemoryAdapter, adapter_of
from metaduel.meta.runs.checkpoint import AGENT, check_free, save_checkpoint
from metaduel.meta.runs.config import RunConfig

Array = npt.NDArray[Any]


class State(NamedTuple):
    """The state that a network with a memory carries from step to step."""

    hidden: Array  # [B, units]
    before: Array  # [B, n] the next input's numbers after the observation
    rewarded: bool  # whether they hold the last reward


@dataclass(frozen=True, repr=False)
class Agent:
    """A player that acts like a Stable-Baselines3 model and adapts in a few episodes. It takes a seat wherever a player is named.

    Attributes:
        role: its seat.
        policy: the network.
        weights: weights of one player, not stacked.
        rates: [K, ...] step sizes of its updates, see ``inner.step_sizes``: those that it learned, or that were the best at its
            best validation; empty for a player that was validated without updates.
        loss: the loss of its updates.
        observation_space: the observation space of its environments.
        action_space: their action space.
        seed: seed of its sampled actions.
        carry: for a player that adapted by remembering, the carry at the start of its episodes, [1, 1, ...].
        config: settings of the run that trained it; None: it is of no run, and cannot be saved.
        shots: number of updates so far.
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
    config: RunConfig | None = None
    shots: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "_rng", np.random.default_rng(self.seed))
        prepared = self.policy.prepare({name: value.unsqueeze(0) for name, value in self.weights.items()})
        object.__setattr__(self, "_prepared", prepared)

    def __repr__(self) -> str:
        shots = f", adapted {self.shots} shot{'s' * (self.shots > 1)}" if self.shots else ""
        if self.config is None:
            return f"Agent({self.role}, {self.policy!r}{shots})"
        where = self.family or getattr(self.config, "environment", "")
        return f"Agent({one_line(where, 40)}, {self.role}, {self.config.method}{shots})"

    @property
    def name(self) -> str:
        """For infos and tables."""
        return f"agent ({self.role})"

    @property
    def family(self) -> str | None:
        """Id of the family that it was trained on; None: environments of a user's own."""
        return None if self.config is None else self.config.family

    def why_not(self, family: str | None, role: Role, observation_space: Any, action_space: Any) -> str | None:
        """Why it cannot take a seat; None: it can.

        Args:
            family: id of the seat's family; None: an environment that is none of ours. Then only role and spaces are compared.
            role: the seat.
            observation_space: the seat's.
            action_space: the seat's.
        """
        if self.family and family and (self.family, self.role) != (family, role):
            return f"it was trained as the {self.role} of {self.family}, this is the {role}'s seat of {family}"
        if role != self.role:
            return f"it plays the {self.role}, not the {role}"
        why = misfit(self.observation_space, self.action_space, observation_space, action_space)
        informed = why is not None and getattr(self.config, "informed", False)
        return f"{why} (it was trained informed: it sees every context)" if informed else why

    def player_for(self, simulator: Simulator, role: Role) -> AgentPlayer:
        """Its player for a seat, as it is, unadapted or adapted; see ``load_player``.

        Raises:
            InvalidInputError: it was trained on another family, or for another role or other spaces.
        """
        family = simulator.spec.id if isinstance(simulator, Duel) else None
        why = self.why_not(family, role, simulator.observation_space(role), simulator.action_space(role))
        if why is not None:
            raise InvalidInputError(f"{self!r} cannot play the {role} of {simulator.name}: {why}")
        return AgentPlayer(self)

    def save(self, folder: str | Path) -> Path:
        """Save the player as it is, adapted or not, in a folder of its own: ``metaduel.load(folder)`` reads it, and
        ``run:FOLDER`` seats it. The one file, ``agent.safetensors``, holds its weights, rates and memory, the state of its random
        numbers, and its run's settings, and nothing that could run code. It is written at once, and replaces that of an agent
        that was saved there before.

        Args:
            folder: a new or empty folder, or that of a saved agent.

        Returns:
            The folder.

        Raises:
            InvalidInputError: an agent of no run, or a folder that holds anything else; nothing was written.
        """
        if self.config is None:
            raise InvalidInputError(f"{self!r} is of no run, whose settings a saved agent needs: train or load one")
        target = as_path(folder, "folder")
        check_free(target)
        tensors = {f"weights/{name}": value for name, value in self.weights.items()} | {"rates": self.rates}
        if self.carry is not None:
            tensors |= {f"carry/{name}": value for name, value in self.carry._asdict().items()}
        state = {
            "config": self.config.to_dict(), "role": self.role, "loss": asdict(self.loss), "seed": self.seed,
            "shots": self.shots, "random": self._rng.bit_generator.state,  # type: ignore[attr-defined]
        }  # fmt: skip
        save_checkpoint(target / AGENT, tensors, state)
        return target

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
            InvalidInputError: an observation of another size, a ``state`` that is none of this player's, or a network with a
                memory that has not received its last reward, see ``remember``. No random number was drawn then.
        """
        given = np.asarray(observation, np.float32)
        size = self.policy.observation_size
        if given.ndim not in (1, 2) or given.shape[-1] != size:
            raise InvalidInputError(f"observation has shape {given.shape}: must be [{size}] or [B, {size}]")
        batch = torch.from_numpy(np.atleast_2d(given))
        remembers = any(self.policy.carried)
        now = self._state(state, episode_start, len(batch)) if remembers else None
        uniforms = None if deterministic else self._rng.random((len(batch), self.policy.noise))  # type: ignore[attr-defined]
        if now is not None:
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

        Raises:
            InvalidInputError: a ``state`` that is none of this player's, or rewards of another shape.
        """
        self._check_state(state)
        rewards, before = np.asarray(reward, np.float32), state.before.copy()
        if rewards.shape not in ((), (len(before),)):
            raise InvalidInputError(f"reward has shape {rewards.shape}: must be a number or [{len(before)}]")
        before[:, self.policy.action_size] = rewards
        return State(state.hidden, before, True)

    def _check_state(self, state: Any) -> None:
        sizes = self.policy.carried
        parts: list[Any] = list(state[:2]) if isinstance(state, State) else []
        if [np.ndim(part) for part in parts] != [2, 2] or tuple(np.shape(part)[1] for part in parts) != sizes:
            shapes = [np.shape(part) for part in parts] if parts else type(state).__name__
            raise InvalidInputError(
                f"state={shapes}: must be what predict or remember of this player returned ([B, {sizes[0]}] and "
                f"[B, {sizes[1]}]), or None at the start of an episode"
            )

    def _state(self, state: State | None, episode_start: Any, rows: int) -> State:
        if state is not None:
            self._check_state(state)
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
        if isinstance(adapter, MemoryAdapter):
            return replace(adapter, carry=self.carry)
        return replace(adapter, shot=self.shots) if isinstance(adapter, GradientAdapter) else adapter

    def after(self, player: Learner, row: int = 0, seed: int | None = None, shots: int | None = None) -> Agent:
        """The agent of one row of an adapted player.

        Args:
            player: the adapted player, from ``adapter``.
            row: the row.
            seed: seed of the agent's sampled actions; None: this agent's.
            shots: number of its updates; None: as the player counts them, or else this agent's.
        """
        carry = player.carry
        counted = player.shot if isinstance(player, GradientPlayer) else self.shots
        return replace(
            self,
            weights={name: value[row if len(value) > 1 else 0] for name, value in player.weights.items()},
            carry=None if carry is None else Carry(*(part[:, row : row + 1] for part in carry)),
            seed=self.seed if seed is None else seed,
            shots=counted if shots is None else shots,
        )

    def adapt(self, env: gym.Env[Any, Any], shots: int = 3, episodes: int = 5) -> Agent:
        """Adapt to the present task and opponent of ``env``, which is reset before every episode.

        An agent that adapts again goes on: with the step sizes that follow, and with its memory.

        Args:
            env: any single Gymnasium environment of matching spaces, wrapped or not; one of ours must be of the family, version
                and seat that the player was trained for.
            shots: number of updates.
            episodes: fresh episodes per update.

        Returns:
            The adapted player; this agent does not change.

        Raises:
            InvalidInputError: another family, version, seat or spaces, a player that has no inner rates, or bad numbers. The
                environment was not reset then, and no random number drawn.
        """
        for name, value in (("shots", shots), ("episodes", episodes)):
            check_whole(name, value)
        if not self.adapter.adapts:
            raise InvalidInputError(
                "this player was trained without adaptation: it has no inner rates (train it with steps above 0)"
            )
        if not isinstance(env, gym.Env) and not hasattr(env, "num_envs"):
            raise InvalidInputError(f"env={one_line(repr(env), 60)} must be a Gymnasium environment")
        if hasattr(env, "num_envs"):
            raise InvalidInputError(
                f"env is a {type(env).__name__} of {env.num_envs} rows: adapt takes one environment"
            )
        seat = seat_of(env)
        family, role = (None, self.role) if seat is None or not self.family else (seat.spec.id, seat.role)
        why = self.why_not(family, role, env.observation_space, env.action_space)
        if why is not None:
            raise InvalidInputError(f"env does not fit {self!r}: {why}")
        *_, player = adaptation(self.adapter, EnvironmentArena(self, env, episodes), shots)
        return self.after(cast(Learner, player), seed=self.seed + shots, shots=self.shots + shots)


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
        self.agent, self.name = agent, agent.name
        self.noise = agent.policy.noise
        self.memory = sum(agent.policy.carried)

    def __repr__(self) -> str:
        return f"AgentPlayer({self.agent!r})"

    def player_for(self, simulator: Simulator, role: Role) -> AgentPlayer:
        """Its agent's player; see ``Agent``."""
        return self.agent.player_for(simulator, role)

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
