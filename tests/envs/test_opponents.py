"""Opponents: what a string names, and what every family's scripted players owe."""

import itertools

import numpy as np
import pytest
import torch
from gymnasium import spaces

from metaduel.envs import opponents
from metaduel.envs.core import Duel
from metaduel.envs.errors import InvalidInputError
from metaduel.envs.play import steps
from metaduel.envs.registry import find, specs
from metaduel.envs.spec import OPPONENT_SPLITS, ROLES
from metaduel.envs.tasks import generate

each_seat = pytest.mark.parametrize(
    ("spec", "role"), [(s, r) for s in specs().values() for r in ROLES], ids=lambda v: getattr(v, "name", v)
)
NAVIGATION = Duel(find("Navigation").make_game())
ROWS = 4


@each_seat
def test_the_spec_names_the_scripted_players(spec, role):
    known = opponents.scripted(spec, role)
    for split in OPPONENT_SPLITS:
        assert set(opponents.names(spec, role, split)) == {p.name for p in known.values() if p.split == split}
        assert len(opponents.names(spec, role, split)) >= 3
    assert all(player.description for player in known.values())


class Watched:
    """Plays as another player does, and keeps what it chose."""

    def __init__(self, player):
        self.player, self.memory, self.noise, self.chosen = player, player.memory, player.noise, []

    def act(self, view, memory, noise):
        action, after = self.player.act(view, memory, noise)
        assert after.shape == memory.shape
        self.chosen.append(action)
        return action, after


@each_seat
def test_scripted_players_stay_in_the_action_space_and_differ(spec, role):
    duel, seat, space = Duel(spec.make_game(), horizon=12), ROLES.index(role), spec.action_spaces[role]
    params = duel.game.params(generate(spec, "train", ROWS, seed=1))
    rows = duel.reset(params, torch.arange(ROWS), torch.zeros(ROWS, dtype=torch.int64))
    others = opponents.scripted(spec, ROLES[1 - seat]).values()
    played = {}
    for name, player in opponents.scripted(spec, role).items():
        watched = Watched(player)
        for other in others:
            for _ in steps(duel, (watched, other) if seat == 0 else (other, watched), rows):
                pass
        played[name] = torch.stack(watched.chosen)
        values = played[name].numpy()
        if isinstance(space, spaces.Discrete):
            assert played[name].dtype == torch.int64
            assert values.shape[1:] == (ROWS,)
            assert values.min() >= space.start
            assert values.max() < space.start + space.n
        else:
            assert values.shape[1:] == (ROWS, *space.shape)
            assert np.isfinite(values).all()
            assert (values >= space.low - 1e-6).all()
            assert (values <= space.high + 1e-6).all()
    for first, second in itertools.combinations(played, 2):
        assert not torch.equal(played[first], played[second]), (first, second)


def test_a_string_names_a_scripted_player():
    swirl = opponents.load_player(NAVIGATION, "adversary", "swirl")
    assert swirl is opponents.scripted(NAVIGATION.spec, "adversary")["swirl"]


def test_a_prefix_names_a_loader(monkeypatch):
    monkeypatch.setitem(opponents.LOADERS, "echo", "builtins:print")
    seen = []
    monkeypatch.setattr("builtins.print", lambda *args: seen.append(args))
    opponents.load_player(NAVIGATION, "adversary", "echo:some/folder:v2")
    assert seen == [(NAVIGATION, "adversary", "some/folder:v2")]


@pytest.mark.parametrize(
    ("role", "name", "message"),
    [
        (
            "adversary",
            "swril",
            "unknown opponent for the adversary's seat of Navigation 'swril' (did you mean 'swirl'?)",
        ),
        ("protagonist", "swirl", "protagonist's seat"),
        ("adversary", "ftp:somewhere", "unknown opponent"),
        ("adversary", "", "opponent='' must be a string: a scripted name, run:FOLDER or sb3:FILE"),
        ("adversary", None, "opponent=None must be a string"),
        ("attacker", "swirl", "unknown role 'attacker'"),
    ],
)
def test_an_unknown_opponent_is_refused(role, name, message):
    with pytest.raises(InvalidInputError) as error:
        opponents.load_player(NAVIGATION, role, name)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_opponent_split_is_refused():
    with pytest.raises(InvalidInputError, match=r"unknown opponent split 'validation'.*held_out, train"):
        opponents.names(NAVIGATION.spec, "adversary", "validation")
