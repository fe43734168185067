"""One step of a rollout as a function of tensors: scripted players, policies, the game and what is recorded.

One function serves a whole run, whichever scripted players an iteration meets: it computes all players that may take a seat, and
picks one for each row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metaduel.agents.policies.base import Policy, Weights
from metaduel.agents.trajectories import Carry
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.game import Episode, Player, View
from metaduel.envs.core.spec import ROLES
from metaduel.envs.core.trees import take_rows, tree_map


@dataclass(frozen=True)
class Chair:
    """What may sit in a seat: all that the compiled function of a seat is made for.

    Attributes:
        policy: the learner's; None: no learner.
        sampled: the learner's actions are sampled.
        players: scripted players, of which each row has one; empty: the learner plays all rows.
    """

    policy: Policy | None
    sampled: bool
    players: tuple[Player, ...]

    @property
    def key(self) -> tuple[int | bool, ...]:
        """Equal for chairs of the same objects."""
        return id(self.policy), self.sampled, *map(id, self.players)

    @property
    def noise(self) -> int:
        """Uniforms that the scripted players draw at most."""
        return max((player.noise for player in self.players), default=0)

    @property
    def memory(self) -> int:
        """Numbers that the scripted players remember at most."""
        return max((player.memory for player in self.players), default=0)


class World(NamedTuple):
    """What stays the same over the steps of a rollout. Per seat None where nothing of the kind sits."""

    params: Any
    key: Tensor  # [B] int64
    weights: tuple[Weights | None, Weights | None]  # the learner's, prepared
    picks: tuple[Tensor | None, Tensor | None]  # [scripted rows] int64: which of the chair's players
    mine: tuple[
        Tensor | None, Tensor | None
    ]  # [rows] int64: the learner's rows in its own order; None: that of the world
    back: tuple[
        Tensor | None, Tensor | None
    ]  # [B] int64: where rows are among the learner's, then the others; None with mine


class Now(NamedTuple):
    """What changes from step to step."""

    state: Any
    step: Tensor  # [B] int64
    alive: Tensor  # [B] bool
    reward: Tensor  # [B, 2] of the step before
    carries: tuple[Carry | None, Carry | None]  # the learners'
    memories: tuple[Tensor | None, Tensor | None]  # [scripted rows, memory]


class Numbers(NamedTuple):
    """The random numbers of a step."""

    game: Tensor  # [B, step_noise]
    learners: tuple[Tensor | None, Tensor | None]  # [n, M, ...] scaled; None: no learner, or one that does not sample
    scripted: tuple[Tensor | None, Tensor | None]  # [scripted rows, noise]


class Recorded(NamedTuple):
    """A learner's step, 0 where it was not played."""

    given: Tensor  # [n, M, d] the network's input
    action: Tensor  # [n, M, a], or [n, M] int64
    reward: Tensor  # [n, M]
    alive: Tensor  # [n, M]
    other: Tensor | None  # [n, M, b]: the opponent's action, for policies whose carry lasts


Step = Callable[[World, Now, Numbers], tuple[Now, tuple[Recorded | None, Recorded | None]]]


def make_step(duel: Duel, chairs: tuple[Chair, Chair]) -> Step:
    """One step of all rows as a function of tensors.

    Rows are ordered so that the protagonist's learner has the first ones and the adversary's the last ones; scripted players
    have the others.
    """

    def step(world: World, now: Now, numbers: Numbers) -> tuple[Now, tuple[Recorded | None, Recorded | None]]:
        rows = Episode(world.params, now.state, world.key, now.step)
        seen = duel.observe(rows)
        turns = [_act(seat, chairs[seat], world, now, numbers, seen[seat]) for seat in range(len(ROLES))]
        actions = turns[0].action, turns[1].action
        after, transition = duel.step(rows, actions, numbers.game, now.alive)
        reward, carries, records = transition.reward, [], []
        for seat, (chair, turn) in enumerate(zip(chairs, turns, strict=True)):
            carry, record = _record(seat, chair, world, now, turn, reward[:, seat], actions[1 - seat])
            carries.append(carry)
            records.append(record)
        state = tree_map(own, after.state)
        alive = now.alive & ~transition.terminated
        memories = turns[0].memory, turns[1].memory
        then = Now(state, after.step, alive, reward.contiguous(), (carries[0], carries[1]), memories)
        return then, (records[0], records[1])

    return step


