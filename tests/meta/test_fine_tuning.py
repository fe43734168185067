"""Methods without an inner step are validated fine-tuned, and their players keep the step size that was best."""

import csv
from dataclasses import replace

import gymnasium
import pytest
import torch

from metaduel.benchmarks.core import few_shot
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.noise import derive_seed
from metaduel.envs.core.purposes import Purpose
from metaduel.envs.core.spec import ROLES
from metaduel.meta.adaptation import few_shot as adaptation
from metaduel.meta.adaptation.adapters import adapter_of
from metaduel.meta.adaptation.few_shot import adapt_and_test
from metaduel.meta.adaptation.work import alone
from metaduel.meta.learners.joint import JointConfig
from metaduel.meta.runs import source as source_module
from metaduel.meta.runs.config import TrainConfig
from metaduel.meta.runs.load import load
from metaduel.meta.runs.source import DuelSource
from metaduel.meta.runs.supervised import meta_train
from metaduel.meta.runs.train import make_learner, train, train_meta_adversarial

TINY = TrainConfig(game="RockPaperScissors", method="joint").override(
    tasks=4, episodes=3, horizon=4, hidden=(4,), steps=2, iterations=4, validate_every=1, validation_tasks=3,
    fine_tuning_lrs=(0.1, 1.0, 5.0),
)  # fmt: skip


