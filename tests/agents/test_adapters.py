"""Adapters: the inputs of a learner in NumPy, copies that play the tests, a counted environment that ends a shot for SB3."""

import random

import numpy as np
import pytest
import torch
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.policies import ActorCriticPolicy

import metaduel
from metaduel.agents.adapters.arena import GameArena
from metaduel.agents.adapters.numpy_objects import NumpyAdapter
from metaduel.agents.adapters.protocol import FixedPlayer, ShotOver, adaptation
from metaduel.agents.adapters.sb3 import SB3Adapter, learn_until_over
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.game import make_game
from metaduel.envs.core.registry import find
from metaduel.envs.core.spec import ROLES, other
from metaduel.envs.core.tasks import frozen_tasks, task_rows
from metaduel.envs.players.names import load_player
from metaduel.envs.players.play import play
from metaduel.envs.players.scripted import scripted

SPEC = find("Pursuit")
DUEL = Duel(make_game(SPEC), horizon=12)
TASKS = task_rows(SPEC, frozen_tasks(SPEC, "held_out")[:2], {})
EPISODES = 3


def arena(role="protagonist", episodes=EPISODES, seed=11, duel=DUEL, opponents=2):
    names = duel.spec.opponents[other(role)]["train"][:opponents]
    return GameArena(duel, role, TASKS, [load_player(duel, other(role), name) for name in names], episodes, seed)


class Diary:
    """Walks outwards and records its inputs."""

    def begin(self, rows, seat):
        self.rows, self.seat = rows, seat
        self.pages, self.shots = [], 0

    def act(self, observation, previous_action, previous_reward, episode_start):
        self.pages.append((observation.copy(), previous_action.copy(), previous_reward.copy(), episode_start.copy()))
        return observation[:, :2] / np.linalg.norm(observation[:, :2], axis=1, keepdims=True) * 2  # cut to the space

    def end_of_shot(self):
        self.shots += 1


def test_a_learner_in_numpy_is_told_every_reward_once_and_waits_where_it_is_over():
    place = arena()
    adapter = NumpyAdapter(Diary())
    player = adapter.start(place.seat, place.rows, 0)
    assert (player.learner.rows, player.learner.seat.role, player.learner.seat.game) == (4, "protagonist", "Pursuit")
    played = []

    class Watched:
        """The shot's experience, of which the trajectories are kept."""

        episodes, rows = EPISODES, place.rows

        def one_by_one(self):
            for episode in place.shot(0).one_by_one():
                yield type(
                    "Kept", (), {"play": lambda self, actor, episode=episode: played.append(episode.play(actor))}
                )()

    after = adapter.update(player, Watched())
    assert player.learner.pages == []
    assert after.learner.shots == 1
    pages = after.learner.pages
    starts = [i for i, page in enumerate(pages) if page[3].all()]
    assert len(starts) == EPISODES
    assert all(page[3].all() or not page[3].any() for page in pages)
    received = np.sum([page[2] for page in pages], 0) + after.reward
    returns = torch.stack([data.returns[:, 0] for data in played]).sum(0)
    np.testing.assert_allclose(received, returns.numpy(), rtol=1e-5)
    for start, end, data in zip(starts, [*starts[1:], len(pages)], played, strict=True):
        alive = data.alive[:, :, 0].numpy()  # [N, T]
        observations = np.stack([page[0] for page in pages[start:end]], 1)
        for row in range(place.rows):
            steps = int(alive[row].sum())
            np.testing.assert_array_equal(observations[row, :steps], data.observation[row, :steps, 0].numpy())
            assert (observations[row, steps:] == observations[row, min(steps, end - start - 1)]).all()
    # The previous action is the one that was played, within its bounds.
    np.testing.assert_allclose(
        pages[1][1], np.clip(pages[0][0][:, :2] / np.linalg.norm(pages[0][0][:, :2], axis=1, keepdims=True) * 2, -1, 1)
    )
    assert any(played[0].alive[row, :, 0].sum() < played[0].alive.shape[1] for row in range(4))  # some end early


