"""Joint rollouts against their own definition, and the invariances that batching must keep.

Rows are independent up to float rounding in the networks; the games and the noise are the same numbers bit for bit.
"""

from dataclasses import replace

import pytest
import torch

from metaduel.agents import rollout as rollouts
from metaduel.agents.episodes import Step, pad_episodes
from metaduel.agents.policies.memory import MemoryPolicy
from metaduel.agents.policies.mlp import MLPPolicy
from metaduel.agents.policies.recurrent import GRUPolicy
from metaduel.agents.rollout import Learner, Seated, Sitting, Taught, rollout
from metaduel.agents.trajectories import Carry, Trajectories
from metaduel.envs.core import noise
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.game import View, make_game
from metaduel.envs.core.registry import find, specs
from metaduel.envs.core.tasks import sample_tasks
from metaduel.envs.players.names import load_player
from metaduel.envs.players.scripted import Impaired, scripted

ROLES = ("protagonist", "adversary")
GAMES = ("Navigation", "Pursuit", "RockPaperScissors")
HORIZON, EPISODES, TASKS = 12, 3, 4


class Setup:
    """Two learners with weights of their own for each task of a game."""

    def __init__(self, game, horizon=HORIZON):
        self.spec = find(game)
        self.duel = Duel(make_game(self.spec), horizon)
        self.rows = torch.tensor([list(t.values()) for t in sample_tasks(self.spec, TASKS, "train", 5)]).double()
        self.policies, self.weights = {}, {}
        for seat, role in enumerate(ROLES):
            size = self.duel.observation_space(role).shape[0]
            policy = self.policies[role] = MLPPolicy(size, self.duel.action_space(role), (5,))
            each = [policy.init(10 * seat + n) for n in range(TASKS)]
            self.weights[role] = {name: torch.stack([w[name] for w in each]) * 2 for name in each[0]}
        self.seed = torch.arange(TASKS * EPISODES) + 100

    def learner(self, role, tasks=None):
        tasks = list(range(TASKS)) if tasks is None else tasks
        return Learner(self.policies[role], {name: value[tasks] for name, value in self.weights[role].items()})

    def play(self, tasks=None, seats=None):
        """Learners in both seats of these tasks, or whatever ``seats`` says."""
        tasks = list(range(TASKS)) if tasks is None else tasks
        everything = slice(0, len(tasks))
        seats = seats or tuple([Sitting(everything, self.learner(role, tasks))] for role in ROLES)
        rows = self.rows[tasks].repeat_interleave(EPISODES, 0)
        params = self.duel.game.params_from_rows(rows)
        seed = self.seed.view(TASKS, EPISODES)[tasks].flatten()
        return rollout(self.duel, params, seats, EPISODES, seed, torch.zeros_like(seed))


def pad(data, steps):
    """Rollouts end with their longest episode: bring trajectories to a common length."""
    return [
        torch.cat([part, part.new_zeros(len(part), steps - part.shape[1], *part.shape[2:])], 1) for part in data[:4]
    ]


def assert_same(one, two, atol=1e-5):
    """Equal where steps were played; after the end anything may stand in observations and actions."""
    steps = max(one.reward.shape[1], two.reward.shape[1])
    one, two = pad(one, steps), pad(two, steps)
    assert torch.equal(one[3], two[3])
    alive = one[3].bool()
    for a, b in zip(one[:3], two[:3], strict=True):
        assert torch.allclose(a[alive].double(), b[alive].double(), atol=atol)


def take(data, tasks):
    return type(data)(*(part[tasks] for part in data[:4]))


@pytest.mark.parametrize("game", GAMES)
def test_permuting_tasks_permutes_trajectories(game):
    setup, order = Setup(game), [2, 0, 3, 1]
    straight, permuted = setup.play(), setup.play(order)
    for a, b in zip(straight, permuted, strict=True):
        assert_same(take(a, order), b)
        assert not torch.allclose(*(pad(x, HORIZON)[0] for x in (a, b)), atol=1e-3)  # the tasks do differ


@pytest.mark.parametrize("game", GAMES)
def test_one_call_equals_a_call_per_task(game):
    setup = Setup(game)
    together = setup.play()
    for n in range(TASKS):
        alone = setup.play([n])
        for a, b in zip(together, alone, strict=True):
            assert_same(take(a, [n]), b)


