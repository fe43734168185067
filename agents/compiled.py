"""Rollouts whose steps are compiled.

At a few hundred rows a step costs what its many small operations cost to start. ``torch.compile`` makes a few loops of them, in
C++ on a CPU.

Tolerance: compiled arithmetic has another order of operations. Numbers agree to a relative 1e-5 over an episode as long as no
threshold is crossed by the difference; where one is (a contact, a sampled action), that row goes its own way from there on, as
after any change of the last digit. Games whose numbers are whole, with scripted players, agree bit for bit.

On a CPU the loop over time ends with the longest episode, since looking costs nothing there. On an accelerator nothing asks the
device before the horizon.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
import traceback
import types
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from metaduel.agents.rollout import BLOCK, Learner, Place, Seated, Sitting, rollout
from metaduel.agents.runtime import one_thread
from metaduel.agents.step import Chair, Now, Numbers, Recorded, Step, World, make_step, own
from metaduel.agents.trajectories import Trajectories
from metaduel.envs.core import noise
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.game import Player
from metaduel.envs.core.simulator import Simulator
from metaduel.envs.core.spec import ROLES, Role
from metaduel.envs.core.trees import take_rows, tree_map

WARMING = 2  # steps at the start of every rollout at which the compiled code's assumptions are checked
SHAPES = 2  # numbers of rows for which a function is compiled; rollouts of others, as when a run ends, are played as they are

Seats = tuple[Sequence[Sitting], Sequence[Sitting]]
Both = tuple[Trajectories | None, Trajectories | None]


class Play(Protocol):
    """Plays episodes: ``rollout.rollout``, or ``Compiled``."""

    def __call__(
        self, simulator: Simulator, params: Any, seats: Seats, episodes: int, seed: Tensor, episode: Tensor
    ) -> Both:
        """See ``rollout.rollout``."""
        ...


def compiler_missing() -> str:
    """The reason why nothing can be compiled here, or an empty string."""
    names = [os.environ["CXX"]] if "CXX" in os.environ else ["g++", "clang++"]
    if any(shutil.which(name) for name in names):
        return ""
    return f"torch.compile needs a C++ compiler, and there is no {' or '.join(names)} here"


class Compiled:
    """Plays episodes as ``rollout.rollout`` does, with compiled steps where that is possible.

    Our games, learners and players of the core are compiled; rollouts with anything else are played by ``rollout``. So are those
    with a player or a network that cannot be compiled, after a warning that names the line.

    Args:
        players: per role, the scripted players that may take its seat: all of them are part of one function, so that it need
            not be compiled again when others sit there.

    Attributes:
        seconds: time that the first steps took, in which functions are compiled.
    """

    def __init__(self, players: Mapping[Role, Sequence[Player]]) -> None:
        self.players = {role: tuple(players.get(role, ())) for role in ROLES}
        self.seconds = 0.0
        self._steps: dict[tuple[Any, ...], dict[str, Step | None]] = {}  # by what is played, then by shapes

    def __call__(
        self, simulator: Simulator, params: Any, seats: Seats, episodes: int, seed: Tensor, episode: Tensor
    ) -> Both:
        """See ``rollout.rollout``."""
        with torch.no_grad(), one_thread():
            found = self._begin(simulator, params, seats, episodes, noise.episode_key(seed, episode))
            if found is not None and (step := self._step(found)) is not None:
                try:
                    return found.play(step)
                except Changed as error:
                    self._refuse(found, error)
        return rollout(simulator, params, seats, episodes, seed, episode)

    def _begin(self, simulator: Simulator, params: Any, seats: Seats, episodes: int, key: Tensor) -> _Rollout | None:
        """The rollout before its first step; None: not learners and players of the core alone, in a game of ours."""
        first, second = _split(seats[0]), _split(seats[1])
        if not isinstance(simulator, Duel) or first is None or second is None:
            return None
        parts = first, second
        has = [key.new_zeros(len(key) // episodes, dtype=torch.bool) for _ in ROLES]
        for mask, (learner, _) in zip(has, parts, strict=True):
            if learner is not None:
                mask[learner.tasks] = True
        if not (has[0] | has[1]).all():
            return None
        # The protagonist's learner against scripted players, both learners, the adversary's against scripted players.
        order = torch.argsort(has[1].long() - has[0].long(), stable=True)
        sides = [
            _side(learner, seated, self.players[role], order, mask[order], episodes)
            for role, mask, (learner, seated) in zip(ROLES, has, parts, strict=True)
        ]
        if not torch.equal(order, torch.sort(order).values):
            rows = _rows(order, episodes)
            params, key = take_rows(params, rows), key[rows]
        return _Rollout(simulator, params, key, episodes, (sides[0], sides[1]))

    def _refuse(self, found: _Rollout, error: Exception) -> None:
        """Play such rollouts as they are from now on, and say why."""
        self._of(found)[found.shapes()] = None
        chairs = [side.chair for side in found.sides]
        warnings.warn(f"compile: {_blamed(chairs, error)}; it is played without", stacklevel=2)

    def _of(self, found: _Rollout) -> dict[str, Step | None]:
        """The steps for what is played, by shapes."""
        return self._steps.setdefault((id(found.duel), *(side.chair.key for side in found.sides)), {})

    def _step(self, found: _Rollout) -> Step | None:
        """The compiled step of a rollout; None: it is played as it is."""
        chairs = found.sides[0].chair, found.sides[1].chair
        steps, shapes = self._of(found), found.shapes()
        if shapes not in steps and len(steps) < SHAPES:
            began = time.perf_counter()
            plain = make_step(found.duel, chairs)
            try:
                plain(*found.first())  # puts constants where they are needed: a change later on would be one too many
                with _environment(), _static(), _undisturbed():
                    step = _compile(plain, *found.first())
                    found.play(step, WARMING)
            except Exception as error:  # whatever a player's or a network's own code makes of tracing
                self._refuse(found, error)
            else:
                steps[shapes] = step
            self.seconds += time.perf_counter() - began
        return steps.get(shapes)


class Changed(Exception):
    """What a compiled function takes for granted in Python does not hold any more."""


def _compile(plain: Step, *arguments: Any) -> Step:
    # A function of its own code: what was compiled for others is no longer looked through, and is freed with it.
    own = types.FunctionType(plain.__code__.replace(), plain.__globals__, plain.__name__, None, plain.__closure__)
    options: dict[str, Any] = {"cpp_wrapper": True, "compile_threads": 1}
    compiled = torch.compile(own, fullgraph=True, options=options)
    if not hasattr(compiled, "aot_compile"):  # an older torch, which checks everything at every call
        return compiled
    step: Any = compiled.aot_compile((arguments, {}))
    step.disable_guard_check()  # ``_Rollout.play`` checks now and then
    return step  # type: ignore[no-any-return]


def _static() -> contextlib.AbstractContextManager[None]:
    """Compile for the present shapes inside. ``torch.compile(dynamic=False)`` says the same, and again at every call."""
    import torch._dynamo.config as settings

    return settings.patch(automatic_dynamic_shapes=False, assume_static_by_default=True)  # type: ignore[attr-defined,no-any-return]


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    """Put the process's environment back: the compiler leaves its cache's folder there."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(before)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Put Ctrl-C off: it would end the compiler, which the terminal tells as well, and the run would go on without."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _blamed(chairs: Sequence[Chair], error: Exception) -> str:
    """Why a step cannot be compiled, with the line of the player's or network's own code where it is one."""
    stack = list(getattr(error, "real_stack", None) or traceback.extract_tb(error.__traceback__))
    library = Path(torch.__file__).parent
    ours = [f for f in stack if not Path(f.filename).is_relative_to(library) and f.filename != __file__]
    why = " ".join(str(error).split())[:200]
    if not ours:
        return f"a step cannot be compiled ({why})"
    last = ours[-1]
    named = [player for chair in chairs for player in chair.players if _source(player) == last.filename]
    name = f"{' or '.join(dict.fromkeys(map(str, named)))}: " if named else ""
    return f"{name}{last.filename}:{last.lineno} cannot be compiled ({why})"


