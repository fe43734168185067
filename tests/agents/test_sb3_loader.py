"""``sb3:FILE``: the right actions, no code run, and a one-line reason for everything that is refused."""

import base64
import io
import json
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import A2C, DQN, PPO, SAC

import metaduel
from metaduel.agents import sb3
from metaduel.envs.core import noise, registry
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.game import View, make_game
from metaduel.envs.players.names import load_player
from metaduel.envs.players.play import play

MODELS = {  # name -> (game, role, algorithm, policy_kwargs)
    "ppo": ("Navigation", "protagonist", PPO, {}),
    "relu": ("Navigation", "adversary", PPO, {"net_arch": {"pi": [8], "vf": [5, 6]}, "activation_fn": torch.nn.ReLU}),
    "a2c": ("RockPaperScissors", "protagonist", A2C, {"net_arch": [12]}),
}
ROWS = 33


def train(game, role, algorithm, steps=128, **kwargs):
    env = metaduel.make_sb3(game, num_envs=4, seat=role)
    short = {"n_steps": 16} if algorithm in (PPO, A2C) else {"learning_starts": 16, "buffer_size": 500}
    batch = {} if algorithm is A2C else {"batch_size": 32}
    model = algorithm("MlpPolicy", env, device="cpu", seed=0, **short, **batch, **kwargs)
    return model.learn(steps)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def models(folder):
    made = {}
    for name, (game, role, algorithm, kwargs) in MODELS.items():
        made[name] = train(game, role, algorithm, policy_kwargs=kwargs)
        made[name].save(folder / name)
    return made


@pytest.fixture(scope="module")
def ppo(folder, models):
    return folder / "ppo.zip"


def duel_of(name="ppo"):
    return Duel(make_game(registry.find(MODELS[name][0])))


def view_of(duel, role, seed=0):
    """Observations all over the space, as a player in the seat gets them."""
    space = duel.observation_space(role)
    rng = np.random.default_rng(seed)
    low, high = np.maximum(space.low, -2), np.minimum(space.high, 2)
    observation = torch.from_numpy(rng.uniform(low, high, (ROWS, *space.shape)).astype(np.float32))
    return View(None, None, observation, torch.arange(ROWS) % 3)


def load(path, name="ppo", role=None):
    return load_player(duel_of(name), role or MODELS[name][1], f"sb3:{path}")


def act(player, view):
    generator = torch.Generator().manual_seed(0)
    memory = torch.zeros(ROWS, player.memory)
    return player.act(view, memory, torch.rand(ROWS, player.noise, generator=generator))[0]


def edited(source, target, data=None, policy=None):
    """Copy a model with another ``data`` (a function of the old one) or other bytes as ``policy.pth``."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "data" and data is not None:
                content = json.loads(content)
                data(content)
                content = json.dumps(content)
            if name == "policy.pth" and policy is not None:
                content = policy
            new.writestr(name, content)
    return target


def saved(tensors):
    stream = io.BytesIO()
    torch.save(tensors, stream)
    return stream.getvalue()


class Evil:
    """Unpickling it makes a folder."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


# The right actions


@pytest.mark.parametrize("name", MODELS)
def test_actions_are_those_of_predict(folder, models, name):
    duel, role = duel_of(name), MODELS[name][1]
    view = view_of(duel, role)
    expected = models[name].predict(view.observation.numpy(), deterministic=True)[0]
    for path in (folder / f"{name}.zip", folder / name):  # SB3 adds the suffix, so it may be left out
        action = act(load(path, name), view)
        np.testing.assert_allclose(action.numpy(), expected, atol=1e-6)
        assert action.dtype == (torch.int64 if name == "a2c" else torch.float32)
    trusted = act(load(f"{folder / name}.zip?trust={MODELS[name][2].__name__}", name), view)
    np.testing.assert_allclose(trusted.numpy(), expected, atol=1e-6)
    assert len(np.unique(expected)) > 1


def test_actions_are_cut_to_the_space(ppo, models, tmp_path):
    tensors = torch.load(io.BytesIO(zipfile.ZipFile(ppo).read("policy.pth")), weights_only=True)
    tensors["action_net.bias"] = torch.tensor([5.0, -5.0])
    action = act(load(edited(ppo, tmp_path / "big.zip", policy=saved(tensors))), view_of(duel_of(), "protagonist"))
    assert action.tolist() == [[1.0, -1.0]] * ROWS


