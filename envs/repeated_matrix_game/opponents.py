"""Scripted players of repeated matrix games: fixed memory-1 tables, players with more memory, some that know the payoffs,
and personas by Meta-MAPG's recipe.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from metaduel.envs.core.game import View
from metaduel.envs.core.registry import find
from metaduel.envs.core.spec import ROLES, GameSpec
from metaduel.envs.players.scripted import Option, Scripted
from metaduel.envs.repeated_matrix_game import ACTIONS, PERSONAS
from metaduel.envs.repeated_matrix_game.game import own_payoffs
from metaduel.envs.repeated_matrix_game.personas import persona_rows

Choice = tuple[Tensor, Tensor]
Rule = Callable[..., Choice]  # (view, memory, noise, **options)


@dataclass(frozen=True)
class MemoryOne:
    """A player with a fixed memory-1 policy.

    Attributes:
        table: [1 + n * n, n] probabilities, own action first, or [B, 1 + n * n, n] with one table per row.
    """

    table: Tensor
    memory: int = 0
    noise: int = 1

    def act(self, view: View, memory: Tensor, noise: Tensor) -> Choice:
        """Draw from the table's row; see ``core.Player.act``."""
        state = _state(view, self.table.shape[-2])
        table = self.table.to(view.observation)
        rows = (
            table[state]
            if table.dim() == 2
            else table[torch.arange(table.shape[0], dtype=torch.int64, device=table.device), state]
        )
        return _draw(rows, noise[:, 0]), memory


def memory_one_tables(game: str | GameSpec) -> dict[str, Tensor]:
    """The fixed memory-1 policies among a game's scripted players, by name: [1 + n * n, n] float64, own action first."""
    spec = find(game)
    actions = ACTIONS[spec.game_class]
    n = len(actions)
    one = torch.eye(n, dtype=torch.float64, device="cpu")
    uniform, number = torch.full_like(one[0], 1 / n), torch.arange(n, dtype=torch.int64, device="cpu")
    own, other = number.repeat_interleave(n), number.repeat(n)

    def follow(start: Tensor, after: Tensor) -> Tensor:
        return torch.cat([start.unsqueeze(0), one[after]])

    tables = {f"always_{name}": follow(one[i], torch.full_like(own, i)) for i, name in enumerate(actions)}
    tables["random"] = uniform.repeat(1 + n * n, 1)
    if spec.zero_sum:
        tables["cycle"] = follow(one[0], (own + 1) % n)
        tables["copy_last"] = follow(uniform, other)
    else:  # two actions, of which 0 is the nice one
        tables["alternate"] = follow(one[0], 1 - own)
        tables["tit_for_tat"] = follow(one[0], other)
        tables["pavlov"] = follow(one[0], torch.where(other == 0, own, 1 - own))
        # Once it has played 1 it never sees (0, 0) again, so one step of memory is enough to hold a grudge.
        tables["grim"] = follow(one[0], torch.maximum(own, other))
    listed = {name for names in spec.opponents["protagonist"].values() for name in names}
    return {name: table for name, table in tables.items() if name in listed}


def _state(view: View, states: int) -> Tensor:
    """Index of the observation's one-hot part; contexts that are shown come after it."""
    return view.observation[:, :states].argmax(1)


def _draw(probabilities: Tensor, u: Tensor) -> Tensor:
    """Draw actions [B] by the rows of ``probabilities`` [B, n] with uniforms ``u`` [B]."""
    total, action = torch.zeros_like(u), torch.zeros_like(u, dtype=torch.int64)
    for column in probabilities.unbind(1)[:-1]:
        total = total + column
        action = action + (u >= total)
    return action


def _any(u: Tensor, n: int) -> Tensor:
    return (u * n).long()


def _persona(favourite: int, n: int) -> Rule:
    def rule(view: View, memory: Tensor, noise: Tensor, least: float = 0.0) -> Choice:
        # Its table is drawn at the first step and kept for the episode.
        u = torch.where((view.step == 0).unsqueeze(1), noise[:, 1:], memory)
        now = u.gather(1, _state(view, u.shape[1]).unsqueeze(1)).squeeze(1)
        return _draw(persona_rows(now, favourite, n, least), noise[:, 0]), u

    return rule


def _beat_last(seat: int, n: int) -> Rule:
    def rule(view: View, memory: Tensor, noise: Tensor) -> Choice:
        other = view.state.last[:, 1 - seat].clamp(min=0)
        table = own_payoffs(view.params, seat)
        reply = table.gather(2, other.view(-1, 1, 1).expand(-1, n, 1)).squeeze(2).argmax(1)
        return torch.where(view.step == 0, _any(noise[:, 0], n), reply), memory

    return rule


def _win_stay_lose_shift(seat: int, n: int) -> Rule:
    def rule(view: View, memory: Tensor, noise: Tensor) -> Choice:
        own, other = view.state.last[:, seat].clamp(min=0), view.state.last[:, 1 - seat].clamp(min=0)
        won = own_payoffs(view.params, seat).flatten(1).gather(1, (own * n + other).unsqueeze(1)).squeeze(1) > 0
        return torch.where(view.step == 0, _any(noise[:, 0], n), torch.where(won, own, (own + 1) % n)), memory

    return rule


def _biased(view: View, memory: Tensor, noise: Tensor) -> Choice:
    # Cutting [0, 1) at n - 1 uniform places gives a strategy that is uniform on the simplex, drawn once per episode.
    cuts = torch.where((view.step == 0).unsqueeze(1), noise[:, 1:], memory)
    return (noise[:, :1] >= cuts).sum(1), cuts


