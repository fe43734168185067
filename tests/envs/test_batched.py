"""The batched environment of both seats: the same episodes as the core's and the Gymnasium vector's, and what it refuses."""

import copy
import pickle

import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.error import ResetNeeded

import metaduel
from metaduel.envs import BatchedEnv
from metaduel.envs.adapters.vector import SeatVectorEnv
from metaduel.envs.core import noise, registry, tasks
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.game import make_game
from metaduel.envs.core.spec import OPPONENT_SPLITS, ROLES, other
from metaduel.envs.core.trees import take_rows

SPECS = list(registry.specs().values())
every_family = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
ROWS = 4


def random_actions(spec, role, generator, rows=ROWS):
    space = spec.action_spaces[role]
    if isinstance(space, spaces.Discrete):
        return torch.randint(int(space.start), int(space.start + space.n), (rows,), generator=generator)
    low, high = torch.from_numpy(space.low), torch.from_numpy(space.high)
    return low + (high - low) * torch.rand(rows, *space.shape, generator=generator)


@every_family
def test_rows_are_the_episodes_of_the_core(spec):
    """Both seats by the caller: row i's k-th episode is the core's of seed + i, k, task and all, over many restarts."""
    env, duel, generator = metaduel.make_batched(spec, ROWS, horizon=4), Duel(make_game(spec), 4), torch.Generator()
    generator.manual_seed(0)
    seen, episode = env.reset(seed=20), [0] * ROWS
    assert isinstance(env, BatchedEnv)

    def begin(row):
        one = SeatVectorEnv(spec, 1, horizon=4)
        one.reset(seed=20 + row)
        for _ in range(episode[row]):
            one.reset()
        params = duel.game.params([one.call("get_task")[0]])
        return duel.reset(params, torch.tensor([20 + row]), torch.tensor([episode[row]]))

    alone = [begin(row) for row in range(ROWS)]
    for _ in range(13):
        for row in range(ROWS):
            assert all(torch.equal(a[[row]], b) for a, b in zip(seen, duel.observe(alone[row]), strict=True))
            assert torch.equal(
                env._rows.key[[row]], noise.episode_key(torch.tensor([20 + row]), torch.tensor([episode[row]]))
            )
        actions = tuple(random_actions(spec, role, generator) for role in ROLES)
        seen, rewards, terminated, truncated, infos = env.step(actions)
        assert not (terminated & truncated).any()
        for row in range(ROWS):
            alone[row], outcome = duel.step(alone[row], tuple(action[[row]] for action in actions))
            assert torch.equal(rewards[[row]], outcome.reward)
            assert (terminated[row], truncated[row]) == (outcome.terminated[0], outcome.truncated[0])
            last = duel.observe(alone[row])
            assert all(torch.equal(a[[row]], b) for a, b in zip(infos["final_observations"], last, strict=True))
            if terminated[row] or truncated[row]:
                episode[row] += 1
                alone[row] = begin(row)
    assert min(episode) >= 3


@every_family
@pytest.mark.parametrize("role", ROLES)
def test_a_seat_that_a_player_has_is_played_as_in_gymnasium(spec, role):
    """Every scripted player in one row, those with a memory too."""
    there = other(role)
    names = [name for split in OPPONENT_SPLITS for name in spec.opponents[there][split]]
    env = metaduel.make_batched(spec, len(names), **{there: names}, horizon=4, split="validation")
    gym = SeatVectorEnv(spec, len(names), role, names, horizon=4, split="validation", autoreset_mode="SameStep")
    me, generator = ROLES.index(role), torch.Generator()
    generator.manual_seed(1)
    assert np.array_equal(env.reset(seed=3)[me].numpy(), gym.reset(seed=3)[0])
    ended = 0
    for _ in range(10):
        action = random_actions(spec, role, generator, len(names))
        seen, rewards, terminated, truncated, infos = env.step((action, None) if me == 0 else (None, action))
        expected = gym.step(action.numpy())
        assert np.array_equal(seen[me].numpy(), expected[0])
        assert np.array_equal(rewards[:, me].numpy(), expected[1].astype(np.float32))
        assert np.array_equal(terminated.numpy(), expected[2])
        assert np.array_equal(truncated.numpy(), expected[3])
        ids = tasks.task_ids(spec.context_names, env.tasks.numpy())
        assert ids == expected[4]["task"].tolist()
        for row in torch.nonzero(terminated | truncated).flatten().tolist():
            assert np.array_equal(infos["final_observations"][me][row].numpy(), expected[4]["final_obs"][row])
            ended += 1
    assert ended >= 2 * len(names)


def idle(rows=ROWS):
    return torch.zeros(rows, 2), torch.zeros(rows, 2)


