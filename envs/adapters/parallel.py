"""A user's two-agent PettingZoo environments as a ``Simulator``: a slow path in plain Python, through ``ParallelEnv``.

The environments come from a factory ``() -> ParallelEnv``. Its first possible agent is the protagonist, its second the
adversary. What differs between tasks goes to ``set_task(task)``, if the environment has it; an environment that has
``sample_tasks(n)`` makes tasks, too. There is an environment for each row of a batch; ``rollout`` plays a task's episodes one
after another in the same one.

Random numbers: environments are seeded at every reset, and once before ``sample_tasks``. A run repeats, and a resumed run
equals an unbroken one, as far as the environments draw from what that seeds.

Players see observations as ``gymnasium.spaces.flatten`` makes them. An opponent may be any object with
``act(observation) -> action``, on the environment's own observations: see ``EnvironmentPlayer``.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from pettingzoo import AECEnv, ParallelEnv
from torch import Tensor

from metaduel.envs.adapters.legal import refuse_illegal
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.game import Pair, Player, View
from metaduel.envs.core.spec import ROLES, Role
from metaduel.envs.players.names import is_player, load_player

Factory = Callable[[], ParallelEnv[Any, Any, Any]]
LIMIT = 10_000  # steps after which an episode is taken to be endless
_SEEDS = (1 << 31) - 1  # what environments take as seeds


def describe(env: Any) -> dict[str, Any]:
    """Check an environment; its name, its two agents, and their spaces as text.

    Raises:
        InvalidInputError: not a ``ParallelEnv`` of two agents, or spaces that no policy can take.
    """
    if isinstance(env, AECEnv) or not isinstance(env, ParallelEnv):
        hint = "; convert it with pettingzoo.utils.aec_to_parallel" if isinstance(env, AECEnv) else ""
        raise InvalidInputError(f"task_set makes a {type(env).__name__}, must make a pettingzoo ParallelEnv{hint}")
    agents = list(env.possible_agents)
    if len(agents) != 2:
        raise InvalidInputError(f"task_set: the environment has {len(agents)} agents ({agents}), must have two")
    texts = []
    for agent in agents:
        _flat_space(env, agent)
        _action_space(env, agent)
        _mask(env, agent)
        texts += [str(env.observation_space(agent)), str(env.action_space(agent))]
    name = env.metadata.get("name") or type(env.unwrapped).__qualname__
    return {"environment": str(name), "agents": tuple(map(str, agents)), "spaces": tuple(texts)}


class Present(NamedTuple):
    """What a ``View`` shows of the rows beside the observation."""

    here: Tensor  # [B, 2] bool: whether (protagonist, adversary) is still in its episode


class Parting(NamedTuple):
    """What a step gives, see ``simulator.Stepped``."""

    reward: Tensor  # [B, 2]
    terminated: Tensor  # [B] bool
    truncated: Tensor  # [B] bool
    left: Tensor  # [B, 2] bool: who is out from now on


@dataclass(frozen=True)
class ParallelRows:
    """Episodes in progress, see ``simulator.Rows``; the environments go on with them.

    Attributes:
        envs: one per row.
        params: [B] int64, places in the simulator's list of tasks.
        key: [B] int64.
        step: [B] int64.
        observations: [B, d] of both roles, 0 once they have left.
        state: who is still there.
    """

    envs: Sequence[Any]
    params: Tensor
    key: Tensor
    step: Tensor
    observations: Pair
    state: Present

    @property
    def dtype(self) -> torch.dtype:
        """See ``Rows``."""
        return self.observations[0].dtype


class ParallelSimulator:
    """A user's environments, see the module and ``Simulator``. Its tasks are numbers: places in its list of tasks.

    Args:
        factory: makes an environment.
        horizon: steps until an episode is cut off; 0: until the environment ends it.

    Attributes:
        at_once: see ``Simulator``.
        states: the same.
        tasks: what ``set_task`` takes, in a list.
        described: see ``describe``.

    Raises:
        InvalidInputError: an environment that cannot be played, see ``describe``.
    """

    at_once = False
    states = 0

    def __init__(self, factory: Factory, horizon: int = 0) -> None:
        env = factory()
        self.described = describe(env)
        self.name = str(self.described["environment"])
        self.tasks: Sequence[Any] = (None,)
        self._factory, self._cut = factory, horizon
        self._envs = [env]  # shared by all copies: there are as many as the largest batch has needed
        self._agents = dict(zip(ROLES, env.possible_agents, strict=True))
        self._spaces = {role: (_flat_space(env, a), _action_space(env, a)) for role, a in self._agents.items()}
        self._masks = {role: _mask(env, agent) for role, agent in self._agents.items()}

    def __repr__(self) -> str:
        return f"ParallelSimulator({self.name})"

    @property
    def horizon(self) -> int:
        """The most steps of an episode; where none was given, those after which it is taken to be endless."""
        return self._cut or LIMIT

    @property
    def takes_tasks(self) -> bool:
        """Whether the environment has ``set_task``."""
        return _method(self._envs[0], "set_task") is not None

    @property
    def makes_tasks(self) -> bool:
        """Whether the environment has ``sample_tasks``."""
        return _method(self._envs[0], "sample_tasks") is not None

    def with_tasks(self, tasks: Sequence[Any]) -> ParallelSimulator:
        """The same environments with a list of tasks of their own: what ``set_task`` takes, or None to leave it alone.

        Raises:
            InvalidInputError: no task, or tasks for an environment that takes none.
        """
        tasks = list(tasks)
        if not tasks:
            raise InvalidInputError("tasks=[] must hold at least one task")
        if any(task is not None for task in tasks) and not self.takes_tasks:
            raise InvalidInputError(f"tasks: {self.name} has no set_task(task) that would take them; leave them out")
        one = copy.copy(self)
        one.tasks = tasks
        return one

    def apart(self) -> ParallelSimulator:
        """The same with environments of its own."""
        one = copy.copy(self)
        one._envs = [self._factory()]
        return one

    def sample_tasks(self, n: int, seed: int) -> list[Any]:
        """``n`` tasks of the environment's own, the same for the same seed.

        Raises:
            InvalidInputError: ``sample_tasks`` gives too few or too many, or None among them.
        """
        env = self._envs[0]
        env.reset(seed=seed & _SEEDS)
        tasks = list(_method(env, "sample_tasks")(n))
        if len(tasks) != n or any(task is None for task in tasks):
            raise InvalidInputError(f"task_set: sample_tasks({n}) gave {len(tasks)} tasks, or None among them")
        return tasks

    @property
    def task_rows(self) -> Tensor:
        """All of its tasks as ``params`` takes them: [M, 1]."""
        return torch.arange(len(self.tasks), dtype=torch.float64, device="cpu").unsqueeze(1)

    def observation_space(self, role: Role) -> spaces.Box:
        """The flattened observation space; the same object at every call."""
        return self._spaces[role][0]

    def action_space(self, role: Role) -> spaces.Box | spaces.Discrete:
        """The environment's own; the same object at every call."""
        return self._spaces[role][1]

    def own_space(self, role: Role) -> spaces.Space[Any]:
        """The observation space that is flattened."""
        space: spaces.Space[Any] = self._envs[0].observation_space(self._agents[role])
        return space

    def mask(self, role: Role) -> slice | None:
        """Where in the flat observation the entry ``action_mask`` is, PettingZoo's name for which actions are legal."""
        return self._masks[role]

    def params(self, tasks: Tensor) -> Tensor:
        """See ``Simulator``: places in the list of tasks, [B, 1] to [B] int64."""
        return tasks[:, 0].long()

    def numbers(self, key: Tensor, steps: int, dtype: torch.dtype) -> None:
        """None: the environments draw for themselves."""

    def start(self, params: Tensor, key: Tensor) -> ParallelRows:
        """See ``Simulator``: sets each environment's task, and resets it with a seed made of the key.

        Raises:
            InvalidInputError: an agent is missing, or an ``action_mask`` is given where players don't see it.
        """
        while len(self._envs) < len(key):
            self._envs.append(self._factory())
        envs = self._envs[: len(key)]
        seen = []
        for env, place, seed in zip(envs, params.tolist(), key.tolist(), strict=True):
            if (task := self.tasks[place]) is not None:
                _method(env, "set_task")(task)
            observations, infos = env.reset(seed=seed & _SEEDS)
            for role, agent in self._agents.items():
                if agent not in observations:
                    raise InvalidInputError(f"task_set: {agent} (the {role}) is not there when an episode starts")
                if "action_mask" in infos.get(agent, {}):
                    raise InvalidInputError(
                        f"task_set: {agent} is given an action_mask in info: put it into its observation"
                    )
            seen.append([self._flatten(env, role, observations) for role in ROLES])
        here = torch.ones(len(key), len(ROLES), dtype=torch.bool, device="cpu")
        first, second = (torch.from_numpy(np.stack(part)) for part in zip(*seen, strict=True))
        return ParallelRows(envs, params, key, torch.zeros_like(key), (first, second), Present(here))

    def observe(self, rows: ParallelRows) -> Pair:
        """See ``Simulator``."""
        return rows.observations

    def step(
        self, rows: ParallelRows, actions: Pair, numbers: Tensor | None = None, active: Tensor | None = None
    ) -> tuple[ParallelRows, Parting]:
        """See ``Simulator``: steps the environments of the active rows, with the actions of those who are still there.

        Raises:
            InvalidInputError: an action is not legal, or an episode does not end and no horizon was given.
            FloatingPointError: an observation or a reward that is not finite.
        """
        playing = rows.state.here if active is None else rows.state.here & active.unsqueeze(1)
        self._check_legal(rows, actions, playing)
        here, moves = playing.tolist(), [action.numpy() for action in actions]
        rewards, cut = np.zeros((len(here), 2)), [False] * len(here)
        seen = [np.zeros(one.shape, np.float32) for one in rows.observations]
        for row, (env, stay) in enumerate(zip(rows.envs, here, strict=True)):
            if not any(stay):
                continue
            given = {self._agents[r]: self._action(r, moves[i][row]) for i, r in enumerate(ROLES) if stay[i]}
            observations, paid, terminations, truncations, _ = env.step(given)
            for seat, (role, agent) in enumerate(self._agents.items()):
                if not stay[seat]:
                    continue
                rewards[row, seat] = paid.get(agent, 0.0)
                if not math.isfinite(rewards[row, seat]):
                    raise FloatingPointError(f"{agent}'s reward is not finite")
                late = bool(truncations.get(agent, False))
                if terminations.get(agent, False) or late or agent not in env.agents:
                    stay[seat], cut[row] = False, cut[row] or late
                else:
                    seen[seat][row] = self._flatten(env, role, observations)
        step, left, truncated = rows.step + 1, ~rows.state.here.new_tensor(here), rows.state.here.new_tensor(cut)
        over = left.all(1)
        if int(step[0]) >= self.horizon and not bool(over.all()):
            if not self._cut:
                raise InvalidInputError(f"task_set: an episode has not ended after {LIMIT} steps: set horizon")
            truncated = truncated | ~over
        dtype = rows.dtype
        first, second = (torch.from_numpy(part).to(dtype) for part in seen)
        after = ParallelRows(rows.envs, rows.params, rows.key, step, (first, second), Present(~left))
        return after, Parting(torch.from_numpy(rewards).to(dtype), over & ~truncated, truncated, left)

    def _check_legal(self, rows: ParallelRows, actions: Pair, playing: Tensor) -> None:
        for seat, role in enumerate(ROLES):
            if (mask := self._masks[role]) is None:
                continue
            legal = rows.observations[seat][:, mask] > 0
            refused = ~legal.gather(1, actions[seat].view(-1, 1)).squeeze(1) & playing[:, seat]
            for row in refused.nonzero().flatten().tolist():
                refuse_illegal(f"{self.name}: the {role}", int(actions[seat][row]), legal[row].numpy().astype(np.int8))

    def _flatten(self, env: Any, role: Role, observations: Mapping[Any, Any]) -> np.ndarray[Any, Any]:
        agent = self._agents[role]
        # A copy: many environments write the next observation into the same memory.
        flat = np.array(spaces.flatten(env.observation_space(agent), observations[agent]), np.float32)
        if not np.isfinite(flat).all():
            raise FloatingPointError(f"{agent}'s observation is not finite")
        return flat

    def _action(self, role: Role, action: np.ndarray[Any, Any]) -> Any:
        """An action as the environment takes it: a copy."""
        space = self._spaces[role][1]
        return int(action) if isinstance(space, spaces.Discrete) else action.astype(space.dtype)


