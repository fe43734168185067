"""E-MAML against the exact derivative of its objective: every batch that an update may be given, in a game of one step."""

import itertools

import pytest
import torch
from gymnasium import spaces

from metaduel.agents.losses import policy_gradient_loss
from metaduel.agents.policies import MLPPolicy
from metaduel.envs.errors import InvalidInputError
from metaduel.meta.config import TrainConfig
from metaduel.meta.methods import METHODS
from metaduel.meta.problem import Losses
from metaduel.meta.source import DuelSource
from metaduel.meta.train import make_learner

ROLES = ("protagonist", "adversary")
RATE = 1.5
# Rewards by own and other action: general-sum, so that no symmetry hides a mistake.
REWARD = {
    "protagonist": torch.tensor([[0.5, -1.5], [1.5, -0.2]], dtype=torch.float64),
    "adversary": torch.tensor([[-0.3, 1.1], [-1.2, 0.7]], dtype=torch.float64),
}
START = {
    "protagonist": torch.tensor([0.3, -0.4], dtype=torch.float64),
    "adversary": torch.tensor([-0.2, 0.6], dtype=torch.float64),
}
JOINT = torch.tensor(list(itertools.product((0, 1), repeat=2)))  # [4, 2] (protagonist's, adversary's)


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def rewards(joint):
    """Per role the rewards of joint actions [..., 2]."""
    return {role: REWARD[role][joint[..., 0], joint[..., 1]] for role in ROLES}


class AllBatches:
    """Each 'task' is one sequence of batches of ``episodes`` episodes that K updates may be given; what is at the end of it
    is weighed by how likely it is, and the loss after adaptation is an expectation.
    """

    def __init__(self, steps, episodes):
        batches = torch.tensor(list(itertools.product(range(4), repeat=episodes)))  # [4^E, E]
        chosen = torch.tensor(list(itertools.product(range(len(batches)), repeat=steps)))  # [B, K]
        self.drawn = JOINT[batches[chosen]]  # [B, K, E, 2]
        self.steps, self.size = steps, len(chosen)
        self.tasks = dict.fromkeys(ROLES, self.size)
        self.policy = MLPPolicy(1, spaces.Discrete(2), hidden=())
        self._likely = torch.ones(self.size)
        self._costs = []

    def log_prob(self, weights, action):
        """[B, E] of actions [B, E]."""
        ones = torch.ones(*action.shape, 1)
        return self.policy(weights, ones).log_prob(action)

    def losses(self, players, shot, joint=False):
        everything = JOINT.expand(self.size, 4, 2)
        exact = [self.log_prob(players[role], everything[..., i]) for i, role in enumerate(ROLES)]
        probability = sum(exact).exp().detach()  # [B, 4]
        value = {role: (probability * reward).sum(1) for role, reward in rewards(everything).items()}
        # Tasks are averaged over, batches summed, but not those that are yet to come.
        here = self._likely * self.size / len(JOINT) ** (self.drawn.shape[2] * (self.steps - shot))
        self._costs.append({role: -here * v for role, v in value.items()})
        query, support, drawn = {}, {}, {}
        for i, role in enumerate(ROLES):
            reward = rewards(everything)[role].unsqueeze(1)
            query[role] = here * policy_gradient_loss(
                exact[i].unsqueeze(1), reward, torch.ones_like(reward), "plain", probability
            )
            if shot < self.steps:
                seen = self.drawn[:, shot]
                reward, log_prob = rewards(seen)[role].unsqueeze(1), self.log_prob(players[role], seen[..., i])
                support[role] = policy_gradient_loss(log_prob.unsqueeze(1), reward, torch.ones_like(reward), "plain")
                drawn[role] = log_prob.sum(1)
            else:
                support[role], drawn[role] = query[role], torch.zeros(self.size)
        self._likely = self._likely * sum(drawn.values()).exp().detach()
        return Losses(support, query, {}, drawn)

    def costs(self, shot):
        return self._costs[shot]


def probabilities(logits, joint):
    """How likely batches [B, E, 2] are under logits [B, 2] per role."""
    result = 1.0
    for i, role in enumerate(ROLES):
        pi = torch.softmax(logits[role], -1)
        result = result * pi.gather(1, joint[..., i]).prod(1)
    return result


