"""The evaluation of anything that adapts: kinds of entries and of opponents, and one line for whatever cannot be played."""

import sys

import numpy as np
import pytest
import torch
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.vec_env import VecNormalize

import metaduel
from metaduel.agents.adapters.protocol import FixedPlayer
from metaduel.agents.adapters.sb3 import SB3Adapter
from metaduel.agents.sb3 import freeze
from metaduel.benchmarks.core import few_shot
from metaduel.benchmarks.core.entries import entries_of, opponents_of
from metaduel.benchmarks.core.evaluate import EvaluationFailed, evaluate
from metaduel.benchmarks.core.few_shot import Protocol
from metaduel.benchmarks.core.table import UNTRAINED, read
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.registry import find
from metaduel.envs.players.scripted import scripted
from metaduel.meta.runs import checkpoint
from metaduel.meta.runs.config import TrainConfig
from metaduel.meta.runs.load import load
from metaduel.meta.runs.train import train

SPEC = find("Pursuit")
SMALL = {"shots": 1, "episodes": 2, "test_episodes": 2, "task_count": 2}
LEARN = {
    "iterations": 1,
    "tasks": 4,
    "episodes": 2,
    "steps": 1,
    "hidden": (4,),
    "validate_every": 1,
    "validation_tasks": 2,
}


class Still:
    """Does nothing."""

    def begin(self, rows, seat):
        self.shape = (rows, *seat.action_space.shape)

    def act(self, observation, previous_action, previous_reward, episode_start):
        return np.zeros(self.shape)


class EightDirections:
    """Remembers which of eight directions paid, and walks to the wall there."""

    def begin(self, rows, seat):
        angle = np.arange(8) * np.pi / 4
        self.ways = np.stack([np.cos(angle), np.sin(angle)], 1)
        self.paid, self.curious = np.zeros((rows, 8)), 1.0
        self.rng = np.random.default_rng(seat.seed)

    def act(self, observation, previous_action, previous_reward, episode_start):
        self.paid += np.clip(previous_reward, -0.05, 0.05)[:, None] * (previous_action @ self.ways.T)
        goal = 1.1 * self.ways[self.paid.argmax(1)] - observation[:, :2]
        step = goal / np.linalg.norm(goal, axis=1, keepdims=True) + self.curious * self.rng.normal(size=goal.shape)
        return step / np.linalg.norm(step, axis=1, keepdims=True)

    def end_of_shot(self):
        self.curious /= 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "maml-0"
    train(TrainConfig(game="Pursuit").override(**LEARN), path, quiet=True)
    return path


@pytest.fixture(scope="module")
def model():
    return PPO("MlpPolicy", metaduel.make_sb3("Pursuit", num_envs=2), n_steps=32, batch_size=32, seed=0, device="cpu")


def test_a_script_a_model_and_a_run_stand_in_one_table(folder, model, monkeypatch, tmp_path):
    monkeypatch.setattr(few_shot, "RATES", (0.1,))
    entries = {"mine": EightDirections(), "ppo": model, "maml": folder}
    settings = {"shots": 2, "episodes": 5, "test_episodes": 5, "task_count": 4}
    table = evaluate(entries, roles="protagonist", out=tmp_path, **settings)
    assert table.values("method")[:4] == ["maml", "random start", "mine", "ppo"]
    assert all(table.filter(method=name).values("shot") == [0, 1, 2] for name in entries)
    assert table.values("role") == ["protagonist"]
    assert table.filter(method="mine").values("opponent") == list(SPEC.opponents["adversary"]["held_out"])
    mine = [table.filter(method="mine", shot=shot)["return"].mean() for shot in range(3)]
    assert mine[2] > mine[0] + 0.3  # it learns where the gate is
    assert (tmp_path / "report.md").is_file()
    again = evaluate(entries, roles="protagonist", baselines=False, **settings)
    for name in entries:
        np.testing.assert_array_equal(table.filter(method=name)["return"], again.filter(method=name)["return"])


