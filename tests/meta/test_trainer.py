"""The trainer and its run folders: repeatable, resumable, never half-written, with clear errors."""

import csv
import dataclasses
import os
import shutil
import signal

import gymnasium as gym
import pytest
import torch
import yaml
from stable_baselines3.common.evaluation import evaluate_policy

import metaduel  # noqa: F401 (registers the games)
from metaduel.agents.policies.base import SCALE, SHIFT, adapting, normalisation, stack
from metaduel.agents.policies.statistics import RunningStatistics
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.game import make_game
from metaduel.envs.core.registry import find
from metaduel.envs.core.tasks import frozen_tasks
from metaduel.envs.players.names import load_player
from metaduel.meta.adaptation.few_shot import Evaluating
from metaduel.meta.adaptation.inner import adapt_step, rate_at
from metaduel.meta.adaptation.work import alone
from metaduel.meta.learners.maml import MAML
from metaduel.meta.runs import source as source_module
from metaduel.meta.runs.agent import EnvironmentExperience
from metaduel.meta.runs.checkpoint import load_checkpoint, save_checkpoint
from metaduel.meta.runs.config import TrainConfig
from metaduel.meta.runs.load import load
from metaduel.meta.runs.source import DuelSource
from metaduel.meta.runs.train import TaskList, train, train_meta_adversarial
from metaduel.meta.runs.trainer import BEST, LAST, Trainer, TrainingStopped, Validation

ROLES = ("protagonist", "adversary")
TINY = TrainConfig(game="Navigation").override(
    iterations=3, tasks=4, episodes=2, horizon=5, steps=1, hidden=(4,), validate_every=1, validation_tasks=2
)


