"""Metrics against hand-worked numbers, rliable, scipy, and the coverage that intervals claim."""

import math

import numpy as np
import pytest
from rliable import metrics as rliable
from scipy import stats

from metaduel.benchmarks.core import metrics
from metaduel.envs.core.errors import InvalidInputError

SHAPES = [(1, 1), (1, 7), (2, 2), (3, 5), (10, 40)]


def draw(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("shape", SHAPES)
def test_point_values_equal_rliable(shape):
    a, b = draw(shape), draw((4, shape[1]), 1)
    assert metrics.mean(a) == pytest.approx(rliable.aggregate_mean(a), abs=1e-14)
    assert metrics.iqm(a) == pytest.approx(rliable.aggregate_iqm(a), abs=1e-14)
    assert metrics.optimality_gap(a, 0.5) == pytest.approx(rliable.aggregate_optimality_gap(a, 0.5), abs=1e-14)
    assert metrics.probability_of_improvement(a, b) == pytest.approx(rliable.probability_of_improvement(a, b))


def test_point_values_by_hand():
    # 8 values: two are cut at either end, (3 + 4 + 5 + 6) / 4 = 4.5
    values = [[100, 1, 6, 3], [4, 5, 2, 7]]
    assert metrics.iqm(values) == 4.5
    assert metrics.mean(values) == 16.0
    # min(x, 5): 5 1 5 3 4 5 2 5, mean 30 / 8 = 3.75
    assert metrics.optimality_gap(values, 5.0) == 1.25
    # task 0: (1 > 0), (2 > 0) = 1; task 1: 1 = 1 is half a win, 0 < 1 is none: 0.25; mean 0.625
    assert metrics.probability_of_improvement([[1, 1], [2, 0]], [[0, 1]]) == 0.625


@pytest.mark.parametrize("seeds", range(2, 10))
def test_few_seeds_give_the_t_interval_on_seed_means(seeds):
    values = draw((seeds, 6))
    means = values.mean(1)
    expected = stats.t.interval(0.9, seeds - 1, means.mean(), stats.sem(means))
    found = metrics.interval(values, 0, "mean", 0.9)
    assert found.covers == "seeds"
    assert found[:2] == pytest.approx(expected)


def test_t_interval_by_hand():
    # Seed means 1 and 3: mean 2, standard error 1, t at one degree of freedom 12.7062
    low, high, covers = metrics.interval([[0.0, 2.0], [2.0, 4.0]], 0)
    assert (low, high, covers) == (pytest.approx(2 - 12.7062, abs=1e-4), pytest.approx(2 + 12.7062, abs=1e-4), "seeds")


def test_jackknife_of_the_interquartile_mean_by_hand():
    # Seeds (0, 1), (2, 3), (4, 8): of 0 1 2 3 4 8 one is cut at either end: 2.5. Without the first: 2 3 4 8 gives 3.5; the
    # second: 0 1 4 8 gives 2.5; the third: 0 1 2 3 gives 1.5. Pseudo-values 3 * 2.5 - 2 * x = 0.5, 2.5, 4.5: their standard
    # error is 2 / sqrt(3); t at two degrees of freedom is 4.302653.
    found = metrics.interval([[0, 1], [2, 3], [4, 8]], 0, "iqm")
    half = 4.302653 * 2 / math.sqrt(3)
    assert found[:2] == pytest.approx((2.5 - half, 2.5 + half), abs=1e-5)


def test_one_seed_covers_tasks_and_says_so():
    values = draw((1, 12))
    found = metrics.interval(values, 0)
    assert found.covers == "tasks"
    assert found[:2] == pytest.approx(stats.t.interval(0.95, 11, values.mean(), stats.sem(values[0])))
    assert metrics.interval([[3.0]], 0) == (-math.inf, math.inf, "tasks")


@pytest.mark.parametrize("statistic", metrics.STATISTICS)
def test_resampling_depends_on_its_seed_alone(statistic):
    values = draw((12, 5))
    np.random.seed(1)  # noqa: NPY002 (the global state must not matter)
    first = metrics.interval(values, 7, statistic)
    np.random.seed(2)  # noqa: NPY002
    assert metrics.interval(values, 7, statistic) == first
    other = metrics.interval(values, 8, statistic)
    assert other != first
    assert other[:2] == pytest.approx(first[:2], abs=0.05)
    assert first.covers == "seeds"


def test_resampling_takes_whole_seeds():
    # All spread is between seeds: resampling tasks would give an interval of no width around each seed's value.
    values = np.repeat(np.arange(12.0)[:, None], 30, 1)
    low, high, _ = metrics.interval(values, 0)
    t = stats.t.interval(0.95, 11, 5.5, stats.sem(np.arange(12.0)))
    assert (low, high) == pytest.approx(t, abs=0.35)
    # All spread is between tasks: they are resampled too.
    assert np.ptp(metrics.interval(values.T[:, :], 0)[:2]) > 0.1


@pytest.mark.parametrize("statistic", metrics.STATISTICS)
@pytest.mark.parametrize(("seeds", "spread"), [(3, 1.0), (5, 0.3), (10, 1.0), (10, 3.0)])
def test_intervals_cover_what_they_claim(monkeypatch, statistic, seeds, spread):
    """Seeds spread ``spread`` times as far as tasks; the true value is 0. A per-task bootstrap covers 0.3 to 0.65 here."""
    monkeypatch.setattr(metrics, "RESAMPLES", 400)
    rng, trials = np.random.default_rng(3), 250
    hits = 0
    for trial in range(trials):
        values = spread * rng.standard_normal((seeds, 1)) + rng.standard_normal((seeds, 15))
        low, high, _ = metrics.interval(values, trial, statistic)
        hits += low <= 0 <= high
    # Within three standard deviations of a binomial around 0.95, and a little below for approximate intervals.
    assert 0.89 <= hits / trials <= 0.995


def test_pairing_removes_what_two_methods_share():
    shared = 10 * draw((5, 1)) + 10 * draw((1, 20), 1)
    a, b = shared + 1 + 0.1 * draw((5, 20), 2), shared + 0.1 * draw((5, 20), 3)
    difference = metrics.paired_difference(a, b, 0)
    assert difference.value == pytest.approx(metrics.mean(a) - metrics.mean(b))
    assert difference.interval.excludes_zero
    assert difference.interval.low == pytest.approx(1, abs=0.1)
    assert not metrics.paired_difference(a, a + draw((5, 20), 5), 0, "iqm").interval.excludes_zero
    assert metrics.interval(a, 0).high > metrics.mean(b)  # overlap would have seen nothing
    iqm = metrics.paired_difference(a, b, 0, "iqm")
    assert iqm == metrics.estimate(a - b, 0, "iqm")


def test_holm_by_hand():
    # Smallest first: 0.005 <= 0.05 / 4, 0.01 <= 0.05 / 3, 0.03 > 0.05 / 2: it ends there, though 0.04 <= 0.05 / 1.
    assert metrics.holm([0.01, 0.04, 0.03, 0.005]) == [True, False, False, True]
    # 0.0125 is exactly 0.05 / 4; then 0.0166 <= 0.05 / 3 (0.01667), 0.024 <= 0.05 / 2, and 0.049 <= 0.05.
    assert metrics.holm([0.049, 0.024, 0.0166, 0.0125]) == [True, True, True, True]
    assert metrics.holm([0.0126, 0.0126, 0.0126, 0.0126]) == [False] * 4
    assert metrics.holm([0.02, 0.2], 0.1) == [True, False]
    assert metrics.holm([]) == []


def test_without_correction_some_of_many_true_hypotheses_would_be_rejected():
    rng = np.random.default_rng(0)
    pages = [[metrics.p_value(rng.standard_normal((5, 8)), "iqm") for _ in range(40)] for _ in range(60)]
    assert np.mean([min(page) < 0.05 for page in pages]) > 0.7
    assert np.mean([any(metrics.holm(page)) for page in pages]) < 0.15


@pytest.mark.parametrize("statistic", metrics.STATISTICS)
@pytest.mark.parametrize("shape", [(2, 3), (5, 40), (1, 12)])
def test_a_p_value_is_below_5_percent_exactly_where_the_interval_excludes_zero(statistic, shape):
    for seed in range(20):
        values = 0.5 * draw(shape, seed) + draw((1, 1), seed + 100)
        p, found = metrics.p_value(values, statistic), metrics.interval(values, 0, statistic)
        assert (p < 0.05) == found.excludes_zero
    low, _, _ = metrics.interval(values, 0, statistic, 1 - p)  # the interval that ends at 0
    value = metrics.estimate(values, 0, statistic).value
    assert min(abs(low), abs(2 * value - low)) == pytest.approx(0, abs=1e-9)


def test_p_values_of_values_without_spread():
    assert metrics.p_value(np.zeros((3, 2))) == 1.0
    assert metrics.p_value(np.ones((3, 2))) == 0.0
    assert metrics.p_value([[3.0]]) == 1.0


def test_the_interquartile_means_interval_covers_less_where_seeds_fall_into_two_groups():
    rng, hits = np.random.default_rng(0), []
    for _ in range(4):
        task = rng.standard_normal(40)

        def drawn(seeds, task=task):
            return task + 3 * (rng.random((seeds, 1)) < 0.4) + 0.3 * rng.standard_normal((seeds, 40))

        truth = metrics.iqm(drawn(4000))
        for _ in range(150):
            low, high, _ = metrics.interval(drawn(5), 0, "iqm")
            hits.append(low <= truth <= high)
    assert 0.78 < np.mean(hits) < 0.88


def test_values_of_seeds():
    values = [[0, 1, 2, 30], [5, 5, 5, 5]]
    np.testing.assert_allclose(metrics.of_seeds(values), [8.25, 5])
    np.testing.assert_allclose(metrics.of_seeds(values, "iqm"), [1.5, 5])


def test_recovered_fraction_by_hand():
    # Headroom: mean (2 + 4) / 2 - (0 + 2) / 2 = 2. Best per task, over its two seeds: 0 and 2.
    best, informed = [[-1.0, 2.0], [1.0, 2.0]], [[2.0, 4.0]]
    found = metrics.recovered_fraction([[1.0, 2.0], [3.0, 5.0]], best, informed)
    np.testing.assert_allclose(found, [[0.5, 0.0], [1.5, 1.5]])
    assert metrics.mean(found) == (2.75 - 1) / 2
    assert metrics.mean(metrics.recovered_fraction(informed, best, informed)) == 1.0


@pytest.mark.parametrize("informed", [[[1.0, 1.0]], [[0.0, 1.0]]])
def test_no_headroom_is_an_error(informed):
    with pytest.raises(InvalidInputError, match=r"no headroom: informed .* must be above best_non_adapting 1"):
        metrics.recovered_fraction([[1.0, 2.0]], [[1.0, 1.0]], informed)


@pytest.mark.parametrize("bad", [[], [1.0, 2.0], np.zeros((0, 3)), [[1.0, math.nan]], [[math.inf]]])
def test_bad_values_are_named(bad):
    for function in (metrics.mean, metrics.iqm, metrics.optimality_gap, lambda v: metrics.interval(v, 0)):
        with pytest.raises(InvalidInputError, match="values"):
            function(bad)


def test_bad_arguments_are_named():
    with pytest.raises(InvalidInputError, match="same tasks"):
        metrics.probability_of_improvement(draw((2, 3)), draw((2, 4)))
    with pytest.raises(InvalidInputError, match="same seeds and tasks"):
        metrics.paired_difference(draw((2, 3)), draw((3, 3)), 0)
    with pytest.raises(InvalidInputError, match="same tasks"):
        metrics.recovered_fraction(draw((2, 3)), draw((2, 4)), draw((2, 3)))
    with pytest.raises(InvalidInputError, match="did you mean 'iqm'"):
        metrics.interval(draw((2, 3)), 0, "iqmm")
    with pytest.raises(InvalidInputError, match="confidence"):
        metrics.interval(draw((2, 3)), 0, "mean", 95)
