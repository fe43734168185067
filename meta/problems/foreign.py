"""Meta-training on anybody's own two-agent environments: a slow path, in plain Python loops, through PettingZoo.

The environments come from a factory ``() -> ParallelEnv``. Its first possible agent is the protagonist, its second the
adversary. What differs between tasks comes from ``sample_tasks(n)`` and ``set_task(task)``, if the environment has them;
without them there is one task. One environment per task is kept, and all tasks step together, so that each player's policy
runs once per step for all of them.

Random numbers: environments are seeded at every reset, and once before ``sample_tasks``. A run repeats, and a resumed run
equals an unbroken one, as far as the environments draw from what that seeds.

Validation: tasks sampled with a fixed seed, against the *untrained* opponent, the weights that the run began with. Nobody
wrote scripted players for these games, and an opponent that goes on learning is no measure: the best protagonist would be
the one that met the worst adversary. Its scores compare checkpoints of one run and nothing else.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from pettingzoo import AECEnv, ParallelEnv
from torch import Tensor

from metaduel.agents.episodes import Step, pad_episodes
from metaduel.agents.objective.config import LossConfig
from metaduel.agents.policies.base import Policy, Weights
from metaduel.agents.trajectories import Trajectories
from metaduel.envs.core import noise
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.spec import ROLES, Role, other
from metaduel.meta.problems.played import Drawn, copies
from metaduel.meta.problems.problem import Players

Factory = Callable[[], ParallelEnv[Any, Any, Any]]
LIMIT = 10_000  # steps after which an episode is taken to be endless
_SEEDS = (1 << 31) - 1  # what environments take as seeds


def describe(env: Any) -> dict[str, Any]:
    """Check an environment; the fields of ``ForeignConfig`` that it determines.

    Raises:
        InvalidInputError: not a ``ParallelEnv`` of two agents, spaces that an MLP cannot take, half a task interface.
    """
    if isinstance(env, AECEnv) or not isinstance(env, ParallelEnv):
        hint = "; convert it with pettingzoo.utils.aec_to_parallel" if isinstance(env, AECEnv) else ""
        raise InvalidInputError(f"task_set makes a {type(env).__name__}, must make a pettingzoo ParallelEnv{hint}")
    agents = list(env.possible_agents)
    if len(agents) != 2:
        raise InvalidInputError(f"task_set: the environment has {len(agents)} agents ({agents}), must have two")
    texts = []
    for agent in agents:
        observation_space(env, agent)
        action_space(env, agent)
        action_mask(env, agent)
        texts += [str(env.observation_space(agent)), str(env.action_space(agent))]
    if (_method(env, "sample_tasks") is None) != (_method(env, "set_task") is None):
        raise InvalidInputError(
            "task_set: the environment must have both sample_tasks(n) and set_task(task), or neither"
        )
    name = env.metadata.get("name") or type(env.unwrapped).__qualname__
    return {"environment": str(name), "agents": tuple(map(str, agents)), "spaces": tuple(texts)}


def observation_space(env: Any, agent: Any) -> spaces.Box:
    """What a policy sees: the agent's observation space as ``gymnasium.spaces.flatten`` makes it, one-dimensional."""
    space = env.observation_space(agent)
    flat = spaces.flatten_space(space) if isinstance(space, spaces.Space) else None
    if not isinstance(flat, spaces.Box) or not flat.shape[0]:
        raise InvalidInputError(f"task_set: {agent}'s observation space {space} cannot be flattened to a vector")
    return flat


def action_mask(env: Any, agent: Any) -> slice | None:
    """Where in the flat observation the entry ``action_mask`` is, PettingZoo's name for which actions are legal; None without.

    Raises:
        InvalidInputError: a mask that is not one number per action.
    """
    space, actions = env.observation_space(agent), env.action_space(agent)
    if not isinstance(space, spaces.Dict) or "action_mask" not in space.spaces:
        return None
    start, own = 0, space["action_mask"]
    for name, part in space.spaces.items():  # in the order of flatten
        if name == "action_mask":
            break
        start += spaces.flatdim(part)
    n = int(actions.n) if isinstance(actions, spaces.Discrete) else 0
    if not isinstance(own, (spaces.Box, spaces.MultiBinary)) or own.shape != (n,):
        raise InvalidInputError(f"task_set: {agent}'s action_mask {own} must hold one number per action of {actions}")
    return slice(start, start + n)