@pytest.mark.parametrize("game", GAMES)
def test_equals_stepping_the_duel_by_hand(game):
    setup = Setup(game)
    together = setup.play()
    for n in range(TASKS):
        for e in range(EPISODES):
            steps = by_hand(setup, n, setup.seed[n * EPISODES + e])
            for data, own in zip(together, steps, strict=True):
                row = type(data)(*(part[n : n + 1, :, e : e + 1] for part in data[:4]))
                assert_same(row, pad_episodes([[own]]))


def by_hand(setup, n, seed):
    """One episode of one task: per seat the steps."""
    duel = setup.duel
    key = noise.episode_key(seed.view(1), torch.zeros(1, dtype=torch.int64))
    rows = duel.reset(duel.game.params_from_rows(setup.rows[n : n + 1]), seed.view(1), torch.zeros_like(key))
    result = ([], [])
    for _ in range(duel.horizon):
        seen, chosen, played = duel.observe(rows), [], []
        for seat, role in enumerate(ROLES):
            learner = setup.learner(role, [n])
            policy, weights = learner.policy, learner.weights
            uniforms = noise.uniform(key, rows.step, noise.SEAT[seat], policy.noise)
            action = policy(weights, seen[seat].unsqueeze(0)).sample(policy.prepare_noise(uniforms).unsqueeze(0))[0]
            chosen.append(action)
            played.append(policy.clip(action))
        rows, outcome = duel.step(rows, tuple(played))
        for seat in (0, 1):
            result[seat].append(Step(seen[seat][0], chosen[seat][0], float(outcome.reward[0, seat])))
        if outcome.terminated or outcome.truncated:
            break
    return result


def test_nothing_happens_after_the_end():
    """Pursuit ends by its rules: the gate's position makes episodes of different lengths."""
    setup = Setup("Pursuit", horizon=60)
    for data in setup.play():
        lengths = data.alive.sum(1)
        assert lengths.min() < lengths.max()  # or this test would see nothing
        assert data.alive.shape[1] == int(lengths.max())
        assert set(data.alive.unique().tolist()) == {0.0, 1.0}
        assert bool((data.alive.diff(dim=1) <= 0).all())  # once over, over
        assert not data.reward[data.alive == 0].any()
        assert torch.equal(data.returns, data.reward.sum(1))


@pytest.mark.parametrize("game", GAMES)
def test_scripted_players_sit_in_blocks(game):
    """Two scripted adversaries in tasks 0 and 1, the learned one in 2 and 3: each as if it were alone."""
    setup = Setup(game)
    names = setup.spec.opponents["adversary"]["train"][:2]
    players = [load_player(setup.duel, "adversary", name) for name in names]
    learned = setup.learner("adversary", [2, 3])
    mixture = [
        Sitting(slice(0, 1), Seated(players[0])),
        Sitting(slice(1, 2), Seated(players[1])),
        Sitting(slice(2, 4), learned),
    ]
    first, second = setup.play(seats=([Sitting(slice(0, TASKS), setup.learner("protagonist"))], mixture))
    assert first.reward.shape[0] == TASKS
    assert second.reward.shape[0] == 2  # the learner's tasks alone
    for n, player in enumerate(players):
        seats = [Sitting(slice(0, 1), setup.learner("protagonist", [n]))], [Sitting(slice(0, 1), Seated(player))]
        alone, scripted = setup.play([n], seats)
        assert scripted is None
        assert_same(take(first, [n]), alone)
    against = setup.play([2, 3])
    assert_same(take(first, [2, 3]), against[0])
    assert_same(second, against[1])


@pytest.mark.parametrize("role", ROLES)
def test_scripted_players_with_memory_and_noise(role):
    """Every scripted player of rock-paper-scissors against the learner, in one batch and alone."""
    setup = Setup("RockPaperScissors")
    other = ROLES[1 - ROLES.index(role)]
    players = list(scripted(setup.spec, other).values())
    assert any(p.memory for p in players)
    assert any(p.noise for p in players)
    for pair in zip(players[::2], players[1::2], strict=False):
        blocks = [Sitting(slice(0, 3), Seated(pair[0])), Sitting(slice(3, 4), Seated(pair[1]))]
        own = [Sitting(slice(0, TASKS), setup.learner(role))]
        seat = ROLES.index(role)
        together = setup.play(seats=(own, blocks) if seat == 0 else (blocks, own))[seat]
        for n in (0, 2, 3):
            seats = [Sitting(slice(0, 1), setup.learner(role, [n]))], [Sitting(slice(0, 1), Seated(pair[n == 3]))]
            alone = setup.play([n], seats if seat == 0 else seats[::-1])[seat]
            assert_same(take(together, [n]), alone)


