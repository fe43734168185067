"""The study of few-shot generation: its tasks, networks and distances, and the whole of it with short settings."""

import pytest
import torch

from metaduel.agents.networks import Dense
from metaduel.agents.policies.base import stack
from metaduel.benchmarks.studies.generation import study
from metaduel.benchmarks.studies.generation.judges import nearest
from metaduel.benchmarks.studies.generation.networks import Waves
from metaduel.benchmarks.studies.generation.samples import drawings, turned
from metaduel.benchmarks.studies.generation.settings import Settings
from metaduel.benchmarks.studies.generation.tasks import make_tasks
from metaduel.benchmarks.studies.images.characters import characters
from metaduel.benchmarks.studies.images.classes import digits, split
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.forgery.distance import energy_distance


@pytest.mark.parametrize(
    ("data", "shots", "methods"), [("plane", 8, ("maml", "reptile")), ("digits", 4, ("maml", "fomaml"))]
)
def test_generation_runs(tmp_path, data, shots, methods):
    settings = Settings(
        data=data, shots=shots, methods=methods, iterations=1, tasks=2, test_tasks=4, folder=tmp_path, quiet=True
    )
    found = study.main(settings)
    assert set(found) >= {*methods, "joint", "scratch", "jittered shots"}
    assert found["maml"].shape == (1, 11, 4)
    assert {"results.md", "results.csv", "steps.png", "samples.png"} <= {path.name for path in tmp_path.iterdir()}


def test_the_discriminator_cannot_change_faster_than_its_inputs():
    net = Waves(2)
    weights = {name: 5 * value.unsqueeze(0) for name, value in net.init(0).items()}
    layers = Dense((2, 16, 16, 1), slope=0.2, bounded=True)
    deep = {name: 5 * value.unsqueeze(0) for name, value in layers.init(0).items()}
    x = torch.randn(1, 200, 2, generator=torch.Generator().manual_seed(0))
    for network, own in ((net, weights), (layers, deep)):
        step = 1e-3 * torch.randn(1, 200, 2, generator=torch.Generator().manual_seed(1))
        change = (network(own, x + step) - network(own, x)).abs().squeeze(2) / step.norm(dim=2)
        assert change.max() < (1.05 if network is layers else 5)


def test_turned_drawings_are_a_class_of_their_own():
    image = torch.arange(9.0).view(3, 3)
    images = torch.stack([image, image + 10]).expand(400, 2, 3, 3)
    found = turned(images, torch.Generator().manual_seed(0))
    assert torch.equal(found[:, 1], found[:, 0] + 10)  # one symmetry for all drawings of a class
    kinds, counts = torch.unique(found[:, 0].flatten(1), dim=0, return_counts=True)
    same = (kinds == image.flatten()).all(1)
    assert 160 < counts[same] < 240  # half as they are, and one in eight each
    assert (counts[~same] > 30).all()
    assert {tuple(row.tolist()) for row in kinds[:, [0, 2, 6, 8]]} == {  # none upside down, none upright and mirrored
        (0, 2, 6, 8), (6, 0, 8, 2), (2, 8, 0, 6), (0, 6, 2, 8), (8, 2, 6, 0)
    }  # fmt: skip
    classes = split(digits(), 6, 1)
    plain, other = (drawings(classes, 8, turn=turn) for turn in (False, True))
    assert all(torch.equal(a, b) for a, b in zip(plain(3, "held_out", 1), other(3, "held_out", 1), strict=True))
    assert not torch.equal(plain(9, "train", 1)[0], other(9, "train", 1)[0])


def test_what_adapted_generators_lose_is_differentiated_through_the_witness():
    tasks, _ = make_tasks(Settings(data="digits", shots=4))
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
        return energy_distance(made.flatten(2), data[1].flatten(2)).sum()

    own = {k: v.requires_grad_() for k, v in start["protagonist"].items()}
    (slope,) = torch.autograd.grad(lost(own), [own[name]])
    way = torch.randn(own[name].shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ends = [lost({**own, name: (own[name] + sign * 1e-4 * way).detach().requires_grad_()}) for sign in (1, -1)]
    torch.testing.assert_close((ends[0] - ends[1]) / 2e-4, (slope * way).sum(), rtol=1e-4, atol=1e-7)


def test_runs_of_other_tasks_are_not_gone_on_with(tmp_path):
    study.check_folder(Settings(data="digits", shots=4, folder=tmp_path))
    study.check_folder(Settings(data="digits", shots=4, folder=tmp_path, iterations=7))
    with pytest.raises(InvalidInputError, match="name another folder"):
        study.check_folder(Settings(data="digits", shots=8, folder=tmp_path))


def test_the_witness_is_the_energy_distances():
    tasks, _ = make_tasks(Settings(data="digits", shots=4))
    players = {role: stack(weights, 2) for role, weights in tasks.init(0).items()}
    shots, made = torch.rand(2, 4, 8, 8, 1), torch.rand(2, 5, 8, 8, 1)
    said = [tasks.networks["adversary"](players["adversary"], x).squeeze(2) for x in (shots, made)]
    real, forged = (tasks.verdicts(players, x, shots, made) - own for x, own in zip((shots, made), said, strict=True))
    energy = energy_distance(shots.flatten(2), made.flatten(2))
    torch.testing.assert_close(real.mean(1) - forged.mean(1), 2.0 * energy, atol=0.02, rtol=0.02)
    bare, _ = make_tasks(Settings(data="characters", classes=10, shots=4))
    x = torch.rand(2, 3, 14, 14, 1)
    players = {role: stack(weights, 2) for role, weights in bare.init(0).items()}
    assert torch.equal(bare.verdicts(players, x, x, x), bare.networks["adversary"](players["adversary"], x).squeeze(2))


def test_a_copy_is_noticed():
    shots, fresh = torch.randn(3, 8, 2), torch.randn(3, 50, 2)
    assert (nearest(shots, shots) == 0).all()
    assert (nearest(fresh, shots) > 0.1).all()


def test_too_few_drawings():
    parts = split(characters(16, seed=3), 8, 4)
    with pytest.raises(InvalidInputError, match="shots=19: a class has 20 drawings, needs 21"):
        drawings(parts, 19)