def test_sampled_actions_follow_the_policy_and_the_seats_noise(folder, models):
    player = load(f"{folder / 'a2c'}?sample=1", "a2c")
    assert player.noise == 1
    duel = duel_of("a2c")
    one = view_of(duel, "protagonist").observation[:1]
    n = 20_000
    uniforms = noise.uniform(torch.arange(n), torch.zeros(n, dtype=torch.int64), noise.SEAT[0], 1)
    view = View(None, None, one.expand(n, -1), torch.zeros(n))
    actions, _ = player.act(view, torch.zeros(n, 0), uniforms)
    expected = models["a2c"].policy.get_distribution(one).distribution.probs[0].detach()
    np.testing.assert_allclose(torch.bincount(actions, minlength=3) / n, expected, atol=0.015)
    # Gaussian: mean plus standard deviation times normals, cut to the space.
    player, duel = load(f"{folder / 'ppo'}?sample=1"), duel_of()
    view = view_of(duel, "protagonist")
    uniforms = torch.rand(ROWS, 2, generator=torch.Generator().manual_seed(1))
    inside = models["ppo"].policy.get_distribution(view.observation).distribution
    expected = (inside.mean + inside.stddev * noise.normal(uniforms)).clamp(-1, 1)
    torch.testing.assert_close(player.act(view, torch.zeros(ROWS, 0), uniforms)[0], expected.detach())


def test_it_plays_whole_episodes_and_rows_are_independent(folder, models):
    duel = duel_of("relu")
    players = (load(folder / "ppo"), load(folder / "relu", "relu"))
    tasks = metaduel.sample_tasks("Navigation", 3)
    seed, episode = torch.arange(3), torch.zeros(3, dtype=torch.int64)
    together = play(duel, players, duel.game.params(tasks), seed, episode)
    for row in range(3):
        alone = play(duel, players, duel.game.params(tasks[row : row + 1]), seed[row : row + 1], episode[:1])
        torch.testing.assert_close(together.returns[row : row + 1], alone.returns, rtol=1e-4, atol=1e-3)
    players = (load(folder / "ppo"), load_player(duel, "adversary", "idle"))
    other = play(duel, players, duel.game.params(tasks), seed, episode)
    assert not torch.allclose(together.returns, other.returns)


def test_double_precision_games_get_double_precision_actions(folder, models):
    view = view_of(duel_of(), "protagonist")
    double = act(load(folder / "ppo"), view._replace(observation=view.observation.double()))
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), act(load(folder / "ppo"), view))


def test_loading_leaves_the_global_generators_alone(ppo, models):
    for query in ("", "?trust=PPO"):  # the model was trained with a seed, which SB3's load would set
        before, theirs = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
        load(f"{ppo}{query}")
        np.testing.assert_array_equal(np.random.get_state()[1], theirs)  # noqa: NPY002
        if not query:  # with trust, SB3 initialises a network first
            assert torch.equal(before, torch.get_rng_state())


# No code is run


def evil_data(marker):
    def edit(data):
        for key in ("lr_schedule", "policy_class", "policy_kwargs", "observation_space"):
            content = data[key] if isinstance(data[key], dict) else {}
            content[":type:"] = content.get(":type:", "<class 'dict'>")
            content[":serialized:"] = base64.b64encode(pickle.dumps(Evil(marker))).decode()
            data[key] = content

    return edit


def test_a_pickle_in_data_is_never_loaded_without_trust(ppo, models, tmp_path):
    marker = tmp_path / "ran"
    file = edited(ppo, tmp_path / "evil.zip", data=evil_data(marker))
    view = view_of(duel_of(), "protagonist")
    torch.testing.assert_close(act(load(file), view), act(load(ppo), view))
    assert not marker.exists()
    with pytest.raises(InvalidInputError, match=r"PPO\.load failed"):
        load(f"{file}?trust=PPO")
    assert marker.exists()  # the file does what it claims to, where it is trusted


@pytest.mark.parametrize("form", ["torch", "pickle", "zipped pickle"])
def test_a_pickle_in_policy_pth_is_never_loaded(ppo, models, tmp_path, form):
    marker = tmp_path / "ran"
    content = {"torch": saved(Evil(marker)), "pickle": pickle.dumps(Evil(marker))}.get(form)
    if content is None:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(Evil(marker), protocol=2))
            archive.writestr("archive/version", "3\n")
        content = stream.getvalue()
    with refused("policy.pth is not tensors alone"):
        load(edited(ppo, tmp_path / "evil.zip", policy=content))
    assert not marker.exists()
    if form == "torch":
        torch.load(io.BytesIO(content), weights_only=False)
        assert marker.exists()


# What is refused, and how