def test_deterministic_learners_play_their_mode():
    setup = Setup("Navigation")
    learners = [replace(setup.learner(role), deterministic=True) for role in ROLES]
    data = setup.play(seats=tuple([Sitting(slice(0, TASKS), learner)] for learner in learners))
    for role, own in zip(ROLES, data, strict=True):
        n, t, e = own.reward.shape
        means = setup.policies[role](setup.weights[role], own.observation.view(n, t * e, -1)).mode()
        assert torch.allclose(own.action, means.view_as(own.action), atol=1e-6)


def test_episodes_and_seeds_change_the_noise():
    setup = Setup("Navigation")
    params = setup.duel.game.params_from_rows(setup.rows.repeat_interleave(EPISODES, 0))
    seats = tuple([Sitting(slice(0, TASKS), setup.learner(role))] for role in ROLES)
    zero = torch.zeros_like(setup.seed)
    play = [
        rollout(setup.duel, params, seats, EPISODES, s, k)[0].action
        for s in (setup.seed, zero)
        for k in (zero, zero + 1)
    ]
    again = rollout(setup.duel, params, seats, EPISODES, setup.seed, zero)[0].action
    assert torch.equal(play[0], again)
    assert all(not torch.allclose(play[i], play[j], atol=1e-3) for i in range(4) for j in range(i))
    assert not play[0].requires_grad


@pytest.mark.parametrize("game", GAMES)
def test_who_is_taught_acts_in_every_other_episode_and_is_told_in_all(game):
    setup = Setup(game)
    everything = slice(0, TASKS)
    name = {"Navigation": "seeker", "Pursuit": "dash", "RockPaperScissors": "always_rock"}[game]
    teacher = load_player(setup.duel, "protagonist", name)
    adversary = [Sitting(everything, setup.learner("adversary"))]
    alone = setup.play()[1]
    shown = setup.play(seats=([Sitting(everything, Seated(teacher))], adversary))[1]
    taught = [Sitting(everything, Taught(setup.learner("protagonist"), teacher))]
    data, seen = setup.play(seats=(taught, adversary))
    acts = torch.arange(TASKS * EPISODES).view(TASKS, 1, EPISODES) % 2 == 0
    for part, learner, teacher_part in zip(*(pad(one, HORIZON) for one in (seen, alone, shown)), strict=True):
        mask = acts.view(*acts.shape, *[1] * (part.dim() - 3))
        played = torch.where(mask, learner, teacher_part)
        torch.testing.assert_close(part, played, atol=1e-5, rtol=1e-4)
    # What is kept is what the teacher would do, wherever the learner has led.
    start = setup.duel.reset(
        setup.duel.game.params_from_rows(setup.rows.repeat_interleave(EPISODES, 0)),
        setup.seed,
        torch.zeros_like(setup.seed),
    )
    view = View(start.params, start.state, setup.duel.observe(start)[0], start.step)
    size = len(setup.seed)
    labels, _ = teacher.act(view, torch.zeros(size, teacher.memory), torch.full((size, teacher.noise), 0.5))
    torch.testing.assert_close(data.action[:, 0].flatten(0, 1), labels)


def test_a_policy_with_a_memory_is_not_taught():
    setup = Setup("RockPaperScissors")
    policy = GRUPolicy(setup.duel.observation_space("protagonist").shape[0], setup.duel.action_space("protagonist"))
    weights = {name: value.unsqueeze(0) for name, value in policy.init(0).items()}
    teacher = load_player(setup.duel, "protagonist", "always_rock")
    seats = [Sitting(slice(0, TASKS), Taught(Learner(policy, weights), teacher))]
    with pytest.raises(TypeError, match="GRUPolicy has a memory"):
        setup.play(seats=(seats, [Sitting(slice(0, TASKS), setup.learner("adversary"))]))


class OneByOne(Duel):
    """As a simulator that has an environment for every row: a task's episodes are played one after another."""

    at_once = False

    def step(self, episode, actions, numbers=None, active=None):
        assert len(episode.key) == TASKS
        self.stepped = [*getattr(self, "stepped", []), int(active.sum())]
        return super().step(episode, actions, numbers, active)


