"""PettingZoo's parallel interface: both seats are the caller's, and both choose at once."""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pettingzoo
import torch
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from gymnasium.utils import seeding
from torch import Tensor

from metaduel.envs.adapters.given import draw_tasks, fresh_seeds, resolve_task
from metaduel.envs.adapters.legal import LegalDiscrete, Mask, int8, own_space
from metaduel.envs.adapters.sealed import Sealed
from metaduel.envs.core import noise, tasks
from metaduel.envs.core.arguments import several
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.errors import InvalidInputError, check_seed, check_whole, unknown
from metaduel.envs.core.game import Episode, make_game
from metaduel.envs.core.registry import find
from metaduel.envs.core.spec import ROLES, GameSpec, Role, Split, Task
from metaduel.envs.render.screen import RENDER_MODES, Screen

Array = npt.NDArray[Any]
Space = spaces.Box | spaces.Discrete
Observation = Array | dict[str, Array]  # a dictionary with ``action_mask="observation"``
MASKS = ("info", "observation")  # where a turn-based game's masks may be
OPTIONS = ("task",)  # what ``reset(options=...)`` takes
_ANYTHING = "options"  # a key that PettingZoo's own tests give reset, and want to see tolerated


class DuelParallelEnv(Sealed, pettingzoo.ParallelEnv[str, Observation, Any]):  # type: ignore[misc]
    """One duel in which the caller plays both seats, as a PettingZoo parallel environment.

    Agents are ``protagonist`` and ``adversary``; an episode ends for both at once. ``infos`` name the task by a number,
    ``task_number`` of its id, and never by its values: some libraries keep infos as tensors, which hold no words. In
    turn-based games both still give an action at every step, each agent's mask says which are legal, and an action that is
    not legal counts as the one that the family's page says. Attributes are read, not set, all but ``max_cycles``: one that
    has no effect is refused.

    Args:
        game: the family's name, id or spec.
        task: context values (those left out are the defaults), or ``held_out:3`` for one of a frozen list; None: a new
            task of ``split`` is drawn at every reset, from the episode's own noise.
        split: where tasks are drawn from.
        max_cycles: steps until truncation; the family's horizon by default.
        informed: roles whose observation shows every context, hidden ones included.
        render_mode: ``rgb_array``, ``human`` or None.
        action_mask: where a turn-based game says which actions are legal: in ``info`` (as ``infos[agent]["action_mask"]``),
            or in the ``observation``, which is then a dictionary with the keys ``observation`` and ``action_mask``, as in
            PettingZoo's classic games. Other games have no masks.

    Attributes:
        state_space: the space of ``state()``.

    Raises:
        InvalidInputError: an argument that cannot work; the message names it.
    """

    SETTABLE: ClassVar[tuple[str, ...]] = ("agents", "max_cycles")

    def __init__(
        self,
        game: str | GameSpec,
        task: Mapping[str, float] | str | None = None,
        split: str = "train",
        max_cycles: int | None = None,
        informed: Sequence[Role] = (),
        render_mode: str | None = None,
        action_mask: Literal["info", "observation"] = "info",
    ) -> None:
        if render_mode is not None and render_mode not in RENDER_MODES:
            raise unknown("render_mode", render_mode, RENDER_MODES)
        spec = find(game)
        if action_mask not in MASKS:
            raise unknown("action_mask", action_mask, MASKS)
        if action_mask == "observation" and not spec.turn_based:
            raise InvalidInputError(
                f"action_mask='observation' must be left out: {spec.name} has no masks, since it isn't turn-based"
            )
        self._game_spec = spec
        roles = several(informed)
        if not all(isinstance(role, str) for role in roles):
            raise InvalidInputError(
                f"informed={informed!r} must name the roles that see every context: protagonist, adversary, both or none, as "
                "in informed=['protagonist']"
            )
        self._informed: tuple[Role, ...] = tuple(roles)
        self._masks_in = action_mask
        self._split: Split = tasks.check_split(split)
        self.max_cycles = spec.horizon if max_cycles is None else max_cycles
        self.set_task(task)
        self.possible_agents: list[str] = list(ROLES)
        self.agents: list[str] = []
        self.render_mode = render_mode
        self.metadata = {
            "name": module_name(spec),
            "render_modes": list(RENDER_MODES),
            "render_fps": spec.fps,
            "is_parallelizable": True,
        }
        self._action_spaces = {role: own_space(self._duel, role) for role in ROLES}
        self._observation_spaces = {role: self._own_observation_space(role) for role in ROLES}
        zero = torch.zeros(1, dtype=torch.int64, device="cpu")
        size = len(_flatten(self._duel.reset(self._duel.game.params([{}]), zero, zero), self._duel.horizon))
        self.state_space = spaces.Box(-np.inf, np.inf, (size,), np.float32)
        self._seed: int | None = None  # drawn when it is needed, so that copies of a new environment differ
        self._np_random: np.random.Generator | None = None
        self._episode = -1
        self._lists_sampled = 0
        self._task: Task | None = None
        self._rows: Episode | None = None
        self._states: list[Any] = []
        self._returns = [0.0, 0.0]
        self._screen: Screen | None = None
        self.seal()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_screen": None}  # a copy opens one of its own

    def _own_observation_space(self, role: Role) -> spaces.Space[Any]:
        # A copy: seeding this environment's spaces must not touch another's.
        space = copy.deepcopy(self._duel.observation_space(role))
        if self._masks_in == "info":
            return space
        n = int(self._action_spaces[role].n)  # type: ignore[union-attr]
        return spaces.Dict({"observation": space, "action_mask": spaces.Box(0, 1, (n,), np.int8)})

    @property
    def max_cycles(self) -> int:
        """Steps until truncation; may be set, which holds from the next step on."""
        return self._duel.horizon

    @max_cycles.setter
    def max_cycles(self, value: int) -> None:
        steps = check_whole("max_cycles", value, unit=" step")
        self._duel = Duel(make_game(self._game_spec), steps, self._informed)

    @property
    def np_random(self) -> np.random.Generator:
        """Random numbers for wrappers, seeded as Gymnasium's are; the game draws none of them."""
        if self._np_random is None:
            self._np_random = seeding.np_random(self._current_seed())[0]
        return self._np_random

    @property
    def action_names(self) -> tuple[str, ...]:
        """What the actions of a Discrete space are called, if they have names."""
        return self._game_spec.action_names

    @property
    def task_id(self) -> str:
        """The id of the task being played, as other interfaces have it in their infos.

        Raises:
            ResetNeeded: before the first reset.
        """
        self._started("task_id")
        assert self._task is not None
        return tasks.task_id(self._task)

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        """The agent's observation space; the same object at every call."""
        return self._observation_spaces[self._game_spec.check_role(agent)]

    def action_space(self, agent: str) -> Space:
        """The agent's action space; the same object at every call."""
        return self._action_spaces[self._game_spec.check_role(agent)]

    def sample_tasks(self, n: int, seed: int | None = None) -> list[Task]:
        """Draw ``n`` tasks of this environment's split: other ones at every call, or the ones that ``seed`` gives.

        After a seeded reset the same calls give the same tasks again.
        """
        own = seed is None
        if seed is None:
            seed = noise.derive_seed(self._current_seed(), self._lists_sampled)
        drawn = tasks.sample_tasks(self._game_spec, n, self._split, check_seed(seed))
        self._lists_sampled += own
        return drawn

    def set_task(self, task: Mapping[str, float] | str | None) -> None:
        """Play ``task`` from the next reset on; None goes back to drawing."""
        self._fixed_task = self._resolve(task)

    def set_split(self, split: str) -> None:
        """Draw tasks from ``split`` from the next reset on."""
        self._split = tasks.check_split(split)

    def get_task(self) -> Task:
        """The task that was set, or else the one being played.

        Raises:
            ResetNeeded: neither exists yet.
        """
        task = self._fixed_task or self._task
        if task is None:
            raise ResetNeeded(f"{self._game_spec.name}: no task yet: call reset() or set_task(task) before get_task()")
        return dict(task)

    def reset(
        self, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, Observation], dict[str, dict[str, Any]]]:
        """Start an episode.

        Args:
            seed: starts at the first episode of this seed; None goes on to the next episode of the last one.
            options: ``task`` is as in ``set_task``, from this reset on. (PettingZoo's own tests give the key ``options``,
                which is tolerated and has no effect.)

        Raises:
            InvalidInputError: an unknown option or a bad value; the environment is as before then.
        """
        options = check_options(options)
        fixed = self._resolve(options["task"]) if "task" in options else self._fixed_task
        number = self._current_seed() if seed is None else check_seed(seed)
        episode = self._episode + 1 if seed is None else 0
        own = torch.tensor([[number], [episode]], dtype=torch.int64, device="cpu")
        key = noise.episode_key(own[0], own[1])
        task = fixed or self._draw(key)
        rows = self._duel.start(self._duel.game.params([task]), key)
        if self.render_mode == "human":
            self._show(rows, [rows.state], [0.0, 0.0])
        # Nothing is refused from here on.
        if seed is not None:
            self._seed, self._np_random, self._lists_sampled = number, None, 0
        self._fixed_task, self._task, self._episode = fixed, task, episode
        self._rows, self._states, self._returns = rows, [rows.state], [0.0, 0.0]
        self.agents = list(self.possible_agents)
        return self._observe(rows)

    def turn(self) -> str:
        """The agent whose turn it is, in a turn-based game."""
        return ROLES[int(self._duel.turn(self._started("turn")))]

    def legal(self, agent: str) -> Mask:
        """[n] int8: 1 where the agent may choose an action now, in a turn-based game; a new array at every call."""
        seat = ROLES.index(self._game_spec.check_role(agent))
        return int8(self._duel.legal(self._started("legal"))[seat][0])

    def check_action(self, agent: str, action: Any) -> Tensor:
        """Turn one agent's action into a row of a batch; see ``check_action``."""
        return check_action(agent, action, self.action_space(agent))

    def step(
        self, actions: Mapping[str, Any]
    ) -> tuple[dict[str, Observation], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]:
        """Play one step; after an episode's end, five empty dictionaries.

        Raises:
            ResetNeeded: before the first reset.
            InvalidInputError: an agent missing or unknown, or an action outside its space; nothing has been changed then.
        """
        rows = self._started("step")
        if not self.agents:
            return {}, {}, {}, {}, {}
        if not isinstance(actions, Mapping):
            raise InvalidInputError(f"actions={actions!r} must map agents to actions")
        for agent in actions:
            if agent not in self.agents:
                raise unknown("agent in actions", agent, self.agents)
        missing = [agent for agent in self.agents if agent not in actions]
        if missing:
            raise InvalidInputError(f"actions={dict(actions)!r} must have an action for {missing[0]!r}")
        pair = [self.check_action(agent, actions[agent]) for agent in ROLES]
        rows, outcome = self._duel.step(rows, (pair[0], pair[1]))
        rewards = outcome.reward[0].tolist()
        terminated, truncated = bool(outcome.terminated), bool(outcome.truncated)
        returns = [total + reward for total, reward in zip(self._returns, rewards, strict=True)]
        states = [rows.state] if self.render_mode is None else [*self._states, rows.state]
        if self.render_mode == "human":
            self._show(rows, states, returns)
        # Nothing is refused from here on.
        self._rows, self._states, self._returns = rows, states, returns
        if terminated or truncated:
            self.agents = []
        observations, infos = self._observe(rows)
        return (
            observations,
            dict(zip(ROLES, rewards, strict=True)),
            dict.fromkeys(ROLES, terminated),
            dict.fromkeys(ROLES, truncated),
            infos,
        )

    def state(self) -> Array:
        """Everything that decides what comes next, as one float32 vector for centralised critics.

        The fields of the family's ``State`` in order, each flattened; then every context in its own unit, hidden ones
        included; then the fraction of ``max_cycles`` that has been played.
        """
        return _flatten(self._started("state"), self._duel.horizon)

    def render(self) -> npt.NDArray[np.uint8] | None:
        """Draw the newest step: [H, W, 3] for ``rgb_array``, None for ``human``."""
        if self.render_mode is None:
            raise InvalidInputError(f"render_mode=None draws nothing: construct with one of {', '.join(RENDER_MODES)}")
        return self._show(self._started("render"), self._states, self._returns)

    def _show(self, rows: Episode, states: list[Any], returns: list[float]) -> npt.NDArray[np.uint8] | None:
        assert self.render_mode is not None
        if self._screen is None:
            self._screen = Screen(self._game_spec, self.render_mode)
        return self._screen.frame(rows.params, states, returns)

    def close(self) -> None:
        """Close the window, if there is one."""
        if self._screen is not None:
            self._screen.close()
            self._screen = None

    def _started(self, method: str) -> Episode:
        if self._rows is None:
            raise ResetNeeded(f"{self._game_spec.name}: call reset() before {method}()")
        return self._rows

    def _resolve(self, task: Mapping[str, float] | str | None) -> Task | None:
        return None if task is None else resolve_task(self._duel, task)

    def _draw(self, key: Tensor) -> Task:
        """The task of an episode, from its noise key [1]."""
        values = draw_tasks(self._game_spec, self._split, key)[0]
        return dict(zip(self._game_spec.context_names, values.tolist(), strict=True))

    def _current_seed(self) -> int:
        if self._seed is None:
            self._seed = int(fresh_seeds(1))
        return self._seed

    def _observe(self, rows: Episode) -> tuple[dict[str, Observation], dict[str, dict[str, Any]]]:
        """Observations and infos of both agents."""
        assert self._task is not None
        # Copies: an observation in the caller's hands must not share memory with the state.
        seen: dict[str, Observation] = {
            agent: part[0].numpy().copy() for agent, part in zip(ROLES, self._duel.observe(rows), strict=True)
        }
        number = task_number(tasks.task_id(self._task))
        infos: dict[str, dict[str, Any]] = {agent: {"task": number} for agent in ROLES}
        for agent, space in self._action_spaces.items():
            if isinstance(space, LegalDiscrete):
                space.legal = self.legal(agent)
                if self._masks_in == "info":
                    infos[agent]["action_mask"] = space.legal.copy()
                else:
                    seen[agent] = {"observation": seen[agent], "action_mask": space.legal.copy()}  # type: ignore[dict-item]
        return seen, infos