def _fictitious_play(seat: int, n: int) -> Rule:
    def rule(view: View, memory: Tensor, noise: Tensor) -> Choice:
        other = view.state.last[:, 1 - seat]  # -1 at the start counts for nothing
        counts = memory + (other.unsqueeze(1) == torch.arange(n, dtype=other.dtype, device=other.device)).to(
            memory.dtype
        )
        table, points = own_payoffs(view.params, seat), torch.zeros_like(counts)
        for action, seen in enumerate(counts.unbind(1)):
            points = points + table[:, :, action] * seen.unsqueeze(1)
        return torch.where(view.step == 0, _any(noise[:, 0], n), points.argmax(1)), counts

    return rule


def _equilibrium(seat: int) -> Rule:
    def rule(view: View, memory: Tensor, noise: Tensor) -> Choice:
        return _draw(view.params.equilibrium[:, seat], noise[:, 0]), memory

    return rule


def _tit_for_two_tats(seat: int) -> Rule:
    def rule(view: View, memory: Tensor, noise: Tensor) -> Choice:
        other = view.state.last[:, 1 - seat].clamp(min=0)
        return ((other == 1) & (memory[:, 0] == 1)).long(), other.unsqueeze(1).to(memory.dtype)

    return rule


# P(first action) at the start and after (own, other) = (0, 0), (0, 1), (1, 0), (1, 1): generous tit-for-tat (Nowak and
# Sigmund, Nature 1992), which forgives a third of the hits.
_GENEROUS = (1.0, 1.0, 1 / 3, 1.0, 1 / 3)
_NICE, _FORGIVING = (0.8, 1.0), (0.1, 0.6)  # so that no other script is among them
_FIRST = tuple(
    Option(name, default, *ends, f"chance of the first action {when}")
    for name, default, ends, when in zip(
        ("start", "p00", "p01", "p10", "p11"),
        _GENEROUS,
        ((0.0, 1.0), _NICE, _FORGIVING, _NICE, _FORGIVING),
        ("at the start", *(f"after {own} against {other}" for own in (0, 1) for other in (0, 1))),
        strict=True,
    )
)
_LEAST = Option("least", 0.0, 0.0, 0.9, "how decided it is at least: 0 not at all, 1 wholly")


def _generous(view: View, memory: Tensor, noise: Tensor, **chances: float) -> Choice:
    first = torch.tensor([chances.get(o.name, o.default) for o in _FIRST], dtype=noise.dtype, device=noise.device)
    return (noise[:, 0] >= first[_state(view, 5)]).long(), memory


# They read the hidden payoffs. Win-stay-lose-shift reads them too, but only to know the sign of its last reward.
_INFORMED = ("beat_last", "fictitious_play", "equilibrium")

_TABLES = {
    "random": "plays every action equally often",
    "cycle": "plays its actions in turn",
    "alternate": "plays its actions in turn",
    "copy_last": "plays what the other played last",
    "tit_for_tat": "starts nicely, then plays what the other played last",
    "pavlov": "starts nicely, stays after a nice reply and shifts otherwise (win-stay, lose-shift)",
    "grim": "is nice until the other is not, and never again",
}


def PLAYERS(spec: GameSpec) -> tuple[Scripted, ...]:
    """The scripted players of one id, for both seats, in the splits that its spec lists."""
    actions, kinds, tables = ACTIONS[spec.game_class], PERSONAS[spec.game_class], memory_one_tables(spec)
    n, players = len(actions), []
    for seat, role in enumerate(ROLES):
        # name -> description, rule, memory, noise
        known: dict[str, tuple[str, Rule, int, int]] = {
            "beat_last": ("knows the payoffs and beats what the other played last", _beat_last(seat, n), 0, 1),
            "win_stay_lose_shift": (
                "repeats what won, takes the next action otherwise",
                _win_stay_lose_shift(seat, n),
                0,
                1,
            ),
            "biased": ("keeps to one mixed strategy, drawn for each episode", _biased, n - 1, n),
            "fictitious_play": (
                "knows the payoffs and replies best to all that the other has played (Brown, 1951)",
                _fictitious_play(seat, n),
                n,
                1,
            ),
            "equilibrium": ("knows the payoffs and plays the one-shot equilibrium", _equilibrium(seat), 0, 1),
            "tit_for_two_tats": ("hits back only after two hits in a row", _tit_for_two_tats(seat), 1, 0),
        }
        if n == 2:
            known["generous"] = (
                "forgives a third of the hits (generous tit-for-tat)",
                _generous,
                0,
                1,
            )
        for name, table in tables.items():
            description = _TABLES.get(name, f"plays nothing but {name.removeprefix('always_')}")
            known[name] = (description, MemoryOne(table).act, 0, 1)
        for i, kind in enumerate(kinds):
            known[f"{kind}_persona"] = (
                f"a memory-1 policy that favours {actions[i]}, drawn for each episode (Meta-MAPG's recipe)",
                _persona(i, n),
                1 + n * n,
                2 + n * n,
            )
        for split, names in spec.opponents[role].items():
            for name in names:
                description, rule, memory, draws = known[name]
                informed = name in _INFORMED
                options = _FIRST if name == "generous" else (_LEAST,) if name.endswith("_persona") else ()
                players.append(Scripted(name, role, split, description, rule, memory, draws, informed, options))
    return tuple(players)
