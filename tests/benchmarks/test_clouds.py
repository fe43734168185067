"""A generator's clouds at every shot."""

import pytest
import torch
from matplotlib import image

from metaduel import cli
from metaduel.benchmarks.tools import clouds
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.purposes import Purpose
from metaduel.meta.runs.config import TrainConfig
from metaduel.meta.runs.load import load
from metaduel.meta.runs.train import train


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    config = TrainConfig(game="Forgery").override(
        iterations=1, tasks=4, episodes=2, steps=2, hidden=(4,), validate_every=1, validation_tasks=2
    )
    made = tmp_path_factory.mktemp("runs") / "run"
    train(config, made, quiet=True)
    return made


def test_the_clouds_change_with_every_shot_and_the_distance_is_theirs(folder):
    found = clouds.clouds(load(folder), tasks=3, shots=2, episodes=2, test_episodes=1)
    assert found.forged.shape == (3, 3, 5 * 50, 2)  # shots, tasks, five held-out judges x 50 steps
    assert found.forged.abs().max() <= clouds.EXTENT
    assert not torch.equal(found.forged[0], found.forged[1])
    real = clouds.real_samples(3, 50)
    for shot in range(3):
        judges = found.forged[shot].view(3, 5, 50, 2).unbind(1)
        mean = torch.stack([clouds.energy_distance(points, real) for points in judges]).mean(0)
        assert torch.allclose(found.distance[shot], mean, atol=1e-6)


def test_the_table_and_the_picture(folder, tmp_path, capsys):
    cli.main(["clouds", str(folder), "--out", str(tmp_path), "--tasks", "3", "--shots", "1", "--episodes", "2"])
    text = (tmp_path / "clouds.md").read_text()
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")]
    assert [row for row in rows if row != "---"] == ["generator", "maml", "untrained", "another real sample"]
    assert image.imread(tmp_path / "clouds.png").shape[2] in (3, 4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clouds.md", "clouds.png"]
    assert "wrote" in capsys.readouterr().out


def test_two_real_clouds_are_the_floor():
    real, again = (clouds.real_samples(4, 400, purpose) for purpose in (Purpose.CLOUDS_REAL, Purpose.CLOUDS_AGAIN))
    assert clouds.energy_distance(real, again).mean() < 0.02
    assert not torch.equal(real, again)


def test_other_runs_are_refused(tmp_path):
    config = TrainConfig(game="Navigation").override(
        iterations=1, tasks=2, episodes=1, horizon=3, steps=1, hidden=(2,), validate_every=1, validation_tasks=1
    )
    train(config, tmp_path / "run", quiet=True)
    with pytest.raises(InvalidInputError, match="trained no generator of Forgery"):
        clouds.compare((tmp_path / "run",), tmp_path / "out")
    with pytest.raises(InvalidInputError, match="tasks=0 must be at least 1"):
        clouds.compare((tmp_path / "run",), tmp_path / "out", tasks=0)
    with pytest.raises(InvalidInputError, match="tasks=101: the held_out list of Forgery holds 100 tasks"):
        clouds.compare((tmp_path / "run",), tmp_path / "out", tasks=101)
    with pytest.raises(InvalidInputError, match="name at least one run folder"):
        clouds.compare((), tmp_path / "out")
    assert not (tmp_path / "out").exists()
