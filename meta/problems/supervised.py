"""Tasks that are data and a loss: classification, regression, generation. Bring your own, see ``Tasks``.

They are a ``Problem`` like any other, so that every learner that needs only losses (``Method.on_data``) trains on them unchanged,
in the same trainer as games. An update descends the loss on a task's support; the outer loss is the loss on its query. Random
numbers come from the seeds of ``draw``, so that a resumed run equals an unbroken one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from metaduel.agents.networks import Network
from metaduel.agents.policies.base import Weights
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.noise import derive_seed
from metaduel.envs.core.purposes import DataPurpose
from metaduel.envs.core.spec import Role, Split
from metaduel.meta.problems.problem import Losses, Players

Data = tuple[Tensor, ...]  # [N, ...] each: a batch of N tasks
Part = Literal["support", "query"]


class Tasks(ABC):
    """A distribution of tasks: how to draw a batch of them, and their loss.

    A single player is the ``protagonist``. Of two players, each descends its own loss, with the other's weights as constants: a
    generator is the protagonist, its discriminator the adversary.

    Attributes:
        networks: per player, on stacked weights.
    """

    networks: Mapping[Role, Network]

    @abstractmethod
    def draw(self, n: int, split: Split, seed: int) -> Data:
        """The data of ``n`` tasks of a split: tensors [n, ...] each, the same for the same seed."""

    @abstractmethod
    def loss(self, role: Role, players: Players, data: Data, part: Part, shot: int) -> Tensor:
        """A player's loss on each task.

        Args:
            role: the player.
            players: stacked weights.
            data: from ``draw``.
            part: ``support``, the data of an update, or ``query``, the data that test its result.
            shot: number of updates so far.

        Returns:
            [n], differentiable.
        """

    def score(self, role: Role, players: Players, data: Data, shot: int) -> Tensor:
        """Score of a player on each task after ``shot`` updates: [n], higher is better. By default minus the query's loss."""
        return -self.loss(role, players, data, "query", shot)

    def init(self, seed: int) -> dict[Role, Weights]:
        """Fresh weights of every player."""
        return {
            role: network.init(derive_seed(seed, DataPurpose.INIT, i))
            for i, (role, network) in enumerate(self.networks.items())
        }


class _Later(dict[Role, Tensor]):
    """Losses that are computed on access: a method that descends only the support does not pay for the query."""

    def __init__(self, roles: Collection[Role], compute: Callable[[Role], Tensor]) -> None:
        super().__init__()
        self._roles, self._compute = roles, compute

    def __missing__(self, role: Role) -> Tensor:
        self[role] = self._compute(role)
        return self[role]

    def __iter__(self) -> Iterator[Role]:
        return iter(self._roles)

    def __contains__(self, role: object) -> bool:
        return role in self._roles


@dataclass(frozen=True)
class DataBatch:
    """The data of a problem at one shot, see ``problem.Batch``.

    Attributes:
        tasks: the tasks' loss.
        data: data of N tasks.
        shot: number of updates so far, for the tasks' loss.
    """

    tasks: Tasks
    data: Data
    shot: int
    environment_steps: int = 0

    def losses(self, players: Players, joint: bool = False) -> Losses:
        """See ``problem.Batch``; a loss is computed on access."""

        def later(part: Part) -> _Later:
            return _Later(
                list(players), lambda role: _loss(self.tasks, self.data, role, players, part, self.shot, joint)
            )

        return Losses(later("support"), later("query"))


class DataProblem:
    """Tasks that are data, as a ``Problem``.

    Args:
        tasks: the tasks' loss.
        data: data of N tasks, from ``tasks.draw``.

    Raises:
        InvalidInputError: ``data`` is empty, or its tensors differ in N.
    """

    def __init__(self, tasks: Tasks, data: Data) -> None:
        sizes = [len(tensor) if tensor.dim() else 0 for tensor in data]
        if not sizes or len(set(sizes)) > 1 or not sizes[0]:
            raise InvalidInputError(f"draw gave tensors of {sizes} tasks: must be one and the same number, at least 1")
        self._tasks, self._data = tasks, tuple(data)

    @property
    def tasks(self) -> dict[Role, int]:
        """See ``Problem``."""
        return dict.fromkeys(self._tasks.networks, len(self._data[0]))

    def draw(self, players: Players, shot: int) -> DataBatch:
        """See ``Problem.draw``; the data are given."""
        return DataBatch(self._tasks, self._data, shot)

    def without(self, role: Role, tasks: Collection[int]) -> DataProblem:
        """See ``Problem.without``."""
        keep = [n for n in range(len(self._data[0])) if n not in tasks]
        if not keep:
            raise FloatingPointError(f"every task of the {role} diverged")
        return DataProblem(self._tasks, tuple(tensor[keep] for tensor in self._data))


def _loss(tasks: Tasks, data: Data, role: Role, players: Players, part: Part, shot: int, joint: bool) -> Tensor:
    """A player's loss on each task, checked."""
    given = {r: w if joint or r == role else _constant(w) for r, w in players.items()}
    loss, n = tasks.loss(role, given, data, part, shot), len(data[0])
    if not isinstance(loss, Tensor) or tuple(loss.shape) != (n,):
        got = list(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
        raise InvalidInputError(f"the {role}'s {part} loss is {got}, must be one number for each of {n} tasks: [{n}]")
    if not loss.requires_grad and any(w.requires_grad for w in players[role].values()):
        raise InvalidInputError(
            f"the {role}'s {part} loss is not differentiable: no graph leads from it to the weights"
        )
    return loss


def _constant(weights: Weights) -> Weights:
    return {name: value.detach() for name, value in weights.items()}