def exact(problem, start, role, outer_shots):
    """The objective by the book: an update adds rate * mean over its episodes of reward * (one-hot action - pi)."""
    logits = {r: value.expand(problem.size, 2) for r, value in start.items()}
    likely, found = torch.ones(problem.size), []
    for shot in range(problem.steps + 1):
        if shot:  # what is yet to come doesn't matter, but each row is there for all of it
            yet = len(JOINT) ** (problem.drawn.shape[2] * (problem.steps - shot))
            pi = {r: torch.softmax(value, -1) for r, value in logits.items()}
            value = torch.einsum("bi,bj,ij->b", pi[ROLES[0]], pi[ROLES[1]], REWARD[role])
            found.append(-(likely * value).sum() / yet)
        if shot < problem.steps:
            seen = problem.drawn[:, shot]
            likely = likely * probabilities(logits, seen)
            after = {}
            for i, r in enumerate(ROLES):
                score = torch.nn.functional.one_hot(seen[..., i], 2) - torch.softmax(logits[r], -1).unsqueeze(1)
                after[r] = logits[r] + 2 * RATE * (rewards(seen)[r].unsqueeze(-1) * score).mean(1)
            logits = after
    return found[-1] if outer_shots == "last" else torch.stack(found).mean()


@pytest.mark.parametrize("outer_shots", ["last", "all"])
@pytest.mark.parametrize(("steps", "episodes"), [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1)])
def test_the_gradient_is_that_of_the_objective(steps, episodes, outer_shots):
    # Logits are a weight on a constant input plus a bias, which the update moves by as much: hence 2 * RATE above.
    config = METHODS["e_maml"].configure(
        METHODS["e_maml"].settings(steps=steps, inner_lr=RATE, outer_shots=outer_shots)
    )
    start = {r: {"layer0.weight": 0.5 * v.view(1, 2), "layer0.bias": 0.5 * v} for r, v in START.items()}
    learner = METHODS["e_maml"].learner(start, config)
    ours = learner.gradients(AllBatches(steps, episodes))
    for role in ROLES:
        problem = AllBatches(steps, episodes)
        leaf = START[role].clone().requires_grad_()
        (expected,) = torch.autograd.grad(exact(problem, {**START, role: leaf}, role, outer_shots), leaf)
        for value in ours[role][0].values():
            assert torch.allclose(value.flatten(), expected, rtol=1e-9, atol=1e-12)


def test_without_the_term_it_is_another_gradient():
    start = {r: {"layer0.weight": 0.5 * v.view(1, 2), "layer0.bias": 0.5 * v} for r, v in START.items()}
    with_term, without = (
        METHODS[name].learner(start, METHODS[name].settings(steps=1, inner_lr=RATE)).gradients(AllBatches(1, 2))
        for name in ("e_maml", "maml")
    )
    for role in ROLES:
        a, b = with_term[role][0]["layer0.bias"], without[role][0]["layer0.bias"]
        assert (a - b).norm() > 0.1 * a.norm()


def test_costs_are_losses_less_what_the_other_tasks_lost():
    torch.set_default_dtype(torch.float32)
    config = TrainConfig(game="Navigation", method="e_maml", roles=("protagonist",)).override(
        tasks=3, episodes=4, horizon=6, normalise=False, discount=0.9, hidden=(4,)
    )
    source = DuelSource(config)
    problem, learner = source.problem(0), make_learner(config, source)
    learner.gradients(problem)
    data = problem._kept[1][1]["protagonist"]
    losses = -(data.reward * 0.9 ** torch.arange(6.0).view(1, 6, 1)).sum(1).mean(1) / 6
    expected = losses - torch.stack([losses[[1, 2]].mean(), losses[[0, 2]].mean(), losses[[0, 1]].mean()])
    assert torch.allclose(problem.costs(1)["protagonist"], expected.to(torch.float32), rtol=1e-5)


def test_what_the_method_needs_is_said_or_chosen():
    config = TrainConfig(game="Navigation", method="e_maml")
    assert config.objective.kind == "plain"
    with pytest.raises(InvalidInputError, match="surrogate='dice': method e_maml needs 'plain'"):
        config.override(surrogate="dice")
    for settings, message in (
        ({"peer": True}, "covers the other's learning already"),
        ({"second_order": False}, "second_order=False: E-MAML differentiates at least 1 update"),
        ({"steps": 0}, "steps=0: E-MAML differentiates at least 1 update"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            config.override(**settings)
