"""The rules of repeated matrix games. See the package's docstring for the tables."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.game import Game, Outcome, Pair
from metaduel.envs.core.placed import Placed
from metaduel.envs.core.spec import GameSpec, Task
from metaduel.envs.repeated_matrix_game import ACTIONS, PERSONAS
from metaduel.envs.repeated_matrix_game.personas import sample_personas

# Number of actions -> its permutations in lexicographic order; sigma(i) is what action i counts as.
PERMUTATIONS: dict[int, tuple[tuple[int, ...], ...]] = {n: tuple(itertools.permutations(range(n))) for n in (2, 3)}
_SIGMAS = {n: Placed(torch.tensor(all_of, dtype=torch.int64, device="cpu")) for n, all_of in PERMUTATIONS.items()}


class RockPaperScissorsParams(NamedTuple):
    """A task of rock-paper-scissors, one row per episode."""

    rock: Tensor  # [B] points for a win with rock
    paper: Tensor  # [B] points for a win with paper
    scissors: Tensor  # [B] points for a win with scissors
    permutation: Tensor  # [B] index of the permutation of the protagonist's actions

    @property
    def actions(self) -> tuple[str, ...]:
        """Names of the actions."""
        return ACTIONS["RockPaperScissors"]

    @property
    def payoffs(self) -> Tensor:
        """[B, 3, 3, 2] points of (protagonist, adversary), by the protagonist's and the adversary's action."""
        rock, paper, scissors, draw = self.rock, self.paper, self.scissors, torch.zeros_like(self.rock)
        table = [draw, -paper, rock, paper, draw, -scissors, -rock, scissors, draw]
        return _zero_sum(_permute(torch.stack(table, 1).view(-1, 3, 3), self.permutation))

    @property
    def equilibrium(self) -> Tensor:
        """[B, 2, 3] the one-shot game's only equilibrium, of value 0: each action as often as a match of the other two
        is worth, so that every reply earns 0.
        """
        weights = torch.stack([self.scissors, self.rock, self.paper], 1)
        strategy = weights / (self.rock + self.paper + self.scissors).unsqueeze(1)
        return torch.stack([_permute(strategy, self.permutation), strategy], 1)


class MatchingPenniesParams(NamedTuple):
    """A task of matching pennies, one row per episode."""

    heads: Tensor  # [B] points for a match on heads
    tails: Tensor  # [B] points for a match on tails
    permutation: Tensor  # [B] 1 where the protagonist's coin counts turned over, else 0

    @property
    def actions(self) -> tuple[str, ...]:
        """Names of the actions."""
        return ACTIONS["MatchingPennies"]

    @property
    def payoffs(self) -> Tensor:
        """[B, 2, 2, 2] points of (protagonist, adversary), by the protagonist's and the adversary's action."""
        miss = -torch.ones_like(self.heads)
        table = torch.stack([self.heads, miss, miss, self.tails], 1).view(-1, 2, 2)
        return _zero_sum(_permute(table, self.permutation))

    @property
    def equilibrium(self) -> Tensor:
        """[B, 2, 2] the one-shot game's only equilibrium, of value (heads tails - 1) / (heads + tails + 2) to the
        protagonist: both play heads so often that the other's two replies earn the same.
        """
        strategy = torch.stack([self.tails + 1, self.heads + 1], 1) / (self.heads + self.tails + 2).unsqueeze(1)
        return torch.stack([_permute(strategy, self.permutation), strategy], 1)


class IteratedPrisonersDilemmaParams(NamedTuple):
    """A task of the prisoner's dilemma, one row per episode."""

    reward: Tensor  # [B] points: both cooperate
    sucker: Tensor  # [B] points: cooperate, the other defects
    temptation: Tensor  # [B] points: defect, the other cooperates
    punishment: Tensor  # [B] points: both defect

    @property
    def actions(self) -> tuple[str, ...]:
        """Names of the actions."""
        return ACTIONS["IteratedPrisonersDilemma"]

    @property
    def payoffs(self) -> Tensor:
        """[B, 2, 2, 2] points of (protagonist, adversary), by the protagonist's and the adversary's action."""
        return _symmetric(self.reward, self.sucker, self.temptation, self.punishment)


class ChickenParams(NamedTuple):
    """A task of chicken, one row per episode."""

    reward: Tensor  # [B] points: both swerve
    sucker: Tensor  # [B] points: swerve, the other goes straight
    temptation: Tensor  # [B] points: straight, the other swerves
    punishment: Tensor  # [B] points: both go straight

    @property
    def actions(self) -> tuple[str, ...]:
        """Names of the actions."""
        return ACTIONS["Chicken"]

    @property
    def payoffs(self) -> Tensor:
        """[B, 2, 2, 2] points of (protagonist, adversary), by the protagonist's and the adversary's action."""
        return _symmetric(self.reward, self.sucker, self.temptation, self.punishment)


class StagHuntParams(NamedTuple):
    """A task of stag hunt, one row per episode."""

    reward: Tensor  # [B] points: both hunt the stag
    sucker: Tensor  # [B] points: stag, the other leaves for the hare
    temptation: Tensor  # [B] points: hare, the other hunts the stag
    punishment: Tensor  # [B] points: both hunt the hare

    @property
    def actions(self) -> tuple[str, ...]:
        """Names of the actions."""
        return ACTIONS["StagHunt"]

    @property
    def payoffs(self) -> Tensor:
        """[B, 2, 2, 2] points of (protagonist, adversary), by the protagonist's and the adversary's action."""
        return _symmetric(self.reward, self.sucker, self.temptation, self.punishment)


