"""Loading of run folders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

from metaduel.agents.objective.config import LossConfig
from metaduel.agents.policies.base import Policy, adapting, normalisation
from metaduel.envs.adapters.parallel import Factory, ParallelSimulator
from metaduel.envs.core.arguments import AnyPath, as_path
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.registry import find, use
from metaduel.envs.core.spec import ROLES, GameSpec, Role
from metaduel.meta.runs.agent import Agent, AgentPlayer
from metaduel.meta.runs.checkpoint import load_checkpoint, read_config
from metaduel.meta.runs.config import ForeignConfig, TrainConfig
from metaduel.meta.runs.players import Network, make_duel, make_policy
from metaduel.meta.runs.trainer import BEST

LISTS = ("task_list", "validation_list")  # of a run folder's config.yaml, beside the settings


@dataclass(frozen=True)
class Trained:
    """The players of a run folder.

    Attributes:
        agents: the players.
        iterations: per player, the iteration of the best weights in validation.
    """

    agents: dict[Role, Agent]
    iterations: dict[Role, int]

    @property
    def protagonist(self) -> Agent:
        """The protagonist."""
        return self.agent("protagonist")

    @property
    def adversary(self) -> Agent:
        """The adversary."""
        return self.agent("adversary")

    def agent(self, role: Role) -> Agent:
        """The player of that role.

        Raises:
            InvalidInputError: the run did not train this role.
        """
        if role not in self.agents:
            raise InvalidInputError(f"this run trained no {role}: it has {', '.join(self.agents)}")
        return self.agents[role]


@dataclass(frozen=True)
class Run(Trained):
    """A run on a family.

    Attributes:
        config: its settings.
        duel: its game.
    """

    config: TrainConfig
    duel: Duel


@dataclass(frozen=True)
class ForeignRun(Trained):
    """A run on a user's own environments. Its agents' observation spaces are flat: where the environment's own are not,
    wrap it in ``gymnasium.wrappers.FlattenObservation``, or pass ``gymnasium.spaces.flatten(space, observation)``.

    Attributes:
        config: its settings.
        simulator: the environments, for arenas: ``simulator.with_tasks(tasks)`` has tasks to adapt to.
    """

    config: ForeignConfig
    simulator: ParallelSimulator


@overload
def load(folder: AnyPath, *, network: Network | None = None, game: GameSpec | None = None) -> Run: ...
@overload
def load(folder: AnyPath, task_set: Factory, network: Network | None = None) -> ForeignRun: ...
def load(
    folder: AnyPath,
    task_set: Factory | None = None,
    network: Network | None = None,
    game: GameSpec | None = None,
) -> Run | ForeignRun:
    """Read a run folder: each role's best weights on the validation split.

    Args:
        folder: the run's folder.
        task_set: for a run on your own environments, the function that makes them.
        network: for a run with your own network, the function that makes it.
        game: for a run on a family that is not registered in this process, its spec; from then on it is known by its name.

    Raises:
        InvalidInputError: not a run folder, or its checkpoint is missing, corrupt or of another version; ``task_set`` is
            missing, not needed, or makes other environments; ``game`` is missing, or not the run's.
    """
    folder = as_path(folder, "folder")
    values = read_config(folder)
    for name in LISTS:
        values.pop(name, None)
    if task_set is None:
        if "environment" in values:
            raise InvalidInputError(
                f"{folder} was trained on your own environments ({values['environment']}): load(folder, task_set=...)"
            )
        _know_family(folder, values.get("game"), game)
        config = TrainConfig.from_dict(values)
        duel = make_duel(config)
        policies = {role: make_policy(config, duel, role, network) for role in ROLES if role in config.roles}
        seats = {role: (duel.observation_space(role), duel.action_space(role)) for role in policies}
        return Run(*_players(folder, policies, seats, config.objective), config, duel)
    if "environment" not in values:
        raise InvalidInputError(f"{folder} was trained on the family {values.get('game')}: load it without task_set")
    own = ForeignConfig.from_dict(values)
    simulator = ParallelSimulator(task_set, own.horizon)
    found = simulator.described
    for name, value in found.items():
        if getattr(own, name) != value:
            raise InvalidInputError(f"{folder} was trained with {name} {getattr(own, name)}, task_set makes {value}")
    policies = {role: make_policy(own, simulator, role, network) for role in ROLES if role in own.roles}
    seats = {role: (simulator.observation_space(role), simulator.action_space(role)) for role in policies}
    return ForeignRun(*_players(folder, policies, seats, own.objective), own, simulator)


def _know_family(folder: Path, name: Any, game: GameSpec | None) -> None:
    """Make sure that the run's family is found by its name."""
    if game is not None:
        if name not in (game.name, game.id):
            raise InvalidInputError(f"game={game.name}: {folder} was trained on the family {name}")
        use(game)
    elif isinstance(name, str):
        try:
            find(name)
        except InvalidInputError as error:
            raise InvalidInputError(
                f"{folder} was trained on a family that is not registered here ({error}): install its package, call "
                "metaduel.register(spec) first, or load(folder, game=spec)"
            ) from None


def _players(
    folder: Path, policies: Mapping[Role, Policy], seats: Mapping[Role, tuple[Any, Any]], loss: LossConfig
) -> tuple[dict[Role, Agent], dict[Role, int]]:
    """Each role's best weights, and their iteration."""
    tensors, state = load_checkpoint(folder / BEST)
    agents: dict[Role, Agent] = {}
    for role, policy in policies.items():
        prefix = f"{role}/start/"
        found = {n.removeprefix(prefix): v for n, v in tensors.items() if n.startswith(prefix)}
        weights = adapting(found)
        expected = {name: value.shape for name, value in policy.init(0).items()}
        if {name: value.shape for name, value in weights.items()} != expected:
            raise InvalidInputError(
                f"{folder}: the {role}'s weights don't fit the config.yaml, or this version's spaces"
            )
        fixed = {name: value for name, value in found.items() if name not in weights}
        if not fixed and f"{role}/observation_mean" in tensors:  # the form of runs of format 2 before version 0.2
            fixed = normalisation((tensors[f"{role}/observation_mean"], tensors[f"{role}/observation_std"]))
        # In the policy's own order, which the rates follow; a file has another order.
        weights = {name: weights[name] for name in expected} | fixed
        agents[role] = Agent(role, policy, weights, tensors[f"{role}/rates"], loss, *seats[role])
    return agents, {role: state["best"][f"{role}/iteration"] for role in agents}


def load_player(duel: Duel, role: Role, path: str) -> AgentPlayer:
    """The player behind ``run:FOLDER``, unadapted, for ``role``'s seat.

    Raises:
        InvalidInputError: no such run, or its spaces don't match the seat.
    """
    run = load(path)
    agent = run.agent(role)
    if agent.observation_space != duel.observation_space(role) or agent.action_space != duel.action_space(role):
        raise InvalidInputError(
            f"run:{path} was trained on {run.config.game}: its spaces don't match {duel.spec.name}'s {role}"
        )
    return AgentPlayer(agent)
