"""A person in a seat: the keys' actions, and hidden contexts that stay hidden from the person."""

import itertools

import numpy as np
import pygame
import pytest
import torch

from metaduel.envs.core.duel import Duel
from metaduel.envs.core.game import View, make_game
from metaduel.envs.core.registry import find, specs
from metaduel.envs.core.spec import ROLES
from metaduel.envs.core.tasks import find_task
from metaduel.envs.players.play import steps
from metaduel.envs.players.scripted import scripted
from metaduel.envs.render.film import film
from metaduel.envs.render.human import Person
from metaduel.envs.render.screen import HEADER, WIDTH, Screen
from metaduel.envs.render.window import poll


@pytest.fixture
def shown(monkeypatch):
    """A function that seats a person in front of a window that shows the first step, and returns how it acts."""
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    screens = []

    def seat(game, role="protagonist"):
        duel = Duel(make_game(find(game)))
        rows = duel.reset(duel.game.params([{}]), torch.tensor([0]), torch.tensor([0]))
        person = Person(duel, role, Screen(duel.spec, "human"))
        person.screen.frame(rows.params, [rows.state], (0.0, 0.0))
        screens.append(person.screen)
        view = View(rows.params, rows.state, duel.observe(rows)[ROLES.index(role)], rows.step)
        return person, lambda: person.act(view, torch.zeros(1, 0), torch.zeros(1, 0))[0]

    yield seat
    for screen in screens:
        screen.close()


def happens(person, kind, **values):
    """An event in the person's window."""
    pygame.event.post(pygame.event.Event(kind, window=person.screen._window._handle, **values))
    poll()


def holds(person, *keys):
    """The person lets go of everything, then holds the keys down."""
    for key in set(person.screen.hands.keys):
        happens(person, pygame.KEYUP, key=key)
    for key in keys:
        happens(person, pygame.KEYDOWN, key=key)


def test_arrow_keys_and_the_mouse_steer(shown):
    person, act = shown("Pursuit")
    assert act().tolist() == [[0.0, 0.0]]
    holds(person, pygame.K_RIGHT, pygame.K_UP)
    assert act().tolist() == [[1.0, 1.0]]
    holds(person, pygame.K_LEFT, pygame.K_RIGHT, pygame.K_DOWN)
    assert act().tolist() == [[0.0, -1.0]]
    # A quarter of the picture to the left of its middle and a quarter above it; beyond the edge counts as the edge.
    happens(person, pygame.MOUSEMOTION, pos=(9, 9), buttons=(0, 0, 0))  # no button: the keys still count
    assert act().tolist() == [[0.0, -1.0]]
    happens(person, pygame.MOUSEBUTTONDOWN, button=1, pos=(WIDTH / 4, HEADER + WIDTH / 4))
    assert act().tolist() == [[-0.5, 0.5]]
    happens(person, pygame.MOUSEMOTION, pos=(WIDTH / 2, HEADER + 2 * WIDTH), buttons=(1, 0, 0))
    assert act().tolist() == [[0.0, -1.0]]
    holds(person)
    happens(person, pygame.MOUSEBUTTONUP, button=1, pos=(0, 0))
    assert act().tolist() == [[0.0, 0.0]]
    assert "arrow keys" in person.controls


def test_what_is_held_is_let_go_when_another_window_is_chosen(shown):
    person, act = shown("Pursuit")
    holds(person, pygame.K_RIGHT)
    happens(person, pygame.WINDOWFOCUSLOST)
    assert act().tolist() == [[0.0, 0.0]]


def test_in_a_fast_game_the_last_arrow_goes_on(shown):
    person, act = shown("CartPole")
    assert act().tolist() == [0]
    holds(person, pygame.K_RIGHT)
    assert act().tolist() == [1]
    holds(person)
    assert act().tolist() == [1]
    assert "left and right" in person.controls


@pytest.fixture
def later(monkeypatch):
    """What happens while a choice is waited for: functions, one for each time that the clock ticks."""
    waiting, ticks = [], itertools.count()

    class Clock:
        def tick(self, rate):
            assert next(ticks) < 20, "still waiting"
            if waiting:
                waiting.pop(0)()

    monkeypatch.setattr(pygame.time, "Clock", Clock)
    yield waiting
    assert not waiting