def action_space(env: Any, agent: Any) -> spaces.Box | spaces.Discrete:
    """The agent's action space, if a policy can act in it."""
    space = env.action_space(agent)
    if isinstance(space, spaces.Discrete) and space.start == 0:
        return space
    if isinstance(space, spaces.Box) and len(space.shape) == 1 and np.issubdtype(space.dtype, np.floating):
        return space
    raise InvalidInputError(
        f"task_set: {agent}'s action space {space} must be Discrete (from 0) or a one-dimensional Box of floats"
    )


class ForeignProblem:
    """Tasks of a user's own environments, as a ``Problem``.

    Args:
        envs: at least one per task.
        tasks: what ``set_task`` takes, or None where the environment has no tasks.
        policies: per role.
        episodes: episodes per task and shot.
        seed: of all noise; shot k is episode k of row seeds ``seed + row``.
        loss: how trajectories become a loss.
        horizon: steps until an episode is cut off; 0: until the environment ends it.
        opponents: weights of a player that does not adapt.
    """

    def __init__(
        self,
        envs: Sequence[Any],
        tasks: Sequence[Any],
        policies: Mapping[Role, Policy],
        episodes: int,
        seed: int,
        loss: LossConfig,
        horizon: int = 0,
        opponents: Mapping[Role, Weights] | None = None,
    ) -> None:
        self.policies, self.episodes, self.horizon = policies, episodes, horizon
        self.objectives = {role: loss.of(role) for role in policies}
        self._envs, self._tasks = envs[: len(tasks)], tasks
        self._opponents: Players = {
            role: {name: value.expand(len(tasks), *value.shape) for name, value in weights.items()}
            for role, weights in (opponents or {}).items()
        }
        self.seed = seed
        self._seeds = torch.arange(len(tasks) * episodes) + seed

    @property
    def duels(self) -> int:
        """On how many tasks two learners meet: all, where both learn."""
        return 0 if self._opponents else len(self._tasks)

    @property
    def tasks(self) -> dict[Role, int]:
        """Number of tasks per learner."""
        return {role: len(self._tasks) for role in ROLES if role not in self._opponents}

    def without(self, role: Role, tasks: Collection[int]) -> ForeignProblem:
        """See ``Problem.without``."""
        stay = [n for n in range(len(self._tasks)) if n not in tasks]
        if not stay:
            raise FloatingPointError("every task blew up")
        rest = copy.copy(self)
        rest._envs, rest._tasks = [self._envs[n] for n in stay], [self._tasks[n] for n in stay]
        rest._seeds = self._seeds.view(-1, self.episodes)[stay].flatten()
        rest._opponents = {r: {n: v[stay] for n, v in weights.items()} for r, weights in self._opponents.items()}
        return rest

    def draw(self, players: Players, shot: int) -> Drawn:
        """See ``Problem.draw``."""
        data, steps = self.collect(players, shot)
        facing = partial(_facing, data) if len(data) == 2 else None
        return Drawn(self.policies, self.objectives, copies(players), data, steps, facing)

    def collect(self, players: Players, shot: int) -> tuple[dict[Role, Trajectories], int]:
        """Play ``episodes`` episodes per task under the players' present weights; the trajectories, and the steps played."""
        everyone = {**players, **self._opponents}
        with torch.no_grad():
            prepared = {role: self.policies[role].prepare(everyone[role]) for role in ROLES}
        for env, task in zip(self._envs, self._tasks, strict=True):
            if task is not None:
                _set_task(env, task)
        keys = noise.episode_key(self._seeds, torch.full_like(self._seeds, shot)).view(-1, self.episodes)
        played = [self._play(prepared, key.contiguous()) for key in keys.unbind(1)]
        batches = [batch for batch, _ in played]
        data = {role: [[batch[role][n] for batch in batches] for n in range(len(self._envs))] for role in players}
        # One length for both roles: `joint` losses add their log-probabilities up step by step.
        length = max(len(steps) for batch in batches for episodes in batch.values() for steps in episodes)
        return {r: pad_episodes(episodes, length) for r, episodes in data.items()}, sum(steps for _, steps in played)

    @torch.no_grad()
    def _play(self, prepared: Players, keys: Tensor) -> tuple[dict[Role, list[list[Step]]], int]:
        """One episode in every environment, and the steps played; ``keys``: [N]."""
        played = 0
        games = [_Game(env, int(key) & _SEEDS) for env, key in zip(self._envs, keys, strict=True)]
        for step in range(self.horizon or LIMIT):
            if not any(game.observations for game in games):
                break
            for seat, role in enumerate(ROLES):
                policy = self.policies[role]
                blank = torch.zeros(policy.observation_size)
                rows = torch.stack([game.observations.get(role, blank) for game in games]).unsqueeze(1)
                uniforms = noise.uniform(keys, torch.full_like(keys, step), noise.SEAT[seat], policy.noise)
                distribution = policy.distribution(prepared[role], rows)
                actions = distribution.sample(policy.prepare_noise(uniforms).unsqueeze(1)).squeeze(1)
                for game, action, clipped in zip(games, actions, policy.clip(actions), strict=True):
                    if role in game.observations:
                        game.choose(role, action, clipped)
            for game in games:
                played += game.step()
        else:
            if not self.horizon and any(game.observations for game in games):
                raise InvalidInputError(f"task_set: an episode has not ended after {LIMIT} steps: set horizon")
        return {role: [game.steps[role] for game in games] for role in ROLES}, played


