"""What a function of ours changes for the whole process is put back, on every way out."""

import locale
import logging
import multiprocessing
import os
import random
import signal
import sys
import threading
import warnings
from pathlib import Path

import gymnasium as gym
import matplotlib
import numpy as np
import pettingzoo
import pytest
import scipy.stats  # noqa: F401 (when first imported, it adds filters of warnings)
import torch
from stable_baselines3 import PPO

from metaduel import evaluate, find, load, make_sb3, sample_opponents, sample_tasks, train_meta_adversarial
from metaduel.agents.runtime import configured
from metaduel.benchmarks.core.report import plot_shots
from metaduel.benchmarks.core.scratch import Scratch
from metaduel.benchmarks.studies.classification import study as classification
from metaduel.benchmarks.studies.classification.settings import Settings as Classification
from metaduel.benchmarks.tools.demo import _terminations
from metaduel.benchmarks.tools.exploitability import Exploitation, exploit
from metaduel.cli.games import gallery, info, watch
from metaduel.cli.training import adapt
from metaduel.envs.contract import check_game
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.registration import in_pettingzoo
from metaduel.meta.learners.maml import MAML
from metaduel.meta.runs.black_box import SB3Inner, train_sb3
from metaduel.meta.runs.trainer import Interrupts

SMALL = {
    "iterations": 1, "tasks": 2, "episodes": 1, "steps": 1, "hidden": (4,), "horizon": 5, "validate_every": 1,
    "validation_tasks": 2, "quiet": True,
}  # fmt: skip
OWN = {name: value for name, value in SMALL.items() if name != "hidden"}  # for a network of one's own
FEW = {"shots": 1, "episodes": 1, "test_episodes": 1, "task_count": 2}
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGCHLD") if hasattr(signal, name)]


