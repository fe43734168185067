"""The outer steps of the dynamics benchmark, by hand, and its report."""

import math

import numpy as np
import pytest
import torch

from metaduel import cli
from metaduel.benchmarks.studies import dynamics
from metaduel.benchmarks.studies.dynamics import AllPlays, Averaged, Curve, Extragradient, Optimistic, Plain
from metaduel.envs.core.errors import InvalidInputError
from metaduel.meta.learners.maml import MAML, MAMLConfig
from metaduel.meta.problems.problem import Losses

ROLES = ("protagonist", "adversary")
TASKS = [{"rock": 2.0, "paper": 0.5, "permutation": 0.0}, {"scissors": 1.5, "permutation": 0.0}]


class Product:
    """The protagonist wants x y to be small, the adversary large: simultaneous steps circle around (0, 0)."""

    tasks = dict.fromkeys(ROLES, 1)
    environment_steps = 0

    def draw(self, players, shot):
        return self

    def losses(self, players, joint=False):
        x, y = (players[role]["w"] for role in ROLES)
        result = {"protagonist": x[:, 0] * y.detach()[:, 0], "adversary": -x.detach()[:, 0] * y[:, 0]}
        return Losses(result, result)


def made(kind, x=1.0, y=2.0, lr=0.5, **settings):
    start = {role: {"w": torch.tensor([value], dtype=torch.float64)} for role, value in zip(ROLES, (x, y), strict=True)}
    return kind(start, MAMLConfig(steps=0, outer_lr=lr, **settings))


def at(start):
    return [start[role]["w"].item() for role in ROLES]


def adam(gradients, lr=0.5):
    """The length of Adam's last step without momentum, for the gradients so far."""
    square = 0.0
    for g in gradients:
        square = 0.999 * square + 0.001 * g * g
    return lr * gradients[-1] / math.sqrt(square / (1 - 0.999 ** len(gradients)))


def test_a_plain_step_by_hand():
    # Adam's first step is lr times the sign of the gradient: (y, -x) = (2, -1).
    learner = made(Plain)
    learner.update(Product())
    assert at(learner.start) == pytest.approx([0.5, 2.5])
    learner.update(Product())  # gradients there: 2.5 and -0.5
    assert at(learner.start) == pytest.approx([0.5 - adam([2.0, 2.5]), 2.5 - adam([-1.0, -0.5])])


def test_an_extragradient_step_by_hand():
    # Ahead is (0.5, 2.5), as above; the gradients there, 2.5 and -0.5, are followed from (1, 2).
    learner = made(Extragradient)
    learner.update(Product())
    assert at(learner.start) == pytest.approx([1.0 - adam([2.0, 2.5]), 2.0 - adam([-1.0, -0.5])])


def test_the_average_is_that_of_the_starts_so_far():
    learner, seen = made(Averaged), []
    assert at(learner.judged()[0]) == at(learner.start)
    for _ in range(4):
        learner.update(Product())
        seen.append(at(learner.start))
    assert at(learner.judged()[0]) == pytest.approx(np.mean(seen, 0).tolist())
    plain = made(Plain)
    for _ in range(4):
        plain.update(Product())
    assert at(plain.start) == at(learner.start)


def test_averages_are_of_step_sizes_too():
    learner = dynamics.make("averaged", 0.0, 0, 0.1, torch.float64)
    seen = []
    for _ in range(3):
        learner.update(dynamics.exact(TASKS, 0))
        seen.append(learner.log_rates["protagonist"].detach().clone())
    assert torch.allclose(learner.judged()[1]["protagonist"], torch.stack(seen).mean(0))
    assert not torch.equal(seen[0], seen[2])


def test_the_optimistic_one_is_the_default():
    for momentum in dynamics.MOMENTA:
        ours, theirs = made(Optimistic, momentum=momentum), made(MAML, momentum=momentum)
        other = made(Plain, momentum=momentum)
        for learner in (ours, theirs, other):
            for _ in range(5):
                learner.update(Product())
        assert at(ours.start) == at(theirs.start) != at(other.start)


