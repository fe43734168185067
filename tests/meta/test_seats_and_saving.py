"""A trained player takes only the seat that it was trained for, and is saved and read again as it is."""

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.wrappers import FlattenObservation, NormalizeReward
from pettingzoo.classic import rps_v2
from torch import nn

import metaduel
from metaduel.agents import GameArena
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.game import make_game
from metaduel.envs.core.registry import find
from metaduel.envs.core.tasks import task_rows
from metaduel.envs.players.names import load_player, player_name
from metaduel.envs.players.play import play
from metaduel.meta.runs.agent import Agent
from metaduel.meta.runs.checkpoint import AGENT, load_checkpoint, save_checkpoint
from metaduel.meta.runs.config import TrainConfig
from metaduel.meta.runs.load import load
from metaduel.meta.runs.train import train
from metaduel.meta.runs.trainer import BEST

TINY = {
    "iterations": 1,
    "tasks": 4,
    "episodes": 2,
    "steps": 2,
    "hidden": (4,),
    "validate_every": 1,
    "validation_tasks": 2,
}
SMALL = {"shots": 1, "episodes": 2, "test_episodes": 2, "task_count": 2}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of runs, each trained when it is first asked for."""
    root, made = tmp_path_factory.mktemp("runs"), {}

    def folder(game, **settings):
        key = (game, *sorted(settings.items()))
        if key not in made:
            made[key] = root / str(len(made))
            config = TrainConfig(game=game).override(**{**TINY, **settings})
            train(config, made[key], quiet=True)
        return made[key]

    return folder


def duel_of(game, **changes):
    return Duel(make_game(find(game)), **changes)


def numbers(agent):
    """What a refused call must leave alone."""
    return agent._rng.bit_generator.state


# The right seat


SEATS = {
    "the other seat": {"id": "metaduel/MatchingPennies-v0", "seat": "protagonist"},
    "another family": {"id": "metaduel/IteratedPrisonersDilemma-v0", "seat": "adversary"},
}


class Counted(gym.Wrapper):
    resets = 0

    def reset(self, **kwargs):
        self.resets += 1
        return super().reset(**kwargs)


@pytest.mark.parametrize("case", SEATS)
def test_adapt_takes_the_seat_and_the_family_that_it_was_trained_for(runs, case):
    agent = load(runs("MatchingPennies")).adversary
    env = Counted(gym.make(**SEATS[case]))
    spaces = env.observation_space.shape, env.action_space
    assert spaces == (agent.observation_space.shape, agent.action_space)  # nothing else tells the seats apart
    before = numbers(agent)
    with pytest.raises(InvalidInputError) as error:
        agent.adapt(NormalizeReward(env), shots=1, episodes=1)
    place = f"the {SEATS[case]['seat']}'s seat of {SEATS[case]['id']}"
    assert f"trained as the adversary of metaduel/MatchingPennies-v0, this is {place}" in str(error.value)
    assert env.resets == 0
    assert numbers(agent) == before
    own = Counted(gym.make("metaduel/MatchingPennies-v0", seat="adversary", horizon=5))
    assert agent.adapt(NormalizeReward(own), shots=1, episodes=1).shots == 1
    assert own.resets == 1


def test_adapt_compares_versions_but_not_specs_that_say_the_same(runs):
    agent, spec = load(runs("MatchingPennies")).protagonist, find("MatchingPennies")
    later = gym.make("metaduel/MatchingPennies-v0", game=replace(spec, version=1), horizon=5)
    with pytest.raises(InvalidInputError, match=r"of metaduel/MatchingPennies-v0, .* of metaduel/MatchingPennies-v1"):
        agent.adapt(later, shots=1, episodes=1)
    again = gym.make("metaduel/MatchingPennies-v0", game=replace(spec), horizon=5)  # a module that was loaded again
    agent.adapt(again, shots=1, episodes=1)
    load_player(Duel(make_game(replace(spec))), "protagonist", agent)
    assert len(metaduel.evaluate(load(runs("MatchingPennies")), game=replace(spec), baselines=False, **SMALL))


def test_adapt_takes_one_environment(runs):
    agent = load(runs("MatchingPennies")).protagonist
    for many in (
        metaduel.make_sb3("MatchingPennies", num_envs=1),
        gym.make_vec("metaduel/MatchingPennies-v0", num_envs=1, vectorization_mode="vector_entry_point"),
    ):
        with pytest.raises(InvalidInputError, match="of 1 rows: adapt takes one environment"):
            agent.adapt(many)


def test_an_environment_of_another_kind_is_compared_by_spaces_alone(runs):
    agent = load(runs("MatchingPennies")).protagonist

    class Foreign(gym.Env):
        # Bounds only describe what is seen.
        observation_space = gym.spaces.Box(-9, 9, agent.observation_space.shape, np.float32)
        action_space = agent.action_space

        def reset(self, seed=None, options=None):
            return np.zeros(self.observation_space.shape, np.float32), {}

        def step(self, action):
            return np.zeros(self.observation_space.shape, np.float32), 1.0, True, False, {}

    assert agent.adapt(FlattenObservation(Foreign()), shots=1, episodes=2).shots == 1
    Foreign.action_space = gym.spaces.Discrete(7)
    with pytest.raises(InvalidInputError, match=r"action space is Discrete\(2\), the seat's is Discrete\(7\)"):
        agent.adapt(Foreign(), shots=1)


def test_a_seat_compares_family_role_and_what_is_seen(runs):
    folder = runs("MatchingPennies")
    run = load(folder)
    for game, role, given, message in (
        ("IteratedPrisonersDilemma", "adversary", f"run:{folder}", "Pennies-v0, .* of metaduel/IteratedPrisonersDilemma-v0"),
        ("IteratedPrisonersDilemma", "adversary", run, "this is the adversary's seat of metaduel/IteratedPris"),
        ("MatchingPennies", "adversary", run.protagonist, "as the protagonist of .*, this is the adversary's seat"),
        ("MatchingPennies", "adversary", run.protagonist.player_for(duel_of("MatchingPennies"), "protagonist"), "as the pro"),
        ("MatchingPennies", "protagonist", load(runs("MatchingPennies", method="joint", informed=True)), "trained informed"),
        ("Navigation", "protagonist", load(runs("Navigation", roles=("adversary",))), "has no protagonist"),
    ):  # fmt: skip
        with pytest.raises(InvalidInputError, match=message) as error:
            load_player(duel_of(game), role, given)
        assert "\n" not in str(error.value)
        with pytest.raises(InvalidInputError, match=message):
            GameArena(duel_of(game), *_other(game, role), [given], 1, 0)
        with pytest.raises(InvalidInputError, match=message):
            metaduel.evaluate(_idle(game, role), game=game, opponents={"it": given}, roles=[_other(game, role)[0]])
    informed = load(runs("MatchingPennies", method="joint", informed=True))
    shown = duel_of("MatchingPennies", informed=("protagonist", "adversary"))
    assert load_player(shown, "protagonist", informed).agent is informed.protagonist
    with pytest.raises(InvalidInputError, match=r"Agent\(metaduel/Matching.* was trained on MatchingPennies"):
        metaduel.evaluate(run.protagonist, game="IteratedPrisonersDilemma", roles="protagonist")


def _other(game, role):
    spec = find(game)
    return ("protagonist" if role == "adversary" else "adversary"), task_rows(spec, [{}], {})


def _idle(game, role):
    return find(game).opponents[_other(game, role)[0]]["train"][0]


def test_a_run_of_an_earlier_version_is_refused(runs):
    config = load(runs("Navigation")).config
    assert config.version == find("Navigation").version
    assert config.override(game="Pursuit").family == "metaduel/Pursuit-v0"
    with pytest.raises(InvalidInputError, match="version 7 of Navigation, whose version is now 0"):
        TrainConfig.from_dict({**config.to_dict(), "version": 7})
    older = {
        name: value for name, value in config.to_dict().items() if name != "version"
    }  # as earlier releases wrote it
    assert TrainConfig.from_dict(older) == config


# A call that is refused changes nothing


def test_predict_and_remember_refuse_foreign_states_and_draw_nothing(runs):
    agent = load(runs("Pursuit", method="rl2")).protagonist
    size = agent.observation_space.shape[0]
    seen = np.zeros((2, size), np.float32)
    _, state = agent.predict(seen)
    before = numbers(agent)
    other = load(runs("Pursuit", method="rl2", hidden=(6,))).protagonist
    foreign = [
        other.predict(seen)[1],
        (np.zeros((2, 4)), np.zeros((2, 4))),
        "state",
        state._replace(hidden=np.zeros(4)),
        3,
    ]
    for one in foreign:
        with pytest.raises(
            InvalidInputError, match=r"state=.*: must be what predict or remember of this player returned"
        ):
            agent.predict(seen, one)
        with pytest.raises(InvalidInputError, match="must be what predict or remember"):
            agent.remember(one, 0.0)
    for call in (
        lambda: agent.predict(seen, state),  # without its reward
        lambda: agent.predict(seen[:1], agent.remember(state, 0.0)),
        lambda: agent.predict(seen, None, [True]),
        lambda: agent.predict(seen[:, 1:]),
        lambda: agent.predict(np.zeros((1, 1, size))),
        lambda: agent.remember(state, [0.0, 1.0, 2.0]),
    ):
        with pytest.raises(InvalidInputError):
            call()
    assert numbers(agent) == before
    agent.predict(seen, agent.remember(state, [0.0, 1.0]))
    assert numbers(agent) != before


def test_a_refused_adaptation_leaves_agent_and_environment_alone(runs):
    agent = load(runs("MatchingPennies")).protagonist
    env, before = Counted(gym.make("metaduel/MatchingPennies-v0")), numbers(agent)
    for bad in ({"shots": 0}, {"episodes": True}, {"shots": 1.5}):
        with pytest.raises(InvalidInputError):
            agent.adapt(env, **bad)
    joint = load(runs("MatchingPennies", method="joint", steps=0)).protagonist
    with pytest.raises(InvalidInputError, match="inner rates"):
        joint.adapt(env)
    assert env.resets == 0
    assert numbers(agent) == before


# Saving


KINDS = {
    "gradients": ("MatchingPennies", {}),
    "continuous, context, normalised": ("Pursuit", {"context": 2, "normalise_observations": True, "hidden": (6, 5)}),
    "a memory": ("Pursuit", {"method": "rl2", "normalise_observations": True}),
    "a belief": ("MatchingPennies", {"method": "latent"}),
    "within episodes": ("Pursuit", {"network": "gru"}),
}


def returns_of(given, game, role, episodes=4):
    """Returns of what is given in a seat, sampled by the seat's noise."""
    duel = duel_of(game, horizon=10)
    spec = duel.spec
    rival = spec.opponents[_other(game, role)[0]]["train"][0]
    pair = (given, rival) if role == "protagonist" else (rival, given)
    params = duel.game.params([{}] * episodes)
    return play(duel, pair, params, torch.arange(episodes), torch.zeros(episodes, dtype=torch.int64)).returns


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapted_player_is_read_again_as_it_was(runs, tmp_path, kind):
    game, settings = KINDS[kind]
    role = "adversary"
    start = load(runs(game, **settings)).agent(role)

    def env():
        made = gym.make(f"metaduel/{game}-v0", seat=role, horizon=10)
        made.reset(seed=5)
        return made

    agent = start.adapt(env(), shots=2, episodes=2)
    observations = np.stack([env().observation_space.sample() for _ in range(3)]).clip(-1, 1)
    agent.predict(observations)  # its random numbers are somewhere
    assert agent.save(tmp_path / "saved") == tmp_path / "saved"
    assert [path.name for path in (tmp_path / "saved").iterdir()] == [AGENT]
    run = metaduel.load(tmp_path / "saved")
    again = run.agent(role)
    assert list(run.agents) == [role]
    assert run.adversary is again
    with pytest.raises(InvalidInputError, match="has no protagonist"):
        run.protagonist  # noqa: B018
    assert (again.seed, again.shots, again.loss, again.config) == (agent.seed, 2, agent.loss, agent.config)
    assert list(again.weights) == list(agent.weights)
    for name, value in agent.weights.items():
        assert torch.equal(value, again.weights[name])
    changed = agent.carry if agent.policy.lasting else agent.weights
    unchanged = start.begin(1) if agent.policy.lasting else start.weights
    assert any(not torch.equal(a, b) for a, b in zip(_tensors(changed), _tensors(unchanged), strict=True))
    for deterministic in (False, True):
        actions = [one.predict(observations, deterministic=deterministic)[0] for one in (agent, again)]
        np.testing.assert_array_equal(*actions)
    # It takes a seat however it is named, and plays the same.
    found = [
        returns_of(one, game, role) for one in (agent, again, run, f"run:{tmp_path / 'saved'}", tmp_path / "saved")
    ]
    for one in found[1:]:
        assert torch.equal(found[0], one)
    # It adapts on from where it was, as the other does.
    further = [one.adapt(env(), shots=1, episodes=2) for one in (agent, again)]
    assert further[0].shots == further[1].shots == 3
    for name, value in further[0].weights.items():
        assert torch.equal(value, further[1].weights[name])
    assert torch.equal(returns_of(further[0], game, role), returns_of(further[1], game, role))