def state():
    """All that is shared by the whole process, by name."""
    root = logging.getLogger()
    return {
        "torch's precision": torch.get_default_dtype(),
        "torch's device": torch.get_default_device(),
        "torch's threads": torch.get_num_threads(),
        "torch's generator": torch.get_rng_state().numpy().tobytes(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "gradients": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "anomalies": torch.is_anomaly_enabled(),
        "precision of products": torch.get_float32_matmul_precision(),
        "cudnn": (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark),
        "NumPy's generator": str(np.random.get_state()),  # noqa: NPY002
        "NumPy's errors": np.geterr(),
        "NumPy's print options": str(np.get_printoptions()),
        "random": random.getstate(),
        "warnings' filters": list(warnings.filters),
        "showwarning": warnings.showwarning,
        "signal handlers": [signal.getsignal(number) for number in SIGNALS],
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "path": list(sys.path),
        "logging": (root.level, list(root.handlers), logging.root.manager.disable),
        "matplotlib": (dict(matplotlib.rcParams), matplotlib.get_backend(auto_select=False)),
        "locale": locale.setlocale(locale.LC_ALL),
        "recursion limit": sys.getrecursionlimit(),
        "start method": multiprocessing.get_start_method(allow_none=True),
        "streams": (sys.stdout, sys.stderr, sys.stdin),
        "hooks": (sys.excepthook, threading.excepthook, sys.gettrace(), sys.getprofile()),
        "arguments": list(sys.argv),
        "umask": _umask(),
        "threads": {thread for thread in threading.enumerate() if not thread.daemon},
    }


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "run"
    train_meta_adversarial("Pursuit", folder=folder, **SMALL)
    return folder


@pytest.fixture(autouse=True)
def unusual(tmp_path, monkeypatch):
    """A process of its own kind, whose settings a function that forgets to put them back would overwrite."""
    threads, precision = torch.get_num_threads(), torch.get_default_dtype()
    torch.set_num_threads(2)
    torch.set_default_dtype(torch.float64)
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.delenv("PYGAME_HIDE_SUPPORT_PROMPT", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_players.py").write_text(
        "class Still:\n    def begin(self, rows, seat):\n        self.rows = rows\n"
        "    def act(self, observation, *others):\n        import my_lazy\n        return my_lazy.still(self.rows)\n"
        "def broken():\n    raise RuntimeError('broken')\n"
    )
    (tmp_path / "my_lazy.py").write_text("import numpy\ndef still(rows):\n    return numpy.zeros((rows, 2))\n")
    yield
    torch.set_num_threads(threads)
    torch.set_default_dtype(precision)


def changed(before):
    after = state()
    return {name: (before[name], after[name]) for name in before if before[name] != after[name]}


class Interrupted:
    """A player of the core that is interrupted at its first step."""

    memory = noise = 0

    def act(self, view, memory, noise):
        raise KeyboardInterrupt


def play(folder, trained):
    """Every interface, and a window."""
    spec = find("Pursuit")
    in_pettingzoo(spec)
    for env in (gym.make(spec.id, render_mode="rgb_array"), gym.make(spec.id, render_mode="human")):
        env.reset(seed=0)
        env.step(env.action_space.sample())
        env.render()
        env.close()
    vector = gym.make_vec(spec.id, 2)
    vector.reset()
    vector.step(vector.action_space.sample())
    parallel = pettingzoo.make("parallel", spec.id)
    parallel.reset()
    parallel.step({agent: parallel.action_space(agent).sample() for agent in parallel.agents})
    turns = pettingzoo.make("aec", spec.id)
    turns.reset()
    turns.step(turns.action_space(turns.agent_selection).sample())
    sb3 = make_sb3(spec, 2)
    sb3.reset()
    sb3.step(np.zeros((2, 2), np.float32))


def sample(folder, trained):
    sample_tasks("Pursuit", 2)
    sample_opponents("Pursuit", 2, "adversary", "train", 0)


def train(folder, trained):
    train_meta_adversarial("Pursuit", "maml", folder / "run", network=lambda d, a: torch.nn.Linear(d, a), **OWN)
    train_meta_adversarial("Pursuit", "maml", trained, resume=True, **SMALL)


def adapt_a_player(folder, trained):
    load(trained).protagonist.adapt(gym.make("metaduel/Pursuit-v0", horizon=5), shots=1, episodes=1)


def evaluate_players(folder, trained):
    table = evaluate([trained], ppo=Scratch(1, 1), out=folder / "out", **FEW)
    plot_shots(table.filter(opponent_split="held_out"), folder / "shots.svg")
    evaluate("my_players:Still", "Pursuit", ["protagonist"], baselines=False, **FEW)


def fine_tune(folder, trained):
    path = train_sb3(
        SB3Inner("Pursuit", "protagonist", PPO, 8, 2, horizon=4, n_steps=4, batch_size=4),
        folder / "sb3",
        1,
        1,
        quiet=True,
    )
    evaluate([f"sb3:{path}?trust=PPO"], "Pursuit", ["protagonist"], baselines=False, **FEW)
    exploit([load(trained)], Exploitation(1, 1, 1, 1, 16, 1), folder / "exploited", quiet=True)


def show(folder, trained):
    watch("Pursuit", video=folder / "a.gif", task='{"drag": 0.5}')
    watch("Navigation", window=True)
    adapt(trained, shots=1, episodes=1, video=folder / "b.gif")
    gallery(folder / "gallery.png")
    info("Pursuit")


def study(folder, trained):
    settings = Classification(
        methods=("maml",), network="dense", iterations=1, tasks=2, test_episodes=2, test_steps=1, classes=60,
        folder=folder / "study", quiet=True,
    )  # fmt: skip
    classification.main(settings)


def check(folder, trained):
    check_game("Navigation")


@pytest.mark.parametrize("call", [play, sample, train, adapt_a_player, evaluate_players, fine_tune, show, study, check])
def test_everything_is_as_it_was_after(call, tmp_path, trained):
    before = state()
    call(tmp_path / "out", trained)
    assert not changed(before)


def refused(call, *given, error=InvalidInputError, **settings):
    return pytest.param(call, given, settings, error)


@pytest.mark.parametrize(
    ("call", "given", "settings", "error"),
    [
        refused(train_meta_adversarial, "Pursuit", "no such method"),
        refused(train_meta_adversarial, "Pursuit", tasks=0),
        refused(train_meta_adversarial, "Pursuit", network=lambda d, a: torch.nn.Linear(d, a + 1), **OWN),
        refused(evaluate, "my_players:broken", "Pursuit", **FEW),
        refused(evaluate, "my_players:nothing", "Pursuit", **FEW),
        refused(evaluate, {"me": Interrupted()}, "Pursuit", ["protagonist"], error=KeyboardInterrupt, **FEW),
        refused(watch, "Pursuit", video=Path("a.txt")),
        refused(watch, "Pursuit", protagonist="nobody"),
        refused(load, "nowhere"),
        refused(make_sb3, "Pursuit", 2, "nobody"),
        refused(sample_tasks, "Pursuit", 2, "no such split"),
        refused(exploit, [], Exploitation(), Path("out")),
    ],
)
def test_everything_is_as_it_was_after_a_refusal(call, given, settings, error):
    before = state()
    with pytest.raises(error):
        call(*given, **settings)
    assert not changed(before)


def test_everything_is_as_it_was_after_an_interruption_of_training(tmp_path, monkeypatch):
    def updating(self, *given):
        os.kill(os.getpid(), signal.SIGINT)
        return (yield from original(self, *given))

    original = MAML.updating
    monkeypatch.setattr(MAML, "updating", updating)
    before = state()
    with pytest.raises(KeyboardInterrupt):
        train_meta_adversarial("Pursuit", folder=tmp_path / "run", **SMALL | {"iterations": 2})
    assert not changed(before)
    assert (tmp_path / "run" / "checkpoints" / "last.safetensors").exists()


def test_everything_is_as_it_was_after_an_interruption_of_a_library(tmp_path, trained, monkeypatch):
    def train(self):  # it has seeded all generators by now, and played
        raise KeyboardInterrupt

    inner = SB3Inner("Pursuit", "protagonist", PPO, 8, 2, horizon=4, n_steps=4, batch_size=4)
    monkeypatch.setattr(PPO, "train", train)
    before = state()
    with pytest.raises(KeyboardInterrupt):
        train_sb3(inner, tmp_path, 1, 1, quiet=True)
    with pytest.raises(KeyboardInterrupt):
        evaluate([trained], baselines=False, ppo=Scratch(1, 1), **FEW)
    assert not changed(before)


def test_training_in_another_thread_is_the_same_and_leaves_signals_alone(tmp_path, trained):
    found, before = [], state()

    def work():
        found.append(train_meta_adversarial("Pursuit", folder=tmp_path / "run", **SMALL))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    ours, theirs = found[0].protagonist.weights, load(trained).protagonist.weights
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert not changed(before)


@pytest.mark.parametrize("context", [_terminations, Interrupts])
def test_a_handler_that_is_not_pythons_is_left_alone(context, monkeypatch):
    def refuse(*given):
        raise AssertionError("it could not be put back")

    monkeypatch.setattr(signal, "getsignal", lambda number: None)
    monkeypatch.setattr(signal, "signal", refuse)
    with context():
        pass


def test_threads_are_put_back_whatever_happens():
    @configured(1)
    def fail():
        assert torch.get_num_threads() == 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert torch.get_num_threads() == 2
