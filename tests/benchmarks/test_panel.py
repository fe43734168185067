"""Ratings of scripted players, and how far held-out ones are from the training ones."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from metaduel.benchmarks.tools import panel
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.game import make_game
from metaduel.envs.core.registry import find
from metaduel.envs.players.scripted import scripted


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


def test_a_player_never_disagrees_with_itself(monkeypatch):
    spec = find("Navigation")
    duel, role = Duel(make_game(spec), horizon=10), "protagonist"
    params = duel.game.params([{}] * 3)
    train = spec.opponents[role]["train"]
    monkeypatch.setattr(panel, "names", lambda spec, role, split: train)
    known = scripted(spec, role)
    compared = 0
    for name, found in panel.nearest(duel, role, params, torch.arange(3)).items():
        if not known[name].noise:  # the shadow of a player that draws draws for itself
            assert found == {"name": name, "disagreement": 0.0}
            compared += 1
    assert compared == 2  # seeker and spiral


def stand_ins(monkeypatch, spec, role, held_out, train):
    """Only two players of a role, which follow the given rules."""
    base = next(one for one in scripted(spec, role).values() if not one.memory)
    pair = {
        name: replace(
            base, name=name, rule=lambda view, memory, noise, rule=rule: (rule(view), memory), memory=0, noise=0
        )
        for name, rule in (("held out", held_out), ("train", train))
    }
    known = {other: scripted(spec, other) for other in spec.opponents}
    monkeypatch.setattr(panel, "scripted", lambda spec, of: pair if of == role else known[of])
    monkeypatch.setattr(panel, "names", lambda spec, role, split: ("train",) if split == "train" else ("held out",))


def test_in_turn_based_games_the_own_turns_alone_count(monkeypatch):
    spec = find("KuhnPoker")
    duel = Duel(make_game(spec))
    params, seeds = duel.game.params([{}] * 4), torch.arange(4)

    def own_turn(view):
        return duel.game.turn(view.params, view.state) == 0

    def off_turn(view):
        return torch.where(own_turn(view), 0, 1)

    def every_turn(view):
        return torch.ones_like(view.step)

    def never(view):
        return torch.zeros_like(view.step)

    stand_ins(monkeypatch, spec, "protagonist", never, off_turn)
    assert panel.nearest(duel, "protagonist", params, seeds)["held out"]["disagreement"] == 0.0
    stand_ins(monkeypatch, spec, "protagonist", never, every_turn)
    assert panel.nearest(duel, "protagonist", params, seeds)["held out"]["disagreement"] == 1.0


def test_steps_after_the_end_do_not_count(monkeypatch):
    # One walker steps onto its goal and ends the episode after a step; from the second step on the two differ.
    spec = find("Navigation")
    duel = Duel(make_game(spec), horizon=5)
    params = duel.game.params([{"goal_x": 0.1, "goal_y": 0.0, "push": 0.0}] * 2)
    east = torch.tensor([1.0, 0.0])
    stand_ins(
        monkeypatch, spec, "protagonist",
        lambda view: east.expand(len(view.step), 2),
        lambda view: torch.where((view.step == 0).unsqueeze(1), east, -east),
    )  # fmt: skip
    assert panel.nearest(duel, "protagonist", params, torch.arange(2))["held out"]["disagreement"] == 0.0


def test_disagreement_is_a_share_of_the_largest_distance(monkeypatch):
    # Two pushes of full strength in opposite directions: 2 apart, in a square whose diagonal is 2 sqrt(2).
    spec = find("Navigation")
    duel = Duel(make_game(spec), horizon=4)
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
