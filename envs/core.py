"""The batched core: a game is three pure functions over tensors whose first dimension is the row (one episode each).

A family writes a ``Params`` (one field per context), a ``State`` (both NamedTuples of tensors with leading dimension
B) and a ``Game``. ``Duel`` adds what every game needs once: counter-based noise, the clock, the contexts that a role
may see. Every adapter and every rollout is built on ``Duel``; none of them knows a family.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import torch
from gymnasium import spaces
from torch import Tensor

from metaduel.envs import noise
from metaduel.envs.errors import InvalidInputError
from metaduel.envs.spec import ROLES, GameSpec, Role, Task
from metaduel.envs.tasks import check_task

P = TypeVar("P")
S = TypeVar("S")
Tree = TypeVar("Tree")
Pair = tuple[Tensor, Tensor]  # (protagonist's, adversary's)


class Outcome(NamedTuple):
    """What a step of the rules gives, before the clock is looked at."""

    reward: Tensor  # [B, 2] (protagonist, adversary)
    terminated: Tensor  # [B] bool: the rules ended the episode


class Transition(NamedTuple):
    """What a step of a duel gives."""

    reward: Tensor  # [B, 2] (protagonist, adversary)
    terminated: Tensor  # [B] bool: the rules ended the episode
    truncated: Tensor  # [B] bool: the clock did, and the rules did not


class Episode(NamedTuple):
    """Where each row is."""

    params: Any  # NamedTuple of [B] tensors, one per context
    state: Any  # NamedTuple of [B, ...] tensors
    key: Tensor  # [B] int64: the episode's noise key
    step: Tensor  # [B] int64: steps played


class View(NamedTuple):
    """What a player in a seat is given. Scripted players may look at params and state: they are part of the world."""

    params: Any  # as in Episode
    state: Any  # as in Episode
    observation: Tensor  # [B, d] the seat's own observation
    step: Tensor  # [B] int64
    reward: Tensor | None = None  # [B] the seat's own, of the step before; 0 at the first. None: nobody asks for it


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
        return self.params_from_rows(torch.tensor(rows, dtype=torch.float64), dtype)

    def params_from_rows(self, rows: Tensor, dtype: torch.dtype = torch.float32) -> P:
        """Make Params of already valid context values: [B, number of contexts]."""
        params: P = self.params_type(*(column.contiguous() for column in rows.to(dtype).unbind(1)))
        return params


class Duel:
    """A game with its clock, its noise and its contexts shown: the one thing that adapters and rollouts step.

    Args:
        game: the rules.
        horizon: steps until truncation; the family's own by default.
        informed: roles that are shown every context, hidden ones included.
    """

    def __init__(self, game: Game[Any, Any], horizon: int | None = None, informed: Sequence[Role] = ()) -> None:
        if horizon is not None and (isinstance(horizon, bool) or not isinstance(horizon, int) or horizon < 1):
            raise InvalidInputError(f"horizon={horizon!r} must be a whole number of at least 1 step")
        self.game = game
        self.spec = game.spec
        self.horizon = horizon or game.spec.horizon
        self.informed = tuple(game.spec.check_role(role) for role in informed)
        # Per seat, indices of the contexts that it sees, by how they are shown.
        self._numbers, self._angles, self._categories = (
            tuple(self._shown(role, kind) for role in ROLES) for kind in ("number", "angle", "category")
        )
        self._scaling = tuple(self._training_range(shown) for shown in self._numbers)

    def _shown(self, role: Role, kind: str) -> list[int]:
        indices = self.spec.shown(role, role in self.informed)
        return [index for index in indices if self.spec.contexts[index].shown_as == kind]

    def _training_range(self, shown: Sequence[int]) -> Pair:
        """Middle, and factor that makes the half width 1, of the contexts' training ranges: [k, 1] each."""
        ranges = [self.spec.contexts[index].train for index in shown]
        middle = [[(low + high) / 2] for low, high in ranges]
        scale = [[2 / (high - low) if high > low else 1.0] for low, high in ranges]
        return torch.tensor(middle, dtype=torch.float64), torch.tensor(scale, dtype=torch.float64)

    def observation_space(self, role: Role) -> spaces.Box:
        """The role's observation space; the same object at every call."""
        return self.spec.observation_space(role, role in self.informed)

    def action_space(self, role: Role) -> spaces.Box | spaces.Discrete:
        """The role's action space; the same object at every call."""
        return self.spec.action_spaces[role]

    def reset(self, params: Any, seed: Tensor, episode: Tensor) -> Episode:
        """Start one episode per row; ``seed`` and ``episode``: [B] int64."""
        return self.start(params, noise.episode_key(seed, episode))

    def start(self, params: Any, key: Tensor) -> Episode:
        """Start one episode per row from its noise key: [B] int64."""
        step = torch.zeros_like(key)
        numbers = noise.uniform(key, step, noise.INIT, self.game.init_noise, params[0].dtype)
        return Episode(params, self.game.init(params, numbers), key, step)

    def observe(self, episode: Episode) -> Pair:
        """Observations of both roles, contexts that they see appended: [B, d_p], [B, d_a]."""
        parts = self.game.observe(episode.params, episode.state)
        return (self._append(parts[0], episode.params, 0), self._append(parts[1], episode.params, 1))

    def _append(self, observation: Tensor, params: Any, seat: int) -> Tensor:
        parts = []
        if self._numbers[seat]:
            middle, scale = (part.to(observation) for part in self._scaling[seat])
            parts.append((torch.stack([params[index] for index in self._numbers[seat]]) - middle) * scale)
        if self._angles[seat]:
            angles = torch.stack([params[index] for index in self._angles[seat]])
            parts += [torch.cos(angles), torch.sin(angles)]
        for index in self._categories[seat]:
            low, high = (int(end) for end in self.spec.contexts[index].train)
            known = torch.arange(low, high + 1, device=observation.device).unsqueeze(1)
            parts.append((params[index] == known).to(observation))
        if not parts:
            return observation
        # Joined feature by feature: joining row by row copies a few bytes at a time, which costs more than a game.
        return torch.cat([observation.t(), *parts]).t()

    def turn(self, episode: Episode) -> Tensor:
        """Whose turn it is in a turn-based game: [B] int64 seats."""
        return self.game.turn(episode.params, episode.state)

    def legal(self, episode: Episode) -> Pair:
        """Which actions both may choose in a turn-based game: [B, n] bool each."""
        return self.game.legal(episode.params, episode.state)

    def step(self, episode: Episode, actions: Pair, numbers: Tensor | None = None) -> tuple[Episode, Transition]:
        """Play one step in every row.

        Args:
            episode: where the rows are.
            actions: (protagonist's, adversary's), within their spaces.
            numbers: [B, step_noise] if they were drawn ahead with ``step_noise``; drawn here otherwise.
        """
        if numbers is None:
            numbers = self.step_noise(episode.key, episode.step, episode.params[0].dtype)
        state, outcome = self.game.step(episode.params, episode.state, actions, numbers)
        step = episode.step + 1
        truncated = (step >= self.horizon) & ~outcome.terminated
        after = Episode(episode.params, state, episode.key, step)
        return after, Transition(outcome.reward, outcome.terminated, truncated)

    def step_noise(self, key: Tensor, step: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """The dynamics' numbers at ``step`` (broadcasts: a [T, 1] step gives a whole rollout, [T, B, n])."""
        return noise.uniform(key, step, noise.DYNAMICS, self.game.step_noise, dtype)


def tree_map(function: Callable[..., Tensor], tree: Tree, *others: Tree) -> Tree:
    """Apply ``function`` to the tensors of (nested) NamedTuples of the same shape; None stays None."""
    if tree is None:
        return tree
    if isinstance(tree, Tensor):
        return function(tree, *others)  # type: ignore[return-value]
    leaves = (tree_map(function, *parts) for parts in zip(tree, *others, strict=True))  # type: ignore[call-overload]
    return type(tree)(*leaves)


def select_rows(mask: Tensor, yes: Tree, no: Tree) -> Tree:
    """Take rows of ``yes`` where ``mask`` ([B] bool) holds, of ``no`` elsewhere."""
    return tree_map(lambda a, b: torch.where(mask.view(-1, *([1] * (a.dim() - 1))), a, b), yes, no)


def take_rows(tree: Tree, index: Tensor | slice) -> Tree:
    """Take the rows at ``index``."""
    return tree_map(lambda a: a[index], tree)
