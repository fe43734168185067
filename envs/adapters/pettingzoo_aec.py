"""PettingZoo's AEC interface: the players act one after the other; in turn-based families, the one whose turn it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pettingzoo
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from pettingzoo.utils.wrappers import OrderEnforcingWrapper

from metaduel.envs.adapters.legal import legal_actions
from metaduel.envs.adapters.pettingzoo_parallel import DuelParallelEnv, Observation
from metaduel.envs.adapters.sealed import Sealed
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.spec import Task

WAIT = 0


class DuelAECEnv(Sealed, pettingzoo.AECEnv[str, Any, Any]):  # type: ignore[misc]
    """A duel as a PettingZoo AEC environment: the protagonist chooses, then the adversary, and then the step is played.

    An agent's reward in ``last()`` is what it got since it last acted. An action outside the agent's space is refused at
    once, not when the other has chosen too. The interface to tasks (``set_task`` and so on) is that of the parallel
    environment; ``env.unwrapped`` has it.

    Args:
        parallel: the environment that plays the steps.

    Attributes:
        parallel: the same.
        state_space: the space of ``state()``.
    """

    SETTABLE: ClassVar[tuple[str, ...]] = (
        "agent_selection", "agents", "infos", "max_cycles", "rewards", "terminations", "truncations",
    )  # fmt: skip

    metadata: dict[str, Any]
    agents: list[str]
    agent_selection: str
    rewards: dict[str, float]
    terminations: dict[str, bool]
    truncations: dict[str, bool]
    infos: dict[str, dict[str, Any]]

    def __init__(self, parallel: DuelParallelEnv) -> None:
        self.parallel = parallel
        self.metadata = {**parallel.metadata}
        self.render_mode = parallel.render_mode
        self.possible_agents = list(parallel.possible_agents)
        self.state_space = parallel.state_space
        self.agents = []
        self._chosen: dict[str, Any] = {}
        self.seal()

    # What belongs to the duel

    @property
    def max_cycles(self) -> int:
        """Steps until truncation; may be set, which holds from the next step on."""
        return self.parallel.max_cycles

    @max_cycles.setter
    def max_cycles(self, value: int) -> None:
        self.parallel.max_cycles = value

    @property
    def np_random(self) -> np.random.Generator:
        """See ``DuelParallelEnv``."""
        return self.parallel.np_random

    @property
    def task_id(self) -> str:
        """See ``DuelParallelEnv``."""
        return self.parallel.task_id

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        """The agent's observation space; the same object at every call."""
        return self.parallel.observation_space(agent)

    def action_space(self, agent: str) -> spaces.Box | spaces.Discrete:
        """The agent's action space; the same object at every call."""
        return self.parallel.action_space(agent)

    def set_task(self, task: Mapping[str, float] | str | None) -> None:
        """Play ``task`` from the next reset on; None goes back to drawing."""
        self.parallel.set_task(task)

    def set_split(self, split: str) -> None:
        """Draw tasks from ``split`` from the next reset on."""
        self.parallel.set_split(split)

    def get_task(self) -> Task:
        """See ``DuelParallelEnv``."""
        return self.parallel.get_task()

    def sample_tasks(self, n: int, seed: int | None = None) -> list[Task]:
        """See ``DuelParallelEnv``."""
        return self.parallel.sample_tasks(n, seed)

    def state(self) -> npt.NDArray[np.float32]:
        """See ``DuelParallelEnv``."""
        return self.parallel.state()

    def render(self) -> npt.NDArray[np.uint8] | None:
        """Draw the newest step: [H, W, 3] for ``rgb_array``, None for ``human``."""
        return self.parallel.render()

    def close(self) -> None:
        """Close the window, if there is one."""
        self.parallel.close()

    # What is AEC's own

    def reset(self, seed: int | None = None, options: Mapping[str, Any] | None = None) -> None:
        """Start an episode; see ``DuelParallelEnv.reset``."""
        self._observations, self.infos = self.parallel.reset(seed, options)
        self.agents = list(self.possible_agents)
        self.rewards, self._cumulative_rewards = dict.fromkeys(self.agents, 0.0), dict.fromkeys(self.agents, 0.0)
        self.terminations, self.truncations = dict.fromkeys(self.agents, False), dict.fromkeys(self.agents, False)
        self._chosen = {}
        self._skip_agent_selection = None
        self.agent_selection = self._first()

    def observe(self, agent: str) -> Observation:
        """What the agent sees now; after the episode's end too.

        Raises:
            ResetNeeded: before the first reset.
        """
        self.observation_space(agent)  # refuses other names
        self._check_started("observe")
        return self._observations[agent]

    def step(self, action: Any) -> None:
        """Choose for ``agent_selection``; None where its episode is over.

        Raises:
            ResetNeeded: before the first reset, or when both have left the episode.
            InvalidInputError: an action outside the space, or not legal now; nothing has been changed then.
        """
        self._check_started("step")
        if not self.agents:
            raise ResetNeeded(f"{self}: the episode is over: call reset() before step()")
        agent = self.agent_selection
        if self.terminations[agent] or self.truncations[agent]:
            if action is not None:
                raise InvalidInputError(f"{agent}: action={action!r} must be None: the agent's episode is over")
            self._was_dead_step(None)
            return
        chosen = self._choose(agent, action)
        if len(chosen) < len(self.agents):
            self._chosen = chosen
            self._clear_rewards()
            self._cumulative_rewards[agent] = 0.0
            self.agent_selection = next(other for other in self.agents if other not in chosen)
            return
        played = self.parallel.step(chosen)
        self._chosen = {}
        self._observations, self.rewards, self.terminations, self.truncations, self.infos = played
        self._cumulative_rewards[agent] = 0.0
        self._accumulate_rewards()
        self.agent_selection = self._first()  # also at the end: some wrappers start the next episode with this agent
        self._deads_step_first()

    def _check_started(self, method: str) -> None:
        if not hasattr(self, "_observations"):
            raise ResetNeeded(f"{self}: call reset() before {method}()")

    def _first(self) -> str:
        """Who acts first in the next step."""
        return self.possible_agents[0]

    def _choose(self, agent: str, action: Any) -> dict[str, Any]:
        """The actions of the step that are known, once ``agent`` has chosen."""
        self.parallel.check_action(agent, action)
        return {**self._chosen, agent: np.array(action)}  # a copy: the step is yet to be played