@pytest.mark.parametrize("game", GAMES)
def test_episodes_one_after_another_equal_all_at_once(game):
    setup = Setup(game, horizon=60 if game == "Pursuit" else HORIZON)
    teacher = load_player(setup.duel, "protagonist", setup.spec.opponents["protagonist"]["train"][0])
    everything = slice(0, TASKS)
    learner, watched = setup.learner("protagonist"), Seated(teacher, recorded=True)
    for actor in (learner, replace(learner, deterministic=True), Taught(learner, teacher), watched):
        seats = ([Sitting(everything, actor)], [Sitting(everything, setup.learner("adversary"))])
        together = setup.play(seats=seats)
        duel, setup.duel = setup.duel, OneByOne(make_game(setup.spec), setup.duel.horizon)
        apart = setup.play(seats=seats)
        assert (min(setup.duel.stepped) < TASKS) == bool((together[0].alive.sum(1) < together[0].alive.shape[1]).any())
        setup.duel = duel
        for one, two in zip(together, apart, strict=True):
            assert one.reward.shape == two.reward.shape
            assert_same(one, two)


@pytest.mark.parametrize("stacked", [1, TASKS])
@pytest.mark.parametrize("carries", [1, EPISODES])
def test_memories_go_on_from_their_own_carry_one_after_another_too(stacked, carries):
    setup = Setup("Pursuit", horizon=60)
    policy = MemoryPolicy(
        setup.duel.observation_space("protagonist").shape[0], setup.duel.action_space("protagonist"), 6
    )
    generator = torch.Generator().manual_seed(0)
    names = [name for name in policy.init(0) if name.split(".")[0] not in policy.aids]  # the critic does not play
    weights = {k: torch.randn(stacked, *policy.init(0)[k].shape, generator=generator) for k in names}
    rows = TASKS * carries // stacked
    carry = Carry(*(torch.randn(stacked, rows, size, generator=generator) for size in policy.carried))
    seats = (
        [Sitting(slice(0, TASKS), Learner(policy, weights, carry=carry))],
        [Sitting(slice(0, TASKS), setup.learner("adversary"))],
    )
    together = setup.play(seats=seats)[0]
    setup.duel = OneByOne(make_game(setup.spec), 60)
    apart = setup.play(seats=seats)[0]
    assert_same(together, apart)
    alive = together.alive.bool()
    torch.testing.assert_close(together.other[alive], apart.other[alive], atol=1e-5, rtol=1e-4)
    for one, two in zip(together.carry, apart.carry, strict=True):
        torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-4)


def in_order(setup, tasks, seats):
    """The rollout of these tasks in this order."""
    params = setup.duel.game.params_from_rows(setup.rows[tasks].repeat_interleave(EPISODES, 0))
    seed = setup.seed.view(TASKS, EPISODES)[tasks].flatten()
    return rollout(setup.duel, params, seats, EPISODES, seed, torch.zeros_like(seed))


def assert_equal(one, two):
    """Bit for bit, all that is recorded."""
    for a, b in zip(one, two, strict=True):
        assert (a is None) == (b is None)
        if isinstance(a, tuple):
            assert_equal(a, b)
        elif a is not None:
            assert torch.equal(a, b)


@pytest.mark.parametrize("game", GAMES)
@pytest.mark.parametrize("order", [[0, 1, 2, 3], [2, 0, 3, 1], [3, 2, 1, 0]])
def test_tasks_in_any_order_are_the_same_tasks(game, order):
    """Both learners and two scripted players on each side, each with its tasks wherever they stand in the batch."""
    setup = Setup(game, horizon=30)
    first, second = ([scripted(setup.spec, role)[n] for n in setup.spec.opponents[role]["train"][:2]] for role in ROLES)
    place = torch.tensor(order).argsort()  # of each task in the batch
    results = []
    for at in (lambda *tasks: slice(tasks[0], tasks[-1] + 1), lambda *tasks: place[list(tasks)]):
        tasks = order if results else list(range(TASKS))
        seats = (
            [
                Sitting(at(0, 1), setup.learner(ROLES[0], [0, 1])),
                Sitting(at(2), Seated(first[0])),
                Sitting(at(3), Seated(first[1])),
            ],
            [
                Sitting(at(0), Seated(second[0])),
                Sitting(at(1, 2), setup.learner(ROLES[1], [1, 2])),
                Sitting(at(3), Seated(second[1], True)),
            ],
        )
        seats = seats if not results else (seats[0][::-1], seats[1][1:] + seats[1][:1])
        results.append(in_order(setup, tasks, seats))
    for one, two in zip(*results, strict=True):
        assert_equal(one, two)