def _tensors(values):
    return list(values.values()) if isinstance(values, dict) else list(values)


def test_adapting_twice_is_adapting_on(runs):
    agent = load(runs("MatchingPennies")).protagonist
    agent = replace(agent, rates=agent.rates * torch.tensor([[1.0], [9.0]]))  # each update has a rate of its own

    def env():
        made = gym.make("metaduel/MatchingPennies-v0", horizon=10, task="validation:0")
        made.reset(seed=1)
        return made

    at_once = replace(agent).adapt(env(), shots=2, episodes=2)
    one = env()
    in_turn = replace(agent).adapt(one, shots=1, episodes=2).adapt(one, shots=1, episodes=2)
    for name, value in at_once.weights.items():
        torch.testing.assert_close(value, in_turn.weights[name])


def test_saving_replaces_a_saved_agent_and_nothing_else(runs, tmp_path, monkeypatch):
    folder = runs("MatchingPennies")
    agent = load(folder).protagonist
    agent.save(tmp_path / "saved")
    replace(agent, shots=9).save(str(tmp_path / "saved"))
    assert load(tmp_path / "saved").protagonist.shots == 9
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    for target, message in (
        (folder, "holds checkpoints, config.yaml, .*: name a new folder"),
        (tmp_path / "file", "is a file"),
        (tmp_path / "full", "holds notes.txt"),
    ):
        before = sorted(path.name for path in tmp_path.rglob("*"))
        with pytest.raises(InvalidInputError, match=message):
            agent.save(target)
        assert sorted(path.name for path in tmp_path.rglob("*")) == before
    with pytest.raises(InvalidInputError, match="is of no run"):
        replace(agent, config=None).save(tmp_path / "none")
    assert not (tmp_path / "none").exists()

    # A write that fails leaves the old agent.
    def fail(*args):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", fail)
        with pytest.raises(OSError, match="disk full"):
            agent.save(tmp_path / "saved")
    assert load(tmp_path / "saved").protagonist.shots == 9
    assert [path.name for path in (tmp_path / "saved").iterdir()] == [AGENT]
    with pytest.raises(InvalidInputError, match="holds a saved agent"):
        train(TrainConfig(game="MatchingPennies").override(**TINY), tmp_path / "saved", quiet=True)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert agent.save("~/home") == tmp_path / "home"
    assert load("~/home").protagonist.shots == 0
    load_player(duel_of("MatchingPennies"), "protagonist", "run:~/home")


