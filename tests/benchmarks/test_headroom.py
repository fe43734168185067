import json
from dataclasses import replace

import numpy as np
import pytest

from metaduel.benchmarks.tools import headroom
from metaduel.benchmarks.tools.headroom import Row, certify, verdict
from metaduel.benchmarks.tools.population import Budget
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.registry import find

SMALL = Budget(seeds=2, iterations=4, steps=200, epochs=2, test_episodes=1, shots=1, episodes_per_shot=2)


def rows(informed, agnostic, recurrent, start, scripted=-1.0, spread=0.01):
    noise = np.linspace(-spread, spread, 5)[:, None]
    trained = {"informed": informed, "agnostic": agnostic, "recurrent": recurrent, "random start": start}
    return [
        *(
            Row(kind, kind, np.full((5, 3), value) + noise * (1 if kind == "informed" else -1))
            for kind, value in trained.items()
        ),
        Row("sweep", "scripted", np.full((1, 3), scripted)),
        Row("random", "random", np.full((1, 3), -1.0)),
    ]


@pytest.mark.parametrize(
    ("returns", "text"),
    [
        ({"informed": 1.0, "agnostic": 0.0, "recurrent": 0.2, "start": 0.3}, "adaptation pays"),
        ({"informed": 1.0, "agnostic": 0.0, "recurrent": 0.7, "start": 0.3}, "within-episode inference"),
        ({"informed": 1.0, "agnostic": 0.0, "recurrent": 0.2, "start": 0.6}, "no adaptation needed"),
        ({"informed": 1.0, "agnostic": 0.8, "recurrent": 0.8, "start": 0.0}, "no adaptation needed"),
        ({"informed": 1.0, "agnostic": 0.0, "recurrent": 0.8, "start": 0.0, "scripted": 0.8}, "no adaptation needed"),
        ({"informed": 1.0, "agnostic": 0.0, "recurrent": 0.0, "start": 0.0, "spread": 2.0}, "no adaptation needed"),
    ],
)
def test_the_verdict_follows_from_the_returns(returns, text):
    assert verdict(rows(**returns))["verdict"] == text


def test_a_script_that_reads_the_contexts_can_be_the_ceiling():
    found = verdict([*rows(0.1, 0.0, 0.0, 0.0, spread=0.0), Row("seeker", "informed script", np.full((1, 3), 2.0))])
    assert found["informed"] == "seeker"
    assert found["headroom"]["mean"] == pytest.approx(2.0)
    assert found["verdict"] == "adaptation pays"
    # Random players get -1: the script has 2 of 3, the best trained player 0.1 of 1.1.
    assert (found["share"], found["trained_share"]) == (pytest.approx(0.6667), pytest.approx(0.0909))


def test_shares_are_of_the_headroom_over_the_best_that_does_not_adapt():
    # Best is the scripted player at 0.2: headroom 0.8, of which memory recovers (0.4 - 0.2) / 0.8; gain 1 - (-1).
    found = verdict(rows(1.0, 0.0, 0.4, 0.2, scripted=0.2, spread=0.0))
    assert found["best"] == "sweep"
    assert found["headroom"]["mean"] == pytest.approx(0.8)
    assert found["recurrent_share"] == pytest.approx(0.25)
    assert found["random_start_share"] == pytest.approx(0.0)
    assert found["share"] == pytest.approx(0.4)


def test_certifies_both_roles_and_goes_on_where_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(headroom, "RATES", (1.0,))
    spec = find("MatchingPennies")
    result = certify(spec, tmp_path, SMALL, quiet=True)
    assert json.loads((tmp_path / "headroom.json").read_text()) == result
    assert set(result["roles"]) == {"protagonist", "adversary"}
    assert result["command"] == "metaduel headroom MatchingPennies --seeds 2 --iterations 4"
    kinds = {row["kind"] for row in result["roles"]["adversary"]["players"]}
    assert kinds == {"informed", "informed script", "agnostic", "recurrent", "scripted", "random", "random start"}
    names = [row["player"] for row in result["roles"]["adversary"]["players"]]
    assert sum("taught by" in name for name in names) == 2
    for name in headroom.KINDS:
        monkeypatch.setitem(headroom.KINDS, name, None)  # nothing is played again
    assert certify(spec, tmp_path, SMALL, quiet=True) == result
    with pytest.raises(InvalidInputError, match="choose another folder"):
        certify(spec, tmp_path, replace(SMALL, seeds=3), quiet=True)
    part = next((tmp_path / "parts").iterdir())
    part.write_text("{")
    with pytest.raises(InvalidInputError, match="corrupt"):
        certify(spec, tmp_path, SMALL, quiet=True)


def test_training_a_population_learns_and_keeps_players_apart():
    # Every seed gains by training, and no two seeds are the same player.
    spec = find("MatchingPennies")
    budget = Budget(seeds=3, iterations=40, steps=2000, test_episodes=2)
    before = headroom.KINDS["informed"](
        spec, "protagonist", replace(budget, iterations=4, learning_rate=1e-9), lambda _: None
    )
    after = headroom.KINDS["informed"](spec, "protagonist", budget, lambda _: None)
    gained = after[0].returns.mean(1) - before[0].returns.mean(1)
    assert (gained > 0.02).all()
    assert len(set(after[0].returns.mean(1).tolist())) == 3


def test_bad_budgets_are_refused():
    with pytest.raises(InvalidInputError, match="seeds=1 must be at least 2"):
        Budget(seeds=1)
    with pytest.raises(InvalidInputError, match="slices=0 must be at least 1"):
        Budget(slices=0)


def test_progress_without_a_terminal_is_a_line_per_kind_of_player(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(headroom, "RATES", (1.0,))
    certify(find("MatchingPennies"), tmp_path, SMALL)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("  ")[-1] for line in lines] == [
        f"{role}: {kind}" for role in ("protagonist", "adversary") for kind in headroom.KINDS
    ]
    assert lines[0].startswith("MatchingPennies-v0  0% done")
    assert "50% done" in lines[7]
    assert " s left  " in lines[7]


def test_lessons_make_a_pupil_play_as_its_teacher():
    spec = find("Pendulum")
    budget = Budget(seeds=2, iterations=40, steps=2000, test_episodes=1)
    taught = headroom.KINDS["informed, taught"](spec, "protagonist", budget, lambda _: None)[0]
    alone = headroom.KINDS["informed"](spec, "protagonist", budget, lambda _: None)
    assert taught.player == "informed, taught by servo"
    assert taught.returns.mean() > max(row.mean for row in alone) + 20


def test_the_rates_of_the_random_start_bracket_the_best_where_episodes_end_early(monkeypatch):
    found = []
    tune = headroom.few_shot.tune_rate
    monkeypatch.setattr(headroom.few_shot, "tune_rate", lambda *given: found.append(tune(*given)) or found[-1])
    headroom.KINDS["random start"](find("CartPole"), "protagonist", Budget(seeds=2, test_episodes=3), lambda _: None)
    assert len(found) == len(headroom.LOOK_AHEAD)
    for player in found:
        assert headroom.RATES[0] < headroom.few_shot.rate_of(player) < headroom.RATES[-1]