def test_sets_of_weights_play_the_tasks_that_follow_each_other_in_their_own_order():
    """Two sets for two tasks each, with the tasks of both mixed in the batch."""
    setup = Setup("Pursuit", horizon=30)
    sets, everything = [0, 2], slice(0, TASKS)
    own = setup.learner("protagonist", sets)
    seats = [Sitting(torch.tensor([0, 2, 1, 3]), own)], [Sitting(everything, setup.learner("adversary"))]
    data = setup.play(seats=seats)[0]
    assert data.reward.shape[::2] == (2, 2 * EPISODES)
    each = [Sitting(everything, setup.learner("protagonist", [0, 2, 0, 2]))], seats[1]
    alone = setup.play(seats=each)[0]
    for number in range(2):
        played = take(alone, [number, number + 2])
        together = type(played)(*(part.transpose(0, 1).flatten(1, 2).unsqueeze(0) for part in played[:4]))
        assert_same(take(data, [number]), together)


@pytest.mark.parametrize(
    "tasks", [torch.tensor([0, 1, 1, 3]), torch.tensor([0, 1, 2]), torch.tensor([0, 1, 2, 4]), slice(0, 3)]
)
def test_a_task_that_is_played_twice_or_not_at_all_is_refused(tasks):
    setup = Setup("Navigation")
    own = [Sitting(slice(0, TASKS), setup.learner("protagonist"))]
    with pytest.raises(
        InvalidInputError, match="seats: the sittings of the adversary must cover each of the 4 tasks once"
    ):
        setup.play(seats=(own, [Sitting(tasks, setup.learner("adversary"))]))


def near(one, two):
    """Equal up to rounding in the networks' products; where nothing was played, zeros in both."""
    for name, a, b in zip(one._fields, one, two, strict=True):
        assert (a is None) == (b is None), name
        if isinstance(a, tuple):
            near(a, b)
        elif a is not None:
            assert a.shape == b.shape
            assert a.is_contiguous()
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    if isinstance(one, Trajectories):
        over = one.alive == 0
        assert all(not part[over].any() for part in (*one[:3], *([] if one.other is None else [one.other])))


def dropped_and_padded(setup, seats, monkeypatch):
    """Rollouts that drop rows as soon as one is over, that drop them as usual, and that never do."""
    results, sizes, step = [], [], type(setup.duel).step

    def counted(duel, episode, *rest):
        sizes[-1].append(len(episode.key))
        return step(duel, episode, *rest)

    for share in (1e-9, rollouts.DROP, 2.0):
        with monkeypatch.context() as patch:
            patch.setattr(rollouts, "DROP", share)
            patch.setattr(rollouts, "LEAST", 1)
            patch.setattr(type(setup.duel), "step", counted)
            sizes.append([])
            results.append(setup.play(seats=seats))
    return results, sizes


class Ending(Duel):
    """A game whose episodes have different lengths, whatever its rules say."""

    def step(self, episode, actions, numbers=None, active=None):
        after, transition = super().step(episode, actions, numbers, active)
        over = after.step >= 2 + (episode.key & 15)
        return after, transition._replace(terminated=transition.terminated | over)


