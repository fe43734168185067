"""Both seats of many duels, torch in and torch out: for trainers of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from torch import Tensor

from metaduel.envs.adapters.opponents import Opponents
from metaduel.envs.adapters.sealed import Sealed
from metaduel.envs.adapters.starts import Starts
from metaduel.envs.core import registry, tasks
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.errors import InvalidInputError, check_seed, check_whole, one_line
from metaduel.envs.core.game import Episode, Pair, make_game
from metaduel.envs.core.spec import ROLES, GameSpec, Role, Task

Actions = tuple[Tensor | None, Tensor | None]  # (protagonist's, adversary's); None: a player has the seat
Infos = dict[str, Pair]


class BatchedEnv(Sealed):
    """Many duels side by side, as tensors on one device. The caller plays both seats, or a player plays one.

    Rows restart by themselves, within the step that ends their episode: ``step`` gives the observations of the new
    episodes, and ``infos["final_observations"]`` those that the old ones ended with. Row i, seeded ``seed + i``, is the
    single environment of that seed. No tensor that was handed out changes later; none carries gradients.

        env = metaduel.make_batched("Pursuit", num_envs=4096, adversary="guard")
        observations, infos = env.reset(seed=0), {}
        observations, rewards, terminated, truncated, infos = env.step((actions, None))

    Args:
        game: the family's name or id, or a spec, registered or not, which is used as it is.
        num_envs: rows, B.
        protagonist: who plays that seat: what ``SeatEnv`` takes as an opponent, or a list with one for each row; None: you do.
        adversary: who plays that seat.
        task: a value for each context, ``SPLIT:INDEX`` of a frozen list, or None, which samples one for every episode; or a list
            with one of these for each row.
        split: where sampled tasks come from, or a list with one for each row.
        informed: roles that are shown every context, hidden ones included.
        horizon: steps until truncation; the family's own by default.
        device: where all tensors are.

    Attributes:
        num_envs: B.
        device: where all tensors are.
        spec: the family.
        horizon: steps until truncation.
        observation_spaces: by role: what a row sees, units in the game's page.
        action_spaces: by role.

    Raises:
        InvalidInputError: an argument that names something unknown or is out of range.
    """

    def __init__(
        self,
        game: str | GameSpec,
        num_envs: int = 1,
        protagonist: Any = None,
        adversary: Any = None,
        task: Any = None,
        split: str | Sequence[str] = "train",
        informed: Sequence[Role] = (),
        horizon: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.num_envs, self.device = check_whole("num_envs", num_envs), _check_device(device)
        self.spec = registry.find(game)
        self._duel = Duel(make_game(self.spec), horizon, informed)
        self.horizon = self._duel.horizon
        self.observation_spaces = {role: self._duel.observation_space(role) for role in ROLES}
        self.action_spaces = {role: self._duel.action_space(role) for role in ROLES}
        self._limits = [_limits(space, self.num_envs, self.device) for space in self.action_spaces.values()]
        self._starts = Starts(self._duel, self.num_envs, self.device)
        self._players = {
            seat: Opponents(self._duel, ROLES[seat], self.num_envs, self.device)
            for seat, player in enumerate((protagonist, adversary))
            if player is not None
        }
        self._rows: Episode | None = None
        self._observations: Pair
        self._paid: Tensor  # [B, 2] the rewards of the step before; 0 at an episode's first
        self.set_task(task)
        self.set_split(split)
        for seat, player in enumerate((protagonist, adversary)):
            if player is not None:
                self.set_player(ROLES[seat], player)
        self.seal()

    # Settings, from each row's next episode on

    def set_task(self, task: Any) -> None:
        """Play ``task``, or one of a list for each row; None samples tasks again.

        Raises:
            InvalidInputError: no task of the family, or a list of another length. Nothing has changed then.
        """
        self._starts.change(self._starts.check_tasks(self._starts.per_row("task", task)))

    def set_split(self, split: str | Sequence[str]) -> None:
        """Sample tasks of ``split``, or of one of a list for each row.

        Raises:
            InvalidInputError: no split, or a list of another length. Nothing has changed then.
        """
        self._starts.change(splits=self._starts.check_splits(self._starts.per_row("split", split)))

    def set_player(self, role: Role, player: Any) -> None:
        """Let ``player``, or one of a list for each row, play a seat that a player has.

        Raises:
            InvalidInputError: no player for this seat, a list of another length, or the caller plays the seat. Nothing has
                changed then.
        """
        seat = ROLES.index(self.spec.check_role(role))
        if seat not in self._players:
            raise InvalidInputError(f"set_player: the caller plays the {role}; make the environment with {role}=PLAYER")
        players = self._players[seat]
        players.expect(players.make(self._starts.per_row(role, player)))

    def sample_tasks(self, n: int, seed: int = 0) -> list[Task]:
        """Sample ``n`` tasks of the first row's split, for ``set_task``; the same for the same seed.

        Raises:
            InvalidInputError: more tasks than a frozen list holds, or no seed.
        """
        return tasks.sample_tasks(self.spec, n, self._starts.splits[0], seed)

    @property
    def tasks(self) -> Tensor:
        """[B, C] float64: the context values of the current episodes, in the order of ``spec.context_names``, hidden ones
        included. A copy.
        """
        self._started("tasks")
        return self._starts.values.clone()

    # Playing

    @torch.no_grad()
    def reset(self, seed: int | None = None) -> Pair:
        """Start a new episode in every row.

        Args:
            seed: row i gets ``seed + i``; without a seed, every row's next episode follows.

        Returns:
            What (protagonist, adversary) see: [B, d_p], [B, d_a] float32.

        Raises:
            InvalidInputError: no seed.
        """
        if seed is not None:
            check_seed(check_seed(seed) + self.num_envs - 1)
            self._starts.reseed_all(int(seed))
        self._rows = self._starts.begin(self._rows)
        for players in self._players.values():
            players.begin(None)
        self._observations = self._starts.observations(None)
        self._paid = torch.zeros(self.num_envs, 2, dtype=torch.float32, device=self.device)
        return self._observations

    @torch.no_grad()
    def step(self, actions: Actions) -> tuple[Pair, Tensor, Tensor, Tensor, Infos]:
        """Play one step in every row, and start the next episode where one is over.

        Args:
            actions: (protagonist's, adversary's): [B, a] float32, or [B] int64, within the seat's action space, on the device;
                None for a seat that a player has. In a turn-based game, an illegal action counts as a legal one.

        Returns:
            Observations ([B, d_p], [B, d_a]) float32; rewards [B, 2] float32 of (protagonist, adversary); terminated [B] bool:
            the rules ended the episode; truncated [B] bool: the clock did; and infos: ``final_observations``, a pair as the
            first, before the rows that are over restarted.

        Raises:
            ResetNeeded: before the first reset.
            InvalidInputError: actions of the wrong shape, type or device, NaN, outside the space, for a seat that a player has,
                or none for one that the caller plays. Nothing has changed then.
        """
        before = self._started("step")
        chosen = self._choose(before, actions)
        self._rows, (rewards, terminated, truncated) = self._duel.step(before, chosen)
        final = self._duel.observe(self._rows)
        over = terminated | truncated
        index = over.nonzero().squeeze(1)
        self._observations, self._paid = final, rewards
        if len(index):
            self._rows = self._starts.begin(self._rows, index)
            self._observations = self._starts.observations(final)
            for players in self._players.values():
                players.begin(index)
            self._paid = rewards.masked_fill(over.unsqueeze(1), 0.0) if self._players else rewards
        return self._observations, rewards, terminated, truncated, {"final_observations": final}

    def action_masks(self) -> Pair:
        """Which actions (protagonist, adversary) may choose now in a turn-based game: [B, n] bool each.

        Raises:
            InvalidInputError: the game has no turns: every action is legal.
            ResetNeeded: there was no reset yet.
        """
        if not self.spec.turn_based:
            raise InvalidInputError(f"action_masks: {self.spec.name} has no turns: every action is legal")
        return self._duel.legal(self._started("action_masks"))

    def _started(self, method: str) -> Episode:
        if self._rows is None:
            raise ResetNeeded(f"{self.spec.id}: call reset() before {method}")
        return self._rows

    def _choose(self, rows: Episode, actions: Actions) -> Pair:
        """Both seats' actions; the caller's are looked at before anybody plays."""
        if not isinstance(actions, (tuple, list)) or len(actions) != 2:
            kind = one_line(type(actions).__name__)
            raise InvalidInputError(f"actions must be a pair, (protagonist's, adversary's), not {kind}")
        for seat, given in enumerate(actions):
            self._check(seat, given)
        found = [
            self._players[seat].act(rows, self._observations[seat], self._paid[:, seat]) if given is None else given
            for seat, given in enumerate(actions)
        ]
        return found[0], found[1]

    def _check(self, seat: int, given: Tensor | None) -> None:
        role = ROLES[seat]
        if seat in self._players and given is not None:
            raise InvalidInputError(f"the {role}'s actions must be None: a player has the seat")
        if seat in self._players:
            return
        space, (low, high) = self.action_spaces[role], self._limits[seat]
        shape = (self.num_envs, *(space.shape or ()))
        if not isinstance(given, Tensor) or given.shape != shape or given.dtype != low.dtype:
            kind = f"{given.dtype} of shape {(*given.shape,)}" if isinstance(given, Tensor) else type(given).__name__
            self._refuse(role, f"must be a tensor of {low.dtype} and shape {shape}, not {kind}")
        if given.device != self.device:
            self._refuse(role, f"must be on {self.device}, not on {given.device}")
        if not torch.equal(given, given.clamp(low, high)):  # NaN is equal to nothing
            inside = (given >= low) & (given <= high)
            row = int((~inside.reshape(self.num_envs, -1).all(1)).nonzero()[0])
            self._refuse(role, f"must be inside {space}, not {given[row].tolist()} as in row {row}")

    def _refuse(self, role: Role, why: str) -> NoReturn:
        raise InvalidInputError(f"{self.spec.id}: the {role}'s actions {why}")


def _check_device(device: torch.device | str) -> torch.device:
    try:
        return torch.zeros(0, dtype=torch.float32, device=device).device
    except (RuntimeError, TypeError, AssertionError) as error:  # torch's own, by the kind of device
        raise InvalidInputError(f"device={device!r} can't be used: {one_line(error)}") from None


def _limits(space: spaces.Box | spaces.Discrete, rows: int, device: torch.device) -> Pair:
    """The least and the greatest actions of all rows, in the type that actions have; whole, since broadcasting is slower."""
    if isinstance(space, spaces.Discrete):
        low = torch.full((rows,), int(space.start), dtype=torch.int64, device=device)
        return low, low + int(space.n) - 1
    ends = (torch.from_numpy(end).to(device).expand(rows, -1).contiguous() for end in (space.low, space.high))
    return next(ends), next(ends)


def make_batched(
    game: str | GameSpec,
    num_envs: int = 1,
    protagonist: Any = None,
    adversary: Any = None,
    task: Any = None,
    split: str | Sequence[str] = "train",
    informed: Sequence[Role] = (),
    horizon: int | None = None,
    device: torch.device | str = "cpu",
) -> BatchedEnv:
    """Make a batch of duels, torch in and torch out, whose seats the caller plays, both or one; see ``BatchedEnv``.

    Args:
        game: the family's name or id, or a spec, registered or not, which is used as it is.
        num_envs: how many rows.
        protagonist: who plays that seat, or a list with one for each row; None: the caller.
        adversary: who plays that seat, or a list with one for each row; None: the caller.
        task: the task of all rows, or a list with one for each row; None samples one for every episode.
        split: where sampled tasks come from, or a list with one for each row.
        informed: roles that are shown every context.
        horizon: steps until truncation; the family's own by default.
        device: where all tensors are.

    Raises:
        InvalidInputError: an argument that names something unknown or is out of range.
    """
    return BatchedEnv(game, num_envs, protagonist, adversary, task, split, informed, horizon, device)