class refused:
    """The block raises an ``InvalidInputError`` of one line that matches."""

    def __init__(self, pattern):
        self._raises = pytest.raises(InvalidInputError, match=pattern)

    def __enter__(self):
        self._info = self._raises.__enter__()

    def __exit__(self, *what):
        caught = self._raises.__exit__(*what)
        assert "\n" not in str(self._info.value)
        assert str(self._info.value).startswith("sb3:")
        return caught


def put(key, value):
    return lambda data: data.update({key: value})


def put_in(key, **values):
    return lambda data: data[key].update(values)


REFUSED_DATA = {
    "another policy": (put_in("policy_class", __module__="mine"), r"its policy is mine\.ActorCriticPolicy.*trust="),
    "an image policy": (
        put_in("policy_class", __init__="<function ActorCriticCnnPolicy.__init__ at 0x7f>"),
        r"policies\.ActorCriticCnnPolicy, not .*trust=",
    ),
    "a recurrent policy": (
        put_in("policy_class", __module__="sb3_contrib.common.recurrent.policies"),
        r"sb3_contrib\.common\.recurrent.*trust=",
    ),
    "no policy class": (put("policy_class", None), r"its policy is None.*trust="),
    "another algorithm": (lambda data: data.pop("clip_range"), "neither PPO nor A2C.*trust="),
    "gSDE": (put("use_sde", True), r"gSDE \(use_sde=True\).*trust="),
    "activation": (
        put("policy_kwargs", {"activation_fn": "<class 'mine.Tanh'>"}),
        r"activation is <class 'mine.Tanh'>",
    ),
    "extractor": (put("policy_kwargs", {"features_extractor_class": "mine"}), "features extractor of its own"),
    "squashed": (put("policy_kwargs", {"squash_output": True}), "made with squash_output"),
    "unknown argument": (put("policy_kwargs", {"depth": 3}), "made with depth"),
    "kwargs of no kind": (put("policy_kwargs", "none"), "made with policy_kwargs"),
    "widths": (put("policy_kwargs", {"net_arch": [64, 65]}), r"policy_net\.2\.weight .*\(64, 64\).*must be \(65, 64\)"),
    "depth": (put("policy_kwargs", {"net_arch": [64, 64, 64]}), r"policy_net\.4\.weight is missing from policy\.pth"),
    "shallow": (put("policy_kwargs", {"net_arch": [64]}), r"policy_net\.2\.weight is too much in policy\.pth"),
    "huge": (put("policy_kwargs", {"net_arch": [10**7, 10**7]}), r"must be \(10000000, 2\)"),
    "words": (put("policy_kwargs", {"net_arch": "[64, 64]"}), r"net_arch is \[64, 64\]"),
    "negative": (put("policy_kwargs", {"net_arch": [-64]}), r"net_arch is .*\[-64\]"),
    "bounds": (put_in("action_space", low="[-2. -1.]"), r"action space is .*-2\. -1.*the seat's is Box"),
    "shape": (put_in("observation_space", _shape=[2, 1]), r"observation space is .*\[2, 1\]"),
    "dtype": (put_in("observation_space", dtype="float64"), "observation space is"),
    "space class": (
        put("action_space", {":type:": "<class 'gymnasium.spaces.discrete.Discrete'>", "n": "3", "start": "0"}),
        "action space is Discrete of n 3, the seat's is Box",
    ),
    "no space": (put("observation_space", None), "observation space is"),
    "a space as text": (put("action_space", "Box"), "action space is"),
    "a summarised space": (put_in("action_space", low="[-1. ... -1.]"), "action space is"),
}


@pytest.mark.parametrize("case", REFUSED_DATA)
def test_data_that_does_not_fit_is_refused(ppo, models, tmp_path, case):
    edit, pattern = REFUSED_DATA[case]
    with refused(pattern):
        load(edited(ppo, tmp_path / "model.zip", data=edit))


def refused_tensors(good):
    return {
        "missing": ({k: v for k, v in good.items() if k != "log_std"}, "log_std is missing"),
        "extra": ({**good, "more": torch.zeros(1)}, "more is too much"),
        "shape": ({**good, "log_std": torch.zeros(3)}, r"log_std in .*\(3,\).*must be \(2,\)"),
        "nan": ({**good, "log_std": torch.tensor([0.0, torch.nan])}, "log_std in .*NaN"),
        "whole numbers": ({**good, "log_std": torch.zeros(2, dtype=torch.int64)}, "dense floating-point"),
        "sparse": ({**good, "log_std": torch.zeros(2).to_sparse()}, "dense floating-point|tensors alone"),
        "number": ({**good, "log_std": 1.0}, "dense floating-point"),
        "list": ([1.0], "must map names"),
        "a view that claims much": ({**good, "log_std": torch.zeros(1).expand(5000, 5000)}, "more than .* parameters"),
    }


