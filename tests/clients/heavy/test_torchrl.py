"""TorchRL: its own check of environments, and a step of PPO on its rollouts, in every interface."""

import gymnasium
import pettingzoo
import pytest
import torch

pytest.importorskip("torchrl", reason='needs the extra "clients": make test-clients')

from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torchrl.data import Binary
from torchrl.envs import ActionMask, GymWrapper, PettingZooWrapper, TransformedEnv
from torchrl.envs import default_info_dict_reader as info_reader
from torchrl.envs.utils import check_env_specs
from torchrl.modules import MaskedCategorical, ProbabilisticActor, TanhNormal, ValueOperator
from torchrl.modules.distributions import NormalParamExtractor
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE

import metaduel
from metaduel.envs.adapters.pettingzoo_parallel import task_number
from metaduel.envs.core import tasks

SEATS = ("protagonist", "adversary")
FORMS = {
    "Navigation": ("Navigation", {}),
    "RockPaperScissors": ("RockPaperScissors", {}),
    "KuhnPoker": ("KuhnPoker", {}),
    "KuhnPoker-observation": ("KuhnPoker", {"action_mask": "observation"}),
}
both_seats = pytest.mark.parametrize(("game", "form"), FORMS.values(), ids=list(FORMS))
one_seat = pytest.mark.parametrize("game", ["Navigation", "RockPaperScissors"])


def train(data, actions):
    """One step of PPO: the loss is finite and changes the actor. Counts of actions make logits, other actions means."""
    torch.manual_seed(0)
    size = data["observation"].shape[-1]
    if actions:
        body = torch.nn.Linear(size, actions)
        head = {"in_keys": {"logits": "logits", "mask": "action_mask"}, "distribution_class": MaskedCategorical}
        actor = ProbabilisticActor(TensorDictModule(body, ["observation"], ["logits"]), return_log_prob=True, **head)
    else:
        body = torch.nn.Sequential(torch.nn.Linear(size, 2 * data["action"].shape[-1]), NormalParamExtractor())
        head = {"in_keys": ["loc", "scale"], "distribution_class": TanhNormal}
        actor = ProbabilisticActor(
            TensorDictModule(body, ["observation"], ["loc", "scale"]), return_log_prob=True, **head
        )
    critic = ValueOperator(torch.nn.Linear(size, 1), in_keys=["observation"])
    loss = ClipPPOLoss(actor, critic)
    GAE(gamma=0.99, lmbda=0.95, value_network=critic)(data)
    with torch.no_grad():
        data["action_log_prob"] = actor.get_dist(data).log_prob(data["action"])
    before = [weight.clone() for weight in body.parameters()]
    optimizer = torch.optim.Adam(loss.parameters(), 1e-2)
    values = loss(data)
    total = values["loss_objective"] + values["loss_critic"] + values["loss_entropy"]
    total.backward()
    optimizer.step()
    assert torch.isfinite(total)
    assert any(not torch.equal(old, new) for old, new in zip(before, body.parameters(), strict=True))


def data_of(rollout, prefix=()):
    """One seat's part of a rollout, without the dimension of agents: what it saw, did and got."""

    def part(*key):
        value = rollout[(*key[:-1], *prefix, key[-1])]
        while not isinstance(value, torch.Tensor):  # a mask in the observation leaves a dictionary of it
            value = value["observation"]
        return value[:, 0] if prefix else value

    action = part("action")
    has_mask = "action_mask" in rollout[prefix].keys() if prefix else "action_mask" in rollout.keys()  # noqa: SIM118
    data = {"observation": part("observation"), "action": action}
    data["next"] = {key: part("next", key) for key in ("observation", "reward", "done", "terminated")}
    if has_mask:
        data["action_mask"] = part("action_mask").bool()
    return TensorDict(data, rollout.batch_size)


def count(game):
    return int(getattr(metaduel.find(game).action_spaces["protagonist"], "n", 0))


def full_mask(data, game):
    if count(game) and "action_mask" not in data.keys():  # noqa: SIM118
        data["action_mask"] = torch.ones(*data["action"].shape, count(game), dtype=torch.bool)
    return data


def obeyed(data):
    return bool(data["action_mask"].gather(-1, data["action"].unsqueeze(-1)).all())


@one_seat
def test_single(game):
    env = GymWrapper(gymnasium.make(f"metaduel/{game}-v0"), categorical_action_encoding=True)
    check_env_specs(env)
    rollout = env.rollout(64, break_when_any_done=False)
    assert rollout.batch_size == (64,)
    train(full_mask(data_of(rollout), game), count(game))


def test_single_with_masks():
    env = GymWrapper(gymnasium.make("metaduel/KuhnPoker-v0"), categorical_action_encoding=True)
    env.set_info_dict_reader(info_reader(["action_mask"], spec={"action_mask": Binary(3, dtype=torch.int8)}))
    env = TransformedEnv(env, ActionMask())
    check_env_specs(env)
    data = data_of(env.rollout(64, break_when_any_done=False))  # an illegal action would raise
    assert obeyed(data)
    train(data, 3)


@one_seat
def test_vector(game):
    rows = gymnasium.make_vec(
        f"metaduel/{game}-v0", num_envs=3, vectorization_mode="vector_entry_point", autoreset_mode="Disabled"
    )
    env = GymWrapper(rows, categorical_action_encoding=True)
    check_env_specs(env)
    rollout = env.rollout(120, break_when_any_done=False)
    assert rollout.batch_size == (3, 120)
    assert int(rollout["next", "done"].sum()) >= 3  # every row went on after its end
    train(full_mask(data_of(rollout), game), count(game))


@both_seats
def test_parallel(game, form):
    env = PettingZooWrapper(pettingzoo.make("parallel", f"metaduel/{game}-v0", **form), return_state=True)
    check_env_specs(env)
    rollout = env.rollout(40, break_when_any_done=False)
    for seat in SEATS:
        data = data_of(rollout, (seat,))
        if game == "KuhnPoker":
            assert obeyed(data)
            assert not data["action_mask"].all()
        train(full_mask(data, game), count(game))


@both_seats
def test_aec(game, form):
    env = PettingZooWrapper(pettingzoo.make("aec", f"metaduel/{game}-v0", **form), use_mask=True)
    check_env_specs(env)
    rollout = env.rollout(40, break_when_any_done=False)  # an illegal action of the one whose turn it is would raise
    acting = torch.stack([rollout[seat, "mask"][:, 0] for seat in SEATS])
    assert (acting.sum(0) == 1).all()
    for seat in SEATS:
        train(full_mask(data_of(rollout, (seat,)), game), count(game))


def test_infos_tell_the_task_exactly():
    """TorchRL keeps them in single precision."""
    base = pettingzoo.make("parallel", "metaduel/Navigation-v0", task="held_out:3")
    rollout = PettingZooWrapper(base).rollout(3)
    name = tasks.task_id(tasks.frozen_tasks(metaduel.find("Navigation"), "held_out")[3])
    for seat in SEATS:
        told = rollout["next", seat, "info", "task"]
        assert told.dtype == torch.float32
        assert (told.long() == task_number(name)).all()
