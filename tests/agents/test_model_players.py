"""Models of Stable-Baselines3 and sb3-contrib as players: objects, files and frozen copies, in every family, with masks."""

import copy
import pickle
import random
import threading
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import A2C, DQN, PPO, SAC, TD3
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import VecNormalize

import metaduel
from metaduel.agents import freeze
from metaduel.agents.sb3 import MlpPlayer, PredictPlayer
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.game import View, make_game
from metaduel.envs.core.noise import SEAT, uniform
from metaduel.envs.core.registry import find
from metaduel.envs.core.spec import ROLES, other
from metaduel.envs.players.names import load_player, player_name
from metaduel.envs.players.play import steps

ON_POLICY = {"n_steps": 16, "policy_kwargs": {"net_arch": [8]}}
OFF_POLICY = {"learning_starts": 16, "buffer_size": 200, "batch_size": 8, "policy_kwargs": {"net_arch": [8]}}
SETTINGS = {
    PPO: {**ON_POLICY, "batch_size": 32, "n_epochs": 1},
    A2C: ON_POLICY,
    DQN: OFF_POLICY,
    SAC: OFF_POLICY,
    TD3: OFF_POLICY,
}


def trained(algorithm, game, role="protagonist", **settings):
    env = metaduel.make_sb3(game, num_envs=2, seat=role)
    return algorithm("MlpPolicy", env, device="cpu", seed=0, **copy.deepcopy(SETTINGS[algorithm]), **settings).learn(64)


def duel_of(game, **changes):
    return Duel(make_game(find(game)), **changes)


def views(duel, role, rows=6, length=5):
    """What a player in the seat is shown during episodes of scripted players."""
    names = [duel.spec.opponents[seat]["train"][0] for seat in ROLES]
    start = duel.reset(duel.game.params([{}] * rows), torch.arange(rows), torch.zeros(rows, dtype=torch.int64))
    seat = ROLES.index(role)
    found = [View(start.params, start.state, duel.observe(start)[seat], start.step)]
    for episode, _ in steps(duel, names, start):
        found.append(View(episode.params, episode.state, duel.observe(episode)[seat], episode.step))
        if len(found) == length:
            return found
    return found


def act(player, duel, role):
    """Actions at the views, with the same noise at every call."""
    actions = []
    for view in views(duel, role):
        rows = len(view.step)
        numbers = uniform(torch.arange(rows), view.step, SEAT[0], player.noise)
        actions.append(player.act(view, torch.zeros(rows, player.memory), numbers)[0])
    return torch.stack(actions)


def fitting(game, role):
    discrete = isinstance(find(game).action_spaces[role], spaces.Discrete)
    return (PPO, A2C, DQN) if discrete else (PPO, A2C, SAC, TD3)


@pytest.mark.parametrize("game", metaduel.games())
def test_what_was_trained_in_a_family_sits_in_it_again(game, tmp_path):
    duel = duel_of(game)
    for role in ROLES:
        for algorithm in fitting(game, role):
            model = trained(algorithm, game, role)
            model.save(tmp_path / "model")
            expected = act(load_player(duel, role, model), duel, role)
            for view, actions in zip(views(duel, role), expected, strict=True):
                right = model.predict(view.observation.numpy(), deterministic=True)[0]
                np.testing.assert_allclose(actions, right, atol=1e-6)
            trusted = f"sb3:{tmp_path / 'model.zip'}?trust={algorithm.__name__}"
            given = [trusted, freeze(model)]
            if algorithm in (PPO, A2C):
                given += [tmp_path / "model.zip", f"sb3:{tmp_path / 'model'}"]
            for one in given:
                assert torch.equal(act(load_player(duel, role, one), duel, role), expected)
            # A whole episode, through Gymnasium.
            env = gym.make(find(game).id, seat=other(role), opponent=model)
            env.reset(seed=0)
            _, info = env.step(env.action_space.sample())[::4]
            assert info["opponent"] in (algorithm.__name__, "MlpPlayer", "PredictPlayer")