def _source(player: Player) -> str:
    """The file of a player's own code."""
    rule: Any = getattr(player, "rule", type(player).act)
    while hasattr(rule, "func"):
        rule = rule.func
    code = getattr(rule, "__code__", None)
    return "" if code is None else code.co_filename


def _split(sittings: Sequence[Sitting]) -> tuple[Sitting | None, list[Sitting]] | None:
    """A seat's learner, and its players of the core; None: there are others, or several learners."""
    learners = [sitting for sitting in sittings if isinstance(sitting.actor, Learner)]
    seated = [s for s in sittings if isinstance(s.actor, Seated) and not s.actor.recorded]
    if len(learners) > 1 or len(learners) + len(seated) < len(sittings):
        return None
    return (learners[0] if learners else None), seated


class _Side(NamedTuple):
    """A seat's assignment."""

    chair: Chair
    learner: Learner | None
    sampled: bool
    mine: Tensor  # [n E] int64: the learner's rows of the world, in its own order
    straight: bool  # they are in the world's order
    rest: Tensor  # [m E] int64: the others
    pick: Tensor  # [m E] int64: which of the chair's players each has


def _side(
    own: Sitting | None,
    seated: Sequence[Sitting],
    known: tuple[Player, ...],
    order: Tensor,
    has: Tensor,
    episodes: int,
) -> _Side:
    """A seat's assignment. ``order`` [tasks]: the world's tasks; ``has`` [tasks] bool: those of the learner, in that order."""
    met = [sitting.actor.player for sitting in seated if isinstance(sitting.actor, Seated)]
    players = (
        known
        if all(any(one is other for other in known) for one in met)
        else tuple({id(one): one for one in met}.values())
    )
    which, now = torch.zeros_like(order), torch.argsort(order)
    for sitting, player in zip(seated, met, strict=True):
        which[sitting.tasks] = next(number for number, other in enumerate(players) if other is player)
    mine = order.new_zeros(0) if own is None else _rows(now[own.tasks], episodes)
    straight = torch.equal(mine, torch.sort(mine).values)
    rest = _rows((~has).nonzero().squeeze(1), episodes)
    learner = own.actor if own is not None and isinstance(own.actor, Learner) else None
    sampled = own is not None and learner is not None and not (own.deterministic or learner.deterministic)
    chair = Chair(None if learner is None else learner.policy, sampled, players if seated else ())
    return _Side(chair, learner, sampled, mine, straight, rest, which[order][~has].repeat_interleave(episodes))


