"""Opponents: their names, and the contract of every family's scripted players."""

import itertools
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

import metaduel
from metaduel.agents.rollout import Seated, Sitting, rollout
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.game import View, make_game
from metaduel.envs.core.registry import find, specs
from metaduel.envs.core.spec import OPPONENT_SPLITS, ROLES
from metaduel.envs.core.tasks import generate
from metaduel.envs.core.trees import take_rows
from metaduel.envs.players import names, zoo
from metaduel.envs.players import scripted as opponents
from metaduel.envs.players.play import steps
from metaduel.meta.runs.config import TrainConfig

each_seat = pytest.mark.parametrize(
    ("spec", "role"), [(s, r) for s in specs().values() for r in ROLES], ids=lambda v: getattr(v, "name", v)
)
NAVIGATION = Duel(make_game(find("Navigation")))
ROWS = 4


@each_seat
def test_the_spec_names_the_scripted_players(spec, role):
    known = opponents.scripted(spec, role)
    for split in OPPONENT_SPLITS:
        assert set(names.names(spec, role, split)) == {p.name for p in known.values() if p.split == split}
        assert len(names.names(spec, role, split)) >= 3
    assert all(player.description for player in known.values())


class Watched:
    """Plays like another player, and records its actions."""

    def __init__(self, player):
        self.player, self.memory, self.noise, self.chosen = player, player.memory, player.noise, []

    def act(self, view, memory, noise):
        action, after = self.player.act(view, memory, noise)
        assert after.shape == memory.shape
        self.chosen.append(action)
        return action, after


def choices(duel, role, player, others=None):
    """All that a player does against every scripted player, or the first ``others``; it must be within its space."""
    spec, seat, space = duel.spec, ROLES.index(role), duel.action_space(role)
    params = duel.game.params(generate(spec, "train", ROWS, seed=1))
    rows = duel.reset(params, torch.arange(ROWS), torch.zeros(ROWS, dtype=torch.int64))
    watched = Watched(player)
    for other in list(opponents.scripted(spec, ROLES[1 - seat]).values())[:others]:
        for _ in steps(duel, (watched, other) if seat == 0 else (other, watched), rows):
            pass
    played = torch.stack(watched.chosen)
    values = played.numpy()
    if isinstance(space, spaces.Discrete):
        assert played.dtype == torch.int64
        assert values.shape[1:] == (ROWS,)
        assert values.min() >= space.start
        assert values.max() < space.start + space.n
    else:
        assert values.shape[1:] == (ROWS, *space.shape)
        assert np.isfinite(values).all()
        assert (values >= space.low - 1e-6).all()
        assert (values <= space.high + 1e-6).all()
    return played


@each_seat
def test_scripted_players_stay_in_the_action_space_and_differ(spec, role):
    duel = Duel(make_game(spec), horizon=12)
    played = {name: choices(duel, role, player) for name, player in opponents.scripted(spec, role).items()}
    for first, second in itertools.combinations(played, 2):
        assert not torch.equal(played[first], played[second]), (first, second)


@each_seat
def test_what_a_player_knows_for_an_episode_is_what_it_would_work_out_at_every_step(spec, role):
    """Bit for bit, for all rows and for some of them; most families have players that know something."""
    duel, seat = Duel(make_game(spec)), ROLES.index(role)
    params = duel.game.params(generate(spec, "train", ROWS, seed=1))
    rows = duel.reset(params, torch.arange(ROWS), torch.zeros(ROWS, dtype=torch.int64))
    view, some = View(params, rows.state, duel.observe(rows)[seat], rows.step, torch.zeros(ROWS)), torch.tensor([0, 3])
    for player in opponents.scripted(spec, role).values():
        impaired = opponents.Impaired(player, duel.action_space(role), 0.0, 0)
        assert opponents.setup_of(impaired) is opponents.setup_of(player) is player.setup
        known = None if player.setup is None else player.setup(params)
        memory, noise = torch.zeros(ROWS, player.memory), torch.full((ROWS, player.noise), 0.3)
        whole = player.act(view, memory, noise)
        part = player.act(take_rows(view._replace(known=known), some), memory[some], noise[some])
        for one, two in zip(whole, part, strict=True):
            assert torch.equal(one[some], two)


