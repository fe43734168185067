"""Chains of episodes: the credit of their steps, and players with a memory that improve by it."""

import pytest
import torch

from metaduel.agents.objective.config import LossConfig
from metaduel.agents.trajectories import Trajectories
from metaduel.meta.adaptation.work import alone
from metaduel.meta.problems.chains import Chain
from metaduel.meta.runs.config import TrainConfig
from metaduel.meta.runs.source import DuelSource
from metaduel.meta.runs.train import make_learner

OBJECTIVE = LossConfig(discount=0.5, gae_lambda=1.0, normalise=False)


def chain_of(rewards, alive):
    """One role's chain on tasks whose observations are all 0: per episode rewards and steps played, [T, tasks] each."""
    episodes = [
        Trajectories(torch.zeros(1, *r.shape, 2), torch.zeros(1, *r.shape, 1), r.unsqueeze(0), a.unsqueeze(0))
        for r, a in zip(rewards, alive, strict=True)
    ]
    return Chain({}, {"protagonist": episodes}, {"protagonist": OBJECTIVE}, 0), episodes


def test_credit_flows_over_the_ends_of_episodes_and_over_gaps():
    # Two tasks, two episodes of two steps; on the first task the first episode ends after one step. Reward 8 at the very end of
    # the first task: its steps 0, 2, 3 are 2, 1 and 0 steps before, so with discount 0.5 they return 2, 4, 8. The second task
    # returns nothing. What differs between them is the advantage, whatever the baseline is that both share.
    rewards = [torch.zeros(2, 2), torch.tensor([[0.0, 0.0], [8.0, 0.0]])]
    alive = [torch.tensor([[1.0, 1.0], [0.0, 1.0]]), torch.ones(2, 2)]
    chain, episodes = chain_of(rewards, alive)
    data = Trajectories(*(torch.cat(parts, 1) for parts in zip(*(d[:4] for d in episodes), strict=True)))
    advantage = chain._advantages("protagonist", data)[0]  # [4 steps, 2 tasks]
    assert advantage[1, 0] == 0  # was not played
    # The shared baseline depends on the number of steps played before: 0, 1, 2 (and 3 on the second task).
    found = torch.stack([advantage[0, 0], advantage[2, 0], advantage[3, 0]]) - advantage[:3, 1]
    assert found.tolist() == pytest.approx([2.0, 4.0, 8.0], abs=1e-4)


@pytest.mark.parametrize("baseline", ["task", "batch"])
def test_a_chain_that_went_better_than_others_is_told_so(baseline):
    rewards = [torch.zeros(3, 4), torch.tensor([[0.0] * 4, [0.0] * 4, [1.0, 1.0, -1.0, -1.0]])]
    chain, episodes = chain_of(rewards, [torch.ones(3, 4)] * 2)
    chain.objectives["protagonist"] = LossConfig(discount=1.0, normalise=False, baseline=baseline)
    data = Trajectories(*(torch.cat(parts, 1) for parts in zip(*(d[:4] for d in episodes), strict=True)))
    advantage = chain._advantages("protagonist", data)[0].mean(0)
    assert advantage.tolist() == pytest.approx([1.0, 1.0, -1.0, -1.0], abs=0.05)


def test_rl2_learns_to_remember():
    """Rock-paper-scissors with one move per episode: the first is a guess, and its result pays in the others."""
    config = TrainConfig(game="RockPaperScissors", method="rl2", roles=("protagonist",)).override(
        tasks=60, episodes=4, steps=1, horizon=2, hidden=(16,), outer_lr=0.01, validation_tasks=20
    )
    source = DuelSource(config)
    learner = make_learner(config, source)
    for i in range(25):
        learner.update(source.problem(i))
    metrics = alone(source.validate(learner)).metrics
    assert metrics["protagonist/validation_return_1"] > metrics["protagonist/validation_return_0"] + 0.2


def test_the_latent_learner_moves_what_acts_and_what_predicts_apart(monkeypatch):
    config = TrainConfig(game="RockPaperScissors", method="latent").override(
        tasks=4, episodes=2, steps=1, horizon=3, hidden=(4,), outer_steps=2
    )
    source = DuelSource(config)
    learner = make_learner(config, source)
    acts = {"layer.weight", "layer.bias", "output.weight", "output.bias"}

    def moved(work):
        before = {r: {n: v.detach().clone() for n, v in w.items()} for r, w in learner.start.items()}
        work()
        return [{n for n, v in w.items() if not torch.equal(v, before[r][n])} for r, w in learner.start.items()]

    steps = []
    with monkeypatch.context() as patch:
        patch.setattr(Chain, "predictions", lambda self, players, draw: steps.append(draw) or {})
        assert moved(lambda: learner.update(source.problem(0))) == [acts, acts]
    assert steps == [0, 1]
    everything = moved(lambda: learner.update(source.problem(0)))
    assert all(acts < names and "belief.weight" in names and "decoder.weight" in names for names in everything)
