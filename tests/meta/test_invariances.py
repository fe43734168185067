"""Tasks are rows of one batch, and know nothing of each other."""

import pytest
import torch

from metaduel.agents.objective.config import LossConfig
from metaduel.agents.policies.base import stack
from metaduel.agents.policies.mlp import MLPPolicy
from metaduel.benchmarks.tools.proofs.cases import DISCOUNT, Case, start
from metaduel.benchmarks.tools.proofs.sampled import row_gradients
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.game import make_game
from metaduel.envs.core.registry import find
from metaduel.envs.core.tasks import sample_tasks, task_rows
from metaduel.meta.adaptation.inner import adapt_step
from metaduel.meta.problems.duels import DuelProblem, Matchups

ROLES = ("protagonist", "adversary")
SPEC = find("IteratedPrisonersDilemma")
TASKS = task_rows(SPEC, sample_tasks(SPEC, 5, "train", 0), {})
EPISODES, SEED = 6, 11
CASES = [Case("maml", "lvc"), Case("maml", "dice", {"peer": True}), Case("fomaml", "lvc"), Case("meta_sgd", "dice")]
CASES += [Case("anil", "lvc"), Case("promp", "lvc"), Case("maml_trpo", "lvc"), Case("meta_mapg", "dice")]


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def problem(case, tasks=TASKS, seed=SEED):
    """The default loss, normalised, with baselines per task; row r of seed s has the noise of row 0 of seed s + r."""
    policy = MLPPolicy(5, SPEC.action_spaces["protagonist"], hidden=())
    loss = LossConfig(case.surrogate, DISCOUNT, DISCOUNT)
    duel = Duel(make_game(SPEC), 4, dtype=torch.float64)
    return DuelProblem(duel, dict.fromkeys(ROLES, policy), Matchups(tasks, duels=len(tasks)), EPISODES, seed, loss)


def updated(case, batch, steps=2):
    """Weights [N, D] per role after each update."""
    learner, found = case.learner(steps), []
    players = {role: stack(start()[role], len(batch.matchups.tasks)) for role in ROLES}
    for shot in range(steps):
        players = {r: {n: v.detach().requires_grad_() for n, v in w.items()} for r, w in players.items()}
        losses = batch.draw(players, shot).losses(players, learner.config.peer)
        rates = {role: learner.rates(role)[shot] for role in ROLES}
        players = adapt_step(players, losses.support, rates, False, learner.config.peer)
        found.append({r: torch.cat([v.flatten(1) for v in w.values()], 1).detach() for r, w in players.items()})
    return found


def everything(case, batch):
    """Per role an iteration's result on each task: weights after every update and its outer gradient, [N, 3 D]."""
    gradients = row_gradients(case.learner(2), batch)
    steps = updated(case, batch)
    return {role: torch.cat([*(step[role] for step in steps), gradients[role]], 1) for role in ROLES}


def same(ours, exact):
    assert all(torch.allclose(ours[role], exact[role], rtol=1e-10, atol=1e-12) for role in ROLES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(case.labels))
def test_permuting_tasks_permutes_updates(case):
    order = torch.tensor([3, 0, 4, 1, 2])
    ours, permuted = problem(case), problem(case, TASKS[order])
    permuted.seeds = ours.seeds.view(len(TASKS), EPISODES)[order].flatten()  # the noise goes with the task
    expected = everything(case, ours)
    same(everything(case, permuted), {role: rows[order] for role, rows in expected.items()})
    rows = expected["protagonist"]
    assert not torch.allclose(rows, rows[order])  # tasks differ


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(case.labels))
def test_many_tasks_in_one_call_equal_as_many_calls(case):
    alone = [everything(case, problem(case, TASKS[i : i + 1], SEED + i * EPISODES)) for i in range(len(TASKS))]
    same(everything(case, problem(case)), {role: torch.cat([one[role] for one in alone]) for role in ROLES})


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(case.labels))
def test_a_task_does_not_depend_on_its_neighbours(case):
    others = TASKS.clone()
    others[[0, 1, 3, 4]] += 0.7
    ours, theirs = everything(case, problem(case)), everything(case, problem(case, others))
    for role in ROLES:
        assert torch.allclose(ours[role][2], theirs[role][2], rtol=1e-10, atol=1e-12)
        assert not torch.allclose(ours[role][3], theirs[role][3])


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(case.labels))
def test_the_outer_gradient_is_the_mean_over_tasks(case):
    found = case.learner(2).gradients(problem(case))
    rows = row_gradients(case.learner(2), problem(case))
    for role in ROLES:
        ours = torch.cat([value.flatten() for value in found[role][0].values()])
        assert torch.allclose(ours, rows[role].mean(0), rtol=1e-10, atol=1e-12)