class State(NamedTuple):
    """What was played last."""

    last: Tensor  # [B, 2] int64 actions of (protagonist, adversary); -1 before the first step


class RepeatedMatrixGame(Game[Any, State]):
    """Play the same matrix again and again. ``Params`` of each id gives ``payoffs``: [B, n, n, 2]."""

    def __init__(self, spec: GameSpec) -> None:
        super().__init__(spec)
        self.n_actions = len(ACTIONS[spec.game_class])
        self.states = 1 + self.n_actions**2

    def init(self, params: Any, noise: Tensor) -> State:
        """Start with nothing played."""
        return State(torch.full((params[0].shape[0], 2), -1, dtype=torch.int64, device=params[0].device))

    def observe(self, params: Any, state: State) -> Pair:
        """One-hot of start or the last joint action, own action first."""
        dtype = params[0].dtype
        return self._one_hot(state, 0).to(dtype), self._one_hot(state, 1).to(dtype)

    def _one_hot(self, state: State, seat: int) -> Tensor:
        own, other = state.last[:, seat], state.last[:, 1 - seat]
        index = torch.where(own < 0, 0, 1 + own * self.n_actions + other)
        return index.unsqueeze(1) == torch.arange(1 + self.n_actions**2, dtype=torch.int64, device=index.device)

    def step(self, params: Any, state: State, actions: Pair, noise: Tensor) -> tuple[State, Outcome]:
        """Look the joint action up; nothing ends the game but the clock."""
        joint = actions[0] * self.n_actions + actions[1]
        cells = params.payoffs.flatten(1, 2)  # [B, n * n, 2]
        reward = cells.gather(1, joint.view(-1, 1, 1).expand(-1, 1, 2)).squeeze(1)
        return State(torch.stack(actions, 1)), Outcome(reward, torch.zeros_like(joint, dtype=torch.bool))

    def personas(self, n: int, seed: int) -> Tensor:
        """Meta-MAPG's, of each kind in turn; see ``sample_personas``."""
        kinds = PERSONAS[self.spec.game_class]
        each = [sample_personas(self.spec, -(-n // len(kinds)), seed, kind) for kind in kinds]
        return torch.stack(each, 1).flatten(0, 1)[:n]

    def _require(self, task: Task, holds: bool, rule: str) -> None:
        if not holds:
            values = ", ".join(f"{name}={value:g}" for name, value in task.items())
            raise InvalidInputError(f"{self.spec.name}: payoffs {values} must satisfy {rule}")


class RockPaperScissors(RepeatedMatrixGame):
    """Rock-paper-scissors whose wins differ in worth."""

    params_type = RockPaperScissorsParams


class MatchingPennies(RepeatedMatrixGame):
    """Matching pennies whose matches differ in worth; the protagonist wants a match."""

    params_type = MatchingPenniesParams


class IteratedPrisonersDilemma(RepeatedMatrixGame):
    """The prisoner's dilemma: defecting dominates, and mutual cooperation beats taking turns."""

    params_type = IteratedPrisonersDilemmaParams

    def check(self, task: Task) -> None:
        """Refuse payoffs that are not a prisoner's dilemma."""
        r, s, t, p = task["reward"], task["sucker"], task["temptation"], task["punishment"]
        self._require(
            task,
            t > r > p > s and 2 * r > t + s,
            "temptation > reward > punishment > sucker and 2 * reward > temptation + sucker",
        )


class Chicken(RepeatedMatrixGame):
    """Chicken: the best is to go straight while the other swerves, the worst is that both go straight."""

    params_type = ChickenParams

    def check(self, task: Task) -> None:
        """Refuse payoffs that are not a game of chicken."""
        r, s, t, p = task["reward"], task["sucker"], task["temptation"], task["punishment"]
        self._require(task, t > r > s > p, "temptation > reward > sucker > punishment")


class StagHunt(RepeatedMatrixGame):
    """Stag hunt: two pure equilibria, a better one and a safer one."""

    params_type = StagHuntParams

    def check(self, task: Task) -> None:
        """Refuse payoffs that are not a stag hunt."""
        r, s, t, p = task["reward"], task["sucker"], task["temptation"], task["punishment"]
        self._require(task, r > t >= p > s, "reward > temptation >= punishment > sucker")


def own_payoffs(params: Any, seat: int) -> Tensor:
    """[B, n, n] points of the player in ``seat`` (0 protagonist, 1 adversary), by own and other action."""
    table: Tensor = params.payoffs[..., seat]
    return table if seat == 0 else table.transpose(1, 2)


def _zero_sum(table: Tensor) -> Tensor:
    # Subtracting rather than negating keeps a draw at +0 for both.
    return torch.stack([table, 0.0 - table], -1)


def _symmetric(reward: Tensor, sucker: Tensor, temptation: Tensor, punishment: Tensor) -> Tensor:
    table = torch.stack([reward, sucker, temptation, punishment], 1).view(-1, 2, 2)
    return torch.stack([table, table.transpose(1, 2)], -1)


def _permute(table: Tensor, permutation: Tensor) -> Tensor:
    """Give entry i of dimension 1 the content of entry sigma(i)."""
    sigma = _SIGMAS[table.shape[1]].on(table.device)[permutation.long()]
    return table.gather(1, sigma.view(*sigma.shape, *([1] * (table.dim() - 2))).expand_as(table))