def test_number_keys_choose_a_legal_action(shown, later):
    person, act = shown("KuhnPoker", "adversary")
    start = person.duel.reset(person.duel.game.params([{}]), torch.tensor([0]), torch.tensor([0]))
    whose = int(person.duel.turn(start))
    person.role = ROLES[whose]
    names = person.duel.spec.action_names
    legal = [name for name in names if f"{names.index(name) + 1} {name}" in person.controls]
    assert legal == list(names)
    allowed = person.duel.legal(start)[whose][0].tolist()
    bad, good = allowed.index(False), max(i for i, ok in enumerate(allowed) if ok)
    happens(person, pygame.KEYDOWN, key=pygame.K_1 + allowed.index(True))  # too early
    # Keys that choose nothing legal are passed over.
    for key in (pygame.K_a, pygame.K_1 + bad, pygame.K_1 + good):
        later.append(lambda key=key: happens(person, pygame.KEYDOWN, key=key))
    assert act().tolist() == [good]
    person.role = ROLES[1 - whose]  # the other's turn: nothing is asked
    assert act().tolist() == [0]


def test_closing_the_window_ends_a_choice(shown, later):
    person, act = shown("RockPaperScissors")
    later.append(lambda: happens(person, pygame.WINDOWCLOSE))
    assert act().tolist() == [0]
    assert person.screen.closed


def test_each_of_two_persons_has_the_keys_of_the_own_window(shown, later):
    (one, first), (two, second) = shown("Pursuit"), shown("Pursuit", "adversary")
    holds(one, pygame.K_RIGHT)
    holds(two, pygame.K_UP)
    assert first().tolist() == [[1.0, 0.0]]
    assert second().tolist() == [[0.0, 1.0]]
    happens(one, pygame.WINDOWCLOSE)
    assert first().tolist() == [[0.0, 0.0]]
    assert second().tolist() == [[0.0, 1.0]]
    three, third = shown("RockPaperScissors")
    later.append(lambda: happens(two, pygame.KEYDOWN, key=pygame.K_1))
    later.append(lambda: happens(three, pygame.KEYDOWN, key=pygame.K_3))
    assert third().tolist() == [2]
    assert not three.screen.closed


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("spec", specs().values(), ids=lambda spec: spec.name)
def test_a_person_is_not_shown_what_is_hidden(spec, role):
    seat, duel = ROLES.index(role), Duel(make_game(spec))
    first, second = find_task(spec, "held_out:0"), find_task(spec, "held_out:1")
    seen = {c.name: first[c.name] for c in spec.contexts if role in c.visible_to}
    # What the other sees alone is in neither: nothing of it must show, either.
    one, other = duel.game.params([first]), duel.game.params([{**second, **seen}])
    rows = duel.reset(one, torch.tensor([3]), torch.tensor([0]))
    players = [next(iter(scripted(spec, r).values())) for r in ROLES]
    states = [rows.state, *(after.state for after, _ in itertools.islice(steps(duel, tuple(players), rows), 2))]

    def frame(params, person):
        # Scores tell payoffs, and arrows forces, once something has been played: so do they in the game.
        played = spec.package.rpartition(".")[2] in ("repeated_matrix_game", "cart_pole", "pendulum")
        shown = states[:1] if played else states
        return Screen(spec, "rgb_array", person=person).frame(params, shown, (0.0, 0.0))

    assert (frame(one, seat) == frame(other, seat)).all()
    assert (frame(one, None) != frame(other, None)).any()


def test_in_poker_the_others_card_is_face_down():
    spec = find("KuhnPoker")
    duel = Duel(make_game(spec))
    params = duel.game.params([{}])
    state = duel.reset(params, torch.tensor([0]), torch.tensor([0])).state
    swapped = state._replace(adversary=(state.adversary + 1) % 3)

    def frame(one, person):
        return np.asarray(Screen(spec, "rgb_array", person=person).frame(params, [one], (0.0, 0.0)))

    assert (frame(state, 0) == frame(swapped, 0)).all()
    assert (frame(state, 1) != frame(swapped, 1)).any()


