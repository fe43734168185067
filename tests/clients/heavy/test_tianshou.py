"""Tianshou: a step of deep Q-learning, alone, in several rows, and in both seats of AEC, where masks are respected."""

import gymnasium
import numpy as np
import pettingzoo
import pytest

pytest.importorskip("tianshou", reason='needs the extra "clients": make test-clients')

from tianshou.algorithm.algorithm_base import policy_within_training_step
from tianshou.algorithm.modelfree.dqn import DQN, DiscreteQLearningPolicy
from tianshou.algorithm.multiagent.marl import MultiAgentOffPolicyAlgorithm
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Collector, CollectStats, VectorReplayBuffer
from tianshou.env import DummyVectorEnv, PettingZooEnv
from tianshou.utils.net.common import Net

import metaduel  # noqa: F401 (registers the families)


def learner(observations, actions):
    net = Net(state_shape=observations.shape, action_shape=int(actions.n), hidden_sizes=[16])
    policy = DiscreteQLearningPolicy(model=net, action_space=actions, eps_training=0.3)
    return DQN(policy=policy, optim=AdamOptimizerFactory(lr=1e-2))


def train(algorithm, env, rows):
    """Collect 128 steps and update once: what was collected, after checking that the weights are others, and finite."""
    collector = Collector[CollectStats](
        algorithm, DummyVectorEnv([env] * rows), VectorReplayBuffer(1000, rows), exploration_noise=True
    )
    collector.reset()
    assert collector.collect(n_step=128).n_collected_steps == 128
    before = {name: weight.clone() for name, weight in algorithm.policy.state_dict().items()}
    with policy_within_training_step(algorithm.policy):
        algorithm.update(buffer=collector.buffer, sample_size=64)
    after = algorithm.policy.state_dict()
    changed = {name for name in before if not before[name].equal(after[name])}
    assert changed
    assert all(weight.isfinite().all() for weight in after.values())
    return collector.buffer[:], changed


def test_single():
    env = gymnasium.make("metaduel/RockPaperScissors-v0")
    batch, _ = train(learner(env.observation_space, env.action_space), lambda: env, 1)
    assert set(batch.act) <= {0, 1, 2}


def test_vector():
    """Tianshou has vectors of its own, of single environments."""
    env = gymnasium.make("metaduel/RockPaperScissors-v0")
    one = learner(env.observation_space, env.action_space)
    batch, _ = train(one, lambda: gymnasium.make("metaduel/RockPaperScissors-v0"), 4)
    assert len(batch) == 128


@pytest.mark.parametrize(
    ("game", "form"),
    [
        ("RockPaperScissors", {}),
        ("KuhnPoker", {"action_mask": "observation"}),
        ("LeducPoker", {"action_mask": "observation"}),
    ],
)
def test_aec(game, form):
    def make():
        return PettingZooEnv(pettingzoo.make("aec", f"metaduel/{game}-v0", **form))

    env = make()
    seen = env.observation_space["observation"] if form else env.observation_space
    algorithm = MultiAgentOffPolicyAlgorithm(algorithms=[learner(seen, env.action_space) for _ in range(2)], env=env)
    batch, changed = train(algorithm, make, 2)
    assert set(batch.obs.agent_id) == {"protagonist", "adversary"}
    assert {name.removeprefix("_submodules.")[0] for name in changed} == {"0", "1"}  # both learned
    masks = np.asarray(batch.obs.mask)
    assert masks[np.arange(len(batch)), batch.act].all()  # and an illegal action would have raised
    assert masks.all() == (not form)


def test_parallel_is_not_supported():
    with pytest.raises(AttributeError, match="no attribute 'last'"):
        PettingZooEnv(pettingzoo.make("parallel", "metaduel/RockPaperScissors-v0"))