def test_a_saved_agent_that_was_changed_is_refused(runs, tmp_path):
    agent = load(runs("MatchingPennies")).protagonist
    file = agent.save(tmp_path / "saved") / AGENT
    tensors, state = load_checkpoint(file)
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(InvalidInputError, match="corrupt checkpoint"):
        load(tmp_path / "saved")
    state["config"]["version"] = 7
    save_checkpoint(file, tensors, state)
    with pytest.raises(InvalidInputError, match="version 7 of MatchingPennies"):
        load(tmp_path / "saved")
    state["config"] |= {"version": 0, "hidden": [5]}
    save_checkpoint(file, tensors, state)
    with pytest.raises(InvalidInputError, match="weights don't fit"):
        load(tmp_path / "saved")


def test_a_file_that_is_no_saved_agents_is_refused(runs, tmp_path):
    folder = runs("MatchingPennies")
    file = load(folder).protagonist.save(tmp_path / "saved") / AGENT
    tensors, state = load_checkpoint(file)
    ordinary = load_checkpoint(folder / BEST)
    for content, missing in (
        (ordinary, "config, loss, random, role, seed, shots, rates"),
        *(((tensors, {key: value for key, value in state.items() if key != name}), name) for name in state),
        (({name: value for name, value in tensors.items() if name != "rates"}, state), "rates"),
    ):
        save_checkpoint(file, *content)
        for read in (load, metaduel.evaluate):
            with pytest.raises(InvalidInputError, match=f"{AGENT}: not a saved agent's file: it has no {missing}$"):
                read(tmp_path / "saved")