def test_what_was_handed_out_never_changes():
    env = metaduel.make_batched("Pursuit", ROWS, horizon=3)
    handed, copies = [], []
    for step in range(12):
        found = env.reset(seed=0) if step == 0 else env.step(idle())
        pairs = (found, ()) if step == 0 else (found[0], found[4]["final_observations"], found[1:4])
        handed += [tensor for pair in pairs for tensor in pair] + [env.tasks]
        copies += [tensor.clone() for tensor in handed[len(copies) :]]
    assert all(torch.equal(a, b) for a, b in zip(handed, copies, strict=True))
    assert not any(tensor.requires_grad for tensor in handed)


def test_seeds_start_again_and_resets_go_on():
    env = metaduel.make_batched("Pursuit", ROWS)
    first = env.reset(seed=5)[0]
    second = env.reset()[0]
    assert not torch.equal(first, second)
    assert torch.equal(env.reset(seed=5)[0], first)
    assert torch.equal(env.reset()[0], second)
    assert torch.equal(metaduel.make_batched("Pursuit", 2).reset(seed=6)[0], first[1:3])
    unseeded = metaduel.make_batched("Pursuit", ROWS)
    assert not torch.equal(unseeded.reset()[0], metaduel.make_batched("Pursuit", ROWS).reset()[0])


def test_settings_hold_from_each_rows_next_episode_on():
    env = metaduel.make_batched("Pursuit", ROWS, adversary="chase", horizon=2)
    spec, actions = env.spec, (idle()[0], None)
    env.reset(seed=0)
    before = env.tasks
    given = env.sample_tasks(2, seed=4)
    env.set_task([given[0], given[1], "held_out:3", None])
    env.set_split(["train", "train", "train", "validation"])
    env.set_player("adversary", ["guard", "guard", "lead", "chase"])
    twin = metaduel.make_batched("Pursuit", ROWS, adversary="chase", horizon=2)
    twin.reset(seed=0)
    assert all(torch.equal(a, b) for a, b in zip(env.step(actions)[0], twin.step(actions)[0], strict=True))
    assert torch.equal(env.tasks, before)  # not within an episode
    for _ in range(3):
        env.step(actions)
        names = spec.context_names
        now = [dict(zip(names, row, strict=True)) for row in env.tasks.tolist()]
        assert now[:3] == [*given, tasks.find_task(spec, "held_out:3")]
        assert now[3] in tasks.frozen_tasks(spec, "validation")
    assert env._players[1].names.tolist() == ["guard", "guard", "lead", "chase"]
    env.set_task(None)
    env.reset()
    assert now[0] != dict(zip(names, env.tasks[0].tolist(), strict=True))


def test_spaces_informed_roles_and_horizon():
    env = metaduel.make_batched("Pursuit", ROWS, informed="adversary", horizon=3)
    plain = metaduel.make_batched("Pursuit", ROWS)
    assert (env.num_envs, env.horizon, plain.horizon) == (ROWS, 3, registry.find("Pursuit").horizon)
    assert env.device == torch.device("cpu")
    seen = env.reset(seed=0)
    assert [one.shape for one in seen] == [(ROWS, *env.observation_spaces[role].shape) for role in ROLES]
    assert env.observation_spaces["adversary"].shape > plain.observation_spaces["adversary"].shape
    assert env.observation_spaces["protagonist"] == plain.observation_spaces["protagonist"]
    assert [bool(env.step(idle())[3].all()) for _ in range(6)] == [False, False, True] * 2


def test_masks_of_a_turn_based_game():
    env = metaduel.make_batched("KuhnPoker", ROWS)
    with pytest.raises(ResetNeeded, match="action_masks"):
        env.action_masks()
    env.reset(seed=0)
    masks = env.action_masks()
    assert [mask.dtype for mask in masks] == [torch.bool] * 2
    assert all(bool(mask.any(1).all()) for mask in masks)
    with pytest.raises(InvalidInputError, match="Pursuit has no turns"):
        metaduel.make_batched("Pursuit").action_masks()


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (torch.zeros(ROWS, 2), "must be a pair, .* not Tensor"),
        ((torch.zeros(ROWS, 2),), "must be a pair"),
        (
            (torch.zeros(ROWS, 3), torch.zeros(ROWS, 2)),
            r"protagonist's actions must be .* shape \(4, 2\), not .* \(4, 3\)",
        ),
        (
            (torch.zeros(ROWS, 2), torch.zeros(3, 2)),
            r"adversary's actions must be .* not torch.float32 of shape \(3, 2\)",
        ),
        ((torch.zeros(ROWS, 2, dtype=torch.float64), torch.zeros(ROWS, 2)), "torch.float32 .* not torch.float64"),
        ((np.zeros((ROWS, 2), np.float32), torch.zeros(ROWS, 2)), "must be a tensor .* not ndarray"),
        ((None, torch.zeros(ROWS, 2)), "protagonist's actions must be a tensor .* not NoneType"),
        (
            (torch.full((ROWS, 2), torch.nan), torch.zeros(ROWS, 2)),
            r"must be inside Box.* not \[nan, nan\] as in row 0",
        ),
        ((torch.zeros(ROWS, 2), torch.tensor([[0.0, 0], [0, 0], [0, 1.5], [0, 0]])), r"not \[0.0, 1.5\] as in row 2"),
        ((torch.zeros(ROWS, 2, device="meta"), torch.zeros(ROWS, 2)), "must be on cpu, not on meta"),
    ],
)
def test_bad_actions_are_refused_and_change_nothing(actions, message):
    env, untouched = (metaduel.make_batched("Pursuit", ROWS) for _ in range(2))
    env.reset(seed=0)
    untouched.reset(seed=0)
    with pytest.raises(InvalidInputError, match=message) as caught:
        env.step(actions)
    assert "\n" not in str(caught.value)
    assert torch.equal(env.step(idle())[0][0], untouched.step(idle())[0][0])


