"""The counter-based noise: against SplitMix64's reference outputs, and as the statistics of good random numbers."""

import math

import pytest
import torch

from metaduel.envs.core import noise

GAMMA, MASK = 0x9E3779B97F4A7C15, (1 << 64) - 1


def mix(x):
    """SplitMix64's finaliser with Python's integers."""
    x &= MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def int64(*values):
    return torch.tensor([(v & MASK) - (1 << 64 if (v & MASK) >> 63 else 0) for v in values])


def keys(n, seed=0):
    return noise.episode_key(torch.arange(n) + seed, torch.zeros(n, dtype=torch.int64))


# First outputs of Vigna's splitmix64.c for two seeds: the k-th output is the finaliser of seed + k * gamma.
@pytest.mark.parametrize(
    ("seed", "outputs"),
    [
        (0, [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F, 0xF88BB8A8724C81EC, 0x1B39896A51A8749B]),
        (
            1234567,
            [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821],
        ),
    ],
)
def test_reference_outputs(seed, outputs):
    states = [seed + (k + 1) * GAMMA for k in range(len(outputs))]
    assert [mix(s) for s in states] == outputs
    assert noise.mix(int64(*states)).tolist() == int64(*outputs).tolist()


@pytest.mark.parametrize("seed", [0, 7, (1 << 63) - 1, -5])
@pytest.mark.parametrize("episode", [0, 3, 10**12])
@pytest.mark.parametrize("step", [0, 1, 399])
def test_uniform_equals_its_formula_in_python_integers(seed, episode, step):
    key = mix(mix(seed + GAMMA) + (episode + 1) * GAMMA)
    assert noise.episode_key(torch.tensor([seed]), torch.tensor([episode])).tolist() == int64(key).tolist()
    for channel in (noise.DYNAMICS, noise.TASK, noise.SEAT[1]):
        counters = [step * 16384 + channel * 1024 + j for j in range(3)]
        expected = [(mix(key + c * GAMMA) >> 40) / (1 << 24) for c in counters]
        assert noise.uniform(int64(key), torch.tensor([step]), channel, 3).tolist() == [expected]


def test_derive_seed_is_a_pure_function_of_all_its_parts():
    seeds = {noise.derive_seed(a, b, c) for a in range(8) for b in range(8) for c in range(8)}
    assert len(seeds) == 512
    assert all(0 <= s < 1 << 63 for s in seeds)
    assert noise.derive_seed(1, 2) != noise.derive_seed(2, 1)
    assert noise.derive_seed(0) != noise.derive_seed(0, 0)


def test_uniform_is_uniform():
    u = noise.uniform(
        keys(1 << 12), torch.zeros(1 << 12, dtype=torch.int64), noise.DYNAMICS, 16, torch.float64
    ).flatten()
    assert u.min() >= 0
    assert u.max() < 1
    counts = torch.histc(u, 256, 0, 1)
    expected = len(u) / 256
    chi_squared = ((counts - expected) ** 2 / expected).sum().item()
    assert abs(chi_squared - 255) < 4 * math.sqrt(2 * 255)
    # Every one of the 24 bits is set half of the time (standard deviation 0.5 / sqrt(65536) = 0.002).
    bits = (u * (1 << 24)).long().unsqueeze(1) >> torch.arange(24) & 1
    assert (bits.double().mean(0) - 0.5).abs().max() < 0.008


@pytest.mark.parametrize("what", ["seed", "episode", "step", "channel", "index"])
def test_neighbours_are_uncorrelated(what):
    n = 1 << 14
    i, zero = torch.arange(n), torch.zeros(n, dtype=torch.int64)
    draw = {
        "seed": lambda d: noise.uniform(noise.episode_key(i + d, zero), zero, 0, 1),
        "episode": lambda d: noise.uniform(noise.episode_key(zero, i + d), zero, 0, 1),
        "step": lambda d: noise.uniform(noise.episode_key(zero, zero), i + d, 0, 1),
        "channel": lambda d: noise.uniform(noise.episode_key(i, zero), zero, d, 1),
        "index": lambda d: noise.uniform(noise.episode_key(i, zero), zero, 0, 2)[:, d : d + 1],
    }[what]
    pair = torch.cat([draw(0), draw(1)], 1).double()
    assert abs(torch.corrcoef(pair.T)[0, 1].item()) < 4 / math.sqrt(n)


def test_channels_share_no_number():
    key, step = keys(1), torch.zeros(1, dtype=torch.int64)
    drawn = [noise.uniform(key, step + s, c, 1024, torch.float64) for c in range(16) for s in range(2)]
    numbers = torch.cat(drawn).flatten()
    # 32768 draws from 2^24 values: about n^2 / 2^25 = 32 pairs coincide by chance, thousands if channels overlapped.
    assert len(numbers) - len(numbers.unique()) < 80


def test_a_channel_is_never_overrun():
    with pytest.raises(ValueError, match="1024 numbers per step"):
        noise.uniform(keys(1), torch.zeros(1, dtype=torch.int64), 0, 1025)


def test_rows_do_not_depend_on_their_batch():
    key, step = keys(33), torch.arange(33)
    batch = noise.uniform(key, step, noise.INIT, 5)
    for i in (0, 7, 32):
        assert torch.equal(batch[i : i + 1], noise.uniform(key[i : i + 1], step[i : i + 1], noise.INIT, 5))
    order = torch.randperm(33, generator=torch.Generator().manual_seed(0))
    assert torch.equal(batch[order], noise.uniform(key[order], step[order], noise.INIT, 5))


def test_more_numbers_begin_with_the_same_ones():
    key, step = keys(4), torch.zeros(4, dtype=torch.int64)
    assert torch.equal(noise.uniform(key, step, 0, 2), noise.uniform(key, step, 0, 6)[:, :2])
    assert noise.uniform(key, step, 0, 0).shape == (4, 0)


def test_a_whole_rollout_equals_its_steps():
    key = keys(9)
    rollout = noise.uniform(key, torch.arange(50).unsqueeze(1), noise.DYNAMICS, 4)
    assert rollout.shape == (50, 9, 4)
    stepwise = [noise.uniform(key, torch.full((9,), t), noise.DYNAMICS, 4) for t in range(50)]
    assert torch.equal(rollout, torch.stack(stepwise))


def test_both_precisions_hold_the_same_numbers():
    single, double = (
        noise.uniform(keys(100), torch.zeros(100).long(), 0, 3, d) for d in (torch.float32, torch.float64)
    )
    assert torch.equal(single.double(), double)


def test_normal_moments():
    u = noise.uniform(keys(1 << 13), torch.zeros(1 << 13, dtype=torch.int64), 0, 16, torch.float64)
    x = noise.normal(u)
    n = x.numel()
    # Standard deviations of the sample moments of a normal: sqrt(1, 2, 15, 96) / sqrt(n), for powers 1, 2, 3, 4.
    for power, (mean, variance) in {1: (0, 1), 2: (1, 2), 3: (0, 15), 4: (3, 96)}.items():
        assert abs((x**power).mean().item() - mean) < 4 * math.sqrt(variance / n), power
    for i, j in ((0, 1), (0, 8), (3, 11)):  # 0 and 8 share a radius
        assert abs(torch.corrcoef(x[:, [i, j]].T)[0, 1].item()) < 4 / math.sqrt(len(x))


def test_normal_is_finite_at_both_ends():
    ends = torch.tensor([0.0, 1 - 2**-24])
    x = noise.normal(torch.cartesian_prod(ends, ends))
    assert x.isfinite().all()
    assert x.abs().max() == pytest.approx(math.sqrt(2 * 24 * math.log(2)), rel=1e-6)