def test_agents_of_own_networks_and_own_environments_are_saved(tmp_path):
    def network(size, actions):
        return nn.Sequential(nn.Linear(size, 3), nn.Tanh(), nn.Linear(3, actions))

    settings = {name: value for name, value in TINY.items() if name != "hidden"} | {"quiet": True}
    run = metaduel.train_meta_adversarial("MatchingPennies", folder=tmp_path / "own", network=network, **settings)
    run.protagonist.save(tmp_path / "own agent")
    with pytest.raises(InvalidInputError, match="give the function that makes it"):
        load_player(duel_of("MatchingPennies"), "protagonist", tmp_path / "own agent")
    again = load(tmp_path / "own agent", network=network)
    assert torch.equal(
        returns_of(again, "MatchingPennies", "protagonist"), returns_of(run, "MatchingPennies", "protagonist")
    )

    def parallel_env():
        return rps_v2.parallel_env(max_cycles=4)

    foreign = metaduel.train_meta_adversarial(parallel_env, folder=tmp_path / "foreign", **settings)
    agent = foreign.adversary
    assert agent.family is None
    agent.save(tmp_path / "foreign agent")
    with pytest.raises(InvalidInputError, match=r"on your own environments \(rps_v2\): load\(folder, task_set=...\)"):
        load_player(duel_of("RockPaperScissors"), "adversary", tmp_path / "foreign agent")
    again = load(tmp_path / "foreign agent", parallel_env)
    assert list(again.agents) == ["adversary"]
    seen = np.eye(4, dtype=np.float32)
    np.testing.assert_array_equal(agent.predict(seen)[0], again.adversary.predict(seen)[0])
    # Agents, and models with predict, are met in training, too.
    met = {"protagonist": [again.adversary]}
    with_it = metaduel.train_meta_adversarial(
        parallel_env, folder=tmp_path / "met", roles=("protagonist",), opponents=met, **settings
    )
    assert with_it.config.scripted == {"protagonist": ("agent (adversary)",)}
    with pytest.raises(InvalidInputError, match="plays the adversary, not the protagonist"):
        metaduel.train_meta_adversarial(
            parallel_env, folder=tmp_path / "wrong", roles=("adversary",), opponents={"adversary": [agent]}, **settings
        )