def metrics(folder):
    """Rows of metrics.csv without times."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def assert_same_run(one, two):
    assert metrics(one) == metrics(two)
    for name in (LAST, BEST):
        (a, state_a), (b, state_b) = load_checkpoint(one / name), load_checkpoint(two / name)
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a)
        assert {**state_a, "seconds": 0} == {**state_b, "seconds": 0}


def files(folder):
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and "tensorboard" not in p.parts}


WHOLE = {"config.yaml", "metrics.csv", LAST, BEST}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "finished"
    train(TINY, folder, quiet=True)
    return folder


@pytest.fixture
def copy(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "copy")


# Repeating and resuming


def test_a_seed_gives_the_same_numbers(finished, tmp_path):
    train(TINY, tmp_path / "again", quiet=True)
    assert_same_run(finished, tmp_path / "again")
    train(TINY.override(seed=1), tmp_path / "other", quiet=True)
    assert metrics(tmp_path / "other") != metrics(finished)


def test_the_folder_holds_whole_files_alone(finished):
    assert files(finished) == WHOLE
    settled = dataclasses.replace(TINY, compile=False)  # what auto becomes in a run as short as this
    assert TrainConfig.from_dict(yaml.safe_load((finished / "config.yaml").read_text())) == settled
    rows = metrics(finished)
    assert [row["iteration"] for row in rows] == ["1.0", "2.0", "3.0"]
    for role in ROLES:
        for name in ("return_0", "return_1", "validation_return_0", "validation_return_1", "score", "inner_lr_1"):
            assert all(row[f"{role}/{name}"] for row in rows)


def act_in_iteration(monkeypatch, iteration, action):
    """Do something in the middle of an iteration (counted from 0), once."""
    original, done = DuelSource.problem, []

    def problem(self, i):
        if i == iteration and not done:
            done.append(i)
            action()
        return original(self, i)

    monkeypatch.setattr(DuelSource, "problem", problem)


def test_ctrl_c_saves_and_resumes_bit_for_bit(finished, tmp_path, monkeypatch):
    config = TINY.override(validate_every=3)
    train(config, tmp_path / "unbroken", quiet=True)
    folder = tmp_path / "run"
    act_in_iteration(monkeypatch, 1, lambda: os.kill(os.getpid(), signal.SIGINT))
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(config, folder, quiet=True)
    assert signal.getsignal(signal.SIGINT) is before
    assert load_checkpoint(folder / LAST)[1]["iteration"] == 2  # it finished the iteration and saved out of turn
    assert files(folder) == WHOLE - {BEST}  # nothing was validated yet
    with pytest.raises(InvalidInputError, match="no such checkpoint"):
        load(folder)
    train(config, folder, resume=True, quiet=True)
    assert_same_run(tmp_path / "unbroken", folder)


def raise_interrupt():
    raise KeyboardInterrupt


def test_a_killed_run_resumes_from_its_checkpoint_and_drops_later_rows(finished, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    act_in_iteration(monkeypatch, 2, raise_interrupt)  # dies in the third iteration
    with pytest.raises(KeyboardInterrupt):
        train(TINY, folder, quiet=True)
    assert load_checkpoint(folder / LAST)[1]["iteration"] == 2
    # As if metrics had been written after the checkpoint, by a machine that went down between the two.
    with (folder / "metrics.csv").open("a") as file:
        file.write("3.0" + ",7.0" * (len(metrics(folder)[0])) + "\n")
    train(TINY, folder, resume=True, quiet=True)
    assert_same_run(finished, folder)


def test_a_run_killed_before_its_first_checkpoint_resumes_from_the_start(finished, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    act_in_iteration(monkeypatch, 0, raise_interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(TINY, folder, quiet=True)
    assert files(folder) == {"config.yaml"}
    train(TINY, folder, resume=True, quiet=True)
    assert_same_run(finished, folder)


def test_environment_steps_end_a_run_and_its_decay(finished, tmp_path, capsys, monkeypatch):
    scales, update = [], MAML.updating
    monkeypatch.setattr(MAML, "updating", lambda *a: scales.append(a[2]) or update(*a))
    played = [float(row["environment_steps"]) for row in metrics(finished)]
    config = TINY.override(iterations=50, validate_every=50, environment_steps=round(1.3 * played[0]))
    train(config, tmp_path / "run")
    rows = metrics(tmp_path / "run")
    assert [float(row["environment_steps"]) for row in rows] == played[:2]
    assert rows[1]["protagonist/score"]  # the last iteration is validated, whichever it is
    assert "2/2 " in capsys.readouterr().err
    assert scales == pytest.approx([1.0, 1.0 - 0.9 * played[0] / config.environment_steps])
    train(config, tmp_path / "run", resume=True, quiet=True)
    assert metrics(tmp_path / "run") == rows


def test_a_run_that_is_older_than_a_setting_goes_on_while_that_is_off(finished, copy):
    config = yaml.safe_load((copy / "config.yaml").read_text())
    del config["environment_steps"], config["player_steps"], config["warm_start"], config["opponents_at_once"]
    del config["learner"]["adversary_inner_lr"], config["loss"]["adversary_inner_clip"]
    (copy / "config.yaml").write_text(yaml.safe_dump(config))
    train(TINY, copy, resume=True, quiet=True)
    assert_same_run(finished, copy)
    for newer in ({"environment_steps": 1000}, {"opponents_at_once": 1}, {"adversary_inner_lr": 0.25}):
        ((name, value),) = newer.items()
        with pytest.raises(InvalidInputError, match=f"before there was .*{name}={value}"):
            train(TINY.override(**newer), copy, resume=True, quiet=True)


def test_another_setting_of_the_learner_is_named_alone(copy):
    with pytest.raises(InvalidInputError, match=r"was started with learner\.inner_lr=0\.5, not 0\.25: resume"):
        train(TINY.override(inner_lr=0.25), copy, resume=True, quiet=True)
    with pytest.raises(InvalidInputError, match=r"was started with method='maml', not 'reptile'"):
        train(TINY.override(method="reptile"), copy, resume=True, quiet=True)


def test_resuming_a_finished_run_changes_nothing(finished, copy):
    train(TINY, copy, resume=True, quiet=True)
    assert_same_run(finished, copy)
    assert files(copy) == WHOLE


@pytest.mark.parametrize("method", ["fomaml", "joint"])
def test_every_method_resumes(method, tmp_path, monkeypatch):
    config = TINY.override(method=method, iterations=2)
    train(config, tmp_path / "unbroken", quiet=True)
    act_in_iteration(monkeypatch, 1, raise_interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run", quiet=True)
    train(config, tmp_path / "run", resume=True, quiet=True)
    assert_same_run(tmp_path / "unbroken", tmp_path / "run")


# Normalised observations


@pytest.mark.parametrize("settings", [{}, {"method": "rl2"}, {"network": "gru"}, {"game": "RockPaperScissors"}])
def test_statistics_of_observations_travel_with_the_checkpoint_and_stay(settings, tmp_path):
    config = TrainConfig(game=settings.get("game", "Pursuit")).override(
        iterations=3, tasks=4, episodes=2, horizon=5, steps=1, hidden=(4,), validate_every=1, validation_tasks=2,
        normalise_observations=True, **{name: value for name, value in settings.items() if name != "game"},
    )  # fmt: skip
    folder = tmp_path / "run"
    train(config, folder, quiet=True)
    tensors, state = load_checkpoint(folder / LAST)
    seen = tensors["protagonist/statistics/count"]
    assert seen > 0
    running = RunningStatistics(len(tensors["protagonist/statistics/mean"]))
    running.load({name: tensors[f"protagonist/statistics/{name}"] for name in running.state()})
    mean, std = running.statistics
    for name, value in normalisation((mean, std)).items():
        assert torch.equal(tensors[f"protagonist/start/{name}"], value)
        if state["best"]["protagonist/iteration"] == 3:
            assert torch.equal(tensors[f"best/protagonist/start/{name}"], value)
    player = load(folder).protagonist
    shift, scale = player.weights[SHIFT], player.weights[SCALE]
    best = load_checkpoint(folder / BEST)[0]
    assert torch.equal(shift, best["protagonist/start/fixed.shift"])
    assert torch.equal(scale, best["protagonist/start/fixed.scale"])
    env = gym.make(f"metaduel/{config.game}-v0", horizon=5)
    env.reset(seed=0)
    adapted = player.adapt(env, shots=1, episodes=1)
    assert torch.equal(adapted.weights[SHIFT], shift)
    assert torch.equal(adapted.weights[SCALE], scale)
    if not settings:
        plain = dataclasses.replace(player, weights=adapting(player.weights))
        observation = env.reset(seed=1)[0]
        scaled = (observation - shift.numpy()) * scale.numpy()
        ours, theirs = (p.predict(o, deterministic=True)[0] for p, o in ((player, observation), (plain, scaled)))
        assert ours == pytest.approx(theirs, abs=1e-4)


@pytest.mark.parametrize(
    "more",
    [
        {"normalise_observations": True},
        {"method": "rl2", "truncation": 3, "carries": "refreshed", "minibatches": 2},
        {"method": "latent"},
        {"network": "gru"},
    ],
    ids=str,
)
def test_a_run_with_statistics_resumes_to_the_same_numbers(tmp_path, monkeypatch, more):
    config = TINY.override(**more)
    train(config, tmp_path / "unbroken", quiet=True)
    act_in_iteration(monkeypatch, 2, raise_interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run", quiet=True)
    train(config, tmp_path / "run", resume=True, quiet=True)
    assert_same_run(tmp_path / "unbroken", tmp_path / "run")


def as_before_statistics_were_weights(path):
    tensors, state = load_checkpoint(path)
    old = {name: value for name, value in tensors.items() if "/fixed." not in name}
    for role in ROLES:
        shift, scale = (tensors[f"best/{role}/start/{name}"] for name in (SHIFT, SCALE))
        old |= {f"best/{role}/observation_mean": shift, f"best/{role}/observation_std": 1 / scale}
    save_checkpoint(path, old, state)


def test_an_older_run_with_statistics_goes_on_to_the_same_numbers(tmp_path, monkeypatch):
    config = TINY.override(normalise_observations=True)
    train(config, tmp_path / "unbroken", quiet=True)
    act_in_iteration(monkeypatch, 2, raise_interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run", quiet=True)
    as_before_statistics_were_weights(tmp_path / "run" / LAST)
    train(config, tmp_path / "run", resume=True, quiet=True)
    assert metrics(tmp_path / "run") == metrics(tmp_path / "unbroken")
    ours, theirs = (load(tmp_path / name) for name in ("run", "unbroken"))
    for role in ROLES:
        for name, value in theirs.agent(role).weights.items():
            torch.testing.assert_close(ours.agent(role).weights[name], value)


# What stops a run, and what is refused


def test_nan_stops_and_keeps_the_last_good_checkpoint(tmp_path, monkeypatch):
    original = MAML._gradients

    def gradients(self, problem):
        result = yield from original(self, problem)
        if len(rows) == 2:
            result[0]["adversary"][0]["layer1.bias"][0] = float("nan")
        rows.append(1)
        return result

    rows = []
    monkeypatch.setattr(MAML, "_gradients", gradients)
    folder = tmp_path / "run"
    with pytest.raises(TrainingStopped, match=r"^iteration 3: .*adversary.*layer1\.bias.*checkpoint") as error:
        train(TINY, folder, quiet=True)
    assert "\n" not in str(error.value)
    assert load_checkpoint(folder / LAST)[1]["iteration"] == 2
    assert all(torch.isfinite(value).all() for value in load_checkpoint(folder / LAST)[0].values())
    assert len(metrics(folder)) == 2
    assert load(folder).protagonist.policy.observation_size == 2


def test_a_score_that_is_not_finite_stops_too(tmp_path):
    source = Scores([(1.0, -3.0), (float("nan"), -2.0)])
    learner = MAML({role: policy.init(0) for role, policy in source.policies.items()}, TINY.configured)
    trainer = Trainer(learner, source, tmp_path / "run", TINY.to_dict(), 3, 1, quiet=True)
    with pytest.raises(TrainingStopped, match="iteration 2: protagonist/score is not finite"):
        trainer.run()
    assert load(tmp_path / "run").iterations == {"protagonist": 1, "adversary": 1}


def test_an_existing_run_is_not_overwritten(finished, copy):
    with pytest.raises(InvalidInputError, match="--resume"):
        train(TINY, copy, quiet=True)
    with pytest.raises(InvalidInputError, match=r"seed=0, not 5"):
        train(TINY.override(seed=5), copy, resume=True, quiet=True)
    with pytest.raises(InvalidInputError, match="task_list"):
        train(TINY, copy, [{"push": 0.0}], resume=True, quiet=True)
    assert_same_run(finished, copy)


def flip(path):
    content = bytearray(path.read_bytes())
    content[-10] ^= 1
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-20])


def other_format(path):
    tensors, state = load_checkpoint(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("metaduel.meta.runs.checkpoint.FORMAT", 99)
        save_checkpoint(path, tensors, state)


def wipe_state(path):
    from safetensors.torch import save_file

    save_file(load_checkpoint(path)[0], path)


DAMAGE = {
    "flipped byte": (flip, "digest"),
    "truncated": (truncate, "truncated"),
    "no tensors": (lambda path: path.write_bytes(b""), "truncated"),
    "missing": (lambda path: path.unlink(), "no such checkpoint"),
    "other format": (other_format, "format '99'"),
    "another program's": (wipe_state, "format None"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_checkpoints_are_named(name, copy):
    damage, words = DAMAGE[name]
    damage(copy / BEST)
    with pytest.raises(InvalidInputError, match=words) as error:
        load(copy)
    assert BEST in str(error.value)
    assert "\n" not in str(error.value)
    damage(copy / LAST)
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    with pytest.raises(InvalidInputError, match=words):
        train(TINY, copy, resume=True, quiet=True)
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before


CONFIGS = {
    "colour: red": "colour",
    "seed: many": "seed",
    "tasks: 2.5": "tasks",
    "hidden: [4, x]": "hidden",
    "informed: 1": "informed",
    "learner: 3": "learner",
    "learner: {steps: one}": "learner.steps",
    "learner: {stpes: 1}": "steps",
    "loss: {surrogate: magic}": "surrogate",
    "roles: [boss]": "boss",
    "game: Chess": "Chess",
    "fixed: {push: far}": "fixed.push",
    "hidden: [8]": "weights",
}


@pytest.mark.parametrize("line", CONFIGS)
def test_bad_configs_are_named(line, copy):
    config = yaml.safe_load((copy / "config.yaml").read_text()) | yaml.safe_load(line)
    (copy / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(InvalidInputError, match=CONFIGS[line]) as error:
        load(copy)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["{", "- 1", "", "method: maml"])
def test_configs_that_are_none(text, copy):
    (copy / "config.yaml").write_text(text)
    with pytest.raises(InvalidInputError, match="config") as error:
        load(copy)
    assert "\n" not in str(error.value)


def test_folders_that_are_no_runs(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InvalidInputError, match="not a run folder"):
            load(folder)


SETTINGS = {
    "tasks": 0, "episodes": 1.5, "seed": "a", "inner_lr": float("nan"), "adversary_inner_lr": 0.0, "outer_lr": -1.0,
    "steps": -1, "discount": 2.0,
    "hidden": (0,), "horizon": -1, "method": "mmal", "iteratons": 3, "roles": (), "learned_share": 1.5,
    "initial_log_std": float("inf"), "learner": {"stpes": 1},
}  # fmt: skip


@pytest.mark.parametrize("name", [*SETTINGS, "fixed", "against_protagonist"])
def test_bad_settings_write_nothing(name, tmp_path):
    named_otherwise = {"fixed": ({"push": float("nan")}, "push"), "against_protagonist": (("nobody",), "nobody")}
    value, word = named_otherwise.get(name) or (SETTINGS[name], name)
    method = value if name == "method" else "maml"
    settings = {} if name == "method" else {name: value}
    with pytest.raises(InvalidInputError, match=word) as error:
        train_meta_adversarial("Navigation", method, tmp_path / "run", quiet=True, **settings)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_task_lists_are_trained_on_and_loaded(tmp_path):
    settings = {name: getattr(TINY, name) for name in ("iterations", "tasks", "episodes", "horizon", "hidden")}
    tasks = TaskList("Navigation", [{"push": 0.05}, {"push": 0.0}])
    run = train_meta_adversarial(tasks, folder=tmp_path / "run", steps=1, validation_tasks=2, quiet=True, **settings)
    assert run.config.game == "Navigation"
    for bad, words in (([], "at least one"), ([{"puhs": 0.1}], "push"), ([{"push": float("nan")}], "push")):
        with pytest.raises(InvalidInputError, match=words):
            train_meta_adversarial(TaskList("Navigation", bad), folder=tmp_path / "bad", quiet=True)
        assert not (tmp_path / "bad").exists()


# Validation and the best checkpoint


def test_validation_sees_the_validation_split_alone(monkeypatch):
    seen = []

    def spy(adapters, settings):
        seen.append((settings.role, settings.tasks, [player.name for player in settings.opponents]))
        return Evaluating(adapters, settings)

    monkeypatch.setattr(source_module, "Evaluating", spy)
    asked = []
    monkeypatch.setattr(
        source_module, "frozen_tasks", lambda spec, split: asked.append(split) or frozen_tasks(spec, split)
    )
    source = DuelSource(TINY)
    learner = MAML({role: policy.init(0) for role, policy in source.policies.items()}, TINY.configured)
    alone(source.validate(learner))
    assert asked == ["validation"]
    spec = find("Navigation")
    allowed = [list(task.values()) for task in frozen_tasks(spec, "validation")]
    assert [role for role, _, _ in seen] == list(ROLES)
    for role, tasks, opponents in seen:
        assert all(row in allowed for row in tasks.tolist())
        assert set(opponents) == set(spec.opponents[ROLES[role == "protagonist"]]["train"])


class Scores:
    """A source whose validation scores are given."""

    def __init__(self, scores):
        self.real = DuelSource(TINY)
        self.policies, self.problem, self.scores = self.real.policies, self.real.problem, iter(scores)
        self.record, self.state, self.fixed = self.real.record, self.real.state, self.real.fixed

    def validate(self, learner):
        yield from ()
        self.starts = [*getattr(self, "starts", []), {r: w["layer0.bias"].clone() for r, w in learner.start.items()}]
        scores = dict(zip(("protagonist/score", "adversary/score"), next(self.scores), strict=True))
        return Validation(scores, {role: learner.rates(role) for role in ROLES})


def test_the_best_iteration_is_each_roles_own(tmp_path):
    source = Scores([(1.0, -3.0), (3.0, -2.0), (2.0, -1.0)])
    learner = MAML({role: policy.init(0) for role, policy in source.policies.items()}, TINY.configured)
    Trainer(learner, source, tmp_path / "run", TINY.to_dict(), 3, 1, quiet=True).run()
    run = load(tmp_path / "run")
    assert run.iterations == {"protagonist": 2, "adversary": 3}
    assert torch.equal(run.protagonist.weights["layer0.bias"], source.starts[1]["protagonist"])
    assert torch.equal(run.adversary.weights["layer0.bias"], source.starts[2]["adversary"])
    assert not torch.equal(source.starts[1]["protagonist"], source.starts[2]["protagonist"])


# Trained players


def test_predict_serves_stable_baselines3(finished):
    agent = load(finished).protagonist
    env = gym.make("metaduel/Navigation-v0", opponent="idle")
    returns, lengths = evaluate_policy(agent, env, n_eval_episodes=2, return_episode_rewards=True, warn=False)
    assert len(returns) == len(lengths) == 2
    observation = torch.zeros(2).numpy()
    one, state = agent.predict(observation, state="kept", deterministic=True)
    assert state == "kept"
    assert env.action_space.contains(one)
    many, _ = agent.predict(torch.zeros(3, 2).numpy(), deterministic=True)
    assert many.shape == (3, *one.shape)
    assert abs(many - one).max() < 1e-6
    samples, _ = agent.predict(torch.zeros(500, 2).numpy())
    assert samples.std() > 0
    assert (abs(samples) <= env.action_space.high).all()


def test_adapting_on_a_gymnasium_env_equals_the_batched_step(finished, monkeypatch):
    agent = load(finished).protagonist
    env = gym.make("metaduel/Navigation-v0", opponent="idle", task="validation:0", horizon=5)
    data = []
    original, horizon = EnvironmentExperience.play, env.get_wrapper_attr("horizon")
    monkeypatch.setattr(EnvironmentExperience, "play", lambda *args: data.append(original(*args)) or data[-1])
    env.reset(seed=3)
    before = {name: value.clone() for name, value in agent.weights.items()}
    adapted = agent.adapt(env, shots=2, episodes=3)
    assert all(torch.equal(before[name], value) for name, value in agent.weights.items())
    # The same trajectories twice through the batched few-shot path: two tasks, so two equal rows.
    weights = stack(agent.weights, 2)
    for shot, played in enumerate(data):
        assert played.reward.shape == (1, 5, 3)
        both = type(played)(*(part.expand(2, *part.shape[1:]) for part in played[:4]))
        players = {"protagonist": {name: value.detach().requires_grad_() for name, value in weights.items()}}
        own = agent.loss.evaluate(agent.policy, players["protagonist"], both, horizon)
        losses = {"protagonist": own[0]}
        rates = {"protagonist": rate_at(agent.rates, shot)}
        weights = adapt_step(players, losses, rates, create_graph=False)["protagonist"]
    for name, value in adapted.weights.items():
        assert torch.allclose(weights[name], value.expand_as(weights[name]), atol=1e-6)
        assert not torch.equal(value, before[name]) or name == "log_std"


def test_adapt_refuses_what_cannot_work(finished, tmp_path):
    agent = load(finished).protagonist
    with pytest.raises(
        InvalidInputError, match=r"trained .* of metaduel/Navigation-v0, this .* of metaduel/Pursuit-v0"
    ):
        agent.adapt(gym.make("metaduel/Pursuit-v0"))
    env = gym.make("metaduel/Navigation-v0")
    for bad in ({"shots": 0}, {"episodes": 1.5}, {"shots": True}):
        with pytest.raises(InvalidInputError, match=next(iter(bad))):
            agent.adapt(env, **bad)
    joint = train(TINY.override(method="joint", iterations=1, steps=0), tmp_path / "joint", quiet=True)
    with pytest.raises(InvalidInputError, match="inner rates"):
        joint.protagonist.adapt(env)


def test_a_run_takes_a_seat(finished):
    env = gym.make("metaduel/Navigation-v0", seat="protagonist", opponent=f"run:{finished}")
    env.reset(seed=0)
    env.step(env.action_space.sample())
    duel = Duel(make_game(find("Navigation")))
    player = load_player(duel, "adversary", f"run:{finished}")
    assert player.agent.role == "adversary"
    with pytest.raises(InvalidInputError, match=r"Navigation.*Pursuit"):
        load_player(Duel(make_game(find("Pursuit"))), "adversary", f"run:{finished}")
    with pytest.raises(InvalidInputError, match="not a run folder"):
        gym.make("metaduel/Navigation-v0", opponent="run:nowhere").reset()


def test_one_learner_alone_has_one_role(tmp_path):
    run = train(TINY.override(roles=("adversary",), iterations=1), tmp_path / "run", quiet=True)
    assert list(run.agents) == ["adversary"]
    with pytest.raises(InvalidInputError, match="no protagonist"):
        run.protagonist  # noqa: B018


def test_loaded_weights_are_in_the_order_of_their_rates(finished):
    for agent in load(finished).agents.values():
        # Files sort names; a rate belongs to the weight tensor at its place.
        assert list(agent.weights) == list(agent.policy.init(0))
        assert agent.rates.shape == (TINY.learner.steps, len(agent.weights))
