"""Ray's RLlib: one iteration of PPO in every interface, and masks by its own module for them."""

import gymnasium
import numpy as np
import pettingzoo
import pytest
import torch

ray = pytest.importorskip("ray", reason='needs the extra "clients": make test-clients')

from gymnasium import spaces  # noqa: E402
from ray.rllib.algorithms.ppo import PPOConfig  # noqa: E402
from ray.rllib.core.columns import Columns  # noqa: E402
from ray.rllib.core.rl_module import MultiRLModuleSpec, RLModuleSpec  # noqa: E402
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig  # noqa: E402
from ray.rllib.env.wrappers.pettingzoo_env import ParallelPettingZooEnv, PettingZooEnv  # noqa: E402
from ray.rllib.examples.rl_modules.classes.action_masking_rlm import ActionMaskingTorchRLModule  # noqa: E402
from ray.tune.registry import register_env  # noqa: E402

import metaduel  # noqa: E402, F401 (registers the families)

SEATS = ("protagonist", "adversary")
SMALL = DefaultModelConfig(fcnet_hiddens=[16])
every_game = pytest.mark.parametrize("game", ["Navigation", "RockPaperScissors"])


@pytest.fixture(scope="module", autouse=True)
def cluster():
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


class Masked(ActionMaskingTorchRLModule):
    """RLlib's module calls ``observations`` what PettingZoo calls ``observation``."""

    def __init__(self, *, observation_space, **kwargs):
        renamed = {"action_mask": observation_space["action_mask"], "observations": observation_space["observation"]}
        super().__init__(observation_space=spaces.Dict(renamed), **kwargs)

    def _preprocess_batch(self, batch, **kwargs):
        seen = batch[Columns.OBS]
        batch[Columns.OBS] = {"action_mask": seen["action_mask"].float(), "observations": seen["observation"]}
        return super()._preprocess_batch(batch, **kwargs)


def train(env, seats=(), rows=1, module=None):
    """One iteration of 128 steps: the steps of each learner's module, once its weights are found changed and finite."""
    register_env("duel", lambda _: env())
    config = PPOConfig().environment("duel").env_runners(num_env_runners=0, num_envs_per_env_runner=rows)
    config = config.training(train_batch_size=128, minibatch_size=64, num_epochs=1)
    if seats:
        config = config.multi_agent(policies=set(seats), policy_mapping_fn=lambda agent, *_, **__: agent)
    if module is None:
        config = config.rl_module(model_config=SMALL)
    else:
        one = RLModuleSpec(module_class=module, model_config={"fcnet_hiddens": [16], "head_fcnet_hiddens": []})
        config = config.rl_module(rl_module_spec=MultiRLModuleSpec(rl_module_specs=dict.fromkeys(seats, one)))
    algorithm = config.build_algo()
    try:
        names = seats or ("default_policy",)
        before = {name: [w.clone() for w in algorithm.get_module(name).parameters()] for name in names}
        result = algorithm.train()
        for name in names:
            after = list(algorithm.get_module(name).parameters())
            assert all(weight.isfinite().all() for weight in after)
            assert any(not torch.equal(old, new) for old, new in zip(before[name], after, strict=True))
            assert np.isfinite(float(result["learners"][name]["total_loss"]))
        assert result["env_runners"]["num_env_steps_sampled"] == 128
        return {name: int(n) for name, n in result["env_runners"]["num_module_steps_sampled"].items()}
    finally:
        algorithm.stop()


@every_game
def test_single(game):
    assert train(lambda: gymnasium.make(f"metaduel/{game}-v0")) == {"default_policy": 128}


@every_game
def test_vector(game):
    """RLlib vectorises single environments itself."""
    assert train(lambda: gymnasium.make(f"metaduel/{game}-v0"), rows=2) == {"default_policy": 128}


@every_game
def test_parallel(game):
    steps = train(lambda: ParallelPettingZooEnv(pettingzoo.make("parallel", f"metaduel/{game}-v0")), SEATS)
    assert steps == dict.fromkeys(SEATS, 128)


@every_game
def test_aec(game):
    steps = train(lambda: PettingZooEnv(pettingzoo.make("aec", f"metaduel/{game}-v0")), SEATS)
    assert sum(steps.values()) >= 128  # an agent that leaves an episode is counted too
    assert abs(steps["protagonist"] - steps["adversary"]) <= 3


def test_masks():
    """An illegal action would raise: the AEC environment of a turn-based game refuses it."""

    def env():
        return PettingZooEnv(pettingzoo.make("aec", "metaduel/LeducPoker-v0", action_mask="observation"))

    assert min(train(env, SEATS, module=Masked).values()) > 40
