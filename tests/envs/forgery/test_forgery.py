"""Forgery against arithmetic, against a second implementation, against SciPy, and its headroom for adaptation."""

import functools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from metaduel.envs.core import noise
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.game import make_game
from metaduel.envs.core.registry import find
from metaduel.envs.core.tasks import frozen_tasks, generate
from metaduel.envs.core.trees import take_rows
from metaduel.envs.forgery.cases import MODES, SAMPLES, VERDICTS
from metaduel.envs.forgery.distance import draw_real, energy_distance
from metaduel.envs.forgery.game import EXTENT, mode_place, real_sample, verdict_score
from metaduel.envs.players.names import load_player
from metaduel.envs.players.play import play, steps
from metaduel.envs.players.scripted import scripted

SPEC = find("Forgery")
DUEL = Duel(make_game(SPEC))


def params_of(*tasks, dtype=torch.float64):
    return DUEL.game.params(tasks, dtype)


# Golden numbers


@pytest.mark.parametrize("case", MODES, ids=lambda case: case.why)
def test_golden_modes(case):
    numbers = torch.arange(len(case.places), dtype=torch.float64).unsqueeze(1)
    x, y = mode_place(params_of(case.task), numbers)
    assert case.task["modes"] == len(case.places)
    torch.testing.assert_close(torch.cat([x, y], 1), torch.tensor(case.places).double(), atol=1e-7, rtol=0)


@pytest.mark.parametrize("case", SAMPLES, ids=lambda case: case.why)
def test_golden_sample(case):
    drawn = real_sample(params_of(MODES[0].task), torch.tensor([case.numbers], dtype=torch.float64))
    torch.testing.assert_close(drawn, torch.tensor([case.place]).double(), atol=1e-7, rtol=0)


@pytest.mark.parametrize("case", VERDICTS, ids=lambda case: case.why)
def test_golden_verdict(case):
    score = verdict_score(torch.tensor([case.verdict]).double(), torch.tensor([case.is_real]))
    assert score.item() == pytest.approx(case.bits, abs=1e-7)


def test_a_real_sample_stays_in_the_plane():
    params = params_of({"centre_x": 1.5, "radius": 0.2, "spread": 0.1, "modes": 1})
    far = real_sample(params, torch.tensor([[0.0, 1 - 1e-12, 0.0]], dtype=torch.float64))
    torch.testing.assert_close(far, torch.tensor([[EXTENT, 0.0]]).double())


# Whole episodes