@pytest.mark.parametrize("case", list(refused_tensors({})))
def test_tensors_that_do_not_fit_are_refused(ppo, models, tmp_path, case):
    good = torch.load(io.BytesIO(zipfile.ZipFile(ppo).read("policy.pth")), weights_only=True)
    tensors, pattern = refused_tensors(good)[case]
    with refused(pattern):
        load(edited(ppo, tmp_path / "model.zip", policy=saved(tensors)))


def test_broken_files_are_refused(ppo, models, tmp_path):
    content = ppo.read_bytes()
    broken = {
        "empty": (b"", "not a whole zip"),
        "text": (b"not a model\n" * 9, "not a whole zip"),
        "truncated": (content[: len(content) // 2], "it is truncated, or"),
        "cut": (content[:-30], "not a whole zip|truncated"),
        "flipped": (content.replace(b'"gae_lambda": 0.95', b'"gae_lambda": 0.96'), "not a whole zip.*CRC"),
    }
    assert broken["flipped"][0] != content
    for name, (written, pattern) in broken.items():
        (tmp_path / f"{name}.zip").write_bytes(written)
        with refused(pattern):
            load(tmp_path / f"{name}.zip")
    for entry in ("data", "policy.pth"):
        with zipfile.ZipFile(ppo) as old, zipfile.ZipFile(tmp_path / "less.zip", "w") as new:
            for name in set(old.namelist()) - {entry}:
                new.writestr(name, old.read(name))
        with refused(f"no entry {entry}"):
            load(tmp_path / "less.zip")
    with refused("policy.pth is not tensors alone"):
        load(edited(ppo, tmp_path / "cut.zip", policy=zipfile.ZipFile(ppo).read("policy.pth")[:-200]))
    for text in ("{", "[" * 100_000, '"words"', "[]", "\x00"):
        with zipfile.ZipFile(tmp_path / "json.zip", "w") as new:
            new.writestr("data", text)
            new.writestr("policy.pth", b"")
        with refused("data entry is not"):
            load(tmp_path / "json.zip")


def test_bombs_are_refused_before_they_unpack(ppo, models, tmp_path, monkeypatch):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 20))
    inner = edited(ppo, tmp_path / "inner.zip", policy=stream.getvalue())
    outer = edited(ppo, tmp_path / "outer.zip", policy=bytes(1 << 20))
    wide = edited(ppo, tmp_path / "wide.zip", data=put("seed", "0" * (1 << 20)))
    assert max(os.path.getsize(file) for file in (inner, outer, wide)) < 200_000
    monkeypatch.setattr(sb3, "LIMIT", 200_000)
    load(ppo)
    with refused("policy.pth unpacks to 1048576 bytes, at most 200000"):
        load(inner)
    with refused("policy.pth has 1048576 bytes, at most 200000"):
        load(outer)
    with refused("entry data has .* bytes, at most 200000"):
        load(wide)


def test_names_and_options_that_mean_nothing_are_refused(ppo, models, tmp_path):
    for path in ("", tmp_path, tmp_path / "none.zip", "x" * 5000, "a\0b"):
        with refused("there is no such file"):
            load(path)
    for query in ("?", "?trust", "?turst=PPO", "?trust=PPO&sample=1", "?sample=2"):
        with pytest.raises(InvalidInputError, match=r"sample=1|must be 1|unknown algorithm"):
            load(f"{ppo}{query}")
    with pytest.raises(InvalidInputError, match=r"unknown algorithm in trust 'PPP' .did you mean 'PPO'"):
        load(f"{ppo}?trust=PPP")


def test_a_model_of_another_game_or_seat_is_refused(folder, models):
    with refused("observation space is .*the seat's is Box"):
        load_player(duel_of("a2c"), "protagonist", f"sb3:{folder / 'ppo'}")
    with refused("observation space is .*the seat's is Box"):
        load_player(duel_of("a2c"), "protagonist", f"sb3:{folder / 'ppo'}?trust=PPO")
    informed = Duel(duel_of().game, informed=("protagonist",))
    with refused("observation space is .*the seat's is Box"):
        load_player(informed, "protagonist", f"sb3:{folder / 'ppo'}")