@pytest.mark.parametrize("game", sorted(specs()))
def test_scripted_players_play_the_same_where_rows_that_are_over_are_dropped(game, monkeypatch):
    """Bit for bit: every scripted player of the family, two of them in each seat, in the order of the batch or not."""
    setup = Setup(game)
    setup.duel = Ending(make_game(setup.spec), 20)
    players = [list(scripted(setup.spec, role).values()) for role in ROLES]
    orders = [[[0, 1], [2, 3], [0, 3], [1, 2]], [[0, 2], [3, 1], [2, 1], [0, 3]]]
    for number in range(0, max(map(len, players)), 2):
        first, second = ([one[(number + i) % len(one)] for i in range(2)] for one in players)
        second[1] = Impaired(second[1], setup.duel.action_space("adversary"), noise=0.2, delay=0)
        parts = [torch.tensor(one) for one in orders[number // 2 % 2]]
        seats = (
            [Sitting(parts[0], Seated(first[0], True)), Sitting(parts[1], Seated(first[1]))],
            [Sitting(parts[2], Seated(second[0])), Sitting(parts[3], Seated(second[1], True))],
        )
        results, sizes = dropped_and_padded(setup, seats, monkeypatch)
        for result in results[:2]:
            for one, two in zip(result, results[2], strict=True):
                assert_equal(one, two)
        assert min(sizes[0]) <= min(sizes[1]) < TASKS * EPISODES
        assert set(sizes[2]) == {TASKS * EPISODES}


ACTORS = ("one set", "two sets", "a set for each", "mode", "taught", "recurrent", "lasting", "lasting, one set")


def actor_of(kind, setup):
    """A learner in the protagonist's seat."""
    space, seen = setup.duel.action_space("protagonist"), setup.duel.observation_space("protagonist").shape[0]
    sets = {"one set": [0], "two sets": [0, 2], "lasting, one set": [0]}.get(kind, list(range(TASKS)))
    learner = setup.learner("protagonist", sets)
    if kind == "mode":
        return replace(learner, deterministic=True)
    if kind == "taught":
        return Taught(learner, next(iter(scripted(setup.spec, "protagonist").values())))
    if kind in ("recurrent", "lasting", "lasting, one set"):
        policy = (GRUPolicy if kind == "recurrent" else MemoryPolicy)(seen, space, 6)
        generator = torch.Generator().manual_seed(0)
        weights = {k: torch.randn(len(sets), *w.shape, generator=generator) for k, w in policy.init(0).items()}
        carry = None
        if kind == "lasting":
            carry = Carry(*(torch.randn(len(sets), 1, size, generator=generator) for size in policy.carried))
        return Learner(policy, weights, carry=carry)
    return learner


@pytest.mark.parametrize("game", ["Pursuit", "Sumo", "KuhnPoker"])
@pytest.mark.parametrize("kind", ACTORS)
def test_learners_play_the_same_where_rows_that_are_over_are_dropped(game, kind, monkeypatch):
    setup = Setup(game, horizon=min(find(game).horizon, 60))
    actor, other = actor_of(kind, setup), setup.learner("adversary", [1, 3])
    player = next(iter(scripted(setup.spec, "adversary").values()))
    for order in ([0, 1, 2, 3], [2, 1, 3, 0]):
        seats = (
            [Sitting(torch.tensor(order), actor)],
            [Sitting(torch.tensor([0, 2]), Seated(player)), Sitting(torch.tensor([1, 3]), other)],
        )
        results, sizes = dropped_and_padded(setup, seats, monkeypatch)
        assert min(sizes[0]) <= min(sizes[1]) < TASKS * EPISODES  # or nothing was dropped
        for result in results[:2]:
            for one, two in zip(result, results[2], strict=True):
                near(one, two)


def test_actors_that_cannot_drop_rows_play_all_to_the_end(monkeypatch):
    """An actor that was written for a fixed number of rows, as those that speak NumPy are."""
    setup = Setup("Pursuit", horizon=60)

    class Fixed:
        noise = 0

        def sit(self, place):
            self.rows = place.rows
            return self

        def act(self, step, rows, observation):
            return observation[self.rows][:, :2]

        def record(self, reward, alive, other):
            assert len(reward) == TASKS * EPISODES

        def result(self):
            return None

    seats = [Sitting(slice(0, TASKS), setup.learner("protagonist"))], [Sitting(slice(0, TASKS), Fixed())]
    results, sizes = dropped_and_padded(setup, seats, monkeypatch)
    assert {size for one in sizes for size in one} == {TASKS * EPISODES}
    assert results[0][0].alive.min() == 0


@pytest.mark.parametrize("game", GAMES)
def test_numbers_that_are_drawn_block_by_block_are_the_same(game, monkeypatch):
    setup = Setup(game)
    player = Impaired(
        load_player(setup.duel, "adversary", setup.spec.opponents["adversary"]["train"][0]),
        setup.duel.action_space("adversary"), 0.5, 0,
    )  # fmt: skip
    seats = ([Sitting(slice(0, TASKS), setup.learner("protagonist"))], [Sitting(slice(0, TASKS), Seated(player))])
    whole = setup.play(seats=seats)[0]
    monkeypatch.setattr("metaduel.agents.rollout.BLOCK", 5)
    assert_same(whole, setup.play(seats=seats)[0], atol=1e-6)