def test_whole_actions_are_within_their_range():
    env = metaduel.make_batched("RockPaperScissors", ROWS)
    env.reset(seed=0)
    fine = torch.full((ROWS,), 2)
    env.step((fine, fine))
    for wrong in (fine + 1, fine - 3):
        with pytest.raises(InvalidInputError, match="must be inside Discrete"):
            env.step((fine, wrong))
    with pytest.raises(InvalidInputError, match=r"torch.int64 .* not torch.float32"):
        env.step((fine, fine.float()))


def test_other_bad_input():
    env = metaduel.make_batched("Pursuit", ROWS, adversary="guard")
    for early in (lambda: env.step(idle()), lambda: env.tasks):
        with pytest.raises(ResetNeeded, match="reset"):
            early()
    env.reset(seed=0)
    refused = [
        (lambda: metaduel.make_batched("Pursuits"), "Pursuit"),
        (lambda: metaduel.make_batched("Pursuit", 0), "num_envs=0"),
        (lambda: metaduel.make_batched("Pursuit", adversary="nobody"), "nobody"),
        (lambda: metaduel.make_batched("Pursuit", protagonist="guard"), "guard"),
        (
            lambda: metaduel.make_batched("Pursuit", 2, adversary=["guard"]),
            "a list of 1 must have one item for each of 2",
        ),
        (lambda: metaduel.make_batched("Pursuit", task="held_out:1000"), "held_out:1000"),
        (lambda: metaduel.make_batched("Pursuit", split="tests"), "tests"),
        (lambda: metaduel.make_batched("Pursuit", informed="referee"), "referee"),
        (lambda: metaduel.make_batched("Pursuit", horizon=0), "horizon=0"),
        (lambda: metaduel.make_batched("Pursuit", device="abacus"), "device='abacus'"),
        (lambda: env.reset(seed=-1), "seed=-1"),
        (lambda: env.reset(seed=(1 << 63) - 2), "seed="),
        (lambda: env.step(idle()), "adversary's actions must be None: a player has the seat"),
        (lambda: env.set_player("protagonist", "guard"), "the caller plays the protagonist"),
        (lambda: env.set_player("adversary", "nobody"), "nobody"),
        (lambda: env.set_task({"nothing": 1.0}), "nothing"),
        (lambda: env.set_task([None] * 3), "a list of 3"),
        (lambda: setattr(env, "horizon", 3), "horizon=3 has no effect"),
    ]
    for call, message in refused:
        with pytest.raises(InvalidInputError, match=message.replace("(", r"\(")):
            call()


def test_copies_play_on_alike():
    env = metaduel.make_batched("Pursuit", ROWS, adversary="guard", horizon=3)
    env.reset(seed=0)
    env.step((idle()[0], None))
    twins = [copy.deepcopy(env), pickle.loads(pickle.dumps(env))]
    for _ in range(7):
        expected = env.step((idle()[0], None))
        for twin in twins:
            found = twin.step((idle()[0], None))
            assert all(torch.equal(a, b) for a, b in zip(found[0], expected[0], strict=True))


def test_rows_do_not_depend_on_the_batch():
    many, few = metaduel.make_batched("Sumo", 33, horizon=5), metaduel.make_batched("Sumo", 2, horizon=5)
    many.reset(seed=0)
    few.reset(seed=30)
    generator = torch.Generator().manual_seed(0)
    for _ in range(14):
        actions = tuple(random_actions(many.spec, role, generator, 33) for role in ROLES)
        found = many.step(actions)
        expected = few.step(tuple(action[30:32] for action in actions))
        assert all(
            torch.equal(a[30:32], b)
            for a, b in zip((*found[0], *found[1:4]), (*expected[0], *expected[1:4]), strict=True)
        )
    assert torch.equal(take_rows(many._rows, slice(30, 32)).key, few._rows.key)
