"""What an update knows before training, and the warning where it knows nothing."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from metaduel.agents.objective.config import LossConfig
from metaduel.envs.core.spec import ROLES
from metaduel.meta.problems.duels import DuelProblem, Matchups
from metaduel.meta.runs.config import TrainConfig
from metaduel.meta.runs.signal import mean_and_error, signals, situation, true_gradients, true_parts, warn_of_noise
from metaduel.meta.runs.source import DuelSource
from metaduel.meta.runs.train import make_learner, train, train_all

SUITE = Path(__file__).parents[2] / "benchmarks" / "suites" / "pursuit.yaml"
UPDATE = {"inner_baseline": False, "inner_discount": 0.0, "inner_clip": 0.4}
SHORT = {"iterations": 1, "steps": 1, "validation_tasks": 1}


def warnings(capsys, *configs, folder=Path("nowhere")):
    source = DuelSource(configs[0])
    learners = [make_learner(config, source) for config in configs]
    warn_of_noise(configs, source, learners, [folder] * len(configs))
    return capsys.readouterr().err.splitlines()


def config(game="Goalkeeper", method="fomaml", **settings):
    return TrainConfig(game=game, method=method, tasks=2, episodes=5).override(**{**UPDATE, **settings})


def test_a_discount_that_carries_no_information_is_warned_of_with_a_better_one(capsys):
    found = warnings(capsys, config())
    assert [line.split(": ")[1] for line in found] == ["inner_discount=0"] * 2
    for line, role in zip(found, ROLES, strict=True):
        assert f"an update of the {role} from 5 episodes carries no information" in line
        assert "with inner_discount=0.9" in line
    assert warnings(capsys, config(inner_discount=0.9)) == []


def test_the_adversarys_own_discount_is_named(capsys):
    (line,) = warnings(capsys, config(inner_discount=0.9, adversary_inner_discount=0.0))
    assert line.startswith("metaduel: adversary_inner_discount=0: ")


def test_usual_settings_of_pursuit_are_not_warned_of(capsys):
    assert warnings(capsys, TrainConfig.from_dict(yaml.safe_load(SUITE.read_text()))) == []


@pytest.mark.parametrize("method", ["joint", "self_play"])
def test_methods_without_an_inner_step_are_not_warned_of(method, capsys):
    assert warnings(capsys, config(method=method)) == []


def test_methods_that_remember_are_not_warned_of(capsys):
    own = TrainConfig(game="Goalkeeper", method="rl2").override(inner_discount=0.0)
    assert warnings(capsys, own) == []


def test_runs_of_one_setting_are_warned_of_once_and_resumed_ones_are_not(capsys, tmp_path):
    assert len(warnings(capsys, config(), config(seed=1), config(seed=2, inner_discount=0.9))) == 2
    (tmp_path / "config.yaml").touch()
    assert warnings(capsys, config(), folder=tmp_path) == []


def test_training_warns_and_its_numbers_stay(tmp_path, capsys):
    own = config().override(**SHORT, horizon=12)
    state = torch.get_rng_state()
    runs = [train(own, tmp_path / str(quiet), quiet=quiet) for quiet in (True, False)]
    assert torch.equal(torch.get_rng_state(), state)
    assert "carries no information" in capsys.readouterr().err
    for role in ROLES:
        first, second = (run.agent(role).weights for run in runs)
        assert all(torch.equal(first[name], second[name]) for name in first)
    train_all([own, own.override(seed=1)], [tmp_path / "a", tmp_path / "b"])
    assert capsys.readouterr().err.count("carries no information") == 2  # one for each role


def placed(role="protagonist", tasks=4):
    source = DuelSource(config("Pursuit"))
    policy = source.policies[role]
    starts = [policy.init(i) for i in range(tasks)]
    return situation(source.duel, role, policy, starts, source.training_tasks(tasks, 3), source.opponents[role][:2])


@pytest.mark.parametrize("role", ROLES)
def test_gradients_are_those_of_the_updates(role):
    where, loss = placed(role), LossConfig(inner_discount=0.8, inner_clip=0.4, inner_baseline=False)
    (found,) = where.gradients(where.play(3, 7), [loss])
    first, *_, last = where.opponents
    groups = [(first, 2), (last, 2)]
    seat = "against_adversaries" if role == "protagonist" else "against_protagonists"
    problem = DuelProblem(where.duel, {role: where.policy}, Matchups(where.rows, **{seat: groups}), 3, 7, loss)
    weights = {name: value.clone().requires_grad_() for name, value in where.weights.items()}
    support = problem.draw({role: weights}, 0).losses({role: weights}).support[role].sum()
    expected = torch.cat([g.flatten(1) for g in torch.autograd.grad(-support, list(weights.values()))], 1)
    torch.testing.assert_close(torch.cosine_similarity(found, expected), torch.ones(4))


def test_tasks_are_measured_one_by_one():
    """In parts or at once, a task's cosine is the mean over its own updates."""
    where, loss = placed(), LossConfig(inner_discount=0.5, inner_baseline=False)
    truth = true_gradients(where, 20, 1)
    assert true_parts(where, 20) == 1
    assert truth.shape == (4, sum(value[0].numel() for value in where.weights.values()))
    (found,) = signals(where, truth, [loss], 5, 3, 2)
    (rescaled,) = signals(where, 3 * truth, [replace(loss, surrogate="dice")], 5, 3, 2)
    assert found.shape == (4,)
    torch.testing.assert_close(found, rescaled)
    (last,) = where.part(slice(3, 4)).gradients(where.part(slice(3, 4)).play(5, 9), [loss])
    assert last.shape == truth[3:].shape


def test_a_mean_and_its_standard_error():
    # 1, 2, 3: mean 2, deviation 1, over the root of 3
    assert mean_and_error(torch.tensor([1.0, 2.0, 3.0])) == pytest.approx((2.0, 3**-0.5))