def test_a_rollout_asks_once_what_players_know_for_an_episode():
    duel, asked = Duel(make_game(find("Sumo"))), []
    players = [names.load_player(duel, role, "stand") for role in ROLES]
    players = [replace(p, setup=lambda params, p=p: asked.append(len(params[0])) or p.setup(params)) for p in players]
    params = duel.game.params(generate(duel.spec, "train", ROWS, seed=1))
    seats = tuple([Sitting(slice(0, ROWS), Seated(player))] for player in players)
    rollout(duel, params, seats, 1, torch.arange(ROWS), torch.zeros(ROWS, dtype=torch.int64))
    assert asked == [ROWS, ROWS]


@each_seat
def test_every_option_changes_what_its_player_does(spec, role):
    # As many steps as the slowest option needs: the smallest period of CartPole's shuttle, half of it.
    duel = Duel(make_game(spec), horizon=min(spec.horizon, 26))

    def named(player, **values):
        text = ",".join(f"{name}={value!r}" for name, value in values.items())
        return choices(duel, role, names.load_player(duel, role, f"{player.name}({text})"), others=5)

    for player in opponents.scripted(spec, role).values():
        usual = choices(duel, role, player, others=5)
        options = (*player.options, opponents.NOISE)
        assert torch.equal(named(player, **{option.name: option.default for option in options}), usual), player.name
        for option in options:
            ends = sorted({option.low, option.high}, key=lambda value: -abs(value - option.default))
            changed = any(not torch.equal(named(player, **{option.name: end}), usual) for end in ends)
            assert changed, (player.name, option.name)


@each_seat
def test_sampled_opponents_can_be_played_and_belong_to_their_split(spec, role):
    duel, seen = Duel(make_game(spec), horizon=12), set()
    for split in OPPONENT_SPLITS:
        drawn = metaduel.sample_opponents(spec, 12, role, split, seed=3)
        assert drawn[:5] == metaduel.sample_opponents(spec, 5, role, split, seed=3)
        assert drawn != metaduel.sample_opponents(spec, 12, role, split, seed=4)
        assert {name.partition("(")[0] for name in drawn} <= set(names.names(spec, role, split))
        assert len(set(drawn)) == 12
        for name in drawn[:3]:
            choices(duel, role, names.load_player(duel, role, name), others=1)
        seen |= set(drawn)
    assert len(seen) == 24


def test_an_impaired_player_is_late_and_slips_as_often_as_its_name_says():
    wind = names.load_player(NAVIGATION, "adversary", "wind")
    late = names.load_player(NAVIGATION, "adversary", "Navigation: wind(delay=2)")
    params = NAVIGATION.game.params(generate(NAVIGATION.spec, "train", 2000, seed=1))
    rows = NAVIGATION.reset(params, torch.arange(2000), torch.zeros(2000, dtype=torch.int64))
    walker = names.load_player(NAVIGATION, "protagonist", "seeker")

    def pushes(player):
        watched = Watched(player)
        for _, _ in itertools.islice(steps(NAVIGATION, (walker, watched), rows), 6):
            pass
        return torch.stack(watched.chosen)

    usual = pushes(wind)
    assert torch.equal(pushes(late)[2:], usual[:-2])
    assert not pushes(late)[:2].any()
    slips = (pushes(names.load_player(NAVIGATION, "adversary", "wind(noise=0.3)")) != usual).any(2)
    assert slips.double().mean().item() == pytest.approx(0.3, abs=0.015)  # 3.6 standard errors of 12,000 draws


def test_a_string_names_a_scripted_player():
    swirl = names.load_player(NAVIGATION, "adversary", "swirl")
    assert swirl == opponents.scripted(NAVIGATION.spec, "adversary")["swirl"]