def naive_real(task, numbers):
    """A real sample of one task in plain Python, with complex numbers."""
    which, far, around = numbers
    modes, shape = int(task["modes"]), int(task["shape"])
    k = int(which * modes)
    if shape == 0:
        place = np.exp(2j * np.pi * k / modes)
    elif shape == 1:
        place = (complex(k % 3, 0) - 1 + 1j - 1j * (k // 3)) / math.sqrt(2)
    else:
        place = (k + 1) / modes * np.exp(3j * np.pi * k / modes)
    place = place * task["radius"] * np.exp(1j * task["rotation"]) + complex(task["centre_x"], task["centre_y"])
    place += task["spread"] * math.sqrt(-2 * math.log(1 - far)) * np.exp(2j * np.pi * around)
    return [min(max(place.real, -2), 2), min(max(place.imag, -2), 2)]


def test_random_episodes_equal_a_naive_second_implementation():
    n, rng = 40, np.random.default_rng(0)
    tasks = generate(SPEC, "train", n // 2, seed=4) + generate(SPEC, "extrapolation", n // 2, seed=4)
    rows = DUEL.reset(params_of(*tasks), torch.arange(n), torch.zeros(n, dtype=torch.int64))
    shown, is_real, count = None, None, 0
    for _ in range(50):
        numbers = DUEL.step_noise(rows.key, rows.step, torch.float64).numpy()
        points, verdicts = rng.uniform(-1, 1, (n, 2)), rng.uniform(-1, 1, n)
        rows, outcome = DUEL.step(rows, (torch.tensor(points), torch.tensor(verdicts).unsqueeze(1)))
        for i in range(n):
            score = 0.0
            if shown is not None:
                probability = 0.5 + 0.45 * verdicts[i]
                score = 1 + math.log2(probability if is_real[i] else 1 - probability)
            assert outcome.reward[i].tolist() == pytest.approx([-score, score], abs=1e-9)
        is_real = numbers[:, 6] < 0.5
        count += is_real.sum()
        shown = [
            naive_real(tasks[i], numbers[i, 3:6]) if is_real[i] else [2 * points[i, 0], 2 * points[i, 1]]
            for i in range(n)
        ]
        generator, discriminator = DUEL.observe(rows)
        np.testing.assert_allclose(generator.numpy(), 2 * numbers[:, :3] - 1, atol=1e-12)
        np.testing.assert_allclose(discriminator[:, :2].numpy(), shown, atol=1e-9)
        assert (discriminator[:, 2] == 1).all()
    assert not outcome.terminated.any()
    assert outcome.truncated.all()
    assert 0.46 < count / (50 * n) < 0.54


def test_a_verdict_is_about_the_sample_of_the_step_before():
    n = 64
    rows = DUEL.reset(DUEL.game.params([{}] * n), torch.arange(n), torch.zeros(n).long())
    assert not DUEL.observe(rows)[1].any()
    forged = torch.full((n, 2), 0.9)
    rows, outcome = DUEL.step(rows, (forged, torch.ones(n, 1)))
    assert not outcome.reward.any()  # there was nothing to judge
    fake = (DUEL.observe(rows)[1][:, :2] == 1.8).all(1)
    assert 15 < fake.sum() < 49
    # What is made now does not matter to the verdict on what was made before.
    one, two = (DUEL.step(rows, (action, torch.ones(n, 1)))[1].reward for action in (forged, -forged))
    assert torch.equal(one, two)
    torch.testing.assert_close(one[fake, 1], torch.full_like(one[fake, 1], math.log2(0.1)))
    torch.testing.assert_close(one[~fake, 1], torch.full_like(one[~fake, 1], math.log2(1.9)))


def test_who_says_how_likely_a_point_is_real_earns_the_divergence():
    # Bayes' verdict on forgeries all over the plane: its mean score is the Jensen-Shannon divergence of the two densities in
    # bits, less what the bound of the verdicts takes away. Sampled here, and integrated on a grid of 0.01 m.
    task = {"shape": 0, "modes": 1, "radius": 0.1, "spread": 0.1}
    params, n = params_of(task), 40_000
    middle = mode_place(params, torch.zeros(1, 1).double())
    generator = torch.Generator().manual_seed(0)
    real = draw_real(params, n, torch.tensor([3]))[0]
    fake = 4 * torch.rand(n, 2, generator=generator, dtype=torch.float64) - 2

    def probability(points):
        squared = (points[:, 0] - middle[0][0]) ** 2 + (points[:, 1] - middle[1][0]) ** 2
        density = torch.exp(-0.5 * squared / 0.01) / (2 * math.pi * 0.01)
        return (density / (density + 1 / 16)).clamp(0.05, 0.95)

    score = [
        verdict_score((2 * probability(points) - 1) / 0.9, torch.full((n,), is_real)).mean().item()
        for points, is_real in ((real, True), (fake, False))
    ]
    axis = torch.arange(-2, 2, 0.01, dtype=torch.float64) + 0.005
    grid = torch.cartesian_prod(axis, axis)
    p = probability(grid)
    density = torch.exp(-0.5 * ((grid[:, 0] - middle[0][0]) ** 2 + (grid[:, 1] - middle[1][0]) ** 2) / 0.01) / (
        2 * math.pi * 0.01
    )
    expected = [(density * torch.log2(2 * p)).sum() * 1e-4, (torch.log2(2 * (1 - p)) / 16).sum() * 1e-4]
    assert score == pytest.approx([e.item() for e in expected], abs=0.02)
    assert sum(score) / 2 > 0.7


# The distance between clouds


def test_energy_distance_equals_a_naive_loop():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(3, 7, 2)), rng.normal(size=(3, 5, 2)) + 0.4

    def mean(a, b):
        return np.mean([math.dist(x, y) for x in a for y in b])

    expected = [2 * mean(a, b) - mean(a, a) - mean(b, b) for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(energy_distance(torch.tensor(first), torch.tensor(second)).numpy(), expected, atol=1e-12)


def test_energy_distance_equals_scipys_on_a_line():
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=50), 1 + 2 * rng.normal(size=70)
    ours = energy_distance(*(torch.tensor(np.stack([x, 0 * x], 1)) for x in (first, second)))
    assert ours.item() == pytest.approx(stats.energy_distance(first, second) ** 2, abs=1e-12)


def test_energy_distance_tells_good_forgers_from_bad_ones():
    params = DUEL.game.params(frozen_tasks(SPEC, "held_out"))
    seeds = torch.arange(100)
    real, other = (draw_real(params, 300, seeds + 1000 * i) for i in range(2))
    assert energy_distance(real, real).abs().max() < 1e-6
    distance = {}
    for name in ("forger", "blurred", "shifted", "uniform"):
        player, judge = load_player(DUEL, "protagonist", name), load_player(DUEL, "adversary", "undecided")
        forged = [
            rows.state.forged
            for episode in range(6)
            for rows, _ in steps(DUEL, (player, judge), DUEL.reset(params, seeds, seeds * 0 + episode))
        ]
        distance[name] = energy_distance(torch.stack(forged, 1), real)
    # As far apart as two clouds of real samples, on average.
    assert distance["forger"].mean() < 1.5 * energy_distance(other, real).mean()
    for name in ("blurred", "shifted", "uniform"):
        assert (distance[name] > distance["forger"]).float().mean() > 0.97, name


def test_real_samples_depend_on_seed_and_task_alone():
    tasks = generate(SPEC, "train", 5, seed=1)
    params = DUEL.game.params(tasks)
    drawn = draw_real(params, 400, torch.arange(5))
    assert drawn.shape == (5, 400, 2)
    assert torch.equal(draw_real(DUEL.game.params(tasks[3:4]), 400, torch.tensor([3]))[0], drawn[3])
    assert not torch.equal(draw_real(DUEL.game.params(tasks[3:4]), 400, torch.tensor([4]))[0], drawn[3])
    # Not the numbers of an episode with that seed.
    key = noise.episode_key(torch.tensor([3]), torch.tensor([0]))
    assert not torch.equal(
        real_sample(take_rows(params, slice(3, 4)), noise.uniform(key, key * 0, noise.INIT, 3)), drawn[3, :1]
    )


def test_real_samples_have_the_modes_and_the_spread_of_their_task():
    for task in generate(SPEC, "train", 12, seed=3):
        params = params_of(task)
        x, y = mode_place(params, torch.arange(int(task["modes"])).double().unsqueeze(1))
        gap = draw_real(params, 4000, torch.tensor([5]))[0].unsqueeze(1) - torch.cat([x, y], 1)
        nearest = gap.square().sum(2).min(1)
        # All modes are about equally often the nearest; few samples are nearer to another mode than to their own.
        share = torch.bincount(nearest.indices, minlength=int(task["modes"])) / 4000
        assert (share * task["modes"] - 1).abs().max() < 0.35
        # The mean square in two dimensions is two variances, less what crosses over to a neighbour.
        assert 0.8 < nearest.values.mean().item() / (2 * task["spread"] ** 2) < 1.05


# Bad input


@pytest.mark.parametrize(
    ("task", "words"),
    [
        (
            {"centre_x": 1.2, "radius": 0.7, "spread": 0.1},
            r"centre_x=1.2 with radius=0.7 and spread=0.1 .* = 2.2 must be at most 2 m",
        ),
        ({"centre_y": -1.4, "radius": 0.6, "spread": 0.05}, r"centre_y=-1.4 with radius=0.6"),
        ({"shape": 3}, r"shape=3 must be a whole number in \[0, 2\]"),
        ({"modes": 4.5}, r"modes=4.5 must be a whole number in \[1, 9\]"),
    ],
)
def test_impossible_distributions_are_refused(task, words):
    with pytest.raises(InvalidInputError, match=words):
        DUEL.game.params([task])


def test_every_frozen_task_fits_into_the_plane():
    for split in ("validation", "held_out", "extrapolation"):
        DUEL.game.params(frozen_tasks(SPEC, split))


# What makes it worth adapting in


@functools.cache
def mean_return(pair, split, n=60):
    names = zip(("protagonist", "adversary"), pair, strict=True)
    players = tuple(load_player(DUEL, role, name) for role, name in names)
    tasks = generate(SPEC, "train", n, seed=9) if split == "train" else frozen_tasks(SPEC, split)[:n]
    seeds = torch.arange(len(tasks))
    return play(DUEL, players, DUEL.game.params(tasks), seeds, seeds * 0).returns[:, 0].mean().item()


def best(role, panel, split, informed):
    """The best mean return in ``role``'s seat against a panel, of the scripted players that know or don't."""
    names = [name for name, player in scripted(SPEC, role).items() if player.informed is informed]
    if role == "protagonist":
        return max(np.mean([mean_return((name, other), split) for other in panel]) for name in names)
    return max(-np.mean([mean_return((other, name), split) for other in panel]) for name in names)


@pytest.mark.parametrize("split", ["train", "validation", "extrapolation"])
@pytest.mark.parametrize("opponents", ["train", "held_out"])
@pytest.mark.parametrize(("role", "other"), [("protagonist", "adversary"), ("adversary", "protagonist")])
def test_knowing_the_hidden_distribution_pays(role, other, opponents, split):
    panel = SPEC.opponents[other][opponents]
    assert best(role, panel, split, informed=True) - best(role, panel, split, informed=False) > 6


def test_who_never_decides_never_pays():
    for forger in SPEC.opponents["protagonist"]["train"]:
        assert mean_return((forger, "undecided"), "train") == 0


def test_the_generator_sees_latent_noise_alone_and_the_discriminator_the_point():
    n, seen = 32, []
    for task in ({"centre_x": -0.5}, {"centre_x": 0.5, "shape": 2}):
        rows = DUEL.reset(DUEL.game.params([task] * n), torch.arange(n), torch.zeros(n).long())
        for _ in range(5):
            rows, _ = DUEL.step(rows, (torch.zeros(n, 2), torch.zeros(n, 1)))
        seen.append(DUEL.observe(rows))
    assert torch.equal(seen[0][0], seen[1][0])
    real = rows.state.shows_real
    assert torch.equal(seen[0][1][~real], seen[1][1][~real])
    assert not torch.equal(seen[0][1][real], seen[1][1][real])


def test_every_scripted_player_acts_alike_alone_and_in_a_batch():
    n = 6
    params = DUEL.game.params(generate(SPEC, "train", n, seed=2))
    generators, judges = scripted(SPEC, "protagonist"), list(scripted(SPEC, "adversary").values())
    seeds = torch.arange(n)
    for i, generator in enumerate(generators.values()):
        pair = generator, judges[i % len(judges)]
        batch = play(DUEL, pair, params, seeds, seeds * 0)
        for k in (0, n - 1):
            single = play(DUEL, pair, take_rows(params, slice(k, k + 1)), seeds[k : k + 1], seeds[:1] * 0)
            assert torch.equal(single.returns[0], batch.returns[k])


def test_the_step_compiles_and_keeps_the_type():
    step = torch.compile(DUEL.step, dynamic=False, backend="aot_eager")
    for dtype in (torch.float32, torch.float64):
        n = 8
        rows = DUEL.reset(
            params_of(*generate(SPEC, "train", n, seed=2), dtype=dtype), torch.arange(n), torch.zeros(n).long()
        )
        other = rows
        for _ in range(4):
            actions = (torch.full((n, 2), 0.4, dtype=dtype), torch.full((n, 1), -0.3, dtype=dtype))
            rows, outcome = DUEL.step(rows, actions)
            other, same = step(other, actions)
            assert {x.dtype for x in (*DUEL.observe(rows), outcome.reward, rows.state.real)} == {dtype}
            torch.testing.assert_close(same.reward, outcome.reward)
            torch.testing.assert_close(other.state.real, rows.state.real)
