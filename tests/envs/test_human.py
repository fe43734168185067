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


@pytest.fixture
def hands(monkeypatch):
    """Keys and mouse as a test holds them."""

    class Hands:
        keys, mouse, button, events = frozenset(), (0, 0), False, ()

    class Pressed:
        def __getitem__(self, key):
            return key in Hands.keys

    monkeypatch.setattr(pygame.key, "get_pressed", Pressed)
    monkeypatch.setattr(pygame.mouse, "get_pressed", lambda: (Hands.button, False, False))
    monkeypatch.setattr(pygame.mouse, "get_pos", lambda: Hands.mouse)
    monkeypatch.setattr(pygame.event, "clear", lambda kind: None)
    monkeypatch.setattr(pygame.event, "get", lambda kinds: [pygame.event.Event(*event) for event in Hands.events])
    yield Hands
    Hands.keys, Hands.button, Hands.events = frozenset(), False, ()


def seated(game, role="protagonist"):
    duel = Duel(make_game(find(game)))
    rows = duel.reset(duel.game.params([{}]), torch.tensor([0]), torch.tensor([0]))
    person = Person(duel, role, Screen(duel.spec, "rgb_array"))
    view = View(rows.params, rows.state, duel.observe(rows)[ROLES.index(role)], rows.step)
    return person, lambda: person.act(view, torch.zeros(1, 0), torch.zeros(1, 0))[0]


def test_arrow_keys_and_the_mouse_steer(hands):
    person, act = seated("Pursuit")
    assert act().tolist() == [[0.0, 0.0]]
    hands.keys = {pygame.K_RIGHT, pygame.K_UP}
    assert act().tolist() == [[1.0, 1.0]]
    hands.keys = {pygame.K_LEFT, pygame.K_RIGHT, pygame.K_DOWN}
    assert act().tolist() == [[0.0, -1.0]]
    # A quarter of the picture to the left of its middle and a quarter above it; beyond the edge counts as the edge.
    hands.button, hands.mouse = True, (WIDTH / 4, HEADER + WIDTH / 4)
    assert act().tolist() == [[-0.5, 0.5]]
    hands.mouse = (WIDTH / 2, HEADER + 2 * WIDTH)
    assert act().tolist() == [[0.0, -1.0]]
    assert "arrow keys" in person.controls


def test_in_a_fast_game_the_last_arrow_goes_on(hands):
    person, act = seated("CartPole")
    assert act().tolist() == [0]
    hands.keys = {pygame.K_RIGHT}
    assert act().tolist() == [1]
    hands.keys = {}
    assert act().tolist() == [1]
    assert "left and right" in person.controls


def test_number_keys_choose_a_legal_action(hands):
    person, act = seated("KuhnPoker", "adversary")
    whose = int(
        person.duel.turn(person.duel.reset(person.duel.game.params([{}]), torch.tensor([0]), torch.tensor([0])))
    )
    person.role = ROLES[whose]
    names = person.duel.spec.action_names
    legal = [name for name in names if f"{names.index(name) + 1} {name}" in person.controls]
    assert legal == list(names)
    start = person.duel.reset(person.duel.game.params([{}]), torch.tensor([0]), torch.tensor([0]))
    allowed = person.duel.legal(start)[whose][0].tolist()
    bad, good = allowed.index(False), max(i for i, ok in enumerate(allowed) if ok)
    # Keys that choose nothing legal are passed over.
    hands.events = [(pygame.KEYDOWN, {"key": key}) for key in (pygame.K_a, pygame.K_1 + bad, pygame.K_1 + good)]
    assert act().tolist() == [good]
    person.role = ROLES[1 - whose]  # the other's turn: nothing is asked
    hands.events = ()
    assert act().tolist() == [0]


def test_closing_the_window_ends_a_choice(hands):
    person, act = seated("RockPaperScissors")
    hands.events = [(pygame.QUIT, {})]
    assert act().tolist() == [0]
    assert person.screen.closed


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