def _rows(tasks: Tensor, episodes: int) -> Tensor:
    """The rows of tasks: [n] to [n E]."""
    return (tasks.unsqueeze(1) * episodes + torch.arange(episodes, dtype=torch.int64, device=tasks.device)).flatten()


class _Rollout:
    """A rollout of learners and players of the core, as tensors.

    Args:
        duel: the game.
        params: one row per (task, episode), in the world's order.
        key: [B] int64.
        episodes: E.
        sides: per seat.
    """

    def __init__(self, duel: Duel, params: Any, key: Tensor, episodes: int, sides: tuple[_Side, _Side]) -> None:
        self.duel, self.key, self.episodes, self.sides = duel, key, episodes, sides
        start = duel.start(params, key)
        self.dtype = start.dtype
        seated = [self._seated(side) for side in sides]
        weights, carries, picks, memories, mine, back = zip(*seated, strict=True)
        self.world = World(tree_map(torch.Tensor.contiguous, params), key, weights, picks, mine, back)
        alive, reward = torch.ones_like(key, dtype=torch.bool), torch.zeros_like(key, dtype=self.dtype)
        state = tree_map(own, start.state)
        self.now = Now(state, start.step, alive, torch.stack([reward, reward], 1), carries, memories)

    def _seated(self, side: _Side) -> tuple[Any, ...]:
        """A seat's prepared weights, carry, picks, memory, and the fields ``mine`` and ``back`` of the world."""
        weights = carry = pick = memory = mine = back = None
        if side.learner is not None:
            policy = side.learner.policy
            weights = policy.ready({name: value.detach() for name, value in side.learner.weights.items()})
            share = len(side.mine) // len(next(iter(weights.values())))
            if side.learner.carry is None:
                carry = policy.initial_carry(weights, share)
            else:
                carry = side.learner.carry.repeated(share // side.learner.carry.memory.shape[1])
            if not side.straight:
                mine, back = side.mine, torch.argsort(torch.cat([side.mine, side.rest]))
        if side.chair.players:
            pick, memory = side.pick, self.key.new_zeros(len(side.pick), side.chair.memory, dtype=self.dtype)
        return weights, carry, pick, memory, mine, back

    def shapes(self) -> str:
        """All that the compiled code takes for granted about the tensors."""
        shapes: list[Any] = []
        for carry in self.now.carries:
            shapes.append(None if carry is None else tuple(carry.memory.shape))
        straight = [side.straight for side in self.sides]
        return str((shapes, straight, len(self.key), self.dtype, self.key.device))

    def first(self) -> tuple[World, Now, Numbers]:
        """The arguments of the first step."""
        return self.world, self.now, self._numbers(0)[0]

    def _numbers(self, first: int) -> list[Numbers]:
        """The random numbers of a block of steps from ``first`` on."""
        time = torch.arange(first, min(first + BLOCK, self.duel.horizon), dtype=torch.int64, device=self.key.device)
        game = self.duel.step_noise(self.key, time.view(-1, 1), self.dtype).unbind(0)
        learners, scripted = [], []
        for seat, side in enumerate(self.sides):
            own: Sequence[Tensor | None] = [None] * len(game)
            theirs = own
            weights, carry = self.world.weights[seat], self.now.carries[seat]
            if side.learner is not None and weights is not None and carry is not None and side.sampled:
                policy = side.learner.policy
                drawn = policy.prepare_noise(self._place(seat, side.mine).uniforms(policy.noise, first))
                grid = drawn.view(len(game), *carry.memory.shape[:2], -1)
                own = policy.scale_noise(weights, grid).unbind(0)
            if side.chair.players:
                theirs = self._place(seat, side.rest).uniforms(side.chair.noise, first).unbind(0)
            learners.append(own)
            scripted.append(theirs)
        pairs = zip(game, zip(*learners, strict=True), zip(*scripted, strict=True), strict=True)
        return [Numbers(*one) for one in pairs]

    def _place(self, seat: int, rows: Tensor) -> Place:
        count = len(rows) // self.episodes
        return Place(
            slice(0, len(rows)), count, self.episodes, self.key[rows], self.duel.horizon, noise.SEAT[seat], self.dtype
        )

    def play(self, step: Step, steps: int | None = None) -> Both:
        """Play all episodes to their ends, or the first steps alone."""
        now, numbers, records = self.now, self._numbers(0), []
        looks = self.key.device.type == "cpu"
        holds: Callable[..., bool] | None = getattr(step, "guard_check", None)
        for number in range(self.duel.horizon if steps is None else min(steps, self.duel.horizon)):
            if number and number % BLOCK == 0:
                numbers = self._numbers(number)
            given = numbers[number % BLOCK]
            if number < WARMING and holds is not None and not holds(self.world, now, given):
                raise Changed("a player or network changes in Python from step to step, or has changed since")
            now, recorded = step(self.world, now, given)
            records.append(recorded)
            if looks and not now.alive.any():
                break
        return self._result(0, now, records), self._result(1, now, records)

    def _result(
        self, seat: int, now: Now, records: Sequence[tuple[Recorded | None, Recorded | None]]
    ) -> Trajectories | None:
        """The learner's trajectories."""
        learner, steps = self.sides[seat].learner, [one[seat] for one in records if one[seat] is not None]
        carry, weights = now.carries[seat], self.world.weights[seat]
        if learner is None or carry is None or weights is None:
            return None
        given, action, reward, alive = (
            torch.stack([getattr(one, name) for one in steps], 1) for name in Recorded._fields[:4]
        )
        if not learner.policy.lasting:
            return Trajectories(given, action, reward, alive)
        other = torch.stack([one.other for one in steps if one is not None and one.other is not None], 1)
        return Trajectories(given, action, reward, alive, other, learner.policy.end_episode(weights, carry))