def own(tensor: Tensor) -> Tensor:
    """A copy in its own memory, row after row: every step finds the same layout, whatever a game shares between its tensors."""
    return tensor.clone(memory_format=torch.contiguous_format)


class _Turn(NamedTuple):
    """What a seat does at a step."""

    action: Tensor  # [B, a] or [B] int64, within the space
    given: Tensor | None  # the learner's input [n, M, d]
    own: Tensor | None  # its action before clipping
    carry: Carry | None
    memory: Tensor | None  # the scripted players'


def _block(seat: int, carry: Carry | None, rows: int) -> slice:
    """The block of the learner's rows."""
    count = 0 if carry is None else carry.memory.shape[0] * carry.memory.shape[1]
    return slice(0, count) if seat == 0 else slice(rows - count, rows)


def _act(seat: int, chair: Chair, world: World, now: Now, numbers: Numbers, seen: Tensor) -> _Turn:
    weights, carry, pick, memory = world.weights[seat], now.carries[seat], world.picks[seat], now.memories[seat]
    block, parts = _block(seat, carry, len(seen)), []
    given = own = after = None
    if chair.policy is not None and weights is not None and carry is not None:
        mine: Any = block if world.mine[seat] is None else world.mine[seat]
        given = chair.policy.input(seen[mine].reshape(*carry.memory.shape[:2], seen.shape[1]), carry)
        own, after = chair.policy.choose(weights, given, carry, numbers.learners[seat])
        parts.append(chair.policy.clip(own).flatten(0, 1))
    if pick is not None and memory is not None:
        rest = slice(block.stop, None) if seat == 0 else slice(0, block.start)
        view = View(world.params, now.state, seen, now.step, now.reward[:, seat])
        uniforms = numbers.scripted[seat]
        assert uniforms is not None
        action, memory = _scripted(chair.players, pick, take_rows(view, rest), memory, uniforms)
        parts.append(action)
    return _Turn(_placed(seat, parts, world.back[seat]), given, own, after, memory)


def _placed(seat: int, parts: Sequence[Tensor], back: Tensor | None) -> Tensor:
    """The actions of the learner, then of the scripted players, in the world's order."""
    if len(parts) == 1 and back is None:
        return parts[0]
    joined = torch.cat(list(parts if seat == 0 or back is not None else parts[::-1]))
    return joined if back is None else joined[back]


def _scripted(
    players: Sequence[Player], pick: Tensor, view: View, memory: Tensor, uniforms: Tensor
) -> tuple[Tensor, Tensor]:
    """The action and the new memory of each row's player, which has the first ones of the numbers that are drawn for all."""
    chosen, kept = players[0].act(view, memory[:, : players[0].memory], uniforms[:, : players[0].noise])
    kept = _wide(kept, memory)
    for number, player in enumerate(players[1:], 1):
        action, own = player.act(view, memory[:, : player.memory], uniforms[:, : player.noise])
        mine = pick == number
        chosen = torch.where(mine if action.dim() == 1 else mine.unsqueeze(1), action, chosen)
        kept = torch.where(mine.unsqueeze(1), _wide(own, memory), kept)
    return chosen, kept


def _wide(own: Tensor, memory: Tensor) -> Tensor:
    return torch.nn.functional.pad(own, (0, memory.shape[1] - own.shape[1]))


def _record(
    seat: int, chair: Chair, world: World, now: Now, turn: _Turn, reward: Tensor, other: Tensor
) -> tuple[Carry | None, Recorded | None]:
    before = now.carries[seat]
    if chair.policy is None or before is None or turn.given is None or turn.own is None or turn.carry is None:
        return None, None
    mine: Any = _block(seat, before, len(reward)) if world.mine[seat] is None else world.mine[seat]
    shape = before.memory.shape[:2]
    gained, played = reward[mine].reshape(shape), now.alive[mine].reshape(shape)
    carry = chair.policy.remember(turn.carry, turn.own, gained)
    theirs = None
    if chair.policy.lasting:  # its memory does not change after the end of an episode
        carry = carry.kept(played, before)
        theirs = _played(played, other[mine].reshape(*shape, *other.shape[1:]))
    given, own = _played(played, turn.given), _played(played, turn.own)
    return carry, Recorded(given, own, _played(played, gained), played.to(gained.dtype), theirs)


def _played(played: Tensor, field: Tensor) -> Tensor:
    return torch.where(played if field.dim() == 2 else played.unsqueeze(-1), field, 0)
