"""Trainings with a number of steps of each player's own."""

from pathlib import Path

import pytest

from metaduel.benchmarks.core import trainings
from metaduel.benchmarks.core.trainings import VALIDATIONS, Plan, learn_steps
from metaduel.meta.runs.config import TrainConfig


@pytest.mark.parametrize("method", ["fomaml", "joint", "rl2"])
@pytest.mark.parametrize("first", [200, 20])
def test_trainings_are_validated_even_if_episodes_become_long(
    method: str, first: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 10 tasks x 4 batches x 5 episodes; their first ones have ``first`` of 200 steps each.
    config = TrainConfig(game="CartPole").override(method=method, tasks=10, episodes=5, steps=3)
    trained: list[TrainConfig] = []

    def learn(plans: list[Plan], quiet: bool = True) -> None:
        for own, folder in plans:
            folder.mkdir(parents=True)
            steps = 200 * first
            (folder / "metrics.csv").write_text(f"protagonist/player_steps,adversary/player_steps\n{steps},{steps}\n")
            trained.append(own)

    monkeypatch.setattr(trainings, "learn_all", learn)
    learn_steps([(config, 2_400_000, tmp_path)])
    begun = trained[-1]
    assert begun.player_steps == 2_400_000
    iterations = {200: 60, 20: 600}[first]
    assert begun.iterations == 10 * iterations
    assert iterations / begun.validate_every >= VALIDATIONS  # if episodes stay as they are
    assert 60 / begun.validate_every >= VALIDATIONS / 2  # if all become as long as they can
    assert begun.validate_every == {200: 10, 20: 20}[first]
