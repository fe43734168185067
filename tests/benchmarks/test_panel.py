"""Ratings of scripted players, and how far held-out ones are from the training ones."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from metaduel.benchmarks import panel
from metaduel.envs.core import Duel
from metaduel.envs.opponents import scripted
from metaduel.envs.registry import find


def test_who_always_gets_more_is_rated_higher_and_equals_tie():
    returns = np.array([[1.0, 2.0, 3.0] * 20, [0.0, 1.0, 2.0] * 20, [0.0, 1.0, 2.0 + 1e-6] * 20])
    rated = panel.ratings(returns, ["strong", "weak", "as weak"])
    assert next(iter(rated)) == "strong"
    assert rated["strong"].mu - 3 * rated["strong"].sigma > rated["weak"].mu
    assert rated["weak"].mu == pytest.approx(rated["as weak"].mu)  # 1e-6 is rounding, not skill
    assert rated["strong"].mean == pytest.approx(2.0)


def test_ratings_know_the_order_of_poor_and_good_pursuers():
    found = panel.panel(find("Pursuit"), tasks=4, episodes=1)
    rated = found["adversary"]["ratings"]
    assert set(rated) == set(scripted(find("Pursuit"), "adversary"))
    assert list(rated) == sorted(rated, key=lambda name: -rated[name]["mu"])
    assert rated["guard"]["mu"] > rated["patrol"]["mu"]  # it knows the gate
    assert set(found["protagonist"]["nearest"]) == {"dodge", "patient", "creep", "flee", "gambler"}


@pytest.mark.parametrize("game", ["Navigation", "KuhnPoker"])
def test_a_player_never_disagrees_with_itself(game, monkeypatch):
    spec = find(game)
    duel, role = Duel(spec.make_game(), horizon=10), "protagonist"
    params = duel.game.params([{}] * 3)
    train = spec.opponents[role]["train"]
    monkeypatch.setattr(panel, "names", lambda spec, role, split: train)
    known = scripted(spec, role)
    for name, found in panel.nearest(duel, role, params, torch.arange(3)).items():
        if not known[name].noise:  # the shadow of a player that draws draws for itself
            assert found == {"name": name, "disagreement": 0.0}


def test_disagreement_is_a_share_of_the_largest_distance(monkeypatch):
    # Two pushes of full strength in opposite directions: 2 apart, in a square whose diagonal is 2 sqrt(2).
    spec = find("Navigation")
    duel = Duel(spec.make_game(), horizon=4)
    one, two = scripted(spec, "adversary")["repel"], scripted(spec, "adversary")["wind"]
    east = lambda view, memory, noise: (torch.tensor([[1.0, 0.0]]).expand(len(view.step), 2), memory)  # noqa: E731
    west = lambda view, memory, noise: (torch.tensor([[-1.0, 0.0]]).expand(len(view.step), 2), memory)  # noqa: E731
    players = {
        "east": replace(one, name="east", rule=east),
        "west": replace(two, name="west", rule=west, memory=0, noise=0),
    }
    monkeypatch.setattr(panel, "scripted", lambda spec, role: players if role == "adversary" else scripted(spec, role))
    monkeypatch.setattr(panel, "names", lambda spec, role, split: ("west",) if split == "train" else ("east",))
    found = panel.nearest(duel, "adversary", duel.game.params([{}] * 2), torch.arange(2))
    assert found == {"east": {"name": "west", "disagreement": round(2 / 8**0.5, 3)}}
