"""The LOLA-DiCE reproduction: its step is the paper's, and its report agrees with the table."""

import numpy as np
import pytest
import torch

from metaduel.agents.objective.config import LossConfig
from metaduel.agents.policies.tabular import TabularPolicy
from metaduel.benchmarks.core import suite
from metaduel.benchmarks.studies import lola, reproduce
from metaduel.benchmarks.studies.lola import SPEC, TASK, Descent
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.game import make_game
from metaduel.envs.core.tasks import task_rows
from metaduel.envs.repeated_matrix_game.values import memory_one_values
from metaduel.meta.problems.duels import DuelProblem, Matchups

ROLES = ("protagonist", "adversary")


def small(**changes):
    numbers = {"look_aheads": [0, 1], "seeds": 2, "validation_seeds": 2, "epochs": 2, "episodes": 4, "every": 1}
    return reproduce.make(suite.settings("lola") | numbers | changes)


def test_descent_by_hand():
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    assert Descent({"x": x}, 0.5).step({"x": torch.tensor([3.0, -4.0])}) == 5.0
    assert x.tolist() == [1.0 - 1.5, 2.0 + 2.0]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_step_is_the_papers_along_one_logit_and_the_discounted_return(count):
    # V1(x, y + rate dV2/dy ...) with x and y logits of cooperating, by the closed form.
    horizon, rate, one = 3, 0.7, small(seeds=1, validation_seeds=1, start_std=1.0)
    learner = lola.make(one, count, rate, horizon)
    before = {role: weights["table"].detach().clone() for role, weights in learner.start.items()}
    duel, runs, repeats = Duel(make_game(SPEC), horizon), 2, 8
    policies = {role: TabularPolicy(5, 5, duel.action_space(role)) for role in ROLES}
    loss = LossConfig("dice", one.discount, one.discount, normalise=False, exact_discount=True)
    moved = {role: [] for role in ROLES}
    for repeat in range(repeats):
        problem = DuelProblem(
            duel, policies, Matchups(task_rows(SPEC, [TASK] * runs, {}), duels=runs), 2000, 10_000 * repeat, loss
        )
        learner.update(problem)
        for role in ROLES:
            table = learner.start[role]["table"]
            step = (table - before[role]).detach()
            moved[role].append((step[..., 0] - step[..., 1]) / one.outer_lr)
            table.data.copy_(before[role])
    payoffs = duel.game.params([TASK], torch.float64).payoffs
    logits = [(before[role][..., 0] - before[role][..., 1]).double() for role in ROLES]

    def value(pair, seat):
        tables = [torch.stack([x, torch.zeros_like(x)], -1).softmax(-1) for x in pair]
        return memory_one_values(*tables, payoffs, one.discount, horizon)[..., seat].sum()

    for seat, role in enumerate(ROLES):
        own, other = (logits[i].clone().requires_grad_() for i in (seat, 1 - seat))
        peer = other
        for _ in range(count):
            pair = (own, peer) if seat == 0 else (peer, own)
            peer = peer + rate * torch.autograd.grad(value(pair, 1 - seat), peer, create_graph=True)[0]
        pair = (own, peer) if seat == 0 else (peer, own)
        exact = torch.autograd.grad(value(pair, seat), own)[0].float()
        found = torch.stack(moved[role])
        error = found.std(0) / repeats**0.5
        assert float(((found.mean(0) - exact) / error).abs().max()) < 5
        assert float(error.norm() / exact.norm()) < 0.15  # else it would prove little


def test_a_small_run_is_reported(tmp_path):
    found = suite.run("lola", small(), tmp_path, quiet=True)
    report = (tmp_path / "report.md").read_text()
    assert "make reproduce-lola" in report
    assert "What differs from the paper" in report
    assert (tmp_path / "lola.png").stat().st_size > 10_000
    headline = found.sheets[0]
    assert [row[0] for row in headline.rows[-2:]] == ["naive", "1 look-ahead"]
    assert all(row[-1].endswith(" of 2") for row in headline.rows[-2:])


def test_the_rate_is_chosen_by_the_validation_runs_alone():
    one = small(inner_lr=[0.1, 0.3])
    values = {0.1: (-1.0, -2.0), 0.3: (-2.0, -1.0)}  # reported runs, validation runs
    parts = []
    for rate, (reported, validation) in values.items():
        table = np.empty((3, 4, 2))
        table[:, :2], table[:, 2:] = reported * SPEC.horizon, validation * SPEC.horizon
        parts.append(one.rows(table, 1, rate))
    assert one.chosen(parts[0].append(*parts[1:]), 1) == 0.3


def test_numbers_that_cannot_work_are_refused():
    for changes, message in (
        ({"every": 3}, "every=3 must divide epochs=2"),
        ({"seeds": 0}, "seeds=0 must be a whole number"),
        ({"inner_lr": [0.0]}, "rates must be above 0"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            small(**changes)