def test_gradients_of_all_plays_are_exact():
    problem = dynamics.exact(TASKS, 0)
    generator = torch.Generator().manual_seed(0)
    players = {
        role: {
            "layer0.weight": torch.randn(2, 10, 3, generator=generator, dtype=torch.float64).requires_grad_(),
            "layer0.bias": torch.randn(2, 3, generator=generator, dtype=torch.float64).requires_grad_(),
        }
        for role in ROLES
    }
    p, q = (torch.softmax(players[r]["layer0.weight"][:, 0] + players[r]["layer0.bias"], -1) for r in ROLES)
    matrix = dynamics.payoffs(TASKS)[..., 0]
    value = torch.einsum("ni,nij,nj->n", p, matrix, q)
    for joint in (False, True):
        losses = problem.draw(players, 0).losses(players, joint).support
        for role, sign in zip(ROLES, (-1, 1), strict=True):
            leaves = [players[r]["layer0.bias"] for r in ROLES]
            ours = torch.autograd.grad(losses[role].sum(), leaves, retain_graph=True, materialize_grads=True)
            exact = torch.autograd.grad(sign * value.sum(), leaves, retain_graph=True)
            for r, a, b in zip(ROLES, ours, exact, strict=True):
                assert torch.allclose(a, b if joint or r == role else torch.zeros_like(b), atol=1e-12)
    with pytest.raises(InvalidInputError, match="use a method that draws its data once"):
        AllPlays(dynamics.payoffs(TASKS)).draw(players, 0).replay(None)


def test_sampled_plays_estimate_the_exact_gradients(monkeypatch):
    monkeypatch.setattr(dynamics, "EPISODES", 100_000)
    found = []
    for batch, dtype in (("exact", torch.float64), ("sampled", torch.float32)):
        learner = dynamics.make("plain", 0.0, 1, 0.1, dtype)
        gradients = learner.maml.gradients(dynamics.BATCHES[batch](TASKS, 0))
        found.append(torch.cat([gradients[role][0]["layer0.bias"].double() for role in ROLES]))
    assert found[0].norm() > 0.05
    assert (found[0] - found[1]).norm() < 0.03 * found[0].norm()


def test_exploitability_by_hand():
    # Rock, always, against uniform players, where rock wins 2 and paper 0.5 (the others 1, 1, 1.5): paper takes 0.5 and 1 from
    # rock. Against uniform players rock, paper and scissors earn (2 - 0.5) / 3, (0.5 - 1) / 3, (1 - 2) / 3: the best is 0.5;
    # (1 - 1) / 3, (1 - 1.5) / 3 and (1.5 - 1) / 3: the best is 1 / 6. Half of the sums: 0.5 and 7 / 12.
    even = {"layer0.weight": torch.zeros(2, 10, 3), "layer0.bias": torch.zeros(2, 3)}
    rock = {**even, "layer0.bias": torch.tensor([60.0, 0.0, 0.0]).expand(2, 3)}
    table = dynamics.payoffs(TASKS)
    found = dynamics.exploitability({"protagonist": rock, "adversary": even}, table)
    assert found.tolist() == pytest.approx([0.5, 7 / 12], abs=1e-6)
    # Uniform against uniform: both could have 0.5, and both 1 / 6.
    assert dynamics.uniform(TASKS) == pytest.approx((0.5 + 1 / 6) / 2)


def test_late_is_the_last_third():
    looks = np.arange(7.0)[None, :, None] * np.array([1.0, 10.0])  # [1, 7, 2]
    curve = Curve("exact", "plain", 0.0, (0, 5, 10, 15, 20, 25, 30), looks)
    assert curve.late().tolist() == [[5.0, 50.0]]  # looks 4, 5, 6


def test_optimistic_and_extragradient_hold_and_plain_steps_do_not():
    bar = dynamics.uniform(dynamics.held_out()) + dynamics.SLACK
    late = {outer: float(dynamics.train("exact", outer, 0.0, 1, 120, 0.1)[-8:].mean()) for outer in dynamics.OUTER}
    assert late["optimistic"] < bar
    assert late["extragradient"] < bar
    assert late["plain"] > bar


def test_it_writes_a_table_and_a_picture(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(dynamics, "EPISODES", 2)
    monkeypatch.setattr(dynamics, "TESTS", 3)
    cli.main(["dynamics", "--seeds", "2", "--iterations", "5", "--out", str(tmp_path)])
    lines = (tmp_path / "dynamics.md").read_text().splitlines()
    table = [line.split(" | ") for line in lines if line.startswith("| ") and "---" not in line]
    assert [row[0].strip("| ") for row in table[1:]] == [*dynamics.OUTER, *dynamics.OUTER]
    assert all(row[4].endswith("of 2") for row in table[1:])
    assert (tmp_path / "dynamics.png").read_bytes().startswith(b"\x89PNG")
    assert "dynamics.png" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seeds": 0}, "seeds=0"),
        ({"iterations": 4}, "iterations=4 must be at least 5"),
        ({"outer_lr": 0.0}, "outer_lr"),
    ],
)
def test_bad_input_is_refused(settings, message, tmp_path):
    with pytest.raises(InvalidInputError, match=message):
        dynamics.compare(**{"seeds": 1, "iterations": 5, "outer_lr": 0.1} | settings, out=tmp_path)
    assert not list(tmp_path.iterdir())