def test_every_kind_of_entry_has_a_name(folder, model, tmp_path):
    model.save(tmp_path / "saved.zip")
    run, scripts = load(folder), scripted(SPEC, "protagonist")
    kinds = [
        str(folder), run.protagonist, SB3Adapter(model), model, Still(), "flee", "flee(noise=0.1)",
        f"sb3:{tmp_path / 'saved.zip'}", scripts["sweep"], FixedPlayer(scripts["flee"]),
    ]  # fmt: skip
    found = entries_of(kinds, SPEC)
    assert [entry.name for entry in found] == [
        "maml", "agent", "SB3Adapter", "PPO", "Still", "scripted: flee", "scripted: flee(noise=0.1)", "saved", "sweep",
        "FixedPlayer",
    ]  # fmt: skip
    assert [entry.seed for entry in found] == [0, *[UNTRAINED] * 9]
    table = evaluate(kinds, roles=("protagonist",), baselines=False, opponents=["guard"], **SMALL)
    assert table.values("method") == [entry.name for entry in found]
    # A saved model that is not trusted plays as it is, and so does a script.
    assert table.filter(method="saved").values("shot") == [0]
    same = [table.filter(method=name)["return"] for name in ("scripted: flee", "FixedPlayer")]
    np.testing.assert_array_equal(*same)
    np.testing.assert_array_equal(*(table.filter(method=name)["return"] for name in ("SB3Adapter", "PPO")))


def test_a_list_under_a_name_has_a_seed_each(model):
    found = entries_of({"mine": [Still(), Still(), Still()], "ppo": model}, SPEC)
    assert [(entry.name, entry.seed) for entry in found] == [("mine", 0), ("mine", 1), ("mine", 2), ("ppo", UNTRAINED)]


def test_a_run_an_agent_and_the_runs_own_evaluation_agree(folder):
    run = load(folder)
    by_folder, by_run = (evaluate(one, roles="protagonist", baselines=False, **SMALL) for one in (folder, run))
    by_agent = evaluate(run.protagonist, game="Pursuit", baselines=False, **SMALL)
    np.testing.assert_array_equal(by_folder["return"], by_run["return"])
    np.testing.assert_array_equal(by_folder["return"], by_agent["return"])
    own = few_shot.evaluate(few_shot.contender(run, "protagonist"), Protocol(**SMALL)).returns
    np.testing.assert_allclose(by_folder["return"], own.ravel(), atol=1e-6)


def test_an_agent_plays_the_game_that_it_was_trained_on(tmp_path, monkeypatch):
    settings = {**LEARN, "fixed": {"push": 0.0}, "horizon": 7, "threads": 1}
    make = lambda name, **changes: train(  # noqa: E731
        TrainConfig(game="Navigation").override(**{**settings, **changes}), tmp_path / name, quiet=True
    )
    run, longer, pushed = make("run"), make("longer", horizon=9), make("pushed", fixed={})
    saved = run.protagonist.save(tmp_path / "saved")
    played = []
    kept = Protocol.task_list
    monkeypatch.setattr(Protocol, "task_list", lambda self, spec: played.append(kept(self, spec)) or played[-1])
    by_run, *others = (
        evaluate(one, roles="protagonist", baselines=False, **SMALL)
        for one in (run, run.protagonist, saved, [saved, run])
    )
    assert {task["push"] for tasks in played for task in tasks} == {0.0}
    for table in (*others[:2], *(others[2].filter(method=name) for name in ("saved", "maml"))):
        np.testing.assert_array_equal(table["return"], by_run["return"])
    for other, name in ((longer, "horizon"), (pushed, "fixed")):
        for pair in ([run, other.protagonist], [run.protagonist, other], {"a": saved, "b": other.protagonist}):
            with pytest.raises(InvalidInputError, match=f"has {name} .*: evaluate them apart"):
                evaluate(pair, roles="protagonist", baselines=False, **SMALL)
    with pytest.raises(InvalidInputError, match=r"game='Pursuit': .* was trained on Navigation"):
        evaluate(run.protagonist, game="Pursuit", **SMALL)


def test_an_informed_agent_plays_as_its_run_does(tmp_path):
    config = TrainConfig(game="Pursuit").override(**LEARN)
    run = train(config.override(method="joint", informed=True), tmp_path / "run", quiet=True)
    tables = [evaluate({"it": one}, roles="adversary", baselines=False, **SMALL) for one in (run, run.adversary)]
    assert [table.values("shot") for table in tables] == [[0], [0]]
    np.testing.assert_array_equal(tables[0]["return"], tables[1]["return"])
    adapting = train(config.override(informed=True), tmp_path / "adapting", quiet=True)
    with pytest.raises(InvalidInputError, match="the ceiling must not adapt"):
        evaluate(adapting.adversary, baselines=False, **SMALL)


