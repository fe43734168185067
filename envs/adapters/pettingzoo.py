"""PettingZoo's two interfaces of a family: parallel (both choose at once) and AEC (one after the other; ``turns.py`` has
that of turn-based families).

Both seats are the caller's. ``pettingzoo.make("parallel", "metaduel/Navigation-v0")`` and the module style
``from metaduel.envs.navigation import navigation_v0; navigation_v0.parallel_env()`` construct the same class.
"""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pettingzoo
import torch
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from pettingzoo.utils.conversions import parallel_to_aec
from pettingzoo.utils.wrappers import BaseWrapper, OrderEnforcingWrapper
from torch import Tensor

from metaduel.envs.adapters.given import draw_tasks, resolve_task
from metaduel.envs.adapters.legal import int8, own_space
from metaduel.envs.adapters.turns import TurnsEnv
from metaduel.envs.core import noise, tasks
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.errors import InvalidInputError, unknown
from metaduel.envs.core.game import Episode, make_game
from metaduel.envs.core.registry import find
from metaduel.envs.core.spec import ROLES, GameSpec, Role, Task
from metaduel.envs.render.screen import RENDER_MODES, Screen

Array = npt.NDArray[Any]
Space = spaces.Box | spaces.Discrete


class DuelParallelEnv(pettingzoo.ParallelEnv[str, Array, Any]):  # type: ignore[misc]
    """One duel in which the caller plays both seats, as a PettingZoo parallel environment.

    Agents are ``protagonist`` and ``adversary``; an episode ends for both at once. ``infos`` name the task by its id,
    never by its values. In turn-based games both still give an action at every step, ``infos`` have each agent's
    ``action_mask``, and an action that is not legal counts as the one that the family's page says.

    Args:
        game: the family's name, id or spec.
        task: context values (those left out are the defaults), or ``held_out:3`` for one of a frozen list; None: a new
            task of ``split`` is drawn at every reset, from the episode's own noise.
        split: where tasks are drawn from.
        max_cycles: steps until truncation; the family's horizon by default.
        informed: roles whose observation shows every context, hidden ones included.
        render_mode: ``rgb_array``, ``human`` or None.

    Attributes:
        state_space: the space of ``state()``.

    Raises:
        InvalidInputError: an argument that cannot work; the message names it.
    """

    def __init__(
        self,
        game: str | GameSpec,
        task: Mapping[str, float] | str | None = None,
        split: str = "train",
        max_cycles: int | None = None,
        informed: Sequence[Role] = (),
        render_mode: str | None = None,
    ) -> None:
        if render_mode is not None and render_mode not in RENDER_MODES:
            raise unknown("render_mode", render_mode, RENDER_MODES)
        spec = find(game)
        self._game_spec = spec
        self._informed: tuple[Role, ...] = (informed,) if isinstance(informed, str) else tuple(informed)  # type: ignore[assignment]
        self._split = tasks.check_split(split)
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
        # Copies: seeding this environment's spaces must not touch another's.
        self._observation_spaces = {role: copy.deepcopy(self._duel.observation_space(role)) for role in ROLES}
        self._action_spaces = {role: own_space(self._duel, role) for role in ROLES}
        zero = torch.zeros(1, dtype=torch.int64, device="cpu")
        size = len(_flatten(self._duel.reset(self._duel.game.params([{}]), zero, zero), self._duel.horizon))
        self.state_space = spaces.Box(-np.inf, np.inf, (size,), np.float32)
        self._seed: int | None = None
        self._episode = 0
        self._lists_sampled = 0
        self._task: Task | None = None
        self._rows: Episode | None = None
        self._states: list[Any] = []
        self._returns = [0.0, 0.0]
        self._screen: Screen | None = None

    @property
    def max_cycles(self) -> int:
        """Steps until truncation; may be set, which holds from the next step on."""
        return self._duel.horizon

    @max_cycles.setter
    def max_cycles(self, value: int) -> None:
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise InvalidInputError(f"max_cycles={value!r} must be a whole number of at least 1 step")
        self._duel = Duel(make_game(self._game_spec), int(value), self._informed)

    def observation_space(self, agent: str) -> spaces.Box:
        """The agent's observation space; the same object at every call."""
        return self._observation_spaces[self._game_spec.check_role(agent)]

    def action_space(self, agent: str) -> Space:
        """The agent's action space; the same object at every call."""
        return self._action_spaces[self._game_spec.check_role(agent)]

    def sample_tasks(self, n: int, seed: int | None = None) -> list[Task]:
        """Draw ``n`` tasks of this environment's split: other ones at every call, or the ones that ``seed`` gives.

        After a seeded reset the same calls give the same tasks again.
        """
        if seed is None:
            seed = noise.derive_seed(self._current_seed(), self._lists_sampled)
            self._lists_sampled += 1
        return tasks.sample_tasks(self._game_spec, n, self._split, check_seed(seed))

    def set_task(self, task: Mapping[str, float] | str | None) -> None:
        """Play ``task`` from the next reset on; None goes back to drawing."""
        self._fixed_task = None if task is None else resolve_task(self._duel, task)

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
    ) -> tuple[dict[str, Array], dict[str, dict[str, Any]]]:
        """Start an episode.

        Args:
            seed: starts at the first episode of this seed; None goes on to the next episode of the last one.
            options: ``task`` is as in ``set_task``, from this reset on; other keys are left to wrappers.
        """
        if options and "task" in options:
            self.set_task(options["task"])
        if seed is not None:
            self._seed, self._episode, self._lists_sampled = check_seed(seed), 0, 0
        elif self._seed is not None:
            self._episode += 1
        numbers = torch.tensor([[self._current_seed()], [self._episode]], dtype=torch.int64, device="cpu")
        key = noise.episode_key(*numbers.unbind(0))
        self._task = self._fixed_task or self._draw(key)
        self._rows = self._duel.start(self._duel.game.params([self._task]), key)
        self._states, self._returns = [self._rows.state], [0.0, 0.0]
        self.agents = list(self.possible_agents)
        if self.render_mode == "human":
            self.render()
        return self._observe(self._rows), self._infos(self._rows)

    def turn(self) -> str:
        """The agent whose turn it is, in a turn-based game."""
        return ROLES[int(self._duel.turn(self._started("turn")))]

    def step(
        self, actions: Mapping[str, Any]
    ) -> tuple[dict[str, Array], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]:
        """Play one step; after an episode's end, five empty dictionaries.

        Raises:
            ResetNeeded: before the first reset.
            InvalidInputError: an agent missing or unknown, or an action outside its space.
        """
        rows = self._started("step")
        if not self.agents:
            return {}, {}, {}, {}, {}
        for agent in actions:
            if agent not in self.agents:
                raise unknown("agent in actions", agent, self.agents)
        missing = [agent for agent in self.agents if agent not in actions]
        if missing:
            raise InvalidInputError(f"actions={dict(actions)!r} must have an action for {missing[0]!r}")
        pair = [check_action(agent, actions[agent], self.action_space(agent)) for agent in ROLES]
        self._rows, outcome = self._duel.step(rows, (pair[0], pair[1]))
        rewards = outcome.reward[0].tolist()
        terminated, truncated = bool(outcome.terminated), bool(outcome.truncated)
        self._returns = [total + reward for total, reward in zip(self._returns, rewards, strict=True)]
        if self.render_mode is None:
            self._states = [self._rows.state]
        else:
            self._states.append(self._rows.state)
        if terminated or truncated:
            self.agents = []
        if self.render_mode == "human":
            self.render()
        return (
            self._observe(self._rows),
            dict(zip(ROLES, rewards, strict=True)),
            dict.fromkeys(ROLES, terminated),
            dict.fromkeys(ROLES, truncated),
            self._infos(self._rows),
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
        rows = self._started("render")
        if self._screen is None:
            self._screen = Screen(self._game_spec, self.render_mode)
        return self._screen.frame(rows.params, self._states, self._returns)

    def close(self) -> None:
        """Close the window, if there is one."""
        if self._screen is not None:
            self._screen.close()
            self._screen = None

    def _started(self, method: str) -> Episode:
        if self._rows is None:
            raise ResetNeeded(f"{self._game_spec.name}: call reset() before {method}()")
        return self._rows

    def _draw(self, key: Tensor) -> Task:
        """The task of an episode, from its noise key [1]."""
        values = draw_tasks(self._game_spec, self._split, key)[0]
        return dict(zip(self._game_spec.context_names, values.tolist(), strict=True))

    def _current_seed(self) -> int:
        if self._seed is None:
            self._seed = fresh_seed()
        return self._seed

    def _observe(self, rows: Episode) -> dict[str, Array]:
        # Copies: an observation in the caller's hands must not share memory with the state.
        return {a: o[0].numpy().copy() for a, o in zip(ROLES, self._duel.observe(rows), strict=True)}

    def _infos(self, rows: Episode) -> dict[str, dict[str, Any]]:
        assert self._task is not None
        name = tasks.task_id(self._task)
        infos: dict[str, dict[str, Any]] = {agent: {"task": name} for agent in ROLES}
        if self._game_spec.turn_based:
            for agent, legal in zip(ROLES, self._duel.legal(rows), strict=True):
                infos[agent]["action_mask"] = int8(legal[0])
                self._action_spaces[agent].legal = int8(legal[0])  # type: ignore[union-attr]
        return infos


class CheckActionsWrapper(BaseWrapper[str, Array, Any]):  # type: ignore[misc]
    """Refuses an action outside its agent's space at once, not when the last agent has chosen too."""

    def step(self, action: Any) -> None:
        """Check, then step."""
        agent = self.agent_selection
        if not (self.terminations[agent] or self.truncations[agent]):
            check_action(agent, action, self.action_space(agent))
        super().step(action)

    def __str__(self) -> str:
        return str(self.env)


def parallel_env(game: str | GameSpec, **kwargs: Any) -> DuelParallelEnv:
    """Make the parallel environment of a family; see ``DuelParallelEnv``."""
    return DuelParallelEnv(game, **kwargs)


def raw_env(game: str | GameSpec, **kwargs: Any) -> pettingzoo.AECEnv[str, Array, Any]:
    """Make the AEC environment of a family without the early check of actions."""
    spec, parallel = find(game), parallel_env(game, **kwargs)
    return TurnsEnv(parallel, spec) if spec.turn_based else parallel_to_aec(parallel)


def env(game: str | GameSpec, **kwargs: Any) -> pettingzoo.AECEnv[str, Array, Any]:
    """Make the AEC environment of a family. Its ``unwrapped`` is the ``DuelParallelEnv`` (``set_task`` and so on)."""
    return OrderEnforcingWrapper(CheckActionsWrapper(raw_env(game, **kwargs)))


def module_style(game: str) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    """``env, parallel_env, raw_env`` of one id, for a family's ``<name>_v0.py``."""
    return (
        functools.partial(env, game),
        functools.partial(parallel_env, game),
        functools.partial(raw_env, game),
    )


def module_name(spec: GameSpec) -> str:
    """The family's name in PettingZoo's module style: ``rock_paper_scissors_v0``."""
    return f"{re.sub(r'(?<=[a-z0-9])(?=[A-Z])', '_', spec.name).lower()}_v{spec.version}"


def fresh_seed() -> int:
    """A seed from the operating system's entropy, for environments that were given none."""
    return int(np.random.SeedSequence().generate_state(1, np.uint64)[0] >> np.uint64(1))


def check_seed(seed: object) -> int:
    """Return ``seed`` or raise the error that says what it must be."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < 1 << 63:
        raise InvalidInputError(f"seed={seed!r} must be a whole number in [0, 2^63)")
    return int(seed)


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
