"""The batched core: a game is three pure functions over tensors whose first dimension is the row (one episode each).

A family writes a ``Params`` (one field per context), a ``State`` (both NamedTuples of tensors with leading dimension
B) and a ``Game``. ``Duel`` adds what every game needs once: counter-based noise, the clock, the contexts that a role
may see. Every adapter and every rollout is built on ``Duel``; none of them knows a family.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from metaduel.envs.core.spec import GameSpec, Task
from metaduel.envs.core.tasks import check_task

P = TypeVar("P")
S = TypeVar("S")
Pair = tuple[Tensor, Tensor]  # (protagonist's, adversary's)


class Outcome(NamedTuple):
    """What a step of the rules gives, before the clock is looked at."""

    reward: Tensor  # [B, 2] (protagonist, adversary)
    terminated: Tensor  # [B] bool: the rules ended the episode


class Episode(NamedTuple):
    """Where each row is."""

    params: Any  # NamedTuple of [B] tensors, one per context
    state: Any  # NamedTuple of [B, ...] tensors
    key: Tensor  # [B] int64: the episode's noise key
    step: Tensor  # [B] int64: steps played

    @property
    def dtype(self) -> torch.dtype:
        """Of the params, and with them of everything that is computed."""
        dtype: torch.dtype = self.params[0].dtype
        return dtype


class View(NamedTuple):
    """What a player in a seat is given. Scripted players may look at params and state: they are part of the world."""

    params: Any  # as in Episode
    state: Any  # as in Episode
    observation: Tensor  # [B, d] the seat's own observation
    step: Tensor  # [B] int64
    reward: Tensor | None = None  # [B] the seat's own, of the step before; 0 at the first. None: no player asks for it
    known: Any = (
        None  # what a scripted player works out of params once per episode, see ``Scripted.setup``; None: not yet
    )


class Player(Protocol):
    """Anything that can take a seat in the batched core.

    ``memory`` numbers per row are remembered within an episode and start at zero (rows with ``view.step == 0``);
    ``noise`` uniform numbers per row are drawn for each step. Both may be 0.
    """

    @property
    def memory(self) -> int:
        """Numbers remembered per row within an episode."""
        ...

    @property
    def noise(self) -> int:
        """Uniform numbers drawn per row and step."""
        ...

    def act(self, view: View, memory: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Choose.

        Args:
            view: what the seat sees.
            memory: [B, self.memory].
            noise: [B, self.noise] in [0, 1).

        Returns:
            The actions ([B, d] floats within the action space, or [B] int64) and the new memory.
        """
        ...


class Game(ABC, Generic[P, S]):
    """The rules of one family. Stateless: every method is a function of its arguments.

    Class attributes:
        params_type: NamedTuple type; its fields are the contexts' names, each a [B] tensor. Derived quantities are
            properties.
        init_noise: uniform numbers that ``init`` uses per row.
        step_noise: uniform numbers that ``step`` uses per row.

    Attributes:
        states: how many different observations there are, where what both players see is one-hot; else 0.
        mask: where in both players' observations it stands which actions are legal, 1 or 0 each; None: all always are.
    """

    params_type: type[Any]
    states: int = 0
    mask: slice | None = None
    init_noise: int = 0
    step_noise: int = 0

    def __init__(self, spec: GameSpec) -> None:
        self.spec = spec
        if tuple(self.params_type._fields) != spec.context_names:
            raise TypeError(
                f"{spec.name}: Params has fields {self.params_type._fields}, contexts are {spec.context_names}"
            )

    @abstractmethod
    def init(self, params: P, noise: Tensor) -> S:
        """Start episodes; ``noise``: [B, init_noise] uniforms."""

    @abstractmethod
    def observe(self, params: P, state: S) -> Pair:
        """Observations of (protagonist, adversary): [B, d_p], [B, d_a], shaped as ``spec.observation_spaces``."""

    @abstractmethod
    def step(self, params: P, state: S, actions: Pair, noise: Tensor) -> tuple[S, Outcome]:
        """One step; ``actions`` are already within their spaces; ``noise``: [B, step_noise] uniforms."""

    def turn(self, params: P, state: S) -> Tensor:
        """Whose turn it is, as the seat's index: [B] int64. Games whose spec says ``turn_based`` have it."""
        raise NotImplementedError(f"{self.spec.name} has no turns")

    def legal(self, params: P, state: S) -> Pair:
        """Which actions (protagonist, adversary) may choose: [B, n] bool each. At least one is, at every step; ``step``
        takes any other action for a legal one. Games whose spec says ``turn_based`` have it.
        """
        raise NotImplementedError(f"{self.spec.name} has no turns")

    def personas(self, n: int, seed: int) -> Tensor | None:
        """Starts of ``n`` opponents that will learn, by a recipe of the family's own: probabilities [n, states, actions], own
        action first; the first of many are the few. None: the family has no recipe.
        """
        return None

    def check(self, task: Task) -> None:
        """Raise ``InvalidInputError`` where contexts contradict each other; single ranges are checked before."""

    def params(self, tasks: Sequence[Task], dtype: torch.dtype = torch.float32) -> P:
        """Validate tasks and stack them: one row per task.

        Raises:
            InvalidInputError: an unknown context, a value out of range, or contexts that contradict each other.
        """
        rows = []
        for task in tasks:
            full = check_task(self.spec, task)
            self.check(full)
            rows.append([full[name] for name in self.spec.context_names])
        return self.params_from_rows(torch.tensor(rows, dtype=torch.float64, device="cpu"), dtype)

    def params_from_rows(self, rows: Tensor, dtype: torch.dtype = torch.float32) -> P:
        """Make Params of already valid context values: [B, number of contexts]."""
        params: P = self.params_type(*(column.contiguous() for column in rows.to(dtype).unbind(1)))
        return params


def make_game(spec: GameSpec) -> Game[Any, Any]:
    """Import a family's rules, which ``spec`` names, and construct them."""
    module = importlib.import_module(f"{spec.package}.game")
    game: Game[Any, Any] = getattr(module, spec.game_class)(spec, **spec.options)
    return game
