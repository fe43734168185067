"""Compiled rollouts against plain ones.

What a step does is compared without a compiler, in all families and bit for bit: the same function, called as it is. What the
compiler makes of it is compared in two families here, and in all of them by `make test-compiled`.
"""

import os
import signal
import warnings

import pytest
import torch

from metaduel.agents import compiled
from metaduel.agents.compiled import Compiled, compiler_missing
from metaduel.agents.policies.latent import LatentPolicy
from metaduel.agents.policies.memory import MemoryPolicy
from metaduel.agents.policies.mlp import MLPPolicy
from metaduel.agents.policies.recurrent import GRUPolicy
from metaduel.agents.rollout import Learner, Seated, Sitting, rollout
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.game import make_game
from metaduel.envs.core.registry import find, specs
from metaduel.envs.core.spec import ROLES
from metaduel.envs.core.tasks import sample_tasks
from metaduel.envs.players.scripted import Impaired, scripted

EPISODES, HORIZON = 2, 12
needs_compiler = pytest.mark.skipif(bool(compiler_missing()), reason=compiler_missing())
FAMILIES = list(specs())


class Matches:
    """Learners of both roles against every scripted player of a family, and against each other on one task."""

    def __init__(self, game, kind=MLPPolicy, horizon=HORIZON, impaired=False, few=None):
        spec = find(game)
        self.duel = Duel(make_game(spec), horizon)
        self.players = {role: list(scripted(spec, role).values())[:few] for role in ROLES}
        if impaired:
            continuous = {role: hasattr(spec.action_spaces[role], "low") for role in ROLES}
            self.players = {
                role: [Impaired(one, spec.action_spaces[role], 0.3, 2 * continuous[role]) for one in some]
                for role, some in self.players.items()
            }
        first, last = len(self.players["adversary"]), len(self.players["protagonist"])
        self.counts = first, 1, last
        n = first + 1 + last
        tasks = sample_tasks(spec, n, "train", 5)
        self.params = self.duel.params(torch.tensor([list(task.values()) for task in tasks]).double())
        self.params = type(self.params)(*(part.repeat_interleave(EPISODES) for part in self.params))
        self.seed = torch.arange(n * EPISODES) + 100
        self.policies = {
            role: kind(
                self.duel.observation_space(role).shape[0], self.duel.action_space(role), *self.sizes(kind, role)
            )
            for role in ROLES
        }

    def sizes(self, kind, role):
        other_space = self.duel.action_space(ROLES[1 - ROLES.index(role)])
        return {MLPPolicy: ((6,),), GRUPolicy: (5,), MemoryPolicy: (5,), LatentPolicy: (other_space, 5)}[kind]

    def weights(self, role, n):
        each = [self.policies[role].init(10 * ROLES.index(role) + i) for i in range(n)]
        return {name: 2 * torch.stack([one[name] for one in each]) for name in each[0]}

    def seats(self, order=None, deterministic=False, sets=None):
        """Sittings of ranges of tasks, or of the same tasks in any order."""
        first, both, last = self.counts
        n = first + both + last

        def where(start, stop):
            return slice(start, stop) if order is None else order[start:stop]

        def learner(role, count):
            return Learner(self.policies[role], self.weights(role, sets or count), deterministic)

        one = [Sitting(where(0, first + both), learner("protagonist", first + both))]
        one += [Sitting(where(i, i + 1), Seated(p)) for i, p in enumerate(self.players["protagonist"], first + both)]
        two = [Sitting(where(i, i + 1), Seated(p)) for i, p in enumerate(self.players["adversary"])]
        two += [Sitting(where(first, n), learner("adversary", both + last))]
        return one, two

    def play(self, function, seats):
        return function(self.duel, self.params, seats, EPISODES, self.seed, torch.zeros_like(self.seed))


@pytest.fixture
def plain(monkeypatch):
    """The step as a function, not compiled; counts the functions made."""
    made = []
    monkeypatch.setattr(compiled, "_compile", lambda step, *_: made.append(step) or step)
    return made


def assert_equal(one, two, **tolerance):
    for a, b in zip(one, two, strict=True):
        assert (a is None) == (b is None)
        for name, x in a._asdict().items() if a is not None else ():
            y = getattr(b, name)
            if name in ("observation", "action", "other") and x is not None:  # after the end anything may stand there
                alive = a.alive.view(*a.alive.shape, *[1] * (x.dim() - 3))
                x, y = x * alive, y * alive
            pairs = zip(x, y, strict=True) if isinstance(x, tuple) else [(x, y)]
            for mine, theirs in pairs:
                if mine is None:
                    assert theirs is None
                elif tolerance and mine.is_floating_point():
                    torch.testing.assert_close(theirs, mine, **tolerance)
                else:
                    assert mine.dtype == theirs.dtype
                    assert torch.equal(mine, theirs)


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


def test_a_step_as_one_function_is_a_rollouts_step(family, plain):
    matches = Matches(family)
    play = Compiled(matches.players)
    for again in range(2):
        assert_equal(matches.play(rollout, matches.seats()), matches.play(play, matches.seats()))
        assert len(plain) == 1, again


@pytest.mark.parametrize("game", ["Sumo", "KuhnPoker"])
def test_players_that_slip_or_come_late_keep_their_memories(game, plain):
    matches = Matches(game, impaired=True)
    assert_equal(matches.play(rollout, matches.seats()), matches.play(Compiled(matches.players), matches.seats()))
    assert plain


@pytest.mark.parametrize("kind", [GRUPolicy, MemoryPolicy, LatentPolicy])
@pytest.mark.parametrize("game", ["Pursuit", "RockPaperScissors"])
def test_memories_are_carried(game, kind, plain):
    matches = Matches(game, kind)
    assert_equal(
        matches.play(rollout, matches.seats()),
        matches.play(Compiled(matches.players), matches.seats()),
        atol=1e-6,
        rtol=0,
    )
    assert plain