def pictures(game, person, *states, task=None):
    duel = Duel(make_game(find(game)))
    params = duel.game.params([task or {}])
    return [np.asarray(Screen(duel.spec, "rgb_array", person=person).frame(params, s, (0.0, 0.0))) for s in states]


def first_state(game):
    duel = Duel(make_game(find(game)))
    return duel.reset(duel.game.params([{}]), torch.tensor([3]), torch.tensor([0])).state


def moved(state, shift, seat=None):
    """A state with the discs (or one of them) somewhere else."""
    position = state.position.clone()
    position[:, slice(None) if seat is None else seat] += torch.tensor(shift)
    return state._replace(position=position)


def test_in_the_dark_a_person_sees_the_other_only_when_it_is_near():
    state = first_state("Pursuit")
    far, further = (moved(state, (0.0, shift), seat=1) for shift in (0.02, 0.04))
    assert not far.in_sight.any()
    a, b = pictures("Pursuit", 0, [far], [further])
    assert (a == b).all()
    a, b = pictures("Pursuit", 1, [far], [further])  # but itself
    assert (a != b).any()
    gap = state.evader - state.pursuer
    near, nearer = (
        state._replace(position=torch.stack([state.evader, state.evader - share * gap], 1)) for share in (0.3, 0.2)
    )
    assert near.in_sight.all()
    a, b = pictures("Pursuit", 0, [near], [nearer])
    assert (a != b).any()


def test_a_blindfolded_person_does_not_see_the_ring():
    state = first_state("Sumo")
    a, b = pictures("Sumo", 0, [state], [moved(state, (0.1, -0.05))])  # both slide
    assert (a == b).all()
    a, b = pictures("Sumo", None, [state], [moved(state, (0.1, -0.05))])
    assert (a != b).any()


def test_a_forger_is_not_shown_the_real_points():
    duel = Duel(make_game(find("Forgery")))
    rows = duel.reset(duel.game.params([{}]), torch.tensor([3]), torch.tensor([0]))
    players = [next(iter(scripted(duel.spec, r).values())) for r in ROLES]
    states = [rows.state, *(after.state for after, _ in itertools.islice(steps(duel, tuple(players), rows), 3))]
    last = states[-1]._replace(shows_real=torch.ones_like(states[-1].shows_real))
    states[-1] = last
    other = [*states[:-1], last._replace(real=last.real + 0.3)]
    a, b = pictures("Forgery", 0, states, other)
    assert (a == b).all()
    a, b = pictures("Forgery", 1, states, other)  # the judge sees what it is shown
    assert (a != b).any()


@pytest.mark.parametrize("role", ROLES)
def test_the_player_in_turn_in_poker_sees_its_hand(role):
    spec = find("KuhnPoker")
    duel, seat = Duel(make_game(spec)), ROLES.index(role)
    rows = duel.reset(duel.game.params([{}]), torch.tensor([3]), torch.tensor([0]))
    players = [scripted(spec, r)["station"] for r in ROLES]
    states = [rows.state, *(after.state for after, _ in steps(duel, tuple(players), rows))]
    asked = 0
    for end in range(1, len(states)):
        state = states[end]
        if int(state.turn) == seat:
            card = getattr(state, role)
            swapped = state._replace(**{role: (card + 1) % 3})
            a, b = pictures("KuhnPoker", seat, states[: end + 1], [*states[:end], swapped])
            assert (a != b).any()
            asked += int(state.hand) > int(states[end - 1].hand)
    assert asked > 1  # also where a new hand has just begun


def test_closing_the_window_ends_all_episodes(monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    spec = find("CartPole")
    duel, screen = Duel(make_game(spec)), Screen(spec, "human", person=0)
    players = Person(duel, "protagonist", screen), scripted(spec, "adversary")["idle"]
    drawn, shown = [], screen.frame

    def frame(*args):
        drawn.append(args)
        if len(drawn) == 3:
            pygame.event.post(pygame.event.Event(pygame.QUIT))
        return shown(*args)

    monkeypatch.setattr(screen, "frame", frame)
    for episode in range(2):
        assert list(film(duel, players, {}, screen, 0, episode)) == []
    assert screen.closed
    assert len(drawn) < 60
