"""Two meta-learners in a zero-sum game must not chase each other: the optimistic outer step settles where plain Adam cycles.

One play of rock-paper-scissors with random payoffs. Every joint action is an episode of one batch, weighted by its
probability, so that training is deterministic, and exploitability is exact.
"""

import pytest
import torch

from metaduel.agents.policies.base import stack
from metaduel.benchmarks.studies.dynamics import POLICY, SPEC, AllPlays, first_play
from metaduel.envs.core.game import make_game
from metaduel.envs.core.tasks import sample_tasks
from metaduel.envs.repeated_matrix_game.values import one_shot_security
from metaduel.meta.adaptation.inner import adapt_step
from metaduel.meta.adaptation.outer import OuterOptimiser
from metaduel.meta.learners import learner as parts
from metaduel.meta.learners.maml import MAML, MAMLConfig

ROLES = ("protagonist", "adversary")
ITERATIONS, TASKS = 150, 10


def payoffs(seed):
    """[TASKS, 3, 3, 2] random payoffs, in the usual order of actions: paper beats rock, and so on."""
    tasks = [{**task, "permutation": 0.0} for task in sample_tasks(SPEC, TASKS, "train", seed)]
    return make_game(SPEC).params(tasks, torch.float64).payoffs


def exploitability(strategy, payoffs):
    """Mean over tasks; the game's value is 0."""
    return float(-one_shot_security(strategy, payoffs[..., 0]).mean())


def adapted(learner, payoffs):
    """The protagonist's strategies [N, 3] after its update."""
    players = {role: stack(weights, len(payoffs)) for role, weights in learner.start.items()}
    rates = {role: learner.rates(role)[0] for role in players}
    after = adapt_step(players, AllPlays(payoffs).losses(players, 0).support, rates, create_graph=False)
    return first_play(after["protagonist"]).detach().exp()


def train(seed, momentum=0.0):
    """Mean exploitability of the adapted protagonist over the last third of training, on tasks not trained on."""
    generator = torch.Generator().manual_seed(seed)
    start = {role: POLICY.init(0, torch.float64) for role in ROLES}
    for weights in start.values():
        weights["layer0.bias"] += torch.randn(3, generator=generator, dtype=torch.float64)
    learner = MAML(start, MAMLConfig(steps=1, inner_lr=0.1, outer_lr=0.1, momentum=momentum))
    test, curve = payoffs(seed=999), []
    for iteration in range(ITERATIONS):
        learner.update(AllPlays(payoffs(seed=1000 * seed + iteration)), 1.0 - 0.9 * iteration / ITERATIONS)
        if iteration >= 2 * ITERATIONS // 3:
            curve.append(exploitability(adapted(learner, test), test))
    return sum(curve) / len(curve)


def uniform():
    test = payoffs(seed=999)
    return exploitability(torch.full((TASKS, 3), 1 / 3, dtype=torch.float64), test)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_optimistic_outer_step_settles(seed):
    assert train(seed) <= uniform() + 0.05


def test_momentum_undoes_it():
    for seed in (1, 2):
        assert train(seed, momentum=0.9) > uniform() + 0.3


def test_plain_adam_does_not(monkeypatch):
    def plain(params, lr, optimistic, momentum, max_norm, eps):
        assert optimistic  # two players learn: the default is the optimistic step
        return OuterOptimiser(params, lr, False, 0.9, max_norm, eps)

    monkeypatch.setattr(parts, "OuterOptimiser", plain)
    for seed in (1, 2):
        assert train(seed) > uniform() + 0.3


def test_exploitability_of_known_strategies():
    table = payoffs(seed=999)
    params = make_game(SPEC).params([{"rock": 2.0}], torch.float64)
    rock = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)
    assert exploitability(rock, params.payoffs) == 1.0  # paper wins 1
    assert abs(exploitability(params.equilibrium[:, 0], params.payoffs)) < 1e-12
    assert 0.1 < exploitability(torch.full((TASKS, 3), 1 / 3, dtype=torch.float64), table) < 0.5