def test_a_saved_agents_file_is_read_twice_at_most(folder, tmp_path, monkeypatch):
    saved = load(folder).protagonist.save(tmp_path / "saved")
    read, opened = checkpoint.load_checkpoint, []
    monkeypatch.setattr(checkpoint, "load_checkpoint", lambda path: opened.append(path) or read(path))
    load(saved)
    assert len(opened) == 1
    entries_of([saved])
    assert len(opened) <= 3


class Northwards:
    """A player by its ``predict`` alone."""

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return np.tile(np.float32([0, 1]), (len(observation), 1)), None


def test_what_can_be_an_opponent_can_be_an_entry(model):
    entries = {"frozen": freeze(model), "policy": model.policy, "object": Northwards(), "sampled": freeze(model, True)}
    assert [name for name, _ in opponents_of(entries)] == list(entries)
    table = evaluate(entries, game="Pursuit", roles="protagonist", baselines=False, **SMALL)
    assert table.values("method") == list(entries)
    assert table.values("shot") == [0]
    returns = [table.filter(method=name)["return"] for name in entries]
    np.testing.assert_array_equal(returns[0], returns[1])
    assert not np.array_equal(returns[0], returns[2])
    assert [entry.name for entry in entries_of([*entries.values()][:3], SPEC)] == [
        "PPO at 0 steps", "ActorCriticPolicy", "Northwards",
    ]  # fmt: skip
    with pytest.raises(InvalidInputError, match="entry 'sampled' chooses by itself"):
        evaluate(entries, game="Pursuit", roles="protagonist", actions="mode", **SMALL)


def test_opponents_of_every_kind_are_met(folder, model):
    run = load(folder)
    listed = {
        "one": "guard(noise=0.1)",
        "run": f"run:{folder}",
        "agent": run.adversary,
        "script": scripted(SPEC, "adversary")["drift"],
    }
    table = evaluate(Still(), game="Pursuit", opponents=listed, baselines=False, **SMALL)
    assert table.values("role") == ["protagonist"]  # the seat on whose other side they can sit
    assert table.values("opponent") == list(listed)
    assert table.values("opponent_split") == ["listed"]
    twins = [table.filter(opponent=name)["return"] for name in ("run", "agent")]
    assert not np.array_equal(*twins)  # they sit in rows of their own
    seats = PPO("MlpPolicy", metaduel.make_sb3("Pursuit", seat="adversary"), device="cpu")
    assert evaluate(Still(), game="Pursuit", opponents=seats, baselines=False, **SMALL).values("opponent") == ["PPO"]