@pytest.mark.parametrize("sets", [None, 1])
@pytest.mark.parametrize("deterministic", [False, True])
def test_tasks_may_come_in_any_order(plain, deterministic, sets):
    matches = Matches("Sumo")
    order = torch.randperm(sum(matches.counts), generator=torch.Generator().manual_seed(0))
    seats = matches.seats(order, deterministic, sets)
    assert_equal(matches.play(rollout, seats), matches.play(Compiled(matches.players), seats), atol=1e-6, rtol=0)
    assert plain


def test_one_function_serves_all_iterations_that_meet_known_players(plain):
    matches = Matches("Navigation")
    play = Compiled(matches.players)
    for rotated in range(3):
        one, two = matches.seats()
        met = [sitting.actor for sitting in two[:-1]]
        met = met[rotated:] + met[:rotated]
        two[:-1] = [sitting._replace(actor=actor) for sitting, actor in zip(two, met)]
        assert_equal(matches.play(rollout, (one, two)), matches.play(play, (one, two)))
    assert len(plain) == 1


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="needs POSIX signals")
def test_ctrl_c_waits_for_the_compiler(monkeypatch):
    """It is not lost, and the compiler, which the terminal tells of it as well, is not ended by it."""
    masks, before = [], signal.pthread_sigmask(signal.SIG_BLOCK, [])

    def compile_(step, *_):
        masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, []))
        os.kill(os.getpid(), signal.SIGINT)
        return step

    monkeypatch.setattr(compiled, "_compile", compile_)
    matches = Matches("Navigation")
    with pytest.raises(KeyboardInterrupt):
        matches.play(Compiled(matches.players), matches.seats())
    assert signal.SIGINT in masks[0]
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


def test_players_that_are_not_known_are_learned_of(plain):
    matches = Matches("Navigation")
    assert_equal(matches.play(rollout, matches.seats()), matches.play(Compiled({}), matches.seats()))
    assert len(plain) == 1


def test_other_actors_are_played_as_ever(plain):
    matches = Matches("Navigation")
    one, two = matches.seats()
    watched = [s._replace(actor=Seated(s.actor.player, recorded=True)) if s.actor is two[0].actor else s for s in two]
    all_rows = [Sitting(slice(0, sum(matches.counts)), Seated(matches.players["adversary"][0]))]
    for seats in ((one, all_rows[:0] + watched[:-1] + two[-1:]), (one, all_rows)):
        if seats[1] is all_rows:  # some tasks have no learner
            assert_equal(matches.play(rollout, seats), matches.play(Compiled(matches.players), seats))
    assert not plain


# The compiler


def compiled_equals(game, horizon, few=None):
    matches = Matches(game, horizon=horizon, few=few)
    play = Compiled(matches.players)
    environment = dict(os.environ)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="compile:")
        for _ in range(2):  # the second one is played by the function that the first one made
            assert_equal(
                matches.play(rollout, matches.seats()), matches.play(play, matches.seats()), atol=1e-5, rtol=1e-5
            )
    assert play.seconds > 0
    assert dict(os.environ) == environment


@needs_compiler
@pytest.mark.parametrize("game", ["Navigation", "RockPaperScissors"])
def test_compiled_equals_eager(game):
    compiled_equals(game, 5, few=2)


@needs_compiler
@pytest.mark.compiling
def test_compiled_equals_eager_in_all_families(family):
    compiled_equals(family, 8)


class Peeking:
    """A player that looks at a number in Python, which no compiled code can."""

    def __init__(self, inner):
        self.inner, self.memory, self.noise = inner, inner.memory, inner.noise

    def act(self, view, memory, noise):
        if view.observation.sum().item() > 1e9:
            raise AssertionError
        return self.inner.act(view, memory, noise)


@needs_compiler
def test_a_player_that_cannot_be_compiled_is_played_and_its_line_is_named():
    matches = Matches("Navigation", horizon=4)
    matches.players["adversary"] = [Peeking(player) for player in matches.players["adversary"]]
    play = Compiled(matches.players)
    line = Peeking.act.__code__.co_firstlineno + 1
    with pytest.warns(UserWarning, match=rf"Peeking.*test_compiled\.py:{line} cannot be compiled"):
        first = matches.play(play, matches.seats())
    assert_equal(matches.play(rollout, matches.seats()), first)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="compile:")
        matches.play(play, matches.seats())  # says it once


class Counting:
    """A player that counts in Python, step by step."""

    def __init__(self, inner):
        self.inner, self.steps, self.memory, self.noise = inner, 0, inner.memory, inner.noise

    def act(self, view, memory, noise):
        self.steps += 1
        action, memory = self.inner.act(view, memory, noise)
        return action * (1.0 / (1 + self.steps % 3)), memory


@needs_compiler
def test_a_player_that_changes_in_python_is_never_taken_for_what_it_was():
    matches = Matches("Navigation", horizon=4, few=1)
    matches.players["adversary"] = [Counting(player) for player in matches.players["adversary"]]
    play = Compiled(matches.players)
    with pytest.warns(UserWarning, match="compile: .*it is played without"):
        matches.play(play, matches.seats())
    matches.players["adversary"][0].steps = 0
    expected = matches.play(rollout, matches.seats())
    matches.players["adversary"][0].steps = 0
    assert_equal(expected, matches.play(play, matches.seats()))


def test_without_a_compiler_the_reason_is_told(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert compiler_missing() == "torch.compile needs a C++ compiler, and there is no no-such-compiler here"