def test_observation_spaces_are_compared_by_shape_and_action_spaces_by_equality(tmp_path):
    duel = duel_of("Pursuit")
    model = trained(PPO, "Pursuit")
    right = model.observation_space
    for bounds in ((-1, 1), (-np.inf, np.inf)):
        model.observation_space = model.policy.observation_space = spaces.Box(*bounds, right.shape, np.float32)
        model.save(tmp_path / "model")
        for given in (model, tmp_path / "model.zip", f"sb3:{tmp_path / 'model'}?trust=PPO", freeze(model)):
            load_player(duel, "protagonist", given)
    # It is fine-tuned, too.
    settings = {"game": "Pursuit", "roles": "protagonist", "baselines": False, "shots": 1, "episodes": 1}
    assert len(metaduel.evaluate(model, **settings, test_episodes=1, task_count=1))
    wrong = {
        "observation": spaces.Box(-1, 1, (3,), np.float32),
        "dtype": spaces.Box(-1, 1, right.shape, np.float64),
        "action": spaces.Box(-2, 2, (2,), np.float32),
    }

    class Predicts:
        calls = 0

        def __init__(self, **changed):
            self.observation_space, self.action_space = right, find("Pursuit").action_spaces["protagonist"]
            vars(self).update(changed)

        def predict(self, observation, state=None, episode_start=None, deterministic=False):
            Predicts.calls += 1
            return np.zeros((len(observation), 2), np.float32), None

    for kind, space in wrong.items():
        name = "action" if kind == "action" else "observation"
        with pytest.raises(
            InvalidInputError, match=rf"opponent=Predicts: its {name} space is Box.*, the seat's is Box"
        ):
            load_player(duel, "protagonist", Predicts(**{f"{name}_space": space}))
    assert Predicts.calls == 0  # refused before it is asked for anything
    load_player(duel, "protagonist", Predicts())
    assert Predicts.calls > 0


class Bare:
    """Has ``predict`` alone; the seat's spaces are its own."""

    name = "bare"

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return np.ones((len(observation), 2), np.float32), None


def test_an_agent_is_given_what_its_predict_takes():
    duel = duel_of("Pursuit")

    class Alone:
        def predict(self, observation):
            return np.ones((len(observation), 2), np.float32), None

    class Mode:
        def predict(self, obs, deterministic=False):
            return np.full((len(obs), 2), 1.0 if deterministic else -1.0, np.float32), None

    class Starts:
        def predict(self, observation, *, episode_start):
            return np.repeat(np.where(episode_start, 1.0, 0.5), 2).reshape(-1, 2), None

    class Anything:
        def predict(self, observation, **given):
            assert sorted(given) == ["deterministic", "episode_start", "state"]
            return np.ones((len(observation), 2), np.float32), None

    for agent in (Alone(), Mode(), Anything()):
        assert (act(load_player(duel, "adversary", agent), duel, "adversary") == 1).all()
    assert act(load_player(duel, "adversary", Starts()), duel, "adversary").unique().tolist() == [0.5, 1.0]

    class Needs:
        def predict(self, observation, temperature):
            raise AssertionError

    class Positional:
        def predict(self, observation, state, /):
            raise AssertionError

    class Unpaired:
        def predict(self, observation):
            return np.ones((len(observation), 2), np.float32)

    for agent, message in (
        (
            Needs(),
            r"its predict\(observation, temperature\) must take an observation first, and by name any of state, ep",
        ),
        (Positional(), r"its predict\(observation, state, /\) must take an observation first"),
        (Unpaired(), r"predict must return actions and a state \(None: no state\), not ndarray"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            load_player(duel, "adversary", agent)


@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: (state,)], ids=["bare", "tuple"])
def test_a_state_comes_back_as_it_was_given(wrap):
    class Counts:
        def predict(self, observation, state=None, episode_start=None, deterministic=False):
            if state is None:
                state = wrap(np.zeros((len(observation), 2), np.float32))
            assert type(state) is type(wrap(np.zeros(0)))
            steps = (state[0] if isinstance(state, tuple) else state) + 0.1
            return steps, wrap(steps)

    duel = duel_of("Pursuit")
    player, memory = load_player(duel, "adversary", Counts()), torch.zeros(6, 2)
    for i, view in enumerate(views(duel, "adversary"), 1):
        action, memory = player.act(view, memory, torch.zeros(6, 0))
        np.testing.assert_allclose(action, np.full((6, 2), 0.1 * i), atol=1e-6)