# Names and tables


def test_players_are_shown_in_one_short_line(runs, tmp_path):
    run = load(runs("Pursuit"))
    agent = replace(run.adversary, shots=3)
    player = agent.player_for(duel_of("Pursuit"), "adversary")
    agent.save(tmp_path / "saved")
    assert repr(agent) == "Agent(metaduel/Pursuit-v0, adversary, maml, adapted 3 shots)"
    assert repr(run) == "Run(metaduel/Pursuit-v0, maml, seed 0: protagonist and adversary)"
    assert repr(load(tmp_path / "saved")) == "SavedAgent(metaduel/Pursuit-v0, maml, seed 0: adversary)"
    assert repr(player) == f"AgentPlayer({agent!r})"
    assert (
        repr(duel_of("Pursuit", informed=("adversary",))) == "Duel(metaduel/Pursuit-v0, horizon 50, informed adversary)"
    )
    assert repr(replace(agent, config=None)) == "Agent(adversary, MLPPolicy(16 to 2), adapted 3 shots)"
    started = agent.adapter.start(GameArena(*_arena()).seat, 2, 0)
    for one in (agent.adapter, started, load_player(duel_of("Pursuit"), "adversary", "guard(noise=0.1)")):
        assert len(repr(one)) < 120
        assert "tensor" not in repr(one)
    assert [player_name(one) for one in (agent, player, run, tmp_path, tmp_path / "x.zip", "guard")] == [
        "agent (adversary)", "agent (adversary)", "maml (seed 0)", f"run:{tmp_path}", f"sb3:{tmp_path / 'x.zip'}", "guard",
    ]  # fmt: skip


