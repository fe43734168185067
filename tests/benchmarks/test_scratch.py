"""PPO from scratch: its budget, its test episodes, the same numbers for the same seed, and its place in the report."""

import random

import numpy as np
import pytest
import torch

from metaduel.agents.adapters.arena import GameArena
from metaduel.agents.adapters.protocol import FixedPlayer, adaptation
from metaduel.agents.adapters.sb3 import SB3Adapter
from metaduel.agents.sb3 import MlpPlayer
from metaduel.benchmarks.core import few_shot, summary
from metaduel.benchmarks.core.evaluate import evaluate
from metaduel.benchmarks.core.few_shot import Protocol
from metaduel.benchmarks.core.report import number
from metaduel.benchmarks.core.scratch import Scratch, from_scratch, make_ppo
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.game import make_game
from metaduel.envs.core.registry import find
from metaduel.envs.core.spec import ROLES
from metaduel.envs.core.tasks import frozen_tasks, task_rows
from metaduel.envs.players.names import load_player, names
from metaduel.meta.runs.config import TrainConfig
from metaduel.meta.runs.train import train

SPEC = find("Pursuit")
PROTOCOL = Protocol(shots=2, episodes=3, test_episodes=2, task_count=4)
PART = Scratch(tasks=2, opponents=2)


def test_the_same_seed_gives_the_same_numbers_and_touches_no_global_generator():
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    opponents, returns = from_scratch(SPEC, "adversary", PROTOCOL, PART, seed=0, horizon=5)
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    assert before == after
    assert opponents == names(SPEC, "protagonist", "held_out")[:2]
    assert returns.shape == (3, 2, 2, 2)
    assert np.array_equal(returns, from_scratch(SPEC, "adversary", PROTOCOL, PART, seed=0, horizon=5)[1])
    assert not np.array_equal(returns, from_scratch(SPEC, "adversary", PROTOCOL, PART, seed=1, horizon=5)[1])
    assert not np.array_equal(returns[0], returns[2])


@pytest.mark.parametrize("role", ROLES)
def test_it_is_tested_on_the_episodes_of_every_player(role, monkeypatch):
    """A player that stands in for the network: it must get what ``evaluate_player`` gives it on the whole panel."""
    import metaduel.benchmarks.core.scratch as scratch

    model = make_ppo(Duel(make_game(SPEC), 5), role, 3, seed=7)
    player = MlpPlayer(model.policy, sample=True)
    monkeypatch.setattr(scratch, "SB3Adapter", lambda model: FixedPlayer(player))
    _, returns = from_scratch(SPEC, role, Protocol(shots=0, episodes=3, test_episodes=2, task_count=4), PART, 0, 5)
    whole = few_shot.evaluate_player(SPEC, role, PROTOCOL, "stand-in", player, 5).returns
    np.testing.assert_allclose(returns[0], whole[0, :2, :2], atol=1e-5)


def test_a_shot_is_one_rollout_of_the_episodes_that_an_adaptation_has():
    """PPO does not stop early here, so its optimiser's steps are ten epochs for each shot."""
    duel = Duel(make_game(SPEC), 5)
    model = make_ppo(duel, "protagonist", 3, seed=0)
    assert (model.n_steps, model.batch_size) == (15, 5)
    tasks = task_rows(SPEC, frozen_tasks(SPEC, "held_out")[:1], {})
    arena = GameArena(duel, "protagonist", tasks, [load_player(duel, "adversary", "guard")], 3, seed=0)
    last = list(adaptation(SB3Adapter(model), arena, 2))[-1]
    tuned = last.rows.models[0]
    assert tuned._n_updates == 2 * model.n_epochs == 20
    assert 2 * 3 <= tuned.num_timesteps <= 2 * 3 * 5


@pytest.mark.parametrize(
    ("game", "episodes", "horizon"), [("RockPaperScissors", 1, 1), ("RockPaperScissors", 4, 1), ("KuhnPoker", 2, None)]
)
def test_short_games_and_games_of_turns_are_learned(game, episodes, horizon):
    spec = find(game)
    protocol = Protocol(shots=1, episodes=episodes, test_episodes=2, task_count=1)
    _, returns = from_scratch(spec, "protagonist", protocol, Scratch(1, 1), 0, horizon)
    assert np.isfinite(returns).all()


@pytest.mark.parametrize("settings", [{"tasks": 0}, {"opponents": 1.5}])
def test_less_than_one_is_refused(settings):
    with pytest.raises(InvalidInputError, match=r"ppo_(tasks=0|opponents=1.5) must be a whole number of at least 1"):
        Scratch(**settings)


def test_an_evaluation_has_it_beside_those_that_adapt(tmp_path, monkeypatch):
    monkeypatch.setattr(few_shot, "RATES", (0.1, 1.0))
    config = TrainConfig(game="Pursuit").override(
        iterations=1, tasks=4, episodes=2, horizon=5, steps=1, hidden=(4,), validate_every=1, validation_tasks=2
    )
    train(config, tmp_path / "run", quiet=True)
    settings = {"shots": 2, "episodes": 3, "test_episodes": 2, "task_count": 4, "crossed": False}
    without = evaluate(tmp_path / "run", out=tmp_path / "without", **settings)
    table = evaluate(tmp_path / "run", out=tmp_path / "out", ppo=PART, **settings)
    own = table.filter(method=summary.SCRATCH)
    assert len(own) == 2 * 3 * 2 * 2 * 2  # roles, shots, opponents, tasks, test episodes
    assert own.values("seed") == [0]
    assert own.values("task") == ["held_out:0", "held_out:1"]
    expected = from_scratch(SPEC, "adversary", PROTOCOL, PART, seed=0, horizon=5)[1]
    np.testing.assert_allclose(own.filter(role="adversary")["return"], expected.ravel(), atol=1e-6)
    # Nothing else changes, and the sheet compares all players on the same part of the panel.
    before, after = summary.sheets(without), summary.sheets(table)
    assert [sheet for sheet in after if not sheet.title.startswith("Learning from scratch")] == before
    sheet = next(sheet for sheet in after if sheet.title.startswith("Learning from scratch: Return as protagonist"))
    assert [row[0] for row in sheet.rows] == ["maml", "random start", summary.SCRATCH]
    part = table.filter(role="protagonist", method="maml", task=("held_out:0", "held_out:1"))
    part = part.filter(opponent=own.filter(role="protagonist").values("opponent"))
    assert number(part.pivot("maml", "protagonist", 0).mean()) in sheet.rows[0][1]
    assert "on the same tasks (2) against the same opponents" in sheet.note
    assert "Learning from scratch" in (tmp_path / "out" / "report.md").read_text()
