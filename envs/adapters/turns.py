"""PettingZoo's AEC interface of a turn-based family: asks only the player whose turn it is."""

from __future__ import annotations

from typing import Any

from pettingzoo.utils.conversions import parallel_to_aec_wrapper

from metaduel.envs.adapters.legal import legal_actions
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.spec import ROLES, GameSpec

WAIT = 0


class TurnsEnv(parallel_to_aec_wrapper):  # type: ignore[misc]
    """A parallel environment played turn by turn: the one that waits is given the action 0, which means just that.

    ``infos[agent]["action_mask"]`` says what is legal, as in PettingZoo's classic games; an agent's reward in ``last()`` is
    what it got since its own last turn.

    Args:
        env: the family's ``DuelParallelEnv``.
        spec: the family.
    """

    rewards: dict[str, float]
    terminations: dict[str, bool]
    truncations: dict[str, bool]
    infos: dict[str, dict[str, Any]]

    def __init__(self, env: Any, spec: GameSpec) -> None:
        super().__init__(env)
        self._game_spec = spec
        self.metadata["is_parallelizable"] = False  # a cycle of the agents is not a step

    def reset(self, seed: int | None = None, options: Any = None) -> None:
        """Start an episode."""
        super().reset(seed=seed, options=options)
        self._skip_agent_selection = None
        self.agent_selection = self.env.turn()

    def step(self, action: Any) -> None:
        """Play the turn of ``agent_selection``.

        Raises:
            InvalidInputError: an action that is not legal now; the message names those that are.
        """
        agent = self.agent_selection
        if self.terminations[agent] or self.truncations[agent]:
            self._was_dead_step(action)
            return
        mask = self.infos[agent]["action_mask"]
        if not mask[action]:
            name = self._game_spec.action_names[action]
            legal = legal_actions(self._game_spec.action_names, mask)
            raise InvalidInputError(f"{agent}: action={action} ({name}) must be legal now: {legal}")
        self._cumulative_rewards[agent] = 0
        played = self.env.step({role: action if role == agent else WAIT for role in ROLES})
        self._observations, self.rewards, self.terminations, self.truncations, self.infos = played
        self._accumulate_rewards()
        if self.env.agents:
            self.agent_selection = self.env.turn()
        self._deads_step_first()