def test_learners_from_a_module(tmp_path, monkeypatch):
    (tmp_path / "my_learner.py").write_text(
        "import numpy as np\n\n\nclass Still:\n    def begin(self, rows, seat):\n        self.rows = rows\n\n"
        "    def act(self, observation, *others):\n        return np.zeros((self.rows, 2))\n\n\n"
        "def make():\n    return Still()\n\n\nready = Still()\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    names = ["my_learner:Still", "my_learner:make", "my_learner:ready"]
    assert [entry.name for entry in entries_of(names, SPEC)] == ["Still", "make", "ready"]
    table = evaluate(names, game="Pursuit", roles="protagonist", baselines=False, **SMALL)
    np.testing.assert_array_equal(table.filter(method="Still")["return"], table.filter(method="ready")["return"])
    with pytest.raises(InvalidInputError, match=r"'my_learner:nothing'.*has no attribute 'nothing'"):
        entries_of("my_learner:nothing", SPEC)
    with pytest.raises(InvalidInputError, match=r"'my_learners:make'.*No module named 'my_learners'"):
        entries_of("my_learners:make", SPEC)


def with_act(act):
    return type("Odd", (Still,), {"act": act})()


BAD_ACTIONS = {
    "NaN": (
        lambda self, o, a, r, s: np.where(np.arange(len(o))[:, None] == 3, np.nan, 0 * a),
        "task held_out:1, opponent {second}, shot 0: its action is NaN",
    ),
    "shape": (lambda self, o, a, r, s: np.zeros(len(o)), r"shot 0: its actions have shape \(6,\), must have \(6, 2\)"),
    "words": (lambda self, o, a, r, s: "left", r"shot 0: its actions have shape \(\), must have \(6, 2\)"),
    "strings": (lambda self, o, a, r, s: np.full((len(o), 2), "left"), "shot 0: its actions are <U4, must be numbers"),
    "infinite": (lambda self, o, a, r, s: np.full((len(o), 2), np.inf), "shot 0: its action is not finite"),
    "ragged": (lambda self, o, a, r, s: [[0.0], [0.0, 0.0]], "shot 0: its actions are a ragged list"),
    "raises": (lambda self, o, a, r, s: 1 / 0, "shot 0: its act raises ZeroDivisionError: division by zero"),
}


@pytest.mark.parametrize("name", BAD_ACTIONS)
def test_what_is_no_action_is_one_line_and_finished_rows_are_kept(name, tmp_path):
    act, message = BAD_ACTIONS[name]
    message = message.format(second=SPEC.opponents["adversary"]["held_out"][1])
    entries = {"fine": Still(), "odd": with_act(act)}
    with pytest.raises(EvaluationFailed, match=f"entry odd, protagonist.*{message}") as caught:
        evaluate(entries, game="Pursuit", roles="protagonist", baselines=False, out=tmp_path, **SMALL)
    assert "\n" not in str(caught.value)
    assert caught.value.table.values("method") == ["fine"]
    assert read(tmp_path / "results.csv.gz").values("method") == ["fine"]


def test_whole_numbers_outside_the_space_are_refused():
    odd = with_act(lambda self, o, a, r, s: np.full(len(o), 7))
    with pytest.raises(EvaluationFailed, match=r"its action 7 must be in 0 to \d"):
        evaluate(odd, game="KuhnPoker", roles="protagonist", baselines=False, **SMALL)
    floats = with_act(lambda self, o, a, r, s: np.zeros(len(o)))
    with pytest.raises(EvaluationFailed, match="its actions are float64, must be whole numbers"):
        evaluate(floats, game="KuhnPoker", roles="protagonist", baselines=False, **SMALL)


class Greedy:
    """An adapter that plays its shot's episodes in some forbidden way."""

    adapts = True

    def __init__(self, update):
        self._update = update

    def start(self, seat, rows, seed):
        return FixedPlayer(scripted(SPEC, "protagonist")["flee"]).start(seat, rows, seed)

    def update(self, player, experience):
        self._update(player, experience)
        return player


def twice(player, experience):
    experience.play(player)
    experience.play(player)


def again_in_turn(player, experience):
    for episode in experience.one_by_one():
        episode.play(player)
        episode.play(player)


def mixed(player, experience):
    experience.play(player)
    experience.environment(0)


@pytest.mark.parametrize("update", [twice, again_in_turn, mixed], ids=lambda function: function.__name__)
def test_more_episodes_than_a_shot_has_are_refused(update):
    with pytest.raises(EvaluationFailed, match=r"entry cheat, protagonist.*shot 1: it plays"):
        evaluate({"cheat": Greedy(update)}, game="Pursuit", roles="protagonist", baselines=False, **SMALL)


def test_the_seats_environment_counts_episodes_and_hides_the_task():
    seen = {}

    def look(player, experience):
        env = experience.environment(1)
        assert env.unwrapped is env
        seen["names"] = [name for name in vars(env) if "seat" in name or "task" in name]
        observation, info = env.reset(seed=3)
        assert env.observation_space.contains(observation)
        assert info == {}
        done, episodes = False, 0
        while episodes < 2:
            _, _, terminated, truncated, info = env.step(env.action_space.sample())
            assert info == {}
            if terminated or truncated:
                episodes += 1
                env.reset()
        with pytest.raises(Exception, match="all 2 episodes of the shot are played"):
            env.step(env.action_space.sample())
        seen["done"] = done

    evaluate({"looks": Greedy(look)}, game="Pursuit", roles="protagonist", baselines=False, **SMALL)
    assert seen["names"] == []


class Half:
    def begin(self, rows, seat):
        pass


def pursuit(entries, **settings):
    return {"entries": entries, "game": "Pursuit", **settings}


REFUSED = {
    "nothing": (lambda f, m: {"entries": []}, r"entries=\[\] must hold at least one"),
    "no game": (lambda f, m: {"entries": Still()}, "game=None: name the game"),
    "another game": (lambda f, m: {"entries": f, "game": "Sumo"}, "game='Sumo': .* was trained on Pursuit"),
    "no entry": (lambda f, m: pursuit(3.5), "entries: 3.5 is none"),
    "a class": (lambda f, m: pursuit({"x": PPO}), r"entries: PPO is a class: give PPO\(\), an object of it"),
    "a learner's class": (lambda f, m: pursuit(Still), "entries: Still is a class"),
    "network": (
        lambda f, m: pursuit([f, m], network=lambda size, actions: None),
        "network=.* has no effect without a run with a network of its own",
    ),
    "VecNormalize": (
        lambda f, m: pursuit(
            PPO("MlpPolicy", VecNormalize(metaduel.make_sb3("Pursuit")), device="cpu"), roles="protagonist"
        ),
        "entry 'PPO' cannot play the protagonist: its model was trained with VecNormalize",
    ),
    "no act": (lambda f, m: pursuit(Half()), "Half has no method act"),
    "two of a name": (lambda f, m: pursuit([Still(), Still()]), "are both Still: give one of them, or names"),
    "two runs": (lambda f, m: {"entries": [f, f]}, "are both maml with seed 0"),
    "unknown script": (lambda f, m: pursuit("flea"), "'flea' is no folder, no file, and no scripted player"),
    "script without game": (lambda f, m: {"entries": "flee"}, "'flee': no folder or file of this name"),
    "spaces": (
        lambda f, m: {"entries": {"mine": m}, "game": "Sumo", "roles": "protagonist"},
        "entry 'mine' cannot play the protagonist: its observation space is",
    ),
    "role of a script": (
        lambda f, m: pursuit("flee", roles=("adversary",)),
        "entry 'scripted: flee' cannot play the adversary",
    ),
    "roles": (lambda f, m: {"entries": f, "roles": ()}, r"roles=\(\) must name"),
    "opponents": (lambda f, m: {"entries": f, "opponents": []}, r"opponents=\[\] must hold at least one player"),
    "opponent": (lambda f, m: {"entries": f, "opponents": ["nobody"]}, "unknown opponent .* 'nobody'"),
    "two opponents": (lambda f, m: pursuit(f, opponents=["guard", "guard"]), "two of them are called 'guard'"),
    "no player": (lambda f, m: {"entries": f, "opponents": [4]}, "opponents: 4 is no player"),
    "crossed": (lambda f, m: pursuit(f, opponents=["guard"], roles="protagonist", crossed=True), "crossed=True plays"),
    "split": (lambda f, m: {"entries": f, "tasks": "helled_out"}, "unknown split 'helled_out'"),
    "too many": (
        lambda f, m: {"entries": f, "task_count": 101},
        "task_count=101: the held_out list of Pursuit holds 100",
    ),
    "modes of NumPy": (
        lambda f, m: pursuit(Still(), actions="mode"),
        "actions='mode': entry 'Still' chooses by itself",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_evaluated_is_refused_in_one_line(name, folder, model, tmp_path):
    make, message = REFUSED[name]
    with pytest.raises(InvalidInputError, match=message) as caught:
        evaluate(**{"out": tmp_path / "out", **make(folder, model)})
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_an_object_that_cannot_be_copied_says_so():
    class Stubborn(Still):
        def __deepcopy__(self, memo):
            raise TypeError("no copies")

    with pytest.raises(InvalidInputError, match=r"Stubborn cannot be deep-copied \(no copies\)"):
        evaluate(Stubborn(), game="Pursuit", roles="protagonist", baselines=False, **SMALL)


def test_opponents_have_names():
    names = [name for name, _ in opponents_of(["guard", "run:somewhere", "model.zip"])]
    assert names == ["guard", "run:somewhere", "sb3:model.zip"]


def test_an_off_policy_algorithm_learns_between_tests():
    env = metaduel.make_sb3("RockPaperScissors")
    model = DQN("MlpPolicy", env, learning_starts=0, train_freq=1, buffer_size=200, batch_size=8, seed=0, device="cpu")
    before = [value.clone() for value in model.policy.state_dict().values()]
    opponent = find("RockPaperScissors").opponents["adversary"]["train"][0]
    table = evaluate(
        model, game="RockPaperScissors", roles="protagonist", baselines=False, opponents=opponent, shots=2, episodes=2,
        test_episodes=2, task_count=1,
    )  # fmt: skip
    assert table.values("shot") == [0, 1, 2]
    assert all(
        torch.equal(a, b) for a, b in zip(before, model.policy.state_dict().values(), strict=True)
    )  # it is copied