class EnvironmentPlayer:
    """A player of the core made of an object with ``act(observation) -> action``, a function of what it is shown.

    It is shown the environment's own observation, not the flat vector (``gymnasium.spaces.unflatten`` makes it out of that, in
    single precision), and is asked once per episode and step while it takes part. A player that remembers, or draws numbers, is
    better written as a ``core.game.Player``, which has memory and noise for every row.

    Args:
        simulator: the environments.
        role: its seat.
        opponent: the object; the player takes its ``name``, if it has one, else its class's.
    """

    memory = 0
    noise = 0

    def __init__(self, simulator: ParallelSimulator, role: Role, opponent: Any) -> None:
        self.name = str(getattr(opponent, "name", type(opponent).__name__))
        self._seat, self._role, self._opponent = ROLES.index(role), role, opponent
        self._seen, self._space = simulator.own_space(role), simulator.action_space(role)

    def act(self, view: View, memory: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """See ``core.Player.act``.

        Raises:
            InvalidInputError: an action that is not in the space.
        """
        rows, here = view.observation.numpy(), view.state.here[:, self._seat].tolist()
        discrete = isinstance(self._space, spaces.Discrete)
        actions = np.zeros((len(rows), *(self._space.shape or ())), np.int64 if discrete else rows.dtype)
        for row in (row for row, there in enumerate(here) if there):
            given = self._opponent.act(spaces.unflatten(self._seen, rows[row].copy()))
            action = np.asarray(given)
            fits = action.dtype.kind in ("iu" if discrete else "iuf") and action.shape == self._space.shape
            if not fits or not self._space.contains(action.astype(self._space.dtype)):
                raise InvalidInputError(f"opponents: {self.name} gives the action {given!r}, must be in {self._space}")
            actions[row] = action
        return torch.from_numpy(actions), memory


def as_player(simulator: ParallelSimulator, role: Role, opponent: Any) -> Player:
    """A player for ``role``'s seat: an object with ``act(observation)`` as an ``EnvironmentPlayer``; players of the core, agents,
    runs and models with ``predict`` as ``load_player`` takes them.

    Raises:
        InvalidInputError: it is none of these, or does not fit the seat.
    """
    if is_player(opponent) and (hasattr(opponent, "player_for") or not _acts_alone(opponent)):
        return load_player(simulator, role, opponent)
    if not callable(getattr(opponent, "act", None)):
        raise InvalidInputError(
            f"opponents: {opponent!r} must be an object with act(observation) -> action, a player of the core, an Agent, or a "
            "model with predict"
        )
    return EnvironmentPlayer(simulator, role, opponent)


def _acts_alone(opponent: Any) -> bool:
    """Whether it has an ``act`` of one observation, which comes before ``predict``."""
    core = hasattr(opponent, "memory") and hasattr(opponent, "noise")
    return callable(getattr(opponent, "act", None)) and not core


def _flat_space(env: Any, agent: Any) -> spaces.Box:
    """What players see: the agent's observation space as ``gymnasium.spaces.flatten`` makes it, one-dimensional."""
    space = env.observation_space(agent)
    flat = spaces.flatten_space(space) if isinstance(space, spaces.Space) else None
    if not isinstance(flat, spaces.Box) or not flat.shape[0]:
        raise InvalidInputError(f"task_set: {agent}'s observation space {space} cannot be flattened to a vector")
    return flat


def _mask(env: Any, agent: Any) -> slice | None:
    """Where in the flat observation the entry ``action_mask`` is; None without.

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


def _action_space(env: Any, agent: Any) -> spaces.Box | spaces.Discrete:
    """The agent's action space, if a policy can act in it."""
    space = env.action_space(agent)
    if isinstance(space, spaces.Discrete) and space.start == 0:
        return space
    if isinstance(space, spaces.Box) and len(space.shape) == 1 and np.issubdtype(space.dtype, np.floating):
        return space
    raise InvalidInputError(
        f"task_set: {agent}'s action space {space} must be Discrete (from 0) or a one-dimensional Box of floats"
    )


def _method(env: Any, name: str) -> Any:
    """A method of the environment or of what it wraps; None if there is none."""
    return next((found for e in (env, env.unwrapped) if callable(found := getattr(e, name, None))), None)
