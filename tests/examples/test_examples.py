"""The examples run from end to end with short settings, continue where they stopped, and say what is wrong with data."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from metaduel.envs.core.errors import InvalidInputError

EXAMPLES = Path(__file__).parents[2] / "examples"


def load(name):
    """An example as a module; what it imports from beside itself is found there."""
    sys.path.insert(0, str(EXAMPLES))
    try:
        spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(EXAMPLES))


images = load("image_classes")
classification = load("few_shot_classification")
generation = load("few_shot_generation")


@pytest.fixture(scope="module")
def few():
    return images.characters(16, seed=3)


def test_characters_are_seeded_and_differ_more_between_classes_than_within(few):
    assert few.shape == (16, 20, 28, 28)
    assert 0 <= few.min() < 0.1
    assert 0.9 < few.max() <= 1
    assert torch.equal(images.characters(16, seed=3), few)
    assert not torch.equal(images.characters(16, seed=4), few)
    flat = few.flatten(2)
    within = torch.cdist(flat, flat).mean()
    between = torch.cdist(flat[:-1], flat[1:]).mean()
    assert between > 1.1 * within
    assert (few.mean((2, 3)) > 0.02).all()  # nobody left the page


def test_splits_are_disjoint_and_rotations_stay_with_their_character(few):
    parts = images.split(few, 8, 4, rotations=True)
    assert [len(part) for part in parts] == [32, 4, 4]
    assert torch.equal(parts.train[8], torch.rot90(parts.train[0], 1, (1, 2)))
    kept = [row for part in (parts.train[:8], *parts[1:]) for row in part.flatten(1)]
    assert sorted(map(float, (row.double().sum() for row in kept))) == sorted(
        map(float, few.flatten(1).double().sum(1))
    )
    with pytest.raises(InvalidInputError, match="leave none of 16 to test on"):
        images.split(few, 12, 4)


def test_digits_need_no_download():
    assert images.digits().shape == (10, 174, 8, 8)


# Omniglot's layout


def write_omniglot(folder, characters=8, drawings=4, size=105):
    generator = np.random.default_rng(0)
    for i in range(characters):
        half = "images_background" if i < 5 else "images_evaluation"
        path = folder / half / f"Alphabet_{i % 2}" / f"character{i:02d}"
        path.mkdir(parents=True)
        for j in range(drawings):
            ink = np.full((size, size), 255, np.uint8)
            ink[20:80, 20 + 10 * i : 30 + 10 * i] = generator.integers(0, 40)
            Image.fromarray(ink).convert("1").save(path / f"{i:04d}_{j:02d}.png")
    return folder


def test_omniglot_from_a_folder_in_its_layout(tmp_path):
    found = images.omniglot(write_omniglot(tmp_path))
    assert found.shape == (8, 4, 28, 28)
    assert found.min() == 0  # paper
    assert found.max() == 1  # ink
    column = found.mean((1, 2)).argmax(1)
    assert column.unique().numel() == 8  # every character is where it was drawn


def test_what_is_not_omniglot(tmp_path):
    with pytest.raises(InvalidInputError, match=r"expected images_background/.*found no such folder"):
        images.omniglot(tmp_path / "nowhere")
    (tmp_path / "photos").mkdir()
    with pytest.raises(InvalidInputError, match=r"expected images_background/.*found photos"):
        images.omniglot(tmp_path)
    (tmp_path / "images_background").mkdir()
    (tmp_path / "images_evaluation").mkdir()
    with pytest.raises(InvalidInputError, match="found no drawings"):
        images.omniglot(tmp_path)
    folder = write_omniglot(tmp_path / "mixed")
    file = next((folder / "images_evaluation").glob("*/*/*.png"))
    Image.new("L", (50, 50)).save(file)
    with pytest.raises(InvalidInputError, match=r"\(50, 50\) pixels, but others have \(105, 105\): must be one size"):
        images.omniglot(folder)
    file.unlink()
    with pytest.raises(InvalidInputError, match=r"3 drawings, but .* has 4: must be the same number"):
        images.omniglot(folder)


# Classification


def test_episodes_are_what_they_say(few):
    parts = images.split(few, 8, 4)
    net = classification.Dense((784, 5))
    tasks = classification.Episodes(parts, net, ways=3, shots=2, queries=4, fresh=2, fresh_shots=1, train_queries=5)
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
    parts, net = images.split(few, 8, 4), classification.Dense((784, 5))
    with pytest.raises(InvalidInputError, match="ways=5: there are 4 classes in validation"):
        classification.Episodes(parts, net)
    with pytest.raises(InvalidInputError, match="a class in held_out has 20 drawings, needs 21"):
        classification.Episodes(parts, net, ways=2, shots=16)
    with pytest.raises(InvalidInputError, match="shots=19: a class has 20 drawings, needs 21"):
        generation.drawings(parts, 19)


def test_classification_runs_and_continues(tmp_path):
    settings = classification.Settings(
        methods=("maml", "reptile"), network="dense", iterations=40, tasks=8, test_episodes=20, test_steps=2,
        classes=50, folder=tmp_path, quiet=True,
    )  # fmt: skip
    found = classification.main(settings)
    assert {name: values.shape for name, values in found.items()} == {
        "maml": (1, 3, 20), "reptile": (1, 3, 20), "scratch": (1, 1, 20), "nearest centroid": (1, 1, 20),
    }  # fmt: skip
    assert found["maml"][:, 2].mean() > found["maml"][:, 0].mean() + 0.1
    assert {"results.md", "results.csv", "steps.png", "episode.png"} <= {path.name for path in tmp_path.iterdir()}
    before = (tmp_path / "results.csv").read_bytes()
    classification.main(settings)  # nothing is left to train, and the same comes out
    assert (tmp_path / "results.csv").read_bytes() == before


def test_unknown_methods(tmp_path):
    with pytest.raises(InvalidInputError, match="method 'mamml' must be one of maml"):
        classification.main(classification.Settings(methods=("mamml",), folder=tmp_path))


def test_bring_your_own_task(tmp_path, monkeypatch):
    page = (EXAMPLES.parent / "docs" / "results" / "beyond-games.md").read_text()
    monkeypatch.chdir(tmp_path)
    namespace = {}
    exec(compile(page.split("```python\n")[1].split("```")[0], "beyond-games.md", "exec"), namespace)
    assert namespace["adapted"]["protagonist"]["layer0.weight"].shape == (5, 1, 40)


# Generation


@pytest.mark.parametrize(
    ("data", "shots", "methods"), [("plane", 8, ("maml", "reptile")), ("digits", 4, ("maml", "fomaml"))]
)
def test_generation_runs(tmp_path, data, shots, methods):
    settings = generation.Settings(
        data=data, shots=shots, methods=methods, iterations=1, tasks=2, test_tasks=4, folder=tmp_path, quiet=True
    )
    found = generation.main(settings)
    assert set(found) >= {*methods, "joint", "scratch", "jittered shots"}
    assert found["maml"].shape == (1, 11, 4)
    assert {"results.md", "results.csv", "steps.png", "samples.png"} <= {path.name for path in tmp_path.iterdir()}


def test_the_discriminator_cannot_change_faster_than_its_inputs():
    net = generation.Waves(2)
    weights = {name: 5 * value.unsqueeze(0) for name, value in net.init(0).items()}
    layers = generation.Dense((2, 16, 16, 1), slope=0.2, bounded=True)
    deep = {name: 5 * value.unsqueeze(0) for name, value in layers.init(0).items()}
    x = torch.randn(1, 200, 2, generator=torch.Generator().manual_seed(0))
    for network, own in ((net, weights), (layers, deep)):
        step = 1e-3 * torch.randn(1, 200, 2, generator=torch.Generator().manual_seed(1))
        change = (network(own, x + step) - network(own, x)).abs().squeeze(2) / step.norm(dim=2)
        assert change.max() < (1.05 if network is layers else 5)


def test_turned_drawings_are_a_class_of_their_own():
    image = torch.arange(9.0).view(3, 3)
    images = torch.stack([image, image + 10]).expand(400, 2, 3, 3)
    found = generation.turned(images, torch.Generator().manual_seed(0))
    assert torch.equal(found[:, 1], found[:, 0] + 10)  # one symmetry for all drawings of a class
    kinds, counts = torch.unique(found[:, 0].flatten(1), dim=0, return_counts=True)
    same = (kinds == image.flatten()).all(1)
    assert 160 < counts[same] < 240  # half as they are, and one in eight each
    assert (counts[~same] > 30).all()
    assert {tuple(row.tolist()) for row in kinds[:, [0, 2, 6, 8]]} == {  # none upside down, none upright and mirrored
        (0, 2, 6, 8), (6, 0, 8, 2), (2, 8, 0, 6), (0, 6, 2, 8), (8, 2, 6, 0)
    }  # fmt: skip
    classes = generation.split(generation.digits(), 6, 1)
    plain, other = (generation.drawings(classes, 8, turn=turn) for turn in (False, True))
    assert all(torch.equal(a, b) for a, b in zip(plain(3, "held_out", 1), other(3, "held_out", 1), strict=True))
    assert not torch.equal(plain(9, "train", 1)[0], other(9, "train", 1)[0])


def test_what_adapted_generators_lose_is_differentiated_through_the_witness():
    tasks, _ = generation.make_tasks(generation.Settings(data="digits", shots=4))
    data = tuple(tensor[..., :6, :] if i == 2 else tensor for i, tensor in enumerate(tasks.draw(1, "train", 3)))
    data = tuple(tensor.double() for tensor in data)
    start = {role: {k: v.double().unsqueeze(0) for k, v in w.items()} for role, w in tasks.init(0).items()}
    rate, name = 0.3, "layer2.weight"

    def lost(weights):
        """After two updates of the generator, the discriminator standing still."""
        for shot in range(2):
            loss = tasks.loss("protagonist", {**start, "protagonist": weights}, data, "support", shot).sum()
            slopes = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
            weights = {k: v - rate * slope for (k, v), slope in zip(weights.items(), slopes, strict=True)}
        made = tasks.made({**start, "protagonist": weights}, data[3])
        return generation.energy_distance(made.flatten(2), data[1].flatten(2)).sum()

    own = {k: v.requires_grad_() for k, v in start["protagonist"].items()}
    (slope,) = torch.autograd.grad(lost(own), [own[name]])
    way = torch.randn(own[name].shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ends = [lost({**own, name: (own[name] + sign * 1e-4 * way).detach().requires_grad_()}) for sign in (1, -1)]
    torch.testing.assert_close((ends[0] - ends[1]) / 2e-4, (slope * way).sum(), rtol=1e-4, atol=1e-7)


def test_runs_of_other_tasks_are_not_gone_on_with(tmp_path):
    generation.check_folder(generation.Settings(data="digits", shots=4, folder=tmp_path))
    generation.check_folder(generation.Settings(data="digits", shots=4, folder=tmp_path, iterations=7))
    with pytest.raises(InvalidInputError, match="name another folder"):
        generation.check_folder(generation.Settings(data="digits", shots=8, folder=tmp_path))


def test_the_witness_is_the_energy_distances():
    tasks, _ = generation.make_tasks(generation.Settings(data="digits", shots=4))
    players = {role: generation.stack(weights, 2) for role, weights in tasks.init(0).items()}
    shots, made = torch.rand(2, 4, 8, 8, 1), torch.rand(2, 5, 8, 8, 1)
    said = [tasks.networks["adversary"](players["adversary"], x).squeeze(2) for x in (shots, made)]
    real, forged = (tasks.verdicts(players, x, shots, made) - own for x, own in zip((shots, made), said, strict=True))
    energy = generation.energy_distance(shots.flatten(2), made.flatten(2))
    torch.testing.assert_close(real.mean(1) - forged.mean(1), 2.0 * energy, atol=0.02, rtol=0.02)
    bare, _ = generation.make_tasks(generation.Settings(data="characters", classes=10, shots=4))
    x = torch.rand(2, 3, 14, 14, 1)
    players = {role: generation.stack(weights, 2) for role, weights in bare.init(0).items()}
    assert torch.equal(bare.verdicts(players, x, x, x), bare.networks["adversary"](players["adversary"], x).squeeze(2))


def test_a_copy_is_noticed():
    shots, fresh = torch.randn(3, 8, 2), torch.randn(3, 50, 2)
    assert (generation.nearest(shots, shots) == 0).all()
    assert (generation.nearest(fresh, shots) > 0.1).all()
