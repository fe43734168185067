"""The study of few-shot classification: its episodes, and the whole of it with short settings."""

import pytest

from metaduel.agents.networks import Dense
from metaduel.benchmarks.studies.classification import study
from metaduel.benchmarks.studies.classification.episodes import Episodes
from metaduel.benchmarks.studies.classification.settings import Settings
from metaduel.benchmarks.studies.images.characters import characters
from metaduel.benchmarks.studies.images.classes import split
from metaduel.envs.core.errors import InvalidInputError


@pytest.fixture(scope="module")
def few():
    return characters(16, seed=3)


def test_episodes_are_what_they_say(few):
    parts = split(few, 8, 4)
    net = Dense((784, 5))
    tasks = Episodes(parts, net, ways=3, shots=2, queries=4, fresh=2, fresh_shots=1, train_queries=5)
    support, query = tasks.draw(6, "held_out", 0)
    assert support.shape == (6, 1, 6, 28, 28, 1)
    assert query.shape == (6, 12, 28, 28, 1)
    assert tasks.draw(6, "train", 0)[0].shape == (6, 2, 3, 28, 28, 1)
    known = {row.numpy().tobytes(): c for c, rows in enumerate(parts.held_out) for row in rows}
    for episode in range(6):
        of = [known[image.numpy().tobytes()] for image in support[episode, 0, ..., 0]]
        asked = [known[image.numpy().tobytes()] for image in query[episode, ..., 0]]
        assert of == [c for c in of[::2] for _ in range(2)]
        assert asked == [c for c in of[::2] for _ in range(4)]
        assert len(set(of)) == 3
        drawn = [image.numpy().tobytes() for image in (*support[episode, 0, ..., 0], *query[episode, ..., 0])]
        assert len(set(drawn)) == len(drawn)


def test_too_few_classes_or_drawings(few):
    parts, net = split(few, 8, 4), Dense((784, 5))
    with pytest.raises(InvalidInputError, match="ways=5: there are 4 classes in validation"):
        Episodes(parts, net)
    with pytest.raises(InvalidInputError, match="a class in held_out has 20 drawings, needs 21"):
        Episodes(parts, net, ways=2, shots=16)


def test_classification_runs_and_continues(tmp_path):
    settings = Settings(
        methods=("maml", "reptile"), network="dense", iterations=40, tasks=8, test_episodes=20, test_steps=2,
        classes=50, folder=tmp_path, quiet=True,
    )  # fmt: skip
    found = study.main(settings)
    assert {name: values.shape for name, values in found.items()} == {
        "maml": (1, 3, 20), "reptile": (1, 3, 20), "scratch": (1, 1, 20), "nearest centroid": (1, 1, 20),
    }  # fmt: skip
    assert found["maml"][:, 2].mean() > found["maml"][:, 0].mean() + 0.1
    assert {"results.md", "results.csv", "steps.png", "episode.png"} <= {path.name for path in tmp_path.iterdir()}
    before = (tmp_path / "results.csv").read_bytes()
    study.main(settings)  # nothing is left to train, and the same comes out
    assert (tmp_path / "results.csv").read_bytes() == before


def test_unknown_methods(tmp_path):
    with pytest.raises(InvalidInputError, match="method 'mamml' must be one of maml"):
        study.main(Settings(methods=("mamml",), folder=tmp_path))
