"""Loading of run folders, and of saved agents."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, overload

from torch import Tensor

from metaduel.agents.objective.config import LossConfig
from metaduel.agents.policies.base import Policy, Weights, adapting, normalisation
from metaduel.agents.trajectories import Carry
from metaduel.envs.adapters.parallel import Factory, ParallelSimulator
from metaduel.envs.core.arguments import AnyPath, as_path
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.errors import InvalidInputError, one_line
from metaduel.envs.core.registry import find, use
from metaduel.envs.core.simulator import Simulator
from metaduel.envs.core.spec import ROLES, GameSpec, Role
from metaduel.meta.adaptation.rates import below
from metaduel.meta.runs.agent import Agent, AgentPlayer
from metaduel.meta.runs.checkpoint import AGENT, load_agent, load_checkpoint, read_config
from metaduel.meta.runs.config import ForeignConfig, RunConfig, TrainConfig, build
from metaduel.meta.runs.players import Network, make_duel, make_policy
from metaduel.meta.runs.trainer import BEST

LISTS = ("task_list", "validation_list")  # of a run folder's config.yaml, beside the settings


@dataclass(frozen=True, repr=False)
class Trained(ABC):
    """The players of a run folder. In a seat, its player of that role plays.

    Attributes:
        agents: the players.
        iterations: per player, the iteration of the best weights in validation; empty for a saved agent.
    """

    agents: dict[Role, Agent]
    iterations: dict[Role, int]

    @property
    @abstractmethod
    def settings(self) -> RunConfig:
        """Its settings."""

    @property
    @abstractmethod
    def played(self) -> str:
        """What was played in it."""

    @property
    def name(self) -> str:
        """For infos and tables."""
        return f"{self.settings.method} (seed {self.settings.seed})"

    def __repr__(self) -> str:
        method, seed = self.settings.method, self.settings.seed
        return f"{type(self).__name__}({one_line(self.played, 40)}, {method}, seed {seed}: {' and '.join(self.agents)})"

    def player_for(self, simulator: Simulator, role: Role) -> AgentPlayer:
        """The player of that role for its seat; see ``Agent``.

        Raises:
            InvalidInputError: the run did not train this role, or trained it on another family or other spaces.
        """
        return self.agent(role).player_for(simulator, role)

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
            raise InvalidInputError(f"{self!r} has no {role}")
        return self.agents[role]


@dataclass(frozen=True, repr=False)
class Run(Trained):
    """A run on a family.

    Attributes:
        config: its settings.
        duel: its game.
    """

    config: TrainConfig
    duel: Duel

    @property
    def settings(self) -> TrainConfig:
        """See ``Trained``."""
        return self.config

    @property
    def played(self) -> str:
        """See ``Trained``."""
        return self.duel.spec.id


@dataclass(frozen=True, repr=False)
class SavedAgent(Run):
    """An agent of a run on a family, as ``Agent.save`` wrote it: a run of one player, which is as it was saved."""


@dataclass(frozen=True, repr=False)
class ForeignRun(Trained):
    """A run on a user's own environments. Its agents' observation spaces are flat: where the environment's own are not,
    wrap it in ``gymnasium.wrappers.FlattenObservation``, or pass ``gymnasium.spaces.flatten(space, observation)``.

    Attributes:
        config: its settings.
        simulator: the environments, for arenas: ``simulator.with_tasks(tasks)`` has tasks to adapt to.
    """

    config: ForeignConfig
    simulator: ParallelSimulator

    @property
    def settings(self) -> ForeignConfig:
        """See ``Trained``."""
        return self.config

    @property
    def played(self) -> str:
        """See ``Trained``."""
        return self.config.environment


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
    """Read a run folder: each role's best weights on the validation split; or a saved agent, see ``Agent.save``: a run whose one
    player is as it was saved.

    Args:
        folder: the folder.
        task_set: for a run on your own environments, the function that makes them.
        network: for a run with your own network, the function that makes it.
        game: for a run on a family that is not registered in this process, its spec; from then on it is known by its name.

    Raises:
        InvalidInputError: not a run folder, or its checkpoint is missing, corrupt or of another version; ``task_set`` is
            missing, not needed, or makes other environments; ``game`` is missing, or not the run's.
    """
    folder = as_path(folder, "folder")
    saved = SavedState(*load_agent(folder)) if (folder / AGENT).is_file() else None
    values = read_config(folder) if saved is None else dict(saved.state["config"])
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
        if saved is not None:
            return SavedAgent(saved.players(folder, config, duel, network), {}, config, duel)
        return Run(*_players(folder, config, duel, network), config, duel)
    if "environment" not in values:
        raise InvalidInputError(f"{folder} was trained on the family {values.get('game')}: load it without task_set")
    own = ForeignConfig.from_dict(values)
    simulator = ParallelSimulator(task_set, own.horizon)
    found = simulator.described
    for name, value in found.items():
        if getattr(own, name) != value:
            raise InvalidInputError(f"{folder} was trained with {name} {getattr(own, name)}, task_set makes {value}")
    if saved is not None:
        return ForeignRun(saved.players(folder, own, simulator, network), {}, own, simulator)
    return ForeignRun(*_players(folder, own, simulator, network), own, simulator)


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
    folder: Path, config: TrainConfig | ForeignConfig, simulator: Simulator, network: Network | None
) -> tuple[dict[Role, Agent], dict[Role, int]]:
    """Each role's best weights, and their iteration."""
    policies = {role: make_policy(config, simulator, role, network) for role in ROLES if role in config.roles}
    tensors, state = load_checkpoint(folder / BEST)
    agents: dict[Role, Agent] = {}
    for role, policy in policies.items():
        found = below(tensors, f"{role}/start/")
        if not set(found) - set(adapting(found)) and f"{role}/observation_mean" in tensors:
            # The form of runs of format 2 before version 0.2.
            found |= normalisation((tensors[f"{role}/observation_mean"], tensors[f"{role}/observation_std"]))
        weights = _in_order(folder, role, policy, found)
        seat = simulator.observation_space(role), simulator.action_space(role)
        rates, loss = tensors[f"{role}/rates"], config.objective
        agents[role] = Agent(role, policy, weights, rates, loss, *seat, _horizon(config, simulator), config=config)
    return agents, {role: state["best"][f"{role}/iteration"] for role in agents}