def _arena():
    return duel_of("Pursuit"), "adversary", task_rows(find("Pursuit"), [{}], {}), ["flee"], 1, 0


def test_evaluation_takes_runs_paths_and_adapted_agents(runs, tmp_path):
    folder = runs("MatchingPennies")
    run = load(folder)
    agent = run.protagonist.adapt(gym.make("metaduel/MatchingPennies-v0", horizon=5), shots=1, episodes=1)
    saved = agent.save(tmp_path / "saved")
    settings = {"roles": "protagonist", "baselines": False, **SMALL}
    tables = [metaduel.evaluate([one], **settings) for one in (run, folder, str(folder), f"run:{folder}")]
    for table in tables[1:]:
        np.testing.assert_array_equal(tables[0]["return"], table["return"])
    adapted = [metaduel.evaluate([one], **settings) for one in (agent, saved, str(saved), load(saved))]
    assert [table.values("method") for table in adapted] == [["agent"], ["saved"], ["saved"], ["agent"]]
    for table in adapted[1:]:
        np.testing.assert_array_equal(adapted[0]["return"], table["return"])
    assert not np.array_equal(tables[0]["return"], adapted[0]["return"])
    # The same as opponents.
    rivals = {"run": run, "folder": folder, "string": f"run:{folder}", "agent": run.adversary}
    met = [
        metaduel.evaluate("always_heads", game="MatchingPennies", opponents={"it": one}, **settings)
        for one in rivals.values()
    ]
    for table in met[1:]:
        np.testing.assert_array_equal(met[0]["return"], table["return"])
    named = metaduel.evaluate("always_heads", game="MatchingPennies", opponents=[run, run.adversary], **settings)
    assert named.values("opponent") == ["maml (seed 0)", "agent (adversary)"]


def test_a_trained_player_is_an_opponent_in_every_interface(runs):
    folder = runs("Pursuit")
    agent = load(folder).adversary
    played = []
    for opponent in (agent, load(folder), folder, f"run:{folder}"):
        env = gym.make("metaduel/Pursuit-v0", opponent=opponent)
        seen = [env.reset(seed=0)[0], *(env.step(np.ones(2, np.float32))[0] for _ in range(5))]
        rows = metaduel.make_sb3("Pursuit", num_envs=2, opponent=opponent, seed=0)
        played.append((np.stack(seen), rows.reset(), rows.step(np.ones((2, 2), np.float32))[0]))
    for other in played[1:]:
        for a, b in zip(played[0], other, strict=True):
            np.testing.assert_array_equal(a, b)
    assert isinstance(agent, Agent)
