"""Reptile around inner loops that are not ours: hand-worked ones, and an unmodified PPO."""

import numpy as np
import pytest
import torch
from stable_baselines3 import A2C, PPO

import metaduel
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.game import make_game
from metaduel.envs.core.registry import find
from metaduel.envs.players.names import load_player
from metaduel.meta.runs.black_box import START, SB3Inner, reptile, train_sb3, weights_of
from metaduel.meta.runs.checkpoint import load_checkpoint

SMALL = {"n_steps": 5, "batch_size": 10, "n_epochs": 2}


def inner(algorithm=PPO, **settings):
    return SB3Inner("Navigation", "protagonist", algorithm, 10, num_envs=2, horizon=5, **settings)


def test_any_optimiser_inside():
    # Adam with beta1 = 0 on |w - c|: every step has length lr, so that three of them move by 0.3 towards c.
    def adam(start, number):
        w = start["w"].clone().requires_grad_()
        optimiser = torch.optim.Adam([w], lr=0.1, betas=(0.0, 0.999))
        for _ in range(3):
            optimiser.zero_grad()
            (w - (10.0, -10.0, 10.0)[number % 3]).abs().sum().backward()
            optimiser.step()
        return {"w": w.detach()}

    starts = list(reptile({"w": torch.zeros(1)}, adam, iterations=2, tasks=3, outer_lr=0.5))
    # Ends 0.3, -0.3, 0.3: mean 0.1. Steps of 0.5 and 0.25 towards it.
    assert starts[0]["w"].item() == pytest.approx(0.05, rel=1e-5)
    assert starts[1]["w"].item() == pytest.approx(0.05 + 0.25 * 0.1, rel=1e-5)


@pytest.mark.parametrize(("algorithm", "settings"), [(PPO, SMALL), (A2C, {"n_steps": 5})])
def test_an_outer_step_goes_towards_what_the_algorithm_itself_learns(algorithm, settings):
    loop = inner(algorithm, **settings)
    start = weights_of(loop.model(0))
    before = {name: value.clone() for name, value in start.items()}
    (after,) = reptile(start, loop, iterations=1, tasks=1, outer_lr=0.5)
    assert all(torch.equal(start[name], before[name]) for name in start)
    theirs = weights_of(loop.model(0).learn(10))
    assert any(not torch.equal(theirs[name], start[name]) for name in start)
    for name, value in after.items():
        torch.testing.assert_close(value, (start[name] + theirs[name]) / 2)


def test_tasks_and_opponents_differ_between_inner_loops():
    loop = inner(**SMALL)
    assert len(loop.opponents) > 1
    envs = [loop.model(number).get_env() for number in range(2)]
    tasks = [env.env_method("get_task")[0] if hasattr(env, "env_method") else None for env in envs]
    assert tasks[0] != tasks[1]


def test_a_run_gives_a_model_that_plays_and_learns_on(tmp_path):
    path = train_sb3(inner(**SMALL), tmp_path / "run", iterations=2, tasks=2, quiet=True)
    env = metaduel.make_sb3("Navigation", num_envs=2, horizon=5, seed=0)
    model = PPO.load(path, env=env)
    before = weights_of(model)
    action, _ = model.predict(env.reset(), deterministic=True)
    assert env.action_space.contains(action[0])
    model.learn(10)
    assert any(not torch.equal(value, before[name]) for name, value in weights_of(model).items())
    assert load_player(Duel(make_game(find("Navigation"))), "protagonist", f"sb3:{path}").noise == 0


def test_it_goes_on_where_it_was_to_the_same_numbers(tmp_path, monkeypatch):
    train_sb3(inner(**SMALL), tmp_path / "whole", iterations=3, tasks=1, quiet=True)
    original = SB3Inner.__call__

    def call(self, start, number):
        if number == 2:
            raise KeyboardInterrupt
        return original(self, start, number)

    monkeypatch.setattr(SB3Inner, "__call__", call)
    with pytest.raises(KeyboardInterrupt):
        train_sb3(inner(**SMALL), tmp_path / "run", iterations=3, tasks=1, quiet=True)
    monkeypatch.undo()
    train_sb3(inner(**SMALL), tmp_path / "run", iterations=3, tasks=1, quiet=True)
    (one, state), (two, same) = (load_checkpoint(tmp_path / name / START) for name in ("run", "whole"))
    assert state == same
    assert all(torch.equal(one[name], two[name]) for name in two)
    loop = inner(**SMALL)
    loop.steps = 20
    with pytest.raises(InvalidInputError, match=r"made with steps=10, not 20: choose another folder"):
        train_sb3(loop, tmp_path / "run", iterations=3, tasks=1, quiet=True)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: list(reptile({}, None, 0, 1, 0.5)), "iterations=0 must be a whole number of at least 1"),
        (lambda: list(reptile({}, None, 1, 1, 1.5)), "outer_lr=1.5 must be above 0 and at most 1"),
        (lambda: inner(opponents=("nobody",)), "nobody"),
        (lambda: SB3Inner("Navigation", "goalie", PPO, 10), "goalie"),
        (lambda: SB3Inner("Navigation", "protagonist", PPO, 0), "steps=0 must be a whole number"),
    ],
)
def test_bad_input_is_refused(make, message):
    with pytest.raises(InvalidInputError, match=message):
        make()


def test_an_inner_loop_that_diverges_is_reported():
    with pytest.raises(FloatingPointError, match="iteration 1: w is not finite after the inner loops"):
        list(reptile({"w": torch.zeros(1)}, lambda start, n: {"w": torch.tensor([np.inf])}, 2, 1, 0.5))
