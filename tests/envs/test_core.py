"""The batched core on a toy game with simple arithmetic, then the contract of every family."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from gymnasium import spaces

from metaduel.envs.core import noise
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.game import Game, Outcome, Player, View, make_game
from metaduel.envs.core.registry import find, specs
from metaduel.envs.core.spec import ROLES, Context, GameSpec
from metaduel.envs.core.tasks import frozen_tasks, generate
from metaduel.envs.core.trees import select_rows, take_rows, tree_map
from metaduel.envs.players.play import play, steps
from metaduel.envs.players.scripted import scripted

BOX = spaces.Box(-1.0, 1.0, (1,), np.float32)
TOY = GameSpec(
    name="Toy",
    version=0,
    summary="count the protagonist's actions up to a limit",
    package="none",
    game_class="Toy",
    horizon=5,
    contexts=(
        Context("limit", "1", 3.0, (1.0, 5.0), "where the count ends the episode", bounds=(0.0, 9.0)),
        Context("drift", "1", 0.0, (0.0, 0.0), "added at every step", visible_to=("adversary",), bounds=(0.0, 9.0)),
    ),
    observation_spaces={"protagonist": BOX, "adversary": BOX},
    action_spaces={"protagonist": BOX, "adversary": BOX},
    opponents={role: {"train": (), "held_out": ()} for role in ROLES},
)


class ToyParams(NamedTuple):
    limit: torch.Tensor
    drift: torch.Tensor


class ToyState(NamedTuple):
    count: torch.Tensor
    start: torch.Tensor


class Toy(Game[ToyParams, ToyState]):
    params_type = ToyParams
    init_noise = 1
    step_noise = 2

    def init(self, params, noise):
        return ToyState(torch.zeros_like(params.limit), noise[:, 0])

    def observe(self, params, state):
        return state.count.unsqueeze(1), -state.count.unsqueeze(1)

    def step(self, params, state, actions, noise):
        count = state.count + actions[0][:, 0] + params.drift
        reward = torch.stack([actions[0][:, 0], actions[1][:, 0] * noise[:, 1]], 1)
        return ToyState(count, state.start), Outcome(reward, count >= params.limit)


class Constant:
    memory = noise = 0

    def __init__(self, value):
        self.value = value

    def act(self, view, memory, noise):
        return torch.full((len(view.step), 1), self.value), memory


def start(duel, tasks, seed=0):
    n = len(tasks)
    return duel.reset(duel.game.params(tasks), torch.arange(n) + seed, torch.zeros(n, dtype=torch.int64))


def actions(rows, value=1.0):
    return torch.full((len(rows.key), 1), value), torch.ones(len(rows.key), 1)


def test_rules_end_an_episode_and_the_clock_cuts_it():
    # Limits 2, 3 and 9 with a horizon of 3: ends at step 2, at the last step, never.
    duel = Duel(Toy(TOY), horizon=3)
    rows = start(duel, [{"limit": limit} for limit in (2, 3, 9)])
    seen = []
    for _ in range(3):
        rows, outcome = duel.step(rows, actions(rows))
        seen.append((outcome.terminated.tolist(), outcome.truncated.tolist()))
    assert seen[0] == ([False] * 3, [False] * 3)
    assert seen[1] == ([True, False, False], [False] * 3)
    # At the last step the rules come first: an end is not a cut. (The first row was not reset and is long over.)
    assert seen[2] == ([True, True, False], [False, False, True])
    assert rows.step.tolist() == [3, 3, 3]


def test_horizon_is_the_family_s_unless_given():
    assert Duel(Toy(TOY)).horizon == 5
    assert Duel(Toy(TOY), horizon=2).horizon == 2


@pytest.mark.parametrize("horizon", [0, -1, 2.0, True, "5"])
def test_a_wrong_horizon_is_refused(horizon):
    with pytest.raises(InvalidInputError, match=r"^horizon=.* must be a whole number of at least 1 step$"):
        Duel(Toy(TOY), horizon=horizon)


def test_play_counts_until_the_end_only():
    duel = Duel(Toy(TOY), horizon=4)
    params = duel.game.params([{"limit": limit} for limit in (1, 2.5, 9)])
    zero = torch.zeros(3, dtype=torch.int64)
    played = play(duel, (Constant(1.0), Constant(0.0)), params, zero, zero)
    assert played.returns.tolist() == [[1, 0], [3, 0], [4, 0]]
    assert played.length.tolist() == [1, 3, 4]
    assert played.terminated.tolist() == [True, True, False]


def test_a_player_s_memory_and_noise_are_its_own():
    class Adder:
        memory, noise = 2, 3

        def act(self, view, memory, noise):
            assert noise.shape == (2, 3)
            seen.append((memory.clone(), noise))
            return torch.zeros(2, 1), memory + torch.tensor([1.0, 10.0])

    seen = []
    player: Player = Adder()
    duel = Duel(Toy(TOY), horizon=3)
    rows = start(duel, [{}, {}])
    list(steps(duel, (player, Constant(0.0)), rows))
    assert [m[0].tolist() for m, _ in seen] == [[0, 0], [1, 10], [2, 20]]
    expected = noise.uniform(rows.key, torch.tensor([1, 1]), noise.SEAT[0], 3)
    assert torch.equal(seen[1][1], expected)


def test_reset_draws_from_its_own_channel_and_depends_on_seed_and_episode():
    duel = Duel(Toy(TOY))
    params = duel.game.params([{}] * 3)
    seed, episode = torch.tensor([0, 0, 1]), torch.tensor([0, 1, 0])
    rows = duel.reset(params, seed, episode)
    assert len(set(rows.state.start.tolist())) == 3
    key = noise.episode_key(seed, episode)
    assert torch.equal(rows.state.start, noise.uniform(key, torch.zeros_like(key), noise.INIT, 1)[:, 0])


def test_dynamics_noise_may_be_drawn_ahead():
    duel = Duel(Toy(TOY))
    rows = start(duel, [{"limit": 9}] * 4)
    ahead = duel.step_noise(rows.key, torch.arange(5).unsqueeze(1))
    assert ahead.shape == (5, 4, 2)
    twin = rows
    for t in range(5):
        rows, drawn = duel.step(rows, actions(rows))
        twin, given = duel.step(twin, actions(twin), ahead[t])
        assert torch.equal(drawn.reward, given.reward)


def test_shown_contexts_are_appended_and_scaled():
    # limit's training range [1, 5] becomes [-1, 1]: 3 is 0, 5 is 1, 6 is 1.5. drift has no range: its plain value.
    params = [{"limit": 3}, {"limit": 5}, {"limit": 6, "drift": 2}]
    plain, informed = Duel(Toy(TOY)), Duel(Toy(TOY), informed=("protagonist",))
    rows = start(plain, params)
    assert [o.tolist() for o in plain.observe(rows)] == [[[0], [0], [0]], [[0, 0], [0, 0], [0, 2]]]
    assert informed.observe(rows)[0].tolist() == [[0, 0, 0], [0, 1, 0], [0, 1.5, 2]]
    assert informed.observe(rows)[1].tolist() == plain.observe(rows)[1].tolist()
    assert plain.observation_space("protagonist").shape == (1,)
    assert plain.observation_space("adversary").shape == (2,)
    assert informed.observation_space("protagonist").shape == (3,)
    assert informed.observation_space("protagonist") is informed.observation_space("protagonist")
    assert plain.action_space("adversary") is BOX


def test_an_unknown_informed_role_is_refused():
    with pytest.raises(InvalidInputError, match=r"unknown role 'protagonst' \(did you mean 'protagonist'\?\)"):
        Duel(Toy(TOY), informed=("protagonst",))


def test_params_must_be_the_contexts():
    class Wrong(Toy):
        params_type = ToyState

    with pytest.raises(TypeError, match=r"Toy: Params has fields \('count', 'start'\), contexts are"):
        Wrong(TOY)


def test_params_stack_tasks_with_defaults():
    params = Toy(TOY).params([{"limit": 2}, {"drift": 1}], torch.float64)
    assert params.limit.tolist() == [2, 3]
    assert params.drift.tolist() == [0, 1]
    assert {p.dtype for p in params} == {torch.float64}
    assert all(p.is_contiguous() for p in params)


def test_select_rows_and_take_rows_reach_every_leaf():
    class Nest(NamedTuple):
        inner: ToyState
        table: torch.Tensor

    yes = Nest(ToyState(torch.arange(3), torch.zeros(3)), torch.ones(3, 2, 2))
    no = tree_map(lambda leaf: leaf - 10, yes)
    picked = select_rows(torch.tensor([True, False, True]), yes, no)
    assert isinstance(picked, Nest)
    assert picked.inner.count.tolist() == [0, -9, 2]
    assert picked.inner.start.tolist() == [0, -10, 0]
    assert picked.table[:, 1, 1].tolist() == [1, -9, 1]
    taken = take_rows(picked, torch.tensor([2, 0]))
    assert taken.inner.count.tolist() == [2, 0]
    assert taken.table.shape == (2, 2, 2)
    assert take_rows(picked, slice(1, 2)).inner.count.tolist() == [-9]


# ---- what every family owes the core ----

FAMILIES = list(specs().values())
each_family = pytest.mark.parametrize("spec", FAMILIES, ids=lambda spec: spec.name)
ROWS, STEPS = 8, 20


def pairs(spec):
    """Every scripted player once at least, each against one of the other seat."""
    protagonists, adversaries = (list(scripted(spec, role).values()) for role in ROLES)
    count = max(len(protagonists), len(adversaries))
    return [(protagonists[i % len(protagonists)], adversaries[i % len(adversaries)]) for i in range(count)]


def trajectory(duel, players, rows):
    """Both observations and the reward of every step: [T, B, n]."""
    seen = []
    with torch.no_grad():
        for after, outcome in steps(duel, players, rows):
            seen.append(torch.cat([*duel.observe(after), outcome.reward, outcome.terminated.unsqueeze(1)], 1))
    return torch.stack(seen)


@each_family
def test_a_row_of_a_batch_is_the_single_environment(spec):
    duel = Duel(make_game(spec), horizon=STEPS)
    tasks = generate(spec, "train", ROWS, seed=3)
    rows = start(duel, tasks, seed=10)
    for players in pairs(spec):
        batch = trajectory(duel, players, rows)
        for i in (0, ROWS - 1):
            single = trajectory(duel, players, start(duel, tasks[i : i + 1], seed=10 + i))
            assert torch.equal(batch[:, i : i + 1], single), [player.name for player in players]


@each_family
def test_a_step_is_pure(spec):
    duel = Duel(make_game(spec))
    rows = start(duel, generate(spec, "train", ROWS, seed=4))
    for players in pairs(spec)[:2]:
        for _ in range(3):
            empty = [torch.zeros(ROWS, p.memory) for p in players]
            numbers = [noise.uniform(rows.key, rows.step, noise.SEAT[i], p.noise) for i, p in enumerate(players)]
            views = [View(rows.params, rows.state, o, rows.step, rows.step.double()) for o in duel.observe(rows)]
            given = (rows, tuple(views), tuple(empty), tuple(numbers))
            kept = [tree_copy(part) for part in given]
            chosen = tuple(p.act(*seat)[0] for p, *seat in zip(players, views, empty, numbers, strict=True))
            copies = tree_copy(chosen)
            first, second = duel.step(rows, chosen), duel.step(rows, chosen)
            assert all(tree_equal(a, b) for a, b in zip(given, kept, strict=True))
            assert tree_equal(chosen, copies)
            assert tree_equal(first, second)
            rows = first[0]


@each_family
def test_everything_stays_on_the_device_of_its_rows(spec):
    # The device "meta" computes shapes alone and refuses tensors of two devices, as an accelerator does.
    away = lambda tensor: tensor.to("meta")  # noqa: E731
    duel = Duel(make_game(spec))
    rows = tree_map(away, start(duel, generate(spec, "train", ROWS, seed=4)))
    for players in pairs(spec):
        reward, chosen = rows.step.double(), []
        for seat, (player, observation) in enumerate(zip(players, duel.observe(rows), strict=True)):
            numbers = noise.uniform(rows.key, rows.step, noise.SEAT[seat], player.noise)
            view = View(rows.params, rows.state, observation, rows.step, reward)
            action, memory = player.act(view, away(torch.zeros(ROWS, player.memory)), numbers)
            assert memory.is_meta
            chosen.append(action)
        after, transition = duel.step(rows, tuple(chosen))
        assert all(tensor.is_meta for tensor in (*transition, *leaves(after)))


def leaves(tree):
    if tree is None:
        return []
    return [tree] if isinstance(tree, torch.Tensor) else [leaf for part in tree for leaf in leaves(part)]


def tree_copy(tree):
    return [leaf.clone() for leaf in leaves(tree)]


def tree_equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(leaves(a), leaves(b), strict=True))


@each_family
def test_observations_lie_in_their_spaces_and_have_their_dtype(spec):
    duel = Duel(make_game(spec), horizon=STEPS)
    rows = start(duel, generate(spec, "extrapolation", ROWS, seed=5))
    for players in pairs(spec):
        alive = torch.ones(ROWS, dtype=torch.bool)
        for after, outcome in steps(duel, players, rows):
            for role, observation in zip(ROLES, duel.observe(after), strict=True):
                space = duel.observation_space(role)
                assert observation.shape == (ROWS, *space.shape)
                values = observation.numpy()
                assert values.dtype == space.dtype
                inside = ((values >= space.low) & (values <= space.high)).all(1)
                assert inside[alive.numpy()].all()  # the last observation included; later ones belong to no episode
            assert outcome.reward.shape == (ROWS, 2)
            assert outcome.reward.isfinite().all()
            if spec.zero_sum:
                assert torch.equal(outcome.reward[:, 0], -outcome.reward[:, 1])
            alive &= ~outcome.terminated
            assert outcome.terminated.dtype == outcome.truncated.dtype == torch.bool


@each_family
def test_every_context_changes_some_trajectory(spec):
    duel = Duel(make_game(spec), horizon=STEPS)
    tasks = frozen_tasks(spec, "held_out")[:4]
    rows = start(duel, tasks)
    for context in spec.contexts:
        low, high = context.train
        changed = [{**t, context.name: low if t[context.name] > (low + high) / 2 else high} for t in tasks]
        other = start(duel, changed)
        differs = (not torch.equal(trajectory(duel, p, rows), trajectory(duel, p, other)) for p in pairs(spec))
        assert any(differs), context.name


@each_family
def test_an_informed_player_sees_every_context(spec):
    duel = Duel(make_game(spec), informed=ROLES)
    rows = start(duel, generate(spec, "train", 64, seed=6))
    for role, observation in zip(ROLES, duel.observe(rows), strict=True):
        width = sum(context.width for context in spec.contexts)
        assert observation.shape[1] == spec.observation_spaces[role].shape[0] + width
        shown = observation[:, -width:]
        assert shown.abs().max() <= 1 + 1e-5
        assert (shown.max(0).values - shown.min(0).values).min() > 0.9


def test_angles_are_shown_as_cosine_and_sine_and_categories_one_hot():
    pursuit, rock = (Duel(make_game(find(name)), informed=ROLES) for name in ("Pursuit", "RockPaperScissors"))
    rows = start(pursuit, [{"gate_angle": 2.0}])
    assert torch.allclose(
        pursuit.observe(rows)[0][0, -2:], torch.tensor([2.0]).repeat(2).sub(torch.tensor([0, torch.pi / 2])).cos()
    )
    rows = start(rock, [{"permutation": 4}])
    assert rock.observe(rows)[1][0, -6:].tolist() == [0, 0, 0, 0, 1, 0]


def test_find_and_discovery():
    assert [spec.name for spec in FAMILIES] == sorted(spec.name for spec in FAMILIES)
    assert find("Navigation").id == "metaduel/Navigation-v0"