def test_what_is_a_player_and_what_is_not(tmp_path, monkeypatch):
    duel = duel_of("Pursuit")
    player = load_player(duel, "adversary", Bare())
    assert (act(player, duel, "adversary") == 1).all()
    assert (player_name(Bare()), player_name(PPO), player_name(player)) == ("bare", "ABCMeta", "Bare")
    for given, message in (
        (None, "opponent=None must be a player"),
        (3, "opponent=3 must be a player"),
        ({"a": 1}, r"opponent={'a': 1} must be a player"),
        (object(), "opponent=object object must be a player"),
        (PPO, r"opponent=PPO \(a class\) must be a player"),
        (Bare, r"opponent=Bare \(a class\) must be a player"),
        (tmp_path / "none.zip", "there is no such file"),
        (tmp_path, "is not a run folder"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            load_player(duel, "adversary", given)
    with pytest.raises(InvalidInputError, match="guard plays the adversary, not the protagonist"):
        load_player(duel, "protagonist", load_player(duel, "adversary", "guard"))
    with pytest.raises(InvalidInputError, match="plays the adversary, not the protagonist"):
        load_player(duel, "protagonist", load_player(duel, "adversary", "guard(noise=0.1)"))
    monkeypatch.setenv("HOME", str(tmp_path))
    trained(PPO, "Pursuit", "adversary").save(tmp_path / "model")
    for given in ("sb3:~/model", Path("~/model.zip"), Path("~/model")):
        load_player(duel, "adversary", given)


def test_a_model_trained_with_vec_normalize_is_refused():
    env = VecNormalize(metaduel.make_sb3("Pursuit"))
    model = PPO("MlpPolicy", env, device="cpu", **SETTINGS[PPO])
    duel = duel_of("Pursuit")
    for take in (
        lambda: load_player(duel, "protagonist", model),
        lambda: load_player(duel, "protagonist", PredictPlayer(model)),
        lambda: freeze(model),
        lambda: gym.make("metaduel/Pursuit-v0", seat="adversary", opponent=model),
    ):
        with pytest.raises(InvalidInputError, match="PPO: its model was trained with VecNormalize"):
            take()


# Live and frozen


@pytest.mark.parametrize("algorithm", [PPO, A2C, SAC, TD3, DQN], ids=lambda cls: cls.__name__)
def test_a_model_is_played_live_and_a_frozen_one_as_it_was(algorithm):
    game = "MatchingPennies" if algorithm is DQN else "Pursuit"
    model, duel = trained(algorithm, game, learning_rate=0.1), duel_of(game)
    live, frozen = (load_player(duel, "protagonist", one) for one in (model, freeze(model)))
    before = act(live, duel, "protagonist")
    assert torch.equal(before, act(frozen, duel, "protagonist"))
    outputs = [parameter.clone() for parameter in model.policy.parameters()]
    model.learn(64)
    assert any(not torch.equal(a, b) for a, b in zip(outputs, model.policy.parameters(), strict=True))
    assert torch.equal(before, act(frozen, duel, "protagonist"))
    if algorithm is not DQN:  # two actions may well stay as they are
        assert not torch.equal(before, act(live, duel, "protagonist"))
    assert player_name(freeze(model)) == f"{algorithm.__name__} at {model.num_timesteps} steps"
    assert repr(freeze(model)) == f"FrozenModel({algorithm.__name__} at {model.num_timesteps} steps)"


class Scaled(ActorCriticPolicy):
    """Its constructor's own argument is not among those that Stable-Baselines3 writes down."""

    def __init__(self, *args, scale=1.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.scale = scale

    def _predict(self, observation, deterministic=False):
        return super()._predict(observation, deterministic) * self.scale


def small_lstm(**settings):
    contrib = pytest.importorskip("sb3_contrib")
    kwargs = {"lstm_hidden_size": 8}
    env = metaduel.make_sb3("Pursuit", num_envs=2)
    return contrib.RecurrentPPO(
        "MlpLstmPolicy", env, n_steps=16, batch_size=32, seed=0, device="cpu", policy_kwargs=kwargs, **settings
    ).learn(32)


def scaled(**settings):
    env = metaduel.make_sb3("Pursuit", num_envs=2)
    kwargs = {"scale": 30.0}
    return PPO(
        Scaled, env, n_steps=16, batch_size=32, n_epochs=1, seed=0, device="cpu", policy_kwargs=kwargs, **settings
    ).learn(32)


MODELS = {
    "PPO": lambda: trained(PPO, "Pursuit"),
    "A2C with gSDE": lambda: trained(A2C, "Pursuit", use_sde=True),
    "SAC": lambda: trained(SAC, "Pursuit"),
    "DQN": lambda: trained(DQN, "MatchingPennies"),
    "RecurrentPPO": small_lstm,
    "MaskablePPO": lambda: maskable("KuhnPoker"),
    "a policy of its own": scaled,
}


@pytest.mark.parametrize("name", MODELS)
def test_a_frozen_model_predicts_the_same(name):
    model = MODELS[name]()
    frozen = freeze(model)
    states, start = [None, None], np.array([True, False, False])
    rng = np.random.default_rng(0)
    for _ in range(4):
        seen = rng.uniform(-1, 1, (3, *model.observation_space.shape)).astype(np.float32)
        found = []
        for i, one in enumerate((model, frozen)):
            for deterministic in (True, False):
                torch.manual_seed(5)
                given = (seen, states[i], start) if name == "RecurrentPPO" else (seen,)
                # A model's own predict of DQN explores; its policy, of which the copy is, does not.
                speaker = model.policy if i == 0 and name == "DQN" else one
                action, states[i] = speaker.predict(*given, deterministic=deterministic)
                found.append(action)
        np.testing.assert_array_equal(found[:2], found[2:])
        start = np.zeros(3, np.bool_)


def test_a_policy_that_python_cannot_copy_is_refused():
    model = scaled()
    model.policy.lock = threading.Lock()
    with pytest.raises(InvalidInputError, match=r"Scaled cannot be copied \(cannot pickle '_thread.lock' object\)"):
        freeze(model)


@pytest.mark.parametrize("name", MODELS)
def test_freezing_does_not_change_the_training(name):
    def weights(frozen):
        model = MODELS[name]()
        states = random.getstate(), torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
        for _ in range(frozen):
            freeze(model)
        assert random.getstate() == states[0]
        assert torch.equal(torch.get_rng_state(), states[1])
        assert np.array_equal(np.random.get_state()[1], states[2])  # noqa: NPY002
        return list(model.learn(64).policy.parameters())

    for a, b in zip(weights(0), weights(2), strict=True):
        assert torch.equal(a, b)


def test_a_learner_meets_earlier_versions_of_itself():
    env = metaduel.make_sb3("MatchingPennies", num_envs=2, seed=0)
    model = PPO("MlpPolicy", env, device="cpu", seed=0, **SETTINGS[PPO])
    for _ in range(2):
        env.set_options({"opponent": freeze(model, sample=True)})
        model.learn(32, reset_num_timesteps=False)
    duel = duel_of("MatchingPennies")
    player = load_player(duel, "adversary", freeze(model, sample=True))
    assert player.noise == 1
    assert len(act(player, duel, "adversary").unique()) == 2
    assert repr(player) == f"MlpPlayer(PPO at {model.num_timesteps} steps, sampled)"
    with pytest.raises(
        InvalidInputError, match="sample=True: only an MlpPolicy of PPO, A2C or MaskablePPO is sampled, DQN"
    ):
        freeze(trained(DQN, "MatchingPennies"), sample=True)
    for wrong in (None, Bare(), "PPO"):
        with pytest.raises(InvalidInputError, match="must be a model of Stable-Baselines3"):
            freeze(wrong)


# Copies

COPIES = {"copied": copy.deepcopy, "pickled": lambda value: pickle.loads(pickle.dumps(value))}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("given", ["live", "frozen", "frozen SAC", "saved"])
def test_an_environment_with_a_model_as_its_opponent_has_copies(given, how, tmp_path):
    model = trained(SAC if given == "frozen SAC" else PPO, "Pursuit")
    model.save(tmp_path / "model")
    opponent = {"live": model, "saved": tmp_path / "model.zip"}.get(given) or freeze(model)
    env = gym.make("metaduel/Pursuit-v0", seat="adversary")
    env.reset(seed=0, options={"opponent": opponent})
    rest = np.zeros(2, np.float32)
    env.step(rest)
    twin, other_twin = COPIES[how](env), COPIES[how](env)
    ours, theirs = ([one.step(rest)[0] for _ in range(3)] for one in (env, twin))
    np.testing.assert_array_equal(ours, theirs)
    if given == "live":  # the copy's opponent does not change with the model
        with torch.no_grad():
            model.policy.action_net.bias.add_(5)
        ours, theirs = ([one.step(rest)[0] for _ in range(3)] for one in (env, twin))
        assert not np.array_equal(ours, theirs)
        np.testing.assert_array_equal(theirs, [other_twin.step(rest)[0] for _ in range(6)][3:])


def test_a_live_player_is_copied_with_its_policy():
    model = trained(PPO, "Pursuit")
    player = load_player(duel_of("Pursuit"), "protagonist", model)
    players, policy = copy.deepcopy(([player, player], player.policy)), player.policy
    assert players[0][0] is players[0][1]
    assert players[0][0].policy is players[1] is not policy
    assert players[1].optimizer.state  # it can learn on


def test_an_agent_is_copied_where_it_can_be():
    class Counting(Bare):
        def __init__(self):
            self.calls, self.last = 0, None

        def predict(self, observation, state=None, episode_start=None, deterministic=False):
            self.calls += 1
            self.last = torch.ones(len(observation), requires_grad=True) * 2  # a result with a graph
            return np.ones((len(observation), 2), np.float32), None

    duel = duel_of("Pursuit")
    player = load_player(duel, "adversary", Counting())
    twin = copy.deepcopy(player)
    before = player.agent.calls
    act(twin, duel, "adversary")
    assert (player.agent.calls, twin.agent.calls) == (before, before + 5)
    live = load_player(duel, "protagonist", trained(SAC, "Pursuit"))
    assert torch.equal(act(copy.deepcopy(live), duel, "protagonist"), act(live, duel, "protagonist"))
    player.agent.lock = threading.Lock()
    with pytest.raises(InvalidInputError, match=r"agent=Counting cannot be copied .*freeze\(model\)"):
        copy.deepcopy(player)


@pytest.mark.parametrize("subclass", [False, True], ids=["around a model", "a subclass"])
def test_a_predict_of_its_own_is_played_and_not_the_policy_beneath(subclass):
    """Such as one that normalises what the policy sees."""

    class Model(PPO):
        def predict(self, observation, state=None, episode_start=None, deterministic=False):
            return np.full((len(observation), 2), 0.25, np.float32), None

    class Around:
        predict = Model.predict

        def __init__(self, model):
            self.policy, self.num_timesteps = model.policy, 0
            self.observation_space, self.action_space = model.observation_space, model.action_space

    kind = Model if subclass else PPO
    model = kind("MlpPolicy", metaduel.make_sb3("Navigation", 1), n_steps=8, batch_size=8, device="cpu")
    given = model if subclass else Around(model)
    duel = duel_of("Navigation")
    actions = act(load_player(duel, "protagonist", given), duel, "protagonist")
    assert torch.equal(actions, torch.full_like(actions, 0.25))
    with pytest.raises(InvalidInputError, match="has a predict of its own"):
        freeze(given)


# Masks

POKER = ("KuhnPoker", "LeducPoker")


def maskable(game, role="protagonist", **kwargs):
    contrib = pytest.importorskip("sb3_contrib")
    from sb3_contrib.common.wrappers import ActionMasker

    env = ActionMasker(
        gym.make(find(game).id, seat=role), lambda env: env.unwrapped._info()["action_mask"].astype(bool)
    )
    env.unwrapped.reset(seed=0)
    model = contrib.MaskablePPO("MlpPolicy", env, n_steps=64, batch_size=32, n_epochs=1, seed=0, device="cpu", **kwargs)
    return model.learn(64)


def with_illegal_wishes(model):
    """Make every action likely in turn, so that the mask decides."""
    with torch.no_grad():
        model.policy.action_net.weight.mul_(300)
    return model


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("game", POKER)
def test_a_masked_model_plays_legal_actions_however_it_comes(game, role, tmp_path):
    model, duel = with_illegal_wishes(maskable(game, role)), duel_of(game)
    model.save(tmp_path / "model")
    file, seat = f"sb3:{tmp_path / 'model'}", ROLES.index(role)
    player = load_player(duel, role, file)
    assert isinstance(player, MlpPlayer)
    expected = act(player, duel, role)
    wishes = 0
    for view, actions in zip(views(duel, role), expected, strict=True):
        legal = duel.game.legal(view.params, view.state)[seat]
        seen = view.observation.numpy()
        right = model.predict(seen, deterministic=True, action_masks=legal.numpy())[0]
        np.testing.assert_array_equal(actions, right)
        wishes += int((~legal.gather(1, torch.as_tensor(model.predict(seen, deterministic=True)[0]).view(-1, 1))).sum())
        for sampled in (
            load_player(duel, role, f"{file}?sample=1"),
            load_player(duel, role, freeze(model, sample=True)),
        ):
            for _ in range(3):
                drawn, _ = sampled.act(view, torch.zeros(6, 0), torch.rand(6, 1))
                assert legal.gather(1, drawn.view(-1, 1)).all()
    assert wishes > 0  # without the mask it would have chosen otherwise
    for given in (f"{file}?trust=MaskablePPO", model, freeze(model), MlpPlayer(model.policy), PredictPlayer(model)):
        assert torch.equal(act(load_player(duel, role, given), duel, role), expected)


@pytest.mark.parametrize("name", ["RecurrentPPO", "TRPO", "ARS", "TQC", "QRDQN"])
def test_models_of_sb3_contrib_sit_again(name, tmp_path):
    algorithm = getattr(pytest.importorskip("sb3_contrib"), name)
    game = "KuhnPoker" if name == "QRDQN" else "Pursuit"
    env, duel = metaduel.make_sb3(game, num_envs=2), duel_of(game)
    settings = {"ARS": {"n_delta": 2}, "TRPO": ON_POLICY, "RecurrentPPO": {"n_steps": 16, "batch_size": 32}}
    policy = "MlpLstmPolicy" if name == "RecurrentPPO" else "MlpPolicy"
    model = algorithm(policy, env, device="cpu", seed=0, **copy.deepcopy(settings.get(name, OFF_POLICY))).learn(64)
    model.save(tmp_path / "model")
    expected = act(load_player(duel, "protagonist", model), duel, "protagonist")
    for given in (f"sb3:{tmp_path / 'model'}?trust={name}", freeze(model)):
        assert torch.equal(act(load_player(duel, "protagonist", given), duel, "protagonist"), expected)


def test_predict_is_given_the_masks():
    duel = duel_of("KuhnPoker")

    class Masked:
        def predict(self, observation, state=None, episode_start=None, deterministic=False, action_masks=None):
            if action_masks is None:  # the constructor's observations
                return np.zeros(len(observation), np.int64), None
            return action_masks.argmax(1), None

    actions = act(load_player(duel, "protagonist", Masked()), duel, "protagonist")
    for view, chosen in zip(views(duel, "protagonist"), actions, strict=True):
        legal = duel.game.legal(view.params, view.state)[0]
        assert torch.equal(chosen, legal.int().argmax(1))
    assert len(actions.unique()) > 1
    contrib = pytest.importorskip("sb3_contrib")
    model = maskable("KuhnPoker")
    player = PredictPlayer(model).player_for(duel, "protagonist")
    assert player.legal is not None
    assert isinstance(model, contrib.MaskablePPO)


def test_a_masked_model_with_a_policy_of_its_own_needs_trust(tmp_path):
    from stable_baselines3.common.torch_layers import FlattenExtractor

    class Own(FlattenExtractor):
        pass

    model, duel = maskable("KuhnPoker", policy_kwargs={"features_extractor_class": Own}), duel_of("KuhnPoker")
    model.save(tmp_path / "model")
    with pytest.raises(InvalidInputError, match=r"features extractor of its own.*trust="):
        load_player(duel, "protagonist", tmp_path / "model.zip")
    player = load_player(duel, "protagonist", model)
    assert isinstance(player, PredictPlayer)
    for view, actions in zip(views(duel, "protagonist"), act(player, duel, "protagonist"), strict=True):
        assert duel.game.legal(view.params, view.state)[0].gather(1, actions.view(-1, 1)).all()