@pytest.mark.parametrize(
    ("algorithm", "game"), [(DQN, "RockPaperScissors"), (SAC, "Navigation")], ids=lambda a: getattr(a, "__name__", a)
)
def test_other_algorithms_need_trust(tmp_path, algorithm, game):
    model = train(game, "protagonist", algorithm, 40, policy_kwargs={"net_arch": [8]})
    model.save(tmp_path / "model")
    duel = Duel(make_game(registry.find(game)))
    with refused(r"only an MlpPolicy of PPO, A2C or MaskablePPO .*\?trust=ALGORITHM"):
        load_player(duel, "protagonist", f"sb3:{tmp_path / 'model'}")
    player = load_player(duel, "protagonist", f"sb3:{tmp_path / 'model'}?trust={algorithm.__name__}")
    view = view_of(duel, "protagonist")
    expected = model.predict(view.observation.numpy(), deterministic=True)[0]
    np.testing.assert_allclose(act(player, view).numpy(), expected, atol=1e-6)
    with refused(r"PPO\.load failed"):
        load_player(duel, "protagonist", f"sb3:{tmp_path / 'model'}?trust=PPO")


def test_gsde_is_refused_as_sb3_writes_it(tmp_path):
    train("Navigation", "protagonist", PPO, 64, use_sde=True).save(tmp_path / "model")
    with refused("gSDE"):
        load(tmp_path / "model")


# Anything that speaks predict


class Summing:
    """A recurrent agent: acts on the sum of its observations so far. Its state has the row in the middle axis."""

    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Box(-9, 9, (2,), np.float32)

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        total, steps = state if state is not None else (np.zeros((1, len(observation), 2)), np.zeros(len(observation)))
        total = np.where(episode_start[None, :, None], 0, total) + observation
        steps = np.where(episode_start, 0, steps) + 1
        observation[:] = 100  # must not reach the game
        return total[0] + steps[:, None], (total, steps)


def test_a_recurrent_agents_state_is_kept_by_row():
    player = sb3.PredictPlayer(Summing())
    assert player.memory == 3
    memory = torch.zeros(4, player.memory)
    total, steps = np.zeros((4, 2)), np.zeros(4)
    rng = np.random.default_rng(0)
    clock = np.zeros(4, np.int64)
    for _ in range(12):
        observation = torch.from_numpy(rng.uniform(-1, 1, (4, 2)).astype(np.float32))
        given = observation.clone()
        action, memory = player.act(View(None, None, observation, torch.from_numpy(clock)), memory, torch.zeros(4, 0))
        assert torch.equal(observation, given)
        total, steps = np.where(clock[:, None] == 0, 0, total) + given.numpy(), np.where(clock == 0, 0, steps) + 1
        np.testing.assert_allclose(action.numpy(), np.clip(total + steps[:, None], -9, 9), atol=1e-5)
        # Rows end their episodes at different steps, and a row that leaves the batch keeps its memory.
        clock = (clock + 1) % np.array([2, 3, 5, 7])
    order = torch.tensor([2, 0])
    view = View(None, None, torch.zeros(2, 2), torch.ones(2))
    action, _ = player.act(view, memory[order], torch.zeros(2, 0))
    np.testing.assert_allclose(action.numpy(), np.clip(total + steps[:, None] + 1, -9, 9)[[2, 0]], atol=1e-5)


def test_agents_that_do_not_fit_are_refused():
    class Wrong(Summing):
        def __init__(self, actions):
            self.actions = actions

        def predict(self, observation, state=None, episode_start=None, deterministic=False):
            return self.actions, None

    view = View(None, None, torch.zeros(2, 2), torch.zeros(2))
    for actions in (np.zeros(2), np.full((2, 2), np.nan), np.zeros((3, 2))):
        with pytest.raises(InvalidInputError, match=r"predicts actions of shape .* for 2 rows"):
            sb3.PredictPlayer(Wrong(actions)).act(view, torch.zeros(2, 0), torch.zeros(2, 0))
    discrete = sb3.PredictPlayer(Wrong(np.array([0, 3])), action_space=spaces.Discrete(3))
    with pytest.raises(InvalidInputError, match=r"in Discrete\(3\)"):
        discrete.act(view, torch.zeros(2, 0), torch.zeros(2, 0))
    with pytest.raises(InvalidInputError, match="must have a method predict"):
        sb3.PredictPlayer(object())

    class Nameless:
        predict = Summing.predict

    with pytest.raises(InvalidInputError, match="names no spaces"):
        sb3.PredictPlayer(Nameless())

    class Odd(Summing):
        def predict(self, observation, state=None, episode_start=None, deterministic=False):
            return observation, np.zeros(4)

    with pytest.raises(InvalidInputError, match="no row axis"):
        sb3.PredictPlayer(Odd())

    class Shouting(Summing):
        def predict(self, observation, state=None, episode_start=None, deterministic=False):
            return observation, {"hidden": 1}

    with pytest.raises(InvalidInputError, match="not dict"):
        sb3.PredictPlayer(Shouting())
