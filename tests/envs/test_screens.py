"""Screens behind the adapters: without pygame, copied and pickled, several windows at once, and filmed by Gymnasium."""

import copy
import pickle
import subprocess
import sys
import textwrap

import gymnasium
import numpy as np
import pytest

import metaduel
from metaduel.envs.adapters.vector import SeatVectorEnv
from metaduel.envs.pursuit import pursuit_v0
from metaduel.envs.render.window import _open

pygame = pytest.importorskip("pygame", reason="the render extra is not installed")
GAME = "metaduel/Pursuit-v0"
COPIES = {"copied": copy.deepcopy, "pickled": lambda value: pickle.loads(pickle.dumps(value))}


def test_nothing_needs_pygame_before_the_first_frame():
    program = """
        import sys

        class Without:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] == "pygame":
                    raise ModuleNotFoundError(f"No module named {name!r}", name=name)

        sys.meta_path.insert(0, Without())
        import gymnasium, numpy as np, pytest
        from stable_baselines3 import PPO
        from stable_baselines3.common.env_util import make_vec_env
        import metaduel.envs.pursuit.pursuit_v0 as pursuit_v0
        from metaduel.envs.core.errors import InvalidInputError

        GAME = "metaduel/Pursuit-v0"
        PPO("MlpPolicy", GAME, n_steps=32, batch_size=32, n_epochs=1, device="cpu").learn(32)
        PPO("MlpPolicy", make_vec_env(GAME, 2), n_steps=16, batch_size=32, n_epochs=1, device="cpu").learn(32)
        env = gymnasium.make(GAME, render_mode="rgb_array")
        env.reset(seed=0)
        for _ in range(3):
            env.step(env.action_space.sample())
        vector = gymnasium.make_vec(GAME, num_envs=2, render_mode="rgb_array")
        vector.reset(seed=0)
        parallel = pursuit_v0.parallel_env(render_mode="rgb_array")
        parallel.reset(seed=0)
        for one in (env, vector, parallel):
            with pytest.raises(InvalidInputError, match=r'rendering needs pygame-ce: pip install "metaduel\\[render\\]"'):
                one.render()
            one.close()
        assert "pygame" not in sys.modules
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr


class Single:
    """An environment of Gymnasium."""

    def __init__(self, mode):
        self.env = gymnasium.make(GAME, render_mode=mode, disable_env_checker=True)
        self.env.action_space.seed(0)

    def reset(self):
        return self.env.reset(seed=3)

    def step(self):
        return self.env.step(self.env.action_space.sample())

    def screen(self):
        return self.env.unwrapped._seat.screen


class Vector(Single):
    """A vectorised environment of Gymnasium."""

    def __init__(self, mode):
        self.env = SeatVectorEnv("Pursuit", num_envs=3, render_mode=mode)
        self.env.action_space.seed(0)

    def screen(self):
        return self.env._seat.screen


class StableBaselines(Single):
    """A vectorised environment of Stable-Baselines3."""

    def __init__(self, mode):
        # Without the monitor around it: Stable-Baselines3's wrappers can be neither copied nor pickled, whatever they wrap.
        self.env = metaduel.make_sb3("Pursuit", num_envs=2, render_mode=mode).venv
        self.env.action_space.seed(0)

    def reset(self):
        self.env.seed(3)
        return self.env.reset()

    def step(self):
        return self.env.step(np.stack([self.env.action_space.sample() for _ in range(2)]))

    def screen(self):
        return self.env._seat.screen


class Parallel(Single):
    """PettingZoo's parallel environment."""

    def __init__(self, mode):
        self.env = pursuit_v0.parallel_env(render_mode=mode)
        for agent in self.env.possible_agents:
            self.env.action_space(agent).seed(0)

    def step(self):
        return self.env.step({agent: self.env.action_space(agent).sample() for agent in self.env.agents})

    def screen(self):
        return self.env._screen


ADAPTERS = [
    (Single, "rgb_array"),
    (Single, "human"),
    (Vector, "rgb_array"),
    (StableBaselines, "rgb_array"),
    (Parallel, "rgb_array"),
    (Parallel, "human"),
]


def alike(one, other):
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert list(one) == list(other)
        one, other = list(one.values()), list(other.values())
    if isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            alike(a, b)
    else:
        np.testing.assert_array_equal(one, other)


def picture(played):
    """What is seen of it now, whatever shows it; None: nothing yet."""
    if played.env.render_mode == "rgb_array":
        return played.env.render()
    played.env.render()
    return pygame.surfarray.array3d(played.screen()._window._handle.get_surface())


@pytest.mark.parametrize("stage", ["made", "reset", "rendered"])
@pytest.mark.parametrize(("adapter", "mode"), ADAPTERS)
@pytest.mark.parametrize("way", COPIES)
def test_copies_play_on_alike(way, adapter, mode, stage, monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setattr("pygame.time.Clock", type("Clock", (), {"tick": lambda self, fps: 0}))
    played = adapter(mode)
    if stage != "made":
        played.reset()
        played.step()
    if stage == "rendered":
        played.env.render()
    windows = len(_open)
    twin = COPIES[way](played)
    assert len(_open) == windows  # a copy has no window before it draws
    if stage == "made":
        alike(played.reset(), twin.reset())
    alike(played.step(), twin.step())
    alike(picture(played), picture(twin))
    assert len(_open) == (2 if mode == "human" else 0)  # each has its own
    alike(played.step(), twin.step())
    alike(picture(played), picture(twin))
    played.env.close()
    twin.step()
    assert np.any(picture(twin))
    twin.env.close()
    assert not _open


def test_a_copy_of_a_closed_window_stays_closed(monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    played = Single("human")
    played.reset()
    pygame.event.post(pygame.event.Event(pygame.WINDOWCLOSE, window=played.screen()._window._handle))
    played.step()
    twin = copy.deepcopy(played)
    twin.step()
    assert twin.screen().closed
    assert not _open


def test_two_environments_have_a_window_each(monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    one, other = (gymnasium.make(name, render_mode="human") for name in (GAME, "metaduel/Navigation-v0"))
    array = gymnasium.make("metaduel/Navigation-v0", render_mode="rgb_array")
    for env in (one, other, array):
        env.reset(seed=0)
    assert len(_open) == 2
    one.close()
    action = array.action_space.sample()
    other.step(action)
    array.step(action)
    shown = pygame.surfarray.array3d(other.unwrapped._seat.screen._window._handle.get_surface())
    assert (shown.swapaxes(0, 1) == array.render()).all()
    other.close()
    assert not _open


def test_gymnasium_films_at_the_games_speed(tmp_path):
    pytest.importorskip("moviepy", reason="the render extra is not installed in full")
    import imageio.v2 as imageio

    env = gymnasium.make(GAME, render_mode="rgb_array", horizon=20)
    env = gymnasium.wrappers.RecordVideo(env, str(tmp_path / "films"), episode_trigger=lambda episode: True)
    env.reset(seed=0)
    steps, over = 0, False
    while not over:
        _, _, terminated, truncated, _ = env.step(np.zeros(2, np.float32))
        steps, over = steps + 1, terminated or truncated
    env.close()
    (film,) = tmp_path.glob("films/*.mp4")
    reader = imageio.get_reader(film)
    assert reader.get_meta_data()["fps"] == env.metadata["render_fps"] == metaduel.find("Pursuit").fps
    assert reader.count_frames() == steps + 1