def test_a_prefix_names_a_loader(monkeypatch):
    monkeypatch.setitem(names.LOADERS, "echo", "builtins:print")
    seen = []
    monkeypatch.setattr("builtins.print", lambda *args: seen.append(args))
    names.load_player(NAVIGATION, "adversary", "echo:some/folder:v2")
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
        ("adversary", None, "opponent=None must be a player: a scripted player's name, run:FOLDER"),
        ("attacker", "swirl", "unknown role 'attacker'"),
    ],
)
def test_an_unknown_opponent_is_refused(role, name, message):
    with pytest.raises(InvalidInputError) as error:
        names.load_player(NAVIGATION, role, name)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "character", "why"),
    [
        ("wind(nois=0.1)", 6, "no option 'nois'"),
        ("wind(noise=0.1", 15, "',' or a ')' at the end expected"),
        ("wind(noise=0.1) now", 16, "',' or a ')' at the end expected"),
        ("wind(noise=2)", 12, "noise=2 must be a number in [0, 0.5]"),
        ("wind(noise=nan)", 12, "noise=nan must be a number in [0, 0.5]"),
        ("wind(noise=1e999)", 12, "noise=inf must be"),
        ("wind(delay=1.5)", 12, "delay=1.5 must be a whole number in [0, 5]"),
        ("wind(noise=much)", 12, "'much' is not a number"),
        ("wind(noise=0.1,noise=0.2)", 16, "noise is set twice"),
        ("wind()", 6, "OPTION=NUMBER expected"),
        ("navigation:wind(0.3)", 17, "OPTION=NUMBER expected"),
    ],
)
def test_a_name_that_does_not_parse_points_at_the_character_and_lists_the_grammar(name, character, why):
    with pytest.raises(InvalidInputError) as error:
        names.load_player(NAVIGATION, "adversary", name)
    message = str(error.value)
    assert f"opponent={name!r}, character {character}: {why}" in message
    assert "write NAME, or NAME(OPTION=NUMBER,...) such as wind(strength=1)" in message
    assert "options of wind: strength: a number in [0.2, 1], noise:" in message
    assert "\n" not in message


def test_opponents_with_options_play_everywhere():
    env = gymnasium.make("metaduel/Navigation-v0", opponent="wind(strength=0.5,noise=0.1)")
    assert env.reset(seed=0)[1]["opponent"] == "wind(strength=0.5,noise=0.1)"
    config = TrainConfig(game="Navigation", against_protagonist=("wind(strength=0.5)", "idle"))
    assert config.opponents("protagonist") == ("wind(strength=0.5)", "idle")
    with pytest.raises(InvalidInputError, match="wnd"):
        TrainConfig(game="Navigation", against_protagonist=("wnd(strength=0.5)",))


def test_sampled_opponents_of_the_two_splits_share_no_numbers():
    train, held_out = (metaduel.sample_opponents("Navigation", 6, "adversary", split) for split in OPPONENT_SPLITS)
    numbers = [[name.partition("noise=")[2].partition(",")[0] for name in names] for names in (train, held_out)]
    assert all(one != other for one, other in zip(*numbers, strict=True))


def test_a_suite_takes_the_names_that_environments_take():
    TrainConfig(game="Navigation", against_protagonist=("wind (noise=0.1)", "Navigation:idle"))
    for name in ("wind(nois=0.1)", "wind(noise=0.1", "Navigation:wnd"):
        with pytest.raises(InvalidInputError, match=r"wind|wnd"):
            TrainConfig(game="Navigation", against_protagonist=(name,))


def test_bad_numbers_of_sampled_opponents_are_refused():
    for seed in (1.5, "x", None):
        with pytest.raises(InvalidInputError, match="must be a whole number"):
            zoo.sample_opponents("Navigation", 2, seed=seed)
    for n in (0, True, 1.5):
        with pytest.raises(InvalidInputError, match="whole number of at least 1 opponent"):
            zoo.sample_opponents("Navigation", n)


def test_an_unknown_opponent_split_is_refused():
    with pytest.raises(InvalidInputError, match=r"unknown opponent split 'validation'.*held_out, train"):
        names.names(NAVIGATION.spec, "adversary", "validation")