def test_the_previous_action_is_the_last_one_that_was_played():
    """A row that waits goes on to be asked; what it answers then is never shown as played."""

    class Faster(Diary):
        def act(self, observation, *rest):
            super().act(observation, *rest)
            self.given = [*getattr(self, "given", []), self.rows * [[0.02 * len(self.pages), 0.0]]]
            return np.array(self.given[-1])

    adapter, place = NumpyAdapter(Faster()), arena()
    ends = []

    class Watched:
        episodes, rows = EPISODES, place.rows

        def one_by_one(self):
            for episode in place.shot(0).one_by_one():

                class Kept:
                    def play(self, actor, episode=episode):
                        ends.append(episode.play(actor).alive[:, :, 0].sum(1).int().tolist())

                yield Kept()

    learner = adapter.update(adapter.start(place.seat, place.rows, 0), Watched()).learner
    starts = [i for i, page in enumerate(learner.pages) if page[3].all()]
    for first, second, steps in zip(starts, starts[1:], ends, strict=False):
        shown = learner.pages[second][1]
        played = [learner.given[first + steps[row] - 1][row] for row in range(place.rows)]
        np.testing.assert_allclose(shown, np.array(played), atol=1e-6)
    assert any(len(set(steps)) > 1 for steps in ends)  # some rows wait for others


def test_tests_are_played_by_copies_and_change_nothing():
    place = arena()
    players = list(adaptation(NumpyAdapter(Diary()), place, 2))
    pages = [len(player.learner.pages) for player in players]
    first, second = (arena(seed=5).test(players[1]).returns for _ in range(2))
    assert torch.equal(first, second)
    assert [len(player.learner.pages) for player in players] == pages
    assert pages[0] == 0 < pages[1] < pages[2]


@pytest.mark.parametrize("role", ROLES)
def test_a_fixed_player_gets_what_play_gives(role):
    name = SPEC.opponents[role]["train"][0]
    player, place = scripted(SPEC, role)[name], arena(role)
    returns = place.test(FixedPlayer(player).start(place.seat, place.rows, 0)).returns
    size = len(TASKS) * EPISODES
    for i, opponent in enumerate(place.opponents):
        part = slice(i * size, (i + 1) * size)
        params = type(place.params)(*(column[part] for column in place.params))
        pair = (player, opponent) if role == ROLES[0] else (opponent, player)
        zeros = torch.zeros(size, dtype=torch.int64)
        whole = play(DUEL, pair, params, place.seeds[part], zeros).returns[:, ROLES.index(role)]
        torch.testing.assert_close(returns[i * 2 : (i + 1) * 2].flatten(), whole)


def test_a_rows_environment_plays_the_very_episodes_of_the_shot():
    place = arena()
    flee = load_player(DUEL, "protagonist", "flee")
    whole = place.shot(1).play(FixedPlayer(flee).start(place.seat, place.rows, 0))
    for row in range(place.rows):
        env = place.shot(1).environment(row)
        for episode in range(EPISODES):
            observation, _ = env.reset()
            steps = int(whole.alive[row, :, episode].sum())
            for step in range(steps):
                np.testing.assert_array_equal(observation, whole.observation[row, step, episode].numpy())
                action = whole.action[row, step, episode].clamp(-1, 1).numpy()
                observation, reward, terminated, truncated, _ = env.step(action)
                assert reward == pytest.approx(float(whole.reward[row, step, episode]), abs=1e-6)
            assert terminated or truncated
        env.reset()  # as libraries do by themselves
        with pytest.raises(ShotOver):
            env.step(env.action_space.sample())


def model(kind=PPO, **settings):
    return kind("MlpPolicy", metaduel.make_sb3("Pursuit", num_envs=3, horizon=12), seed=0, device="cpu", **settings)


@pytest.mark.parametrize(
    ("kind", "settings"), [(PPO, {"n_steps": 200, "batch_size": 50}), (PPO, {"n_steps": 10}), (A2C, {})]
)
def test_models_are_fine_tuned_on_as_many_episodes_as_others_have(kind, settings):
    template = model(kind, **settings)
    before = [value.clone() for value in template.policy.state_dict().values()]
    steps = template.num_timesteps
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    torch.manual_seed(3)
    state = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    place = arena()
    first, second = (list(adaptation(SB3Adapter(template), arena(), 2, seed=4)) for _ in range(2))
    assert state == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())  # noqa: NPY002
    same = zip(before, template.policy.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in same)
    assert template.num_timesteps == steps
    returns = [[place.test(player).returns for player in players] for players in (first, second)]
    assert all(torch.equal(a, b) for a, b in zip(*returns, strict=True))
    for row in range(place.rows):
        weights = [player.policies[row].state_dict()["action_net.weight"] for player in first]
        assert not torch.equal(weights[0], weights[1])
        assert not torch.equal(weights[1], weights[2])
        # One step for each that its episodes have, and not one more.
        played = first[2].rows.models[row].num_timesteps - steps
        assert played <= 2 * EPISODES * 12


