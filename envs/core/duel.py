"""A game with its clock, its noise and the contexts that each role sees: what adapters and rollouts step."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from gymnasium import spaces
from torch import Tensor

from metaduel.envs.core import noise
from metaduel.envs.core.arguments import several
from metaduel.envs.core.errors import check_whole
from metaduel.envs.core.game import Episode, Game, Pair
from metaduel.envs.core.placed import Placed
from metaduel.envs.core.spec import ROLES, Role


class Transition(NamedTuple):
    """What a step of a duel gives."""

    reward: Tensor  # [B, 2] (protagonist, adversary)
    terminated: Tensor  # [B] bool: the rules ended the episode
    truncated: Tensor  # [B] bool: the clock did, and the rules did not

    @property
    def left(self) -> None:
        """None: both play until the episode is over, see ``simulator.Stepped``."""


class Duel:
    """A game with its clock, its noise and its contexts shown: the ``Simulator`` of our games.

    Args:
        game: the rules.
        horizon: steps until truncation; the family's own by default.
        informed: roles that are shown every context, hidden ones included.
        dtype: floating type of what ``params`` makes, and so of the states, observations and rewards that follow.
    """

    at_once = True  # see ``Simulator``

    def __init__(
        self,
        game: Game[Any, Any],
        horizon: int | None = None,
        informed: Sequence[Role] = (),
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.game = game
        self.spec = game.spec
        self.horizon = game.spec.horizon if horizon is None else check_whole("horizon", horizon, unit=" step")
        self.dtype = dtype
        self.informed = tuple(game.spec.check_role(role) for role in several(informed))
        # Per seat, indices of the contexts that it sees, by how they are shown.
        self._numbers, self._angles, self._categories = (
            tuple(self._shown(role, kind) for role in ROLES) for kind in ("number", "angle", "category")
        )
        self._scaling = tuple(self._training_range(shown) for shown in self._numbers)

    def __repr__(self) -> str:
        informed = f", informed {' and '.join(self.informed)}" if self.informed else ""
        return f"Duel({self.spec.id}, horizon {self.horizon}{informed})"

    def _shown(self, role: Role, kind: str) -> list[int]:
        indices = self.spec.shown(role, role in self.informed)
        return [index for index in indices if self.spec.contexts[index].shown_as == kind]

    def _training_range(self, shown: Sequence[int]) -> tuple[Placed, Placed]:
        """Middle, and factor that makes the half width 1, of the contexts' training ranges: [k, 1] each."""
        scaling = [self.spec.contexts[index].scaling for index in shown]
        middle, scale = torch.tensor(scaling, dtype=torch.float64, device="cpu").view(-1, 2, 1).unbind(1)
        return Placed(middle), Placed(scale)

    @property
    def name(self) -> str:
        """The family's name."""
        return self.spec.name

    @property
    def states(self) -> int:
        """See ``Game.states``."""
        return self.game.states

    def mask(self, role: Role) -> slice | None:
        """See ``Game.mask``; the same for both roles."""
        return self.game.mask

    def params(self, tasks: Tensor) -> Any:
        """Params of valid context values [B, number of contexts], in the duel's precision."""
        return self.game.params_from_rows(tasks, self.dtype)

    def apart(self) -> Duel:
        """Itself: its rows share nothing."""
        return self

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
        for part in itertools.chain.from_iterable(self._scaling):
            part.on(key.device, params[0].dtype)  # here, so that no step that is compiled or captured has to
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
            middle, scale = (part.on(observation.device, observation.dtype) for part in self._scaling[seat])
            parts.append((torch.stack([params[index] for index in self._numbers[seat]]) - middle) * scale)
        if self._angles[seat]:
            angles = torch.stack([params[index] for index in self._angles[seat]])
            parts += [torch.cos(angles), torch.sin(angles)]
        for index in self._categories[seat]:
            low, high = (int(end) for end in self.spec.contexts[index].train)
            known = torch.arange(low, high + 1, dtype=torch.int64, device=observation.device).unsqueeze(1)
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

    def step(
        self, episode: Episode, actions: Pair, numbers: Tensor | None = None, active: Tensor | None = None
    ) -> tuple[Episode, Transition]:
        """Play one step in every row.

        Args:
            episode: where the rows are.
            actions: (protagonist's, adversary's), within their spaces.
            numbers: [B, step_noise] if they were drawn ahead with ``step_noise``; drawn here otherwise.
            active: makes no difference: rows that are over are stepped like the others, which costs nothing and changes none.
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

    def numbers(self, key: Tensor, steps: int, dtype: torch.dtype = torch.float32) -> Sequence[Tensor] | None:
        """The dynamics' numbers at each of the first ``steps`` steps; None: a game without them."""
        if not self.game.step_noise:
            return None
        time = torch.arange(steps, dtype=torch.int64, device=key.device).view(-1, 1)
        return self.step_noise(key, time, dtype).unbind(0)
