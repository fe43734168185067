"""The robustness suite: mass and length vary, no player sees them, and one table holds all rows."""

import numpy as np
import pytest
import torch

from metaduel.benchmarks.core import suite
from metaduel.benchmarks.studies import reproduce, robustness
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.game import make_game
from metaduel.envs.core.registry import find
from metaduel.envs.players.names import load_player


def small(**changes):
    values = suite.settings("robustness") | {"seeds": 2, "factors": [0.5, 1, 1.5], "environments": 2, "episodes": 2}
    for own in values["games"].values():
        own |= {"steps": 32, "ppo": {"n_steps": 16, "n_epochs": 1, "batch_size": 16}}
    return reproduce.make(values | changes)


def test_a_small_suite_is_reported(tmp_path):
    one = small()
    found = suite.run("robustness", one, tmp_path, quiet=True)
    assert [sheet.title for sheet in found.sheets] == [f"{game}: return of the protagonist" for game in one.games]
    assert all(len(sheet.rows) == 9 for sheet in found.sheets)
    for name in found.pictures:
        assert (tmp_path / name).stat().st_size > 10_000


def test_the_same_seed_gives_the_same_rows(tmp_path):
    one = small()
    first, second = (one._play("CartPole", "RARL", 0, tmp_path)["return"] for _ in range(2))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, one._play("CartPole", "RARL", 1, tmp_path)["return"])


def test_the_grid_varies_mass_and_length_alone_and_no_player_sees_them():
    one = small()
    for game, own in one.games.items():
        spec = robustness.blindfolded(find(game))
        tasks = robustness.grid(spec, own, one.factors)
        assert len(tasks) == 9
        for a in one.factors:
            for b in one.factors:
                task = tasks[robustness.label(a, b)]
                for context in spec.contexts:
                    factor = {own.mass: a, own.length: b}.get(context.name, 1)
                    usual = own.fixed.get(context.name, context.default)
                    assert task[context.name] == pytest.approx(factor * usual)
        seen = Duel(make_game(spec)).observation_space("protagonist").shape
        assert seen == spec.observation_spaces["protagonist"].shape


def test_a_longer_pole_changes_what_a_script_gets():
    spec = robustness.blindfolded(find("CartPole"))
    duel, own = Duel(make_game(spec)), small().games["CartPole"]
    tasks = list(robustness.grid(spec, own, (0.5, 1, 1.5)).values())
    players = [load_player(duel, role, name) for role, name in (("protagonist", "coin"), ("adversary", "idle"))]
    found = robustness.test(duel, *players, tasks, 4)
    assert found.shape == (9,)
    assert len(set(found[3:6].round(3))) == 3  # lengths, at the usual mass


def test_the_random_adversary_is_even():
    u = torch.rand(10_000, 2, generator=torch.Generator().manual_seed(0))
    action, _ = robustness.Even(2).act(None, torch.zeros(10_000, 0), u)
    assert action.min() >= -1
    assert action.max() <= 1
    assert np.abs(action.mean(0).numpy()).max() < 0.03


def test_what_does_not_exist_is_refused_with_the_nearest():
    games = suite.settings("robustness")["games"]
    for own, message in (
        ({"mass": "pole_mas"}, r"unknown context of CartPole 'pole_mas' \(did you mean 'pole_mass'\?\)"),
        ({"ppo": {"learning_rat": 1}}, r"unknown setting of PPO 'learning_rat' \(did you mean 'learning_rate'\?\)"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            small(games={"CartPole": {**games["CartPole"], **own}}).cells()
    with pytest.raises(InvalidInputError, match="must ascend"):
        small(factors=[0.5, 1.5])
