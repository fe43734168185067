"""Every registered family through PettingZoo: its own tests, and ours over whole episodes."""

import copy
import importlib
import pickle
import types
import warnings

import numpy as np
import pettingzoo
import pytest
import torch
from gymnasium.error import ResetNeeded
from pettingzoo.env_registry.registration import aec_registry, parallel_registry
from pettingzoo.test import api_test, max_cycles_test, parallel_api_test, parallel_seed_test, render_test, seed_test
from pettingzoo.test.state_test import state_test
from pettingzoo.utils.wrappers import OrderEnforcingWrapper, TerminateIllegalWrapper

from metaduel.envs.adapters import pettingzoo_parallel as adapter
from metaduel.envs.adapters.parallel import describe
from metaduel.envs.adapters.seat import Seat
from metaduel.envs.core import tasks
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.game import make_game
from metaduel.envs.core.registration import in_pettingzoo as register
from metaduel.envs.core.registry import specs
from metaduel.envs.core.spec import ROLES

SPECS = list(specs().values())
every_spec = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
TURNS = [spec for spec in SPECS if spec.turn_based]
# Every family in every form of its masks: what says it to the constructor.
FORMS = [(spec, {}) for spec in SPECS] + [(spec, {"action_mask": "observation"}) for spec in TURNS]
every_form, masked_form = (
    pytest.mark.parametrize(("spec", "form"), forms, ids=lambda part: getattr(part, "name", None) or "-".join(part))
    for forms in (FORMS, [form for form in FORMS if form[0].turn_based])
)
both_apis = pytest.mark.parametrize("api", ["parallel", "aec"])
# PettingZoo's tests warn where a choice is unusual; these choices are ours.
accepted = pytest.mark.filterwarnings(
    "ignore:We recommend agents to be named", "ignore:.*space value is (-)?infinity", "ignore:Observation.*all zeros",
    "ignore:Observations are different shapes", "ignore:Agents have different", "ignore:State numpy array is all zeros",
    "ignore:Observation is a single number", "ignore:.*class of (action|observation) spaces is different",
    "ignore:Observation is not a NumPy array", "ignore:Observation space for each agent probably should be",
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def registered():
    for spec in SPECS:
        register(spec)


def make(api, spec, **kwargs):
    return pettingzoo.make(api, spec.id, **kwargs)


def module(spec):
    return importlib.import_module(f"{spec.package}.{adapter.module_name(spec)}")


def chooser(spec, seed=0):
    """Random actions by agent, the same for the same seed, as numpy arrays or ints."""
    rng = np.random.default_rng(seed)

    def choose(agent, info=None, seen=None):
        space = spec.action_spaces[agent]
        holds = seen if isinstance(seen, dict) else info or {}
        if "action_mask" in holds:  # a turn-based game's; a waiting agent draws nothing
            legal = np.flatnonzero(holds["action_mask"])
            return int(legal[0] if len(legal) == 1 else rng.choice(legal))
        if hasattr(space, "n"):
            return int(rng.integers(space.n))
        return rng.uniform(space.low, space.high).astype(np.float32)

    return choose


def episode(env, spec, seed=None, actions=0, **reset):
    """All outputs of a parallel environment in one episode of random actions, which are legal in turn-based games."""
    choose = chooser(spec, actions)
    said = [env.reset(seed=seed, **reset)]
    while env.agents:
        said.append(env.step({agent: choose(agent, said[-1][-1][agent], said[-1][0][agent]) for agent in ROLES}))
    return said


def turns(env, spec, seed=None, actions=0, **reset):
    """What an AEC environment says to each agent in turn in one episode of random legal actions."""
    choose, said = chooser(spec, actions), []
    env.reset(seed=seed, **reset)
    while env.agents:
        agent, last = env.agent_selection, env.last()
        said.append((agent, *last))
        env.step(None if last[2] or last[3] else choose(agent, last[-1], last[0]))
    return said


PLAY = {"parallel": episode, "aec": turns}


def same(one, other):
    return len(one) == len(other) and all(
        np.testing.assert_equal(a, b) is None for a, b in zip(one, other, strict=True)
    )


def test_registering_twice_changes_nothing_and_warns_of_nothing():
    before = (dict(aec_registry), dict(parallel_registry))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for spec in SPECS:
            register(spec)
    assert before == (dict(aec_registry), dict(parallel_registry))
    assert {spec.id for spec in SPECS} <= set(aec_registry) & set(parallel_registry)


@every_form
@accepted
def test_pettingzoo_parallel_api(spec, form):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parallel_api_test(make("parallel", spec, **form), num_cycles=30)


@every_form
@accepted
def test_pettingzoo_api(spec, form):
    api_test(make("aec", spec, **form), num_cycles=30)


@every_form
def test_pettingzoo_seeds(spec, form):
    parallel_seed_test(lambda: make("parallel", spec, **form), num_cycles=20)
    seed_test(lambda: make("aec", spec, **form), num_cycles=20)


@every_form
@accepted
def test_pettingzoo_state(spec, form):
    state_test(make("aec", spec, **form), make("parallel", spec, **form))


@every_spec
def test_pettingzoo_render(spec, monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    render_test(lambda **kwargs: make("aec", spec, task={}, **kwargs))
    env = make("parallel", spec, task={}, render_mode="rgb_array")
    env.reset(seed=0)
    first = env.render()
    choose = chooser(spec)
    for _ in range(3):
        env.step({agent: choose(agent) for agent in ROLES})
    assert not np.array_equal(first, env.render())
    env.close()


@every_spec
def test_pettingzoo_max_cycles(spec):
    """PettingZoo's test wants every episode of 4 random steps to last 4 steps: seeded, on the default task."""

    def seeded(env):
        for agent in ROLES:
            env.action_space(agent).seed(1)
        return env

    style = module(spec)
    early = []
    for seed in range(10):
        said = episode(style.parallel_env(task={}, max_cycles=4), spec, seed, actions=seed)
        early.append(any(said[-1][2].values()))
    if any(early):
        pytest.skip(f"{spec.name} may end by its rules within 4 steps")
    if spec.turn_based:  # PettingZoo's test counts on every agent to act at every step
        env, acted = style.env(task={}, max_cycles=4), []
        env.reset(seed=0)
        for agent in env.agent_iter():
            _, _, terminated, truncated, info = env.last()
            acted += [agent] * (not (terminated or truncated))
            env.step(None if terminated or truncated else chooser(spec)(agent, info))
        assert len(acted) == 4
        return
    max_cycles_test(
        types.SimpleNamespace(
            parallel_env=lambda **kwargs: seeded(style.parallel_env(task={}, **kwargs)),
            env=lambda **kwargs: seeded(style.env(task={}, **kwargs)),
        )
    )


@every_spec
def test_registry_and_module_style_make_the_same(spec):
    style = module(spec)
    said = [episode(env, spec, 3) for env in (make("parallel", spec, max_cycles=9), style.parallel_env(max_cycles=9))]
    assert same(*said)
    assert str(style.env()) == str(make("aec", spec)) == style.__name__.rpartition(".")[2]
    assert make("parallel", spec).max_cycles == spec.horizon == parallel_registry[spec.id].max_cycles
    assert make("parallel", spec, max_cycles=7).max_cycles == 7
    assert style.raw_env(max_cycles=7).unwrapped.max_cycles == 7


@every_spec
def test_whole_episodes_reproduce_by_seed_and_episode(spec):
    env = make("parallel", spec)
    first, second = episode(env, spec, seed=5), episode(env, spec)
    again = make("parallel", spec)
    assert same(first, episode(again, spec, seed=5))
    assert same(second, episode(again, spec))  # an unseeded reset goes on to the next episode
    assert first[0][1]["adversary"]["task"] != second[0][1]["adversary"]["task"]
    unseeded = [make("parallel", spec).reset()[1]["adversary"]["task"] for _ in range(2)]
    assert unseeded[0] != unseeded[1]


@every_spec
def test_parallel_equals_the_core_stepped_by_hand(spec):
    env = make("parallel", spec)
    said = episode(env, spec, seed=11)
    duel, choose = Duel(make_game(spec)), chooser(spec)
    rows = duel.reset(duel.game.params([env.get_task()]), torch.tensor([11]), torch.tensor([0]))
    outcome = None
    for step, (observations, *rest) in enumerate(said):
        for agent, expected in zip(ROLES, duel.observe(rows), strict=True):
            np.testing.assert_array_equal(observations[agent], expected[0].numpy())
        if step:
            rewards, terminated, truncated, _ = rest
            assert [rewards[agent] for agent in ROLES] == outcome.reward[0].tolist()
            assert set(terminated.values()) == {bool(outcome.terminated)}
            assert set(truncated.values()) == {bool(outcome.truncated)}
        actions = [torch.as_tensor(choose(agent, rest[-1][agent])).unsqueeze(0) for agent in ROLES]
        rows, outcome = duel.step(rows, (actions[0], actions[1]))


@every_spec
def test_aec_equals_parallel_for_whole_episodes(spec):
    said = episode(make("parallel", spec), spec, seed=11)
    env, choose = make("aec", spec), chooser(spec)
    env.reset(seed=11)
    heard = {agent: [] for agent in ROLES}
    for agent in env.agent_iter():
        last = env.last()
        heard[agent].append(last)
        env.step(None if last[2] or last[3] else choose(agent, last[-1]))
    for agent in ROLES:
        # In a turn-based game an agent acts at its turns and at the end, and receives all rewards since its last turn.
        expected, since = [], 0.0
        for step, (par, *rest) in enumerate(said):
            since += rest[0][agent] if step else 0.0
            if not spec.turn_based or step == len(said) - 1 or not rest[-1][agent]["action_mask"][0]:
                ends = tuple(part[agent] for part in rest[1:3]) if step else (False, False)
                expected.append((par[agent], since, *ends, rest[-1][agent]))
                since = 0.0
        assert len(heard[agent]) == len(expected)
        for one, other in zip(heard[agent], expected, strict=True):
            np.testing.assert_array_equal(one[0], other[0])
            assert one[1:4] == other[1:4]
            np.testing.assert_equal(one[4], other[4])
    if spec.turn_based:
        assert sum(len(turns) for turns in heard.values()) == len(said) + 1


@every_spec
def test_truncation_is_not_termination(spec):
    """The clock truncates; the same step, with time left, is not an end."""
    short, long = (episode(make("parallel", spec, task={}, max_cycles=n), spec, 0) for n in (1, 2))
    if any(long[1][2].values()):
        pytest.skip(f"{spec.name} ended by its rules at the first step")
    assert short[1][2:4] == (dict.fromkeys(ROLES, False), dict.fromkeys(ROLES, True))
    assert long[1][2:4] == (dict.fromkeys(ROLES, False), dict.fromkeys(ROLES, False))
    for seed in range(10):
        ends = episode(make("parallel", spec, max_cycles=20), spec, seed, actions=seed)[-1][2:4]
        assert sum(any(end.values()) for end in ends) == 1


@every_spec
def test_state_holds_the_hidden_contexts_and_the_clock(spec):
    env = make("parallel", spec)
    choose = chooser(spec)
    env.reset(seed=2)
    for step in range(3):
        state = env.state()
        assert env.state_space.contains(state)
        task = np.array(list(env.get_task().values()), np.float32)
        np.testing.assert_array_equal(state[-1 - len(task) : -1], task)
        assert state[-1] == np.float32(step / spec.horizon)
        env.step({agent: choose(agent) for agent in ROLES})
    assert not np.array_equal(env.state()[: -1 - len(task)], state[: -1 - len(task)])


@every_spec
def test_tasks(spec):
    env = make("parallel", spec)
    # A task given by value, by name, or through reset's options; None goes back to drawing.
    chosen = tasks.sample_tasks(spec, 3, seed=9)
    env.set_task(chosen[0])
    assert env.get_task() == chosen[0]
    names = {"task"} | ({"action_mask"} if spec.turn_based else set())
    for agent, info in env.reset(seed=1)[1].items():
        assert set(info) == names, agent
        assert info["task"] == adapter.task_number(tasks.task_id(chosen[0]))
    assert env.task_id == tasks.task_id(chosen[0])
    infos = env.reset(options={"task": chosen[1], "options": "PettingZoo's own tests give this key"})[1]
    assert infos["adversary"]["task"] == adapter.task_number(tasks.task_id(chosen[1]))
    assert env.task_id == tasks.task_id(chosen[1])
    assert env.reset()[1]["adversary"]["task"] == infos["adversary"]["task"]
    env.set_task("held_out:3")
    assert env.get_task() == tasks.frozen_tasks(spec, "held_out")[3]
    env.reset(options={"task": None})
    assert env.get_task() not in chosen
    # Splits.
    for split in ("validation", "held_out", "extrapolation"):
        env = make("parallel", spec, split=split)
        env.reset(seed=0)
        assert env.get_task() in tasks.frozen_tasks(spec, split)
        assert all(task in tasks.frozen_tasks(spec, split) for task in env.sample_tasks(5))
    # A split of its own from the next reset on.
    env = make("aec", spec)
    env.reset(seed=0)
    drawn = env.unwrapped.get_task()
    env.unwrapped.set_split("held_out")
    assert env.unwrapped.get_task() == drawn
    assert env.unwrapped.sample_tasks(1)[0] in tasks.frozen_tasks(spec, "held_out")
    env.reset()
    assert env.unwrapped.get_task() in tasks.frozen_tasks(spec, "held_out")
    # Lists.
    env, again = make("parallel", spec), make("parallel", spec)
    env.reset(seed=4)
    again.sample_tasks(3)
    again.reset(seed=4)
    first, second = env.sample_tasks(3), env.sample_tasks(3)
    assert first != second
    assert [first, second] == [again.sample_tasks(3), again.sample_tasks(3)]
    assert env.sample_tasks(3, seed=9) == chosen


@every_spec
@pytest.mark.parametrize("split", ["train", "held_out"])
def test_a_seed_means_the_same_tasks_as_in_the_other_interfaces(spec, split):
    env, seat = make("parallel", spec, split=split), Seat(spec, split=split)
    seat.reseed(0, 6)
    for seed in (6, None, None):
        env.reset(seed=seed)
        seat.reset()
        assert env.get_task() == seat.task(0)


@every_spec
def test_informed_players_see_every_context(spec):
    plain, informed = make("parallel", spec), make("parallel", spec, informed=["protagonist"])
    seen, more = plain.reset(seed=3)[0], informed.reset(seed=3)[0]
    hidden = sum(c.width for c in spec.contexts if "protagonist" not in c.visible_to)
    assert len(more["protagonist"]) == len(seen["protagonist"]) + hidden
    np.testing.assert_array_equal(more["adversary"], seen["adversary"])
    for env, observations in ((plain, seen), (informed, more)):
        for agent in ROLES:
            assert env.observation_space(agent).contains(observations[agent])


@every_spec
def test_bad_actions_are_refused_by_agent_value_and_space(spec):
    for agent in ROLES:
        space = spec.action_spaces[agent]
        good = {role: chooser(spec)(role) for role in ROLES}
        if hasattr(space, "n"):
            bad = [int(space.n), -1, 0.5, None, True, "0", [0, 0], np.array([0])]
        else:
            low, bump = np.asarray(space.low), np.zeros(space.shape, np.float32)
            bump[0] = 0.01
            bad = [
                low - bump,
                low * np.nan,
                low * np.float64(1e300),
                np.append(low, 0),
                low[0],
                None,
                "a",
                low > 0,
                [[1], [1, 2]],
            ]
        for action in bad:
            for api in ("parallel", "aec"):
                env = make(api, spec)
                env.reset(seed=0)
                if api == "parallel":
                    argument = {**good, agent: action}
                else:
                    argument = action
                    while env.agent_selection != agent:
                        now = env.agent_selection
                        env.step(chooser(spec)(now, env.infos[now]) if spec.turn_based else good[now])
                with pytest.raises(InvalidInputError, match=f"^{agent}: action=.*must be in") as error:
                    env.step(argument)
                assert str(space) in str(error.value)
                assert "\n" not in str(error.value)
    if not hasattr(space, "n"):
        env = make("parallel", spec)
        env.reset(seed=0)
        env.step({**good, agent: [float(x) for x in space.high]})  # a list of Python floats is fine


@pytest.mark.parametrize("spec", TURNS, ids=lambda spec: spec.name)
def test_turns_ask_only_who_acts_and_refuse_what_is_illegal(spec):
    env = make("aec", spec)
    env.reset(seed=4)
    choose, refused = chooser(spec, 2), 0
    for agent in env.agent_iter():
        _, _, terminated, truncated, info = env.last()
        if terminated or truncated:
            env.step(None)
            continue
        other = ROLES[1 - ROLES.index(agent)]
        assert np.flatnonzero(env.infos[other]["action_mask"]).tolist() == [0]
        legal = np.flatnonzero(info["action_mask"])
        assert 0 not in legal
        named = " or ".join(rf"{a} \({spec.action_names[a]}\)" for a in legal)
        for action in set(range(spec.action_spaces[agent].n)) - set(legal.tolist()):
            with pytest.raises(InvalidInputError, match=rf"^{agent}: action={action} .* must be legal now: {named}$"):
                env.step(action)
            refused += 1
        env.step(choose(agent, info))
    assert refused > 10


@every_spec
def test_bad_input_is_named(spec):
    def refused(text):
        return pytest.raises(InvalidInputError, match=text)

    with refused("max_cycles=0 "):
        make("parallel", spec, max_cycles=0)
    with refused("split 'helt_out' .did you mean 'held_out'"):
        make("parallel", spec, split="helt_out")
    with refused("context of .* 'nothing'"):
        make("parallel", spec, task={"nothing": 1.0})
    with refused("task='held_out:100' must be"):
        make("aec", spec, task="held_out:100")
    with refused("role 'adverary'"):
        make("parallel", spec, informed=["adverary"])
    for given in (True, False, 3, None, [True]):
        with refused("informed=.* must name the roles that see every context"):
            make("parallel", spec, informed=given)
    with refused("render_mode 'rgb'"):
        make("parallel", spec, render_mode="rgb")
    env = make("parallel", spec)
    shown = make("parallel", spec, render_mode="rgb_array")
    for call in (env.state, shown.render, env.get_task, lambda: env.step({})):
        with pytest.raises(ResetNeeded, match=r"call reset\(\)"):
            call()
    for seed in (-1, 1.5, True, 1 << 63):
        with refused("seed="):
            env.reset(seed=seed)
    env.reset(seed=0)
    with refused("must have an action for 'adversary'"):
        env.step({"protagonist": chooser(spec)("protagonist")})
    with refused("agent in actions 'player_0'"):
        env.step({"player_0": 0})
    with refused("render_mode=None"):
        env.render()
    with refused("role 'player_0'"):
        env.observation_space("player_0")


def test_spaces_are_each_environments_own():
    spec = SPECS[0]
    one, other = make("parallel", spec), make("parallel", spec)
    for agent in ROLES:
        one.action_space(agent).seed(0)
        expected = one.action_space(agent).sample()
        one.action_space(agent).seed(0)
        other.action_space(agent).sample()
        np.testing.assert_array_equal(one.action_space(agent).sample(), expected)


@pytest.mark.parametrize("spec", TURNS, ids=lambda spec: spec.name)
def test_masks_in_observations_are_those_in_infos(spec):
    form = {"action_mask": "observation"}
    plain, classic = (episode(make("parallel", spec, **kwargs), spec, 3) for kwargs in ({}, form))
    assert len(plain) == len(classic)
    for (seen, *rest, infos), (dictionaries, *others, bare) in zip(plain, classic, strict=True):
        assert same(rest, others)
        for agent in ROLES:
            assert set(bare[agent]) == {"task"}
            assert set(dictionaries[agent]) == {"observation", "action_mask"}
            np.testing.assert_array_equal(dictionaries[agent]["observation"], seen[agent])
            np.testing.assert_array_equal(dictionaries[agent]["action_mask"], infos[agent]["action_mask"])
    for api in ("parallel", "aec"):
        env = make(api, spec, **form)
        for said in PLAY[api](env, spec, 3):
            for agent, seen in said[0].items() if api == "parallel" else [said[:2]]:
                assert env.observation_space(agent).contains(seen)
    assert env.observe("adversary") in env.observation_space("adversary")
    described = describe(make("parallel", spec, **form))  # a learner of ours takes it as a user's environment
    assert all("action_mask" in text for text in described["spaces"][::2])


@every_spec
def test_masks_where_there_are_none_are_refused(spec):
    words = "unknown action_mask 'observations' .did you mean 'observation'.*; known: info, observation"
    with pytest.raises(InvalidInputError, match=words):
        make("parallel", spec, action_mask="observations")
    if not spec.turn_based:
        with pytest.raises(InvalidInputError, match=f"action_mask='observation' .*{spec.name} has no masks"):
            make("aec", spec, action_mask="observation")


@masked_form
@pytest.mark.parametrize("inside", [False, True])
def test_an_illegal_move_ends_the_game_with_pettingzoos_wrapper(spec, form, inside):
    """Around ours, as users have it, and inside the check of the order of calls, as PettingZoo's own games have it."""
    if inside:
        env = OrderEnforcingWrapper(TerminateIllegalWrapper(module(spec).raw_env(**form), illegal_reward=-1))
    else:
        env = TerminateIllegalWrapper(make("aec", spec, **form), illegal_reward=-1)
    for seed, before in ((0, 0), (1, 1)):  # at the first turn, and after one legal move
        env.reset(seed=seed)
        choose = chooser(spec)
        for _ in range(before):
            seen, *_, info = env.last()
            env.step(choose(env.agent_selection, info, seen))
        cheat = env.agent_selection
        env.step(0)  # waiting, which the one whose turn it is may not
        heard = {}
        for agent in env.agent_iter():
            _, reward, terminated, _, _ = env.last()
            assert terminated
            heard[agent] = reward
            env.step(None)
        assert heard == {agent: -1.0 if agent == cheat else 0.0 for agent in ROLES}
    legal = turns(env, spec, seed=2)
    np.testing.assert_equal(legal, turns(make("aec", spec, **form), spec, seed=2))


@every_spec
def test_the_aec_environment_is_its_own_unwrapped_one(spec):
    env = make("aec", spec, max_cycles=4)
    own = env.unwrapped
    assert isinstance(own, pettingzoo.AECEnv)
    assert own.unwrapped is own
    assert type(module(spec).raw_env()) is type(own)
    own.set_task("held_out:3")
    env.reset(seed=0)
    assert own.get_task() == env.get_task() == tasks.frozen_tasks(spec, "held_out")[3]
    assert own.task_id == tasks.task_id(own.get_task())
    env.max_cycles = 2  # reaches it through the wrapper
    assert own.max_cycles == env.max_cycles == own.parallel.max_cycles == 2
    for agent in ROLES:
        assert own.action_space(agent) is env.action_space(agent)


def bad_calls(api, spec):
    """Calls that must be refused at any time, as functions of an environment."""
    good, bad = tasks.sample_tasks(spec, 1, seed=9)[0], {"nothing": 1.0}
    calls = [
        lambda env: env.reset(seed=-1, options={"task": good}),
        lambda env: env.reset(seed=1.0),
        lambda env: env.reset(seed=np.int64(-3), options={"task": None}),
        lambda env: env.reset(seed=5, options={"task": bad}),
        lambda env: env.reset(seed=5, options={"task": good, "tsk": good}),
        lambda env: env.reset(seed=5, options=[("task", good)]),
        lambda env: env.unwrapped.set_task(bad),
        lambda env: env.unwrapped.set_task("held_out:100"),
        lambda env: env.unwrapped.set_split("helt_out"),
        lambda env: env.unwrapped.sample_tasks(0),
        lambda env: env.unwrapped.sample_tasks(2, seed=-1),
        *(lambda env, n=n: setattr(env, "max_cycles", n) for n in (0, 2.5, True, None)),
        *(lambda env, name=name: setattr(env, name, good) for name in ("task", "split", "horizon", "max_cycle", "render_mode")),
    ]  # fmt: skip
    return calls


def bad_steps(api, spec):
    if api == "aec":
        return [lambda env, a=a: env.step(a) for a in ("a", None, [[1], [1, 2]], 1 << 70, {"protagonist": 0})]
    good = {role: chooser(spec)(role) for role in ROLES}
    return [
        lambda env, a=a: env.step(a)
        for a in (None, {}, {"protagonist": good["protagonist"]}, {**good, "player_0": 0}, {**good, "adversary": "a"})
    ]


@every_spec
@both_apis
def test_a_refused_call_changes_nothing(api, spec):
    env, other = make(api, spec), make(api, spec)
    for call in bad_calls(api, spec):
        with pytest.raises(InvalidInputError):
            call(env)
    if api == "aec":  # not even what PettingZoo's wrapper thinks of a reset
        with pytest.raises(AttributeError, match="before reset"):
            env.agents  # noqa: B018
    env.reset(seed=np.int64(7)), other.reset(seed=7)
    for call in bad_calls(api, spec) + bad_steps(api, spec):
        with pytest.raises(InvalidInputError):
            call(env)
    if api == "aec" and not spec.turn_based:  # between the two that choose a step
        for one in (env, other):
            one.step(chooser(spec)("protagonist"))
        for call in bad_calls(api, spec) + bad_steps(api, spec):
            with pytest.raises(InvalidInputError):
                call(env)
        for one in (env, other):
            one.step(chooser(spec)("adversary"))
        np.testing.assert_equal(env.last(), other.last())
        assert env.rewards == other.rewards
    np.testing.assert_equal(env.state(), other.state())
    np.testing.assert_equal(PLAY[api](env, spec), PLAY[api](other, spec))  # the next episode, on the next task
    for call in bad_calls(api, spec):
        with pytest.raises(InvalidInputError):
            call(env)
    np.testing.assert_equal(PLAY[api](env, spec), PLAY[api](other, spec))
    assert env.unwrapped.sample_tasks(2) == other.unwrapped.sample_tasks(2)
    assert env.max_cycles == other.max_cycles == spec.horizon


def test_a_step_that_cannot_be_shown_is_not_played(monkeypatch):
    monkeypatch.setattr(adapter.Screen, "frame", lambda *_: (_ for _ in ()).throw(InvalidInputError("no screen")))
    monkeypatch.setattr(adapter.Screen, "__init__", lambda *_: None)
    env, other = make("parallel", SPECS[0], render_mode="human"), make("parallel", SPECS[0])
    with pytest.raises(InvalidInputError, match="no screen"):
        env.reset(seed=3, options={"task": "held_out:3"})
    with pytest.raises(ResetNeeded):
        env.state()
    monkeypatch.setattr(adapter.Screen, "frame", lambda *_: None)
    env.reset(seed=1), other.reset(seed=1)
    actions = {role: chooser(SPECS[0])(role) for role in ROLES}
    monkeypatch.setattr(adapter.Screen, "frame", lambda *_: (_ for _ in ()).throw(InvalidInputError("no screen")))
    with pytest.raises(InvalidInputError, match="no screen"):
        env.step(actions)
    np.testing.assert_array_equal(env.state(), other.state())


@both_apis
def test_what_cannot_be_set_is_named(api):
    for env in (make(api, SPECS[0]), make(api, SPECS[0]).unwrapped):
        for name, right in (
            ("task", "call set_task"), ("split", "call set_split"), ("render_mode", "when the environment is made"),
            ("max_cycle", "nothing reads"), ("horizon", "nothing reads"),
        ):  # fmt: skip
            with pytest.raises(InvalidInputError, match=rf"\.{name}=5 has no effect: .*{right}"):
                setattr(env, name, 5)
    with pytest.raises(InvalidInputError, match=r"unknown reset option 'tsak' \(did you mean 'task'"):
        make(api, SPECS[0]).reset(options={"tsak": {}})


COPIES = {"copy": copy.deepcopy, "pickle": lambda env: pickle.loads(pickle.dumps(env))}


@every_form
@both_apis
@pytest.mark.parametrize("way", COPIES)
def test_copies_go_on_like_the_original(api, spec, form, way):
    env = make(api, spec, **form)
    fresh = COPIES[way](env)  # before the first reset
    np.testing.assert_equal(PLAY[api](fresh, spec, seed=4), PLAY[api](env, spec, seed=4))
    env.reset(seed=4)
    choose = chooser(spec)
    if api == "parallel":  # in the middle of an episode
        env.step({agent: choose(agent) for agent in ROLES})
    else:
        seen, *_, info = env.last()
        env.step(choose(env.agent_selection, info, seen))
    same_place, expected = COPIES[way](env), env.state()
    np.testing.assert_array_equal(same_place.state(), expected)
    first = PLAY[api](same_place, spec)
    np.testing.assert_array_equal(env.state(), expected)  # the copy's episode was its own
    np.testing.assert_equal(PLAY[api](env, spec), first)
    assert env.unwrapped.sample_tasks(2) == same_place.unwrapped.sample_tasks(2)
    copied, own = (one.action_space("adversary") for one in (same_place, env))
    assert copied is not own
    assert copied.seed(3) == own.seed(3)
    np.testing.assert_array_equal(copied.sample(), own.sample())


@both_apis
def test_copies_that_were_never_seeded_play_different_episodes(api):
    """Vectorisers copy one new environment."""
    env = make(api, SPECS[0])
    drawn = []
    for one in (env, copy.deepcopy(env), pickle.loads(pickle.dumps(env))):
        one.reset()
        drawn.append(one.unwrapped.task_id)
    assert len(set(drawn)) == 3


@pytest.mark.parametrize("spec", [SPECS[0], *TURNS[:1]], ids=lambda spec: spec.name)
@both_apis
@pytest.mark.parametrize("way", COPIES)
def test_copies_of_environments_that_draw(api, spec, way, monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    env = make(api, spec, render_mode="rgb_array", task={})
    before = COPIES[way](env)
    env.reset(seed=0)
    picture = env.render()
    after = COPIES[way](env)
    before.reset(seed=0)
    np.testing.assert_array_equal(before.render(), picture)
    np.testing.assert_array_equal(after.render(), picture)
    after.close()
    np.testing.assert_array_equal(env.render(), picture)  # closing a copy closes nothing of the original
    env.close()
    before.close()


@both_apis
def test_wrappers_have_random_numbers_of_their_own(api):
    env, other = make(api, SPECS[0]), make(api, SPECS[0])
    env.reset(seed=3), other.reset(seed=3)
    first = env.unwrapped.np_random.integers(1 << 30, size=4).tolist()
    assert len(set(first)) == 4
    np.testing.assert_equal(PLAY[api](env, SPECS[0]), PLAY[api](other, SPECS[0]))  # the game draws none of them
    assert env.unwrapped.np_random.integers(1 << 30, size=4).tolist() != first
    env.reset(seed=3)
    assert env.unwrapped.np_random.integers(1 << 30, size=4).tolist() == first


def test_numbers_of_tasks_are_exact_in_single_precision_and_tell_frozen_tasks_apart():
    for spec in SPECS:
        names = [
            tasks.task_id(task)
            for split in ("validation", "held_out", "extrapolation")
            for task in tasks.frozen_tasks(spec, split)
        ]
        numbers = [adapter.task_number(name) for name in names]
        assert len(set(numbers)) == len(set(names))
        assert np.array_equal(np.float32(numbers).astype(np.int64), numbers)