def _facing(data: Mapping[Role, Trajectories], log_prob: dict[Role, Tensor]) -> dict[Role, Tensor]:
    """Per role the other learner's log-probabilities, 0 where it had left."""
    return {other(role): value * data[role].alive for role, value in log_prob.items()}


class _Game:
    """One episode of one environment.

    Attributes:
        observations: of the roles that are still in it.
        steps: what each role has seen, done and got.
    """

    def __init__(self, env: Any, seed: int) -> None:
        self.env = env
        self.steps: dict[Role, list[Step]] = {role: [] for role in ROLES}
        self._agents: dict[Role, Any] = dict(zip(ROLES, env.possible_agents, strict=True))
        self._actions: dict[Role, tuple[Tensor, Any]] = {}
        observations, infos = env.reset(seed=seed)
        for role, agent in self._agents.items():
            if agent not in observations:
                raise InvalidInputError(f"task_set: {agent} (the {role}) is not there when an episode starts")
            if "action_mask" in infos.get(agent, {}):
                raise InvalidInputError(
                    f"task_set: {agent} is given an action_mask in info: put it into its observation"
                )
        self.observations = self._flatten(observations, ROLES)

    def _flatten(self, observations: Mapping[Any, Any], roles: Sequence[Role]) -> dict[Role, Tensor]:
        result = {}
        for role in roles:
            agent = self._agents[role]
            flat = spaces.flatten(self.env.observation_space(agent), observations[agent])
            # A copy: many environments write the next observation into the same memory.
            result[role] = torch.from_numpy(np.array(flat, np.float32))
            if not torch.isfinite(result[role]).all():
                raise FloatingPointError(f"{agent}'s observation is not finite")
        return result

    def choose(self, role: Role, action: Tensor, clipped: Tensor) -> None:
        """Note what ``role`` does next: the action as sampled and as the environment takes it."""
        space = self.env.action_space(self._agents[role])
        chosen = int(clipped) if isinstance(space, spaces.Discrete) else clipped.numpy().astype(space.dtype)
        self._actions[role] = action, chosen

    def step(self) -> int:
        """Step, if somebody is still in it; the number of steps made."""
        if not self.observations:
            return 0
        given = {self._agents[role]: chosen for role, (_, chosen) in self._actions.items()}
        observations, rewards, terminations, truncations, _ = self.env.step(given)
        staying: list[Role] = []
        for role, observation in self.observations.items():
            agent = self._agents[role]
            reward = float(rewards.get(agent, 0.0))
            if not math.isfinite(reward):
                raise FloatingPointError(f"{agent}'s reward is not finite")
            self.steps[role].append(Step(observation, self._actions[role][0], reward))
            over = terminations.get(agent, False) or truncations.get(agent, False)
            if not over and agent in self.env.agents:
                staying.append(role)
        self._actions = {}
        self.observations = self._flatten(observations, staying)
        return 1


def _method(env: Any, name: str) -> Any:
    """A method of the environment or of what it wraps; None if there is none."""
    return next((found for e in (env, env.unwrapped) if callable(found := getattr(e, name, None))), None)


def _set_task(env: Any, task: Any) -> None:
    _method(env, "set_task")(task)