@pytest.mark.parametrize("n_steps", [8, 500])
def test_a_masked_model_is_fine_tuned_and_tested_on_legal_actions(n_steps):
    sb3_contrib = pytest.importorskip("sb3_contrib")
    poker = Duel(make_game(find("KuhnPoker")), horizon=12)
    mask = poker.mask("protagonist")
    first = find("KuhnPoker").opponents["adversary"]["train"][0]
    place = GameArena(poker, "protagonist", task_rows(find("KuhnPoker"), [{}] * 2, {}), [first], 10, 0)
    template = sb3_contrib.MaskablePPO(
        "MlpPolicy", metaduel.make_sb3("KuhnPoker", 1, horizon=12), n_steps=n_steps, batch_size=8, seed=0, device="cpu"
    )
    first, last = adaptation(SB3Adapter(template), place, 1, seed=4)
    weights = [player.policies[0].state_dict()["action_net.weight"] for player in (first, last)]
    assert not torch.equal(*weights)
    for player in (first, last):
        played = place.shot(7).play(player)
        legal = played.observation[..., mask].gather(-1, played.action.long().unsqueeze(-1)).squeeze(-1)
        assert bool((legal[played.alive > 0] > 0).all())
    assert bool((played.observation[..., mask][played.alive > 0] == 0).any())  # some actions are not


def test_a_model_with_another_rollout_buffer_is_refused_before_anything_is_played(tmp_path):
    sb3_contrib = pytest.importorskip("sb3_contrib")
    recurrent = sb3_contrib.RecurrentPPO("MlpLstmPolicy", metaduel.make_sb3("Pursuit", 1), n_steps=8, device="cpu")
    with pytest.raises(
        InvalidInputError,
        match=r"model=RecurrentPPO keeps its rollouts in a RecurrentRolloutBuffer: .* RolloutBuffer or a Maskable",
    ):
        metaduel.evaluate(["flee", recurrent], "Pursuit", ["protagonist"], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


class Scaled(ActorCriticPolicy):
    """Its constructor's own argument is not among those that Stable-Baselines3 writes down."""

    def __init__(self, *args, scale=1.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.scale = scale

    def _predict(self, observation, deterministic=False):
        return super()._predict(observation, deterministic) * self.scale


def test_a_policy_of_its_own_is_fine_tuned_as_it_is():
    template = PPO(
        Scaled, metaduel.make_sb3("Pursuit", 1), n_steps=8, batch_size=8, device="cpu", policy_kwargs={"scale": 30.0}
    )
    *_, player = adaptation(SB3Adapter(template), arena(opponents=1), 1)
    for row, policy in enumerate(player.policies):
        learned = player.rows.models[row].policy
        assert policy.scale == learned.scale == 30
        seen = np.ones((1, 16), np.float32)
        np.testing.assert_array_equal(*(one.predict(seen, deterministic=True)[0] for one in (policy, learned)))


def test_what_an_unfinished_rollout_holds_is_learned():
    """``learn`` on its own would discard an episode shorter than ``n_steps``."""
    ppo = PPO(
        "MlpPolicy",
        arena(episodes=1).shot(0).environment(0),
        n_steps=500,
        batch_size=5,
        n_epochs=1,
        seed=0,
        device="cpu",
    )
    before = ppo.policy.state_dict()["action_net.weight"].clone()
    learn_until_over(ppo)
    assert 0 < ppo.num_timesteps - 1 <= 12
    assert ppo._n_updates == 1
    assert not torch.equal(before, ppo.policy.state_dict()["action_net.weight"])
    assert (ppo.rollout_buffer.buffer_size, ppo.rollout_buffer.pos) == (500, 0)


def test_a_player_of_sb3_is_updated_once():
    adapter, place = SB3Adapter(model(n_steps=10)), arena()
    player = adapter.start(place.seat, place.rows, 0)
    adapter.update(player, place.shot(0))
    with pytest.raises(ValueError, match="it has learned on already"):
        adapter.update(player, place.shot(1))