@pytest.fixture(scope="module", params=["joint", "self_play", "rarl"])
def finished(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / request.param
    train(TINY.override(method=request.param), folder, quiet=True)
    return folder


def rows(folder):
    with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def returns_of(run, role, adapter, tasks, adapt, test):
    """Mean returns at every shot on the validation panel."""
    panel = DuelSource(run.config)._panel(role)
    seeds = derive_seed(0, adapt), derive_seed(0, test)
    found = adapt_and_test(panel[0], adapter, role, panel[1][:tasks], panel[2], 2, 3, 3, *seeds)
    return found.returns.mean((1, 2, 3))


def test_the_grid_of_validation_ends_where_tests_find_the_best():
    # CartPole's adversary has returns of -55 with a rate of 15, -50 with 40 and -49 with 100, where its episodes end early.
    best = 100.0
    for grid in (JointConfig().fine_tuning_lrs, few_shot.RATES):
        assert grid[0] <= 0.1
        assert grid[-1] >= best


def test_the_best_checkpoint_is_the_best_after_fine_tuning(finished):
    run = load(finished)
    for role in ROLES:
        scores = [float(row[f"{role}/score"]) for row in rows(finished)]
        best = max(range(4), key=scores.__getitem__)
        assert run.iterations[role] == best + 1
        row = rows(finished)[best]
        returns = [float(row[f"{role}/validation_return_{shot}"]) for shot in range(3)]
        assert scores[best] == pytest.approx((returns[1] + returns[2]) / 2)
        assert run.agent(role).rates.tolist() == [[pytest.approx(float(row[f"{role}/fine_tuning_lr"]))]]
        adapter = run.agent(role).adapter
        again = returns_of(run, role, adapter, 3, Purpose.VALIDATION_ADAPT, Purpose.VALIDATION_TEST)
        assert again.tolist() == pytest.approx(returns, abs=1e-5)


def test_the_rate_is_the_best_of_the_grid(finished, monkeypatch):
    monkeypatch.setattr(source_module, "TUNING_TASKS", 2)
    run = load(finished)
    source = DuelSource(run.config)
    learner = make_learner(run.config, source)
    metrics = alone(source.validate(learner)).metrics
    for role, policy in source.policies.items():
        start = adapter_of(role, policy, learner.start[role], torch.zeros(1, 1), run.config.objective)
        trials = [replace(start, rates=torch.full((1, 1), lr)) for lr in (0.1, 1.0, 5.0)]
        scores = [
            float(returns_of(run, role, one, 2, Purpose.TUNE_ADAPT, Purpose.TUNE_TEST)[1:].mean()) for one in trials
        ]
        assert metrics[f"{role}/fine_tuning_lr"] == (0.1, 1.0, 5.0)[scores.index(max(scores))]
        assert len(set(scores)) == 3


def test_loaded_players_adapt_and_compete_with_their_rate(finished):
    run = load(finished)
    env = gymnasium.make("metaduel/RockPaperScissors-v0", opponent="always_rock", task="held_out:0", horizon=4)
    adapted = run.protagonist.adapt(env, shots=1, episodes=2)
    assert any(not torch.equal(value, run.protagonist.weights[name]) for name, value in adapted.weights.items())
    assert torch.equal(few_shot.contender(run, "adversary").adapter.rates, run.adversary.rates)


def test_a_rate_with_which_players_diverge_is_not_chosen():
    config = TINY.override(game="Navigation", fine_tuning_lrs=(1e38, 0.1))
    source = DuelSource(config)
    found = alone(source.validate(make_learner(config, source)))
    for role in ROLES:
        assert found.metrics[f"{role}/fine_tuning_lr"] == 0.1
        assert found.rates[role].tolist() == [[pytest.approx(0.1)]]


def test_all_rates_are_played_in_one_batch(monkeypatch):
    played, together = [], adaptation._together
    monkeypatch.setattr(
        adaptation, "_together", lambda *given: played.append(len(given[1].adapters)) or together(*given)
    )
    source = DuelSource(TINY)
    alone(source.validate(make_learner(TINY, source)))
    assert played == [3, 3]


@pytest.mark.parametrize("settings", [{"steps": 0}, {"informed": True}])
def test_players_that_do_not_adapt_are_validated_as_they_are(settings, tmp_path):
    run = train(TINY.override(iterations=1, **settings), tmp_path / "run", quiet=True)
    (row,) = rows(tmp_path / "run")
    for role in ROLES:
        assert len(run.agent(role).rates) == 0
        assert float(row[f"{role}/score"]) == float(row[f"{role}/validation_return_0"])
        assert f"{role}/fine_tuning_lr" not in row
        assert f"{role}/validation_return_1" not in row


def test_the_head_alone_is_fine_tuned(tmp_path):
    run = train(TINY.override(iterations=1, adapts="head"), tmp_path / "run", quiet=True)
    env = gymnasium.make("metaduel/RockPaperScissors-v0", opponent="always_rock", task="held_out:0", horizon=4)
    adapted = run.protagonist.adapt(env, shots=1, episodes=2).weights
    changed = {name for name, value in adapted.items() if not torch.equal(value, run.protagonist.weights[name])}
    assert changed == {name for name in run.protagonist.weights if name.startswith("layer1.")}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"fine_tuning_lrs": (0.1,), "steps": 0}, "fine_tuning_lrs=.0.1,. has no effect: steps=0"),
        ({"fine_tuning_lrs": (0.1,), "informed": True}, "fine_tuning_lrs=.* informed players do not adapt"),
        ({"inner_discount": 0.5, "informed": True}, "inner_discount=0.5 has no effect: informed players do not adapt"),
        ({"adversary_inner_clip": 0.5, "informed": True}, "adversary_inner_clip=0.5 .*: informed players do not adapt"),
        ({"fine_tuning_lrs": (0.1,), "method": "maml"}, "method maml has no such setting"),
        ({"fine_tuning_lrs": ()}, "fine_tuning_lrs=.* must be finite numbers above 0, at least one"),
        ({"fine_tuning_lrs": (0.1, 0.0)}, "fine_tuning_lrs=.* must be finite numbers above 0"),
        ({"inner_lr": 0.1}, "inner_lr=0.1 has no effect: method joint"),
        ({"adapts": "head", "steps": 0}, "adapts='head' has no effect: steps=0"),
        (
            {"adapts": "head", "network": lambda n, actions: torch.nn.Linear(n, actions)},
            "adapts='head': the protagonist's policy has no head",
        ),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, words, tmp_path):
    with pytest.raises(InvalidInputError, match=words):
        train_meta_adversarial(
            "RockPaperScissors", **{"method": "joint", "folder": tmp_path / "run", "quiet": True, **settings}
        )
    assert not (tmp_path / "run").exists()


def test_on_data_there_is_no_fine_tuning(tmp_path):
    from metaduel.benchmarks.tools.digests import _Lines

    with pytest.raises(InvalidInputError, match="adapts='head' has no effect: method joint"):
        meta_train(_Lines(), tmp_path / "run", method="joint", adapts="head")
