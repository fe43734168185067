"""Batches of a user's own environments, for the trainer.

The environments are a ``ParallelSimulator``; all else is as in training on a family. Tasks are the environment's own
(``sample_tasks``) or those of a list; without either there is one task. Learners meet each other and the given scripted players.

Validation: the environment's tasks sampled with a fixed seed, or those of a list, against the scripted opponents of training. A
role without scripted opponents is validated against the *untrained* opponent, with the weights at the start of the run. An
opponent that continues to learn would not do: the best protagonist would be the one that met the worst adversary. Such scores
compare only checkpoints of one run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from metaduel.envs.adapters.parallel import Factory, ParallelSimulator, as_player
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.game import Player
from metaduel.envs.core.noise import derive_seed
from metaduel.envs.core.purposes import Purpose
from metaduel.envs.core.simulator import Simulator
from metaduel.envs.core.spec import Role, other
from metaduel.meta.problems.duels import DuelProblem
from metaduel.meta.runs.agent import Agent, AgentPlayer
from metaduel.meta.runs.config import ForeignConfig
from metaduel.meta.runs.players import Network, initial_weights
from metaduel.meta.runs.source import PlayedSource, picks


class ForeignSource(PlayedSource):
    """Batches of a user's environments; see the module.

    Args:
        task_set: makes an environment.
        config: the run's settings.
        network: see ``DuelSource``.
        opponents: per learner, the scripted players that it meets, see ``parallel.as_player``.
        tasks: training tasks, from which each batch draws; None: the environment's own.
        validation: all validation tasks; None: the environment's own.

    Raises:
        InvalidInputError: environments that cannot be played, see ``parallel``; tasks that they cannot set or sample; no horizon.
    """

    def __init__(
        self,
        task_set: Factory,
        config: ForeignConfig,
        network: Network | None = None,
        opponents: Mapping[Role, Sequence[Any]] | None = None,
        tasks: Sequence[Any] | None = None,
        validation: Sequence[Any] | None = None,
    ) -> None:
        self.config, self.simulator = config, ParallelSimulator(task_set, config.horizon)
        if not config.horizon:
            raise InvalidInputError(
                f"horizon=0: give the most steps that an episode of {self.simulator.name} can have: losses are per step of it"
            )
        self._check_tasks(tasks is not None, validation is not None)
        seated: dict[Role, Sequence[Player]] = {
            role: [as_player(self.simulator, other(role), one) for one in some]
            for role, some in (opponents or {}).items()
        }
        super().__init__(config, self.simulator, network, seated)
        self._given = None if tasks is None else self.simulator.with_tasks(tasks)
        if not seated and self._given is None and not self.simulator.makes_tasks:
            self._duels = 1  # without tasks, more duels would be more episodes of the same task
        self._validation = self._validated_on(validation)
        first = initial_weights(self.policies, config.seed)
        self._untrained = {role: self._player(role, first[role]) for role in self.policies}

    def _check_tasks(self, training: bool, validation: bool) -> None:
        takes, makes = self.simulator.takes_tasks, self.simulator.makes_tasks
        if takes != makes and not (takes and training and validation):
            raise InvalidInputError(
                "task_set: the environment must have both sample_tasks(n) and set_task(task), or neither; without sample_tasks, "
                "a TaskList gives tasks and validation"
            )

    def _validated_on(self, tasks: Sequence[Any] | None) -> ParallelSimulator:
        if tasks is not None:
            return self.simulator.with_tasks(tasks)
        if not self.simulator.makes_tasks:
            return self.simulator
        seed = derive_seed(0, Purpose.TASKS)
        return self.simulator.with_tasks(self.simulator.sample_tasks(self.config.validation_tasks, seed))

    def _player(self, role: Role, weights: dict[str, Tensor]) -> AgentPlayer:
        spaces = self.simulator.observation_space(role), self.simulator.action_space(role)
        rates, horizon = next(iter(weights.values())).new_zeros(0), self.simulator.horizon
        return AgentPlayer(Agent(role, self.policies[role], weights, rates, self.config.objective, *spaces, horizon))

    def problem(self, iteration: int) -> DuelProblem:
        """See ``PlayedSource``."""
        matchups = self.matchups(iteration)
        assert matchups is not None  # the settings make sure that every role has an opponent
        return matchups

    def _drawn(self, n: int, iteration: int) -> tuple[Simulator, Tensor]:
        seed = derive_seed(self.config.seed, Purpose.TASKS, iteration)
        if self._given is not None:
            return self._given, self._given.task_rows[picks(len(self._given.tasks), n, seed)]
        if not self.simulator.makes_tasks:
            return self.simulator, self.simulator.task_rows.expand(n, 1)
        found = self.simulator.with_tasks(self.simulator.sample_tasks(n, seed))
        return found, found.task_rows

    def _panel(self, role: Role) -> tuple[Simulator, Tensor, Sequence[Player]]:
        opponents = self.opponents.get(role) or [self._untrained[other(role)]]
        return self._validation, self._validation.task_rows, opponents

    def shares(self) -> dict[str, float]:
        """See ``PlayedSource``."""
        shares: dict[str, float] = {}
        for role in self.policies:
            scripted = self._scripted if role in self.opponents else 0
            shares[f"{role}/share_learned"] = self._duels / (self._duels + scripted)
            if self.opponents:
                shares[f"{role}/share_scripted"] = scripted / (self._duels + scripted)
        return shares