def _horizon(config: RunConfig, simulator: Simulator) -> int:
    """The horizon of a run; 0: one on environments of a user's own that was trained without any, before they needed it."""
    return simulator.horizon if config.family else config.horizon


def _in_order(folder: Path, role: Role, policy: Policy, found: Weights) -> Weights:
    """Weights in the policy's own order, which the rates follow; a file has another order, and an old one none of the aids."""
    weights = adapting(found)
    expected = {name: value.shape for name, value in policy.init(0).items()}
    aids = {name for name in expected if name.split(".")[0] in policy.aids}
    if not aids & set(weights):
        expected = {name: shape for name, shape in expected.items() if name not in aids}
    if {name: value.shape for name, value in weights.items()} != expected:
        raise InvalidInputError(f"{folder}: the {role}'s weights don't fit the config.yaml, or this version's spaces")
    fixed = {name: value for name, value in found.items() if name not in weights}
    return {name: weights[name] for name in expected} | fixed


class SavedState(NamedTuple):
    """What a saved agent's file holds beside its run's settings."""

    tensors: dict[str, Tensor]
    state: dict[str, Any]

    def players(
        self, folder: Path, config: RunConfig, simulator: Simulator, network: Network | None
    ) -> dict[Role, Agent]:
        """The agent, by its role."""
        role, tensors = self.state["role"], self.tensors
        policy = make_policy(config, simulator, role, network)
        weights = _in_order(folder, role, policy, below(tensors, "weights/"))
        parts = below(tensors, "carry/")
        agent = Agent(
            role, policy, weights, tensors["rates"], build(LossConfig, self.state["loss"], "loss"),
            simulator.observation_space(role), simulator.action_space(role), _horizon(config, simulator),
            self.state["seed"],
            Carry(**parts) if parts else None, config, self.state["shots"],
        )  # fmt: skip
        agent._rng.bit_generator.state = self.state["random"]  # type: ignore[attr-defined]
        return {role: agent}


def load_player(duel: Duel, role: Role, path: str) -> AgentPlayer:
    """The player behind ``run:FOLDER``, as it was trained or saved, for ``role``'s seat; ``~`` is the home folder.

    Raises:
        InvalidInputError: no such run or saved agent, or one of another family, role or spaces.
    """
    return load(path).player_for(duel, role)