class TurnsEnv(DuelAECEnv):
    """A turn-based duel as an AEC environment: asks only the player whose turn it is.

    The one that waits is given the action 0, which means just that. ``infos``, or observations, say what is legal, as in
    PettingZoo's classic games (see ``action_mask`` of ``DuelParallelEnv``), and an action that is not legal is refused:
    ``pettingzoo.utils.wrappers.TerminateIllegalWrapper`` makes it end the game instead.
    """

    def __init__(self, parallel: DuelParallelEnv) -> None:
        super().__init__(parallel)
        self.metadata["is_parallelizable"] = False  # a cycle of the agents is not a step

    def _first(self) -> str:
        return self.parallel.turn()

    def _choose(self, agent: str, action: Any) -> dict[str, Any]:
        number, legal = int(self.parallel.check_action(agent, action)), self.parallel.legal(agent)
        if not legal[number]:
            names = self.parallel.action_names
            called = f" ({names[number]})" if names else ""
            right = f"must be legal now: {legal_actions(names, legal)}"
            raise InvalidInputError(f"{agent}: action={number}{called} {right}")
        return {role: number if role == agent else WAIT for role in self.agents}


class OrderWrapper(OrderEnforcingWrapper[str, Any, Any]):  # type: ignore[misc]
    """PettingZoo's check of the order of calls. A refused call leaves it as it was; attributes are those of the
    environment, in setting as in reading.
    """

    _has_reset: bool
    _has_updated: bool

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "env" or name.startswith("_"):
            super().__setattr__(name, value)
        else:
            setattr(self.env, name, value)

    def reset(self, seed: int | None = None, options: Mapping[str, Any] | None = None) -> None:
        """Start an episode."""
        with self._kept():
            super().reset(seed, options)

    def step(self, action: Any) -> None:
        """Choose for ``agent_selection``."""
        with self._kept():
            super().step(action)

    @contextmanager
    def _kept(self) -> Iterator[None]:
        before: tuple[bool, bool] = self._has_reset, self._has_updated
        try:
            yield
        except BaseException:
            self._has_reset, self._has_updated = before
            raise

    def __str__(self) -> str:
        return str(self.env)