def module_name(spec: GameSpec) -> str:
    """The family's name in PettingZoo's module style: ``rock_paper_scissors_v0``."""
    return f"{re.sub(r'(?<=[a-z0-9])(?=[A-Z])', '_', spec.name).lower()}_v{spec.version}"


def task_number(task_id: str) -> int:
    """The number by which infos name a task: a hash of its id, below 2^24, which float32 (TorchRL's infos) holds exactly.

    To find names again, number the ids that may occur: ``{task_number(name): name for name in names}``.
    Among thousands of ids, two may share a number.
    """
    return int.from_bytes(hashlib.blake2b(task_id.encode(), digest_size=3).digest(), "big")


def check_options(options: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return the options of a reset, or raise the error that names what is unknown among them."""
    if not isinstance(options, (Mapping, type(None))):
        raise InvalidInputError(f"options={options!r} must map names to values")
    for key in options or {}:
        if key not in (*OPTIONS, _ANYTHING):
            raise unknown("reset option", key, OPTIONS)
    return options or {}


def check_action(agent: str, action: Any, space: Space) -> Tensor:
    """Turn one agent's action into the row that ``Duel.step`` takes: [1, d] float32, or [1] int64.

    Raises:
        InvalidInputError: not a number, of another shape, NaN, or outside the space.
    """
    try:
        array = np.asarray(action)
    except ValueError:  # ragged lists
        array = np.asarray(None)
    kinds = "iuf" if isinstance(space, spaces.Box) else "iu"
    if array.dtype.kind in kinds and array.shape == space.shape:
        low, high = (
            (space.low, space.high) if isinstance(space, spaces.Box) else (space.start, space.start + space.n - 1)
        )
        with np.errstate(over="ignore"):
            array = array.astype(space.dtype)
        if bool(np.all((array >= low) & (array <= high))):  # false for NaN
            row = torch.from_numpy(array[np.newaxis].copy())
            return row if array.ndim else row.to(torch.int64)
    raise InvalidInputError(f"{agent}: action={action!r} must be in {space}".replace("\n", " "))


def _flatten(rows: Episode, horizon: int) -> Array:
    leaves = [leaf.reshape(-1) for leaf in (*_leaves(rows.state), *rows.params, rows.step.to(torch.float64) / horizon)]
    return torch.cat([leaf.to(torch.float32) for leaf in leaves]).numpy()


def _leaves(tree: Any) -> list[Tensor]:
    return [tree] if isinstance(tree, Tensor) else [leaf for part in tree for leaf in _leaves(part)]
