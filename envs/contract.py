"""What every family owes the rest of the suite, as a check that the author of one can run.

Everything here is general and takes seconds. What only a family's own tests can say (that its rules are the ones that were
meant) it does not look at, but for the golden transitions of its ``cases.py``.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import itertools
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from torch import Tensor

from metaduel.envs.adapters.gymnasium import SeatEnv
from metaduel.envs.core import noise
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.game import Episode, Player, View, make_game
from metaduel.envs.core.golden import Golden
from metaduel.envs.core.registry import find
from metaduel.envs.core.spec import FROZEN_SPLITS, OPPONENT_SPLITS, ROLES, Context, GameSpec, Role, Task
from metaduel.envs.core.tasks import FROZEN_SIZE, check_task, frozen_tasks, generate, task_id
from metaduel.envs.core.validation import check_spec
from metaduel.envs.players.play import steps
from metaduel.envs.players.scripted import Scripted, scripted
from metaduel.envs.render.film import film
from metaduel.envs.render.screen import HEADER, WIDTH, Screen

ROWS, STEPS = 8, 20
_MANY = 64  # tasks over which a leak shows
_TRIES = 3000  # tasks that are drawn for as many that the rules take
_TOLERANCE = 1e-6


class ContractBroken(AssertionError):
    """What a family does not keep: one line for each check that failed."""


@dataclass(frozen=True)
class _Family:
    """A family and what the checks play it with."""

    spec: GameSpec

    @cached_property
    def duel(self) -> Duel:
        return Duel(make_game(self.spec), horizon=STEPS)

    @cached_property
    def players(self) -> dict[Role, list[Scripted]]:
        return {role: list(scripted(self.spec, role).values()) for role in ROLES}

    @property
    def pairs(self) -> list[tuple[Scripted, Scripted]]:
        """Every scripted player once at least, each against one of the other seat."""
        first, second = (self.players[role] for role in ROLES)
        return [(first[i % len(first)], second[i % len(second)]) for i in range(max(len(first), len(second)))]

    def start(self, tasks: list[Task], seed: int = 0) -> Episode:
        row = torch.arange(len(tasks), dtype=torch.int64, device="cpu")
        return self.duel.reset(self.duel.game.params(tasks), row + seed, torch.zeros_like(row))

    def play(self, players: tuple[Player, Player], rows: Episode) -> Tensor:
        """Both observations, the rewards and whether the rules ended it, at every step: [T, B, n]."""
        seen = [
            torch.cat([*self.duel.observe(after), outcome.reward, outcome.terminated.unsqueeze(1)], 1)
            for after, outcome in steps(self.duel, players, rows)
        ]
        return torch.stack(seen)


@torch.no_grad()
def check_game(game: str | GameSpec) -> tuple[str, ...]:
    """Check that a family keeps what learners, adapters and evaluations count on.

    That its spec is sound; that its package imports no torch; that scripted players are those that the spec names, and play
    inside the action space; that a row does not depend on its batch, an episode is the same again, and a step changes
    nothing that it was given; that observations lie inside their spaces, before and after, in whole episodes of any tasks and
    actions that are allowed too; that rules and clock end
    episodes apart; that no player's first observation tells a context that is hidden from it; that every context matters;
    that the frozen splits are whole and disjoint; that Gymnasium's own check passes; that the viewer draws, where pygame is
    installed; and that the transitions of ``cases.py`` are right, where they are ``Golden``.

    Args:
        game: a family's name, id or spec, registered or not.

    Returns:
        The names of the checks, each with what was left out, if anything.

    Raises:
        InvalidInputError: an unknown game, or a spec that cannot work.
        ContractBroken: an ``AssertionError`` with a line for each check that failed.
    """
    spec = find(game)
    check_spec(spec)
    family = _Family(spec)
    passed, broken = [], []
    for name, check in _CHECKS.items():
        try:
            problem = next(check(family), None)
        except _LeftOut as reason:
            passed.append(f"{name} (left out: {reason})")
            continue
        except ContractBroken as error:
            problem = str(error)
        except Exception as error:  # a family's code may raise anything
            problem = f"{type(error).__name__}: {error}"
        if problem is None:
            passed.append(name)
        else:
            broken.append(f"{name}: {problem}".replace("\n", " "))
    if broken:
        listed = "\n".join(f"- {line}" for line in broken)
        raise ContractBroken(f"{spec.id} ({spec.package}) breaks {len(broken)} of {len(_CHECKS)} checks:\n{listed}")
    return tuple(passed)


class _LeftOut(Exception):
    """A check does not apply here."""


def _light(family: _Family) -> Iterator[str]:
    code = f"import sys, {family.spec.package}; sys.exit(3 * ('torch' in sys.modules))"
    path = os.pathsep.join(entry for entry in sys.path if entry)
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    if done.returncode == 3:
        yield f"importing {family.spec.package} imports torch: leave that to its modules"
    elif done.returncode:
        yield (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]


def _players(family: _Family) -> Iterator[str]:
    for role in ROLES:
        for split in OPPONENT_SPLITS:
            named, made = (
                set(family.spec.opponents[role][split]),
                {p.name for p in family.players[role] if p.split == split},
            )
            if named != made:
                yield f"the spec names {sorted(named)} for the {role}, {split}; opponents.py has {sorted(made)}"
    start = family.start(generate(family.spec, "train", ROWS, seed=1))
    for pair in family.pairs:
        first, second = (
            _Watched(player, role, family.spec.action_spaces[role]) for role, player in zip(ROLES, pair, strict=True)
        )
        for _ in steps(family.duel, (first, second), start):
            pass


class _Watched:
    """Plays as another player does, and looks at what it chooses."""

    def __init__(self, player: Scripted, role: Role, space: spaces.Box | spaces.Discrete) -> None:
        self.player, self.memory, self.noise = player, player.memory, player.noise
        self.called, self.space = f"the {role} {player.name}", space
        self.low: Any
        self.high: Any
        self.low, self.high = (0, int(space.n) - 1) if isinstance(space, spaces.Discrete) else (space.low, space.high)

    def act(self, view: View, memory: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        action, after = self.player.act(view, memory, noise)
        wanted, floats = (ROWS, *(self.space.shape or ())), isinstance(self.space, spaces.Box)
        if after.shape != memory.shape:
            raise ContractBroken(f"{self.called}: its memory must stay of shape [B, {self.memory}]")
        if action.shape != wanted or action.is_floating_point() != floats:
            kind = f"{'floats' if floats else 'int64'} of shape {wanted}"
            raise ContractBroken(
                f"{self.called}: actions of {action.dtype} and shape {(*action.shape,)} must be {kind}"
            )
        values = action.numpy()
        if not ((values >= self.low - _TOLERANCE) & (values <= self.high + _TOLERANCE)).all():  # false for NaN
            raise ContractBroken(f"{self.called}: its action at step {int(view.step[0])} must be in {self.space}")
        return action, after


def _rows(family: _Family) -> Iterator[str]:
    tasks = generate(family.spec, "train", ROWS, seed=3)
    rows = family.start(tasks, seed=10)
    for players in family.pairs:
        batch = family.play(players, rows)
        for i in (0, ROWS - 1):
            if not torch.equal(batch[:, i : i + 1], family.play(players, family.start(tasks[i : i + 1], seed=10 + i))):
                yield f"row {i} of {ROWS} plays otherwise alone ({players[0].name} against {players[1].name})"


def _same_again(family: _Family) -> Iterator[str]:
    tasks = generate(family.spec, "train", ROWS, seed=3)
    for players in family.pairs:
        first, again = (family.play(players, family.start(tasks)) for _ in range(2))
        if not torch.equal(first, again):
            yield f"two episodes of one seed differ ({players[0].name} against {players[1].name})"


def _pure(family: _Family) -> Iterator[str]:
    duel, rows = family.duel, family.start(generate(family.spec, "train", ROWS, seed=4))
    for players in family.pairs:
        views = [View(rows.params, rows.state, seen, rows.step, rows.step.float()) for seen in duel.observe(rows)]
        given = [
            (
                view,
                view.observation.new_zeros(ROWS, player.memory),
                noise.uniform(rows.key, rows.step, noise.SEAT[seat], player.noise),
            )
            for seat, (view, player) in enumerate(zip(views, players, strict=True))
        ]
        kept = _copies((rows, tuple(given)))
        chosen = [player.act(*one)[0] for player, one in zip(players, given, strict=True)]
        actions = _copies(chosen)
        after, _ = duel.step(rows, (chosen[0], chosen[1]))
        if not _equal(kept, (rows, tuple(given))) or not _equal(actions, chosen):
            yield f"a step or a player writes into what it was given ({players[0].name} against {players[1].name})"
        rows = after


def _leaves(tree: Any) -> list[Tensor]:
    return (
        [tree]
        if isinstance(tree, Tensor)
        else []
        if tree is None
        else [leaf for part in tree for leaf in _leaves(part)]
    )


def _copies(tree: Any) -> list[Tensor]:
    return [leaf.clone() for leaf in _leaves(tree)]


def _equal(kept: list[Tensor], tree: Any) -> bool:
    return all(torch.equal(a, b) for a, b in zip(kept, _leaves(tree), strict=True))


def _observations(family: _Family) -> Iterator[str]:
    duel, spec = family.duel, family.spec
    start = family.start(generate(spec, "extrapolation", ROWS, seed=5))
    yield from _outside(duel, start, torch.ones_like(start.key, dtype=torch.bool), 0)
    for players in family.pairs:
        alive = torch.ones_like(start.key, dtype=torch.bool)
        for step, (after, outcome) in enumerate(steps(duel, players, start), start=1):
            yield from _outside(
                duel, after, alive, step
            )  # the last observation included; what follows an end is nobody's
            if outcome.reward.shape != (ROWS, 2) or not outcome.reward.isfinite().all():
                yield f"step {step}: rewards must be finite numbers of shape [B, 2]"
            if spec.zero_sum and not torch.equal(outcome.reward[:, 0], -outcome.reward[:, 1]):
                yield f"step {step}: rewards must add up to zero in a zero-sum game"
            alive &= ~outcome.terminated
    yield from _everywhere(family)


def _everywhere(family: _Family, seed: int = 0) -> Iterator[str]:
    """Whole episodes of anything that is allowed, with every context shown: no observation may be outside its space."""
    spec = family.spec
    duel, tasks = Duel(family.duel.game, informed=ROLES), _allowed_tasks(family, seed)
    start = family.start(tasks, seed)
    alive = torch.ones_like(start.key, dtype=torch.bool)
    problem = next(_outside(duel, start, alive, 0), None)
    players = [_Anything(spec.action_spaces[role]) for role in ROLES]
    for step, (after, outcome) in enumerate(steps(duel, (players[0], players[1]), start), start=1):
        problem = problem or next(_outside(duel, after, alive, step), None)
        alive &= ~outcome.terminated
    if problem:
        yield f"{problem}, for every task within the contexts' bounds and all actions"


def _allowed_tasks(family: _Family, seed: int) -> list[Task]:
    """Tasks from all over: each context at an end of its bounds, anywhere in them, or in its training range."""
    spec, rng, found = family.spec, np.random.default_rng(seed), list[Task]()
    for _ in range(_TRIES):
        task = {context.name: _allowed_value(context, rng) for context in spec.contexts}
        with contextlib.suppress(InvalidInputError):  # contexts may contradict each other
            family.duel.game.check(check_task(spec, task))
            found.append(task)
        if len(found) == _MANY:
            break
    return found or generate(spec, "extrapolation", ROWS, seed)


def _allowed_value(context: Context, rng: np.random.Generator) -> float:
    ends = np.array([context.train, *context.extrapolation, context.bounds])
    finite = ends[np.isfinite(ends)]
    low, high = finite.min(), finite.max()
    value = (rng.choice([low, high]), rng.uniform(low, high), rng.uniform(*context.train))[rng.integers(3)]
    return float(np.round(value) if context.integer else value)


class _Anything:
    """Plays whatever the space allows. Every other row knows its ends alone; a third each never changes its action, does so
    now and then, and at every step.
    """

    def __init__(self, space: spaces.Box | spaces.Discrete) -> None:
        self.space, self.memory = space, (1 if isinstance(space, spaces.Discrete) else space.shape[0])
        self.noise = 2 * self.memory + 1

    def act(self, view: View, memory: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        anywhere, ends, change = torch.split(noise, [self.memory, self.memory, 1], 1)
        row = torch.arange(len(noise), dtype=torch.int64, device=noise.device).unsqueeze(1)
        chosen = torch.where(row % 2 == 0, (ends < 0.5).to(noise), anywhere)
        restless = noise.new_tensor([0.0, 0.1, 1.0])[row // 2 % 3]
        share = torch.where((view.step.unsqueeze(1) == 0) | (change < restless), chosen, memory)
        if isinstance(self.space, spaces.Discrete):
            return (share[:, 0] * int(self.space.n)).long().clamp(max=int(self.space.n) - 1), share
        low, high = torch.from_numpy(self.space.low), torch.from_numpy(self.space.high)
        return torch.minimum(low + share * (high - low), high), share


def _outside(duel: Duel, rows: Episode, alive: Tensor, step: int) -> Iterator[str]:
    for role, seen in zip(ROLES, duel.observe(rows), strict=True):
        space, values = duel.observation_space(role), seen.numpy()
        if values.shape != (len(alive), *space.shape) or values.dtype != space.dtype:
            right = f"{space.dtype} of shape {(len(alive), *space.shape)}"
            yield f"the {role}'s observations are {values.dtype} of shape {values.shape}, not {right}"
            return
        inside = (values >= space.low) & (values <= space.high)
        if not inside[alive.numpy()].all():
            column = int(np.flatnonzero(~inside[alive.numpy()].all(0))[0])
            low, high = space.low[column], space.high[column]
            yield f"step {step}: number {column} of the {role}'s observation must be in [{low:g}, {high:g}]"


def _ends(family: _Family) -> Iterator[str]:
    spec = family.spec
    duel, start = Duel(family.duel.game, spec.horizon + 1), family.start(generate(spec, "train", ROWS, seed=6))
    unfinished, early = torch.ones_like(start.key, dtype=torch.bool), torch.zeros_like(start.key, dtype=torch.bool)
    for step, (_, outcome) in enumerate(steps(duel, family.pairs[0], start), start=1):
        terminated = outcome.terminated
        if terminated.dtype != torch.bool or terminated.shape != (ROWS,):
            yield f"terminated must be [B] of bool, not {tuple(terminated.shape)} of {terminated.dtype}"
            return
        if step == spec.horizon and bool((terminated & unfinished).all()) and not early.any():
            yield f"the rules end every episode at step {step}, the horizon: leave the clock to the spec, which truncates"
        early |= terminated
        unfinished &= ~terminated


def _hidden(family: _Family) -> Iterator[str]:
    tasks = generate(family.spec, "train", _MANY, seed=7)
    for role, seen in zip(ROLES, family.duel.observe(family.start(tasks)), strict=True):
        for context in (one for one in family.spec.contexts if role not in one.visible_to):
            value = np.array([task[context.name] for task in tasks])
            shapes = (value, np.cos(value), np.sin(value)) if context.shown_as == "angle" else (value,)
            for column, shape in itertools.product(seen.numpy().T, shapes):
                if _agreement(column, shape) > 0.99:
                    yield f"the {role}'s first observation tells {context.name}, which is hidden from it"


def _agreement(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    """How far two columns order rows alike, whichever way round: 1 where each is a monotone function of the other."""
    if len(np.unique(one)) < 2 or len(np.unique(other)) < 2:
        return 0.0
    ranks = [np.unique(column, return_inverse=True)[1] for column in (one, other)]
    return abs(float(np.corrcoef(ranks[0], ranks[1])[0, 1]))


def _contexts(family: _Family) -> Iterator[str]:
    tasks = frozen_tasks(family.spec, "held_out")[:4]
    before = [family.play(pair, family.start(tasks)) for pair in family.pairs]
    for context in family.spec.contexts:
        low, high = context.train
        changed = [{**task, context.name: low if task[context.name] > (low + high) / 2 else high} for task in tasks]
        start = family.start(changed)
        if all(torch.equal(family.play(pair, start), old) for pair, old in zip(family.pairs, before, strict=True)):
            yield f"{context.name} changes nothing that scripted players do or get in {STEPS} steps"


def _tasks(family: _Family) -> Iterator[str]:
    spec, game = family.spec, family.duel.game
    first = next(one for one in spec.contexts if not one.integer)
    low, high = first.train
    if (high - low) / (1 << 20) <= 2 * np.finfo(np.float32).eps * max(abs(low), abs(high)):
        yield f"{first.name}: train={first.train} is too narrow for its size: neighbours are one number in single precision"
    lists: dict[str, list[Task]] = {"train": generate(spec, "train", 300, 0)}
    lists.update((name, frozen_tasks(spec, name)) for name in FROZEN_SPLITS)
    for split, tasks in lists.items():
        if split != "train" and len({task_id(task) for task in tasks}) != FROZEN_SIZE:
            yield f"the {split} list must hold {FROZEN_SIZE} tasks, each once"
        for task in tasks:
            game.check(check_task(spec, task))
        for context in spec.contexts:
            ranges = (context.extrapolation if split == "extrapolation" else ()) or (context.train,)
            if not all(any(start <= task[context.name] <= end for start, end in ranges) for task in tasks):
                yield f"{split}: {context.name} must be in {' or '.join(map(str, ranges))}"
    for split, residues in {"train": (0, 2), "validation": (1,), "held_out": (3,)}.items():
        points = {round((task[first.name] - low) / (high - low) * (1 << 20)) % 4 for task in lists[split]}
        if not points <= set(residues):
            yield f"the {split} list must be what frozen_json makes: its {first.name} is not on the split's lattice"
    for one, other in itertools.combinations(lists, 2):
        if {task_id(task) for task in lists[one]} & {task_id(task) for task in lists[other]}:
            yield f"{one} and {other} share a task"


def _gymnasium(family: _Family) -> Iterator[str]:
    yield from ()
    for role in ROLES:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            check_env(SeatEnv(family.spec, role), skip_render_check=True)


def _viewer(family: _Family) -> Iterator[str]:
    if importlib.util.find_spec("pygame") is None:
        raise _LeftOut("pygame is not installed")
    if importlib.util.find_spec(f"{family.spec.package}.viewer") is None:
        raise _LeftOut(f"{family.spec.package} has no viewer.py")
    screen = Screen(family.spec, "rgb_array")
    duel = Duel(family.duel.game, horizon=5)
    arenas = [
        frame[HEADER : HEADER + WIDTH]
        for frame in film(duel, family.pairs[0], frozen_tasks(family.spec, "held_out")[0], screen)
    ]
    if all((arena == arenas[0]).all() for arena in arenas):
        yield "the picture must change from step to step"
    if len(np.unique(arenas[-1].reshape(-1, 3), axis=0)) < 2:
        yield "the picture is blank"


def _golden(family: _Family) -> Iterator[str]:
    module = f"{family.spec.package}.cases"
    if importlib.util.find_spec(module) is None:
        raise _LeftOut(f"{family.spec.package} has no cases.py")
    cases = importlib.import_module(module).CASES if hasattr(importlib.import_module(module), "CASES") else ()
    if not cases or not all(isinstance(case, Golden) for case in cases):
        raise _LeftOut("cases.py has transitions of its own kind, not Golden ones")
    for case in cases:
        wrong = _replay(family, case)
        if wrong:
            yield f"{case.why!r}: {wrong}"


def _replay(family: _Family, case: Golden) -> str:
    game = family.duel.game
    params = game.params([dict(case.task)], torch.float64)
    state = game.init(params, params[0].new_zeros(1, game.init_noise))
    for name in (*case.state, *case.after):
        if name not in state._fields:
            raise InvalidInputError(f"{case.why!r}: State has no field {name!r}, only {', '.join(state._fields)}")
    state = state._replace(**{name: _row(value, getattr(state, name)) for name, value in case.state.items()})
    actions = [
        torch.tensor(
            [action],
            dtype=torch.int64 if isinstance(family.spec.action_spaces[role], spaces.Discrete) else torch.float64,
            device="cpu",
        )
        for role, action in zip(ROLES, case.actions, strict=True)
    ]
    drawn = params[0].new_tensor([case.noise or (0.0,) * game.step_noise])
    after, outcome = game.step(params, state, (actions[0], actions[1]), drawn)
    found = {name: (getattr(after, name), value) for name, value in case.after.items()}
    found |= {"reward": (outcome.reward, case.reward), "terminated": (outcome.terminated, case.terminated)}
    for name, (mine, value) in found.items():
        if not torch.allclose(mine.double(), _row(value, mine).double(), atol=_TOLERANCE, rtol=0):
            return f"{name} is {mine[0].tolist()}, not {value}"
    return ""


def _row(value: Any, like: Tensor) -> Tensor:
    return like.new_tensor([value]).view_as(like[:1])


_CHECKS: dict[str, Callable[[_Family], Iterator[str]]] = {
    "the package imports no torch": _light,
    "scripted players are playable": _players,
    "rows are independent": _rows,
    "episodes repeat": _same_again,
    "steps are pure": _pure,
    "observations and rewards fit": _observations,
    "rules and clock end apart": _ends,
    "hidden contexts stay hidden": _hidden,
    "every context matters": _contexts,
    "splits are whole and disjoint": _tasks,
    "Gymnasium's check": _gymnasium,
    "the viewer draws": _viewer,
    "golden transitions": _golden,
}
