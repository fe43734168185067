"""Statistics of results: pure functions of arrays of shape (seeds, tasks), one value for each training seed and task.

Point values follow rliable (Agarwal et al., NeurIPS 2021). Intervals don't: resampling per task treats the tasks of one
training seed as independent, and covers far less than it says. Here the training seed is the unit, and two methods are
compared by the interval of their paired difference. Everything random comes from an explicit seed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

from metaduel.envs.core.errors import InvalidInputError, unknown

Array = npt.NDArray[np.float64]
Statistic = Literal["mean", "iqm"]
STATISTICS: tuple[Statistic, ...] = ("mean", "iqm")

MANY_SEEDS = 10  # from here on seeds are resampled; below, a t distribution makes up for how few they are
RESAMPLES = 10_000
_CHUNK = 1 << 22  # numbers drawn at a time


class Interval(NamedTuple):
    """A confidence interval, and the variation that it covers.

    ``seeds``: the variation between training runs, on these tasks. ``tasks``: there was one training run; the variation between
    tasks, *for this one run*. Another run might differ by more.
    """

    low: float
    high: float
    covers: Literal["seeds", "tasks"]

    @property
    def excludes_zero(self) -> bool:
        """Whether 0 lies outside."""
        return self.low > 0 or self.high < 0


class Estimate(NamedTuple):
    """A statistic with its interval."""

    value: float
    interval: Interval


def _checked(values: npt.ArrayLike) -> Array:
    array = np.asarray(values, np.float64)
    if array.ndim != 2 or array.size == 0:
        raise InvalidInputError(f"values of shape {array.shape} must have shape (seeds, tasks), at least one of each")
    if not np.isfinite(array).all():
        seed, task = (int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise InvalidInputError(f"values[{seed}, {task}]={array[seed, task]} must be finite")
    return array


def mean(values: npt.ArrayLike) -> float:
    """Mean over seeds and tasks."""
    return float(_checked(values).mean())


def iqm(values: npt.ArrayLike) -> float:
    """Interquartile mean: the mean over seeds x tasks without the lowest and the highest quarter."""
    return float(_trimmed(_checked(values).reshape(1, -1))[0])


def _trimmed(rows: Array) -> Array:
    """25%-trimmed mean of each row: [n, k] to [n]; a quarter of the values, rounded down, is cut at either end."""
    cut = rows.shape[1] // 4
    ends = (cut, rows.shape[1] - cut - 1)
    middle: Array = np.partition(rows, ends, axis=1)[:, cut : ends[1] + 1].mean(1)
    return middle


def optimality_gap(values: npt.ArrayLike, target: float = 1.0) -> float:
    """Mean distance of the values below ``target``; values above it count as 0."""
    return float(target - np.minimum(_checked(values), target).mean())


def probability_of_improvement(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Probability that a run of ``a`` beats a run of ``b`` on a task chosen at random.

    Per task the Mann-Whitney statistic over all pairs of runs (a tie counts half), then the mean over tasks. The two may
    have different numbers of seeds, but must have the same tasks.
    """
    first, second = _checked(a), _checked(b)
    if first.shape[1] != second.shape[1]:
        raise InvalidInputError(f"a has {first.shape[1]} tasks, b has {second.shape[1]}: they must be the same tasks")
    wins = (first[:, None] > second[None]).mean() + 0.5 * (first[:, None] == second[None]).mean()
    return float(wins)


def of_seeds(values: npt.ArrayLike, statistic: Statistic = "mean") -> Array:
    """The statistic of each seed's own values over its tasks: (seeds,)."""
    return _statistic(_checked(values), statistic)


def _statistic(rows: Array, statistic: Statistic) -> Array:
    """The statistic of each row: [n, k] to [n]."""
    if statistic not in STATISTICS:
        raise unknown("statistic", statistic, STATISTICS)
    if statistic == "iqm":
        return _trimmed(rows)
    means: Array = rows.mean(1)
    return means


def interval(values: npt.ArrayLike, rng_seed: int, statistic: Statistic = "mean", confidence: float = 0.95) -> Interval:
    """A confidence interval of the mean or of the interquartile mean.

    - From ten seeds on: percentiles over resamples of whole seeds, and of tasks within each, at expanded percentiles
      (Hesterberg, The American Statistician 2015): plain ones cover 0.86 instead of 0.95 at ten seeds.
    - Two to nine seeds: a t interval whose units are the seeds. For the mean it is the t interval on seed means; for the
      interquartile mean, the same with jackknife pseudo-values (Tukey 1958), which are the seed means where the statistic is
      a mean.
      Where seeds fall into two groups they cover less than they say: with 3, 5 and 9 seeds of 40 tasks, 0.69, 0.83 and
      0.90 instead of 0.95 for the interquartile mean, 0.72, 0.90 and 0.89 for the mean. Report each seed's value beside them.
    - One seed: the same with tasks as the units; ``covers`` is then ``tasks``. With one task, too, it is the whole line.

    Args:
        values: (seeds, tasks).
        rng_seed: of the resampling.
        statistic: the statistic.
        confidence: nominal coverage.
    """
    array = _checked(values)
    if not 0 < confidence < 1:
        raise InvalidInputError(f"confidence={confidence!r} must be above 0 and below 1")
    if len(array) >= MANY_SEEDS:
        low, high = _resampled(array, rng_seed, statistic, confidence)
        return Interval(low, high, "seeds")
    if len(array) > 1:
        return Interval(*_t_interval(array, statistic, confidence), "seeds")
    return Interval(*_t_interval(array.T, statistic, confidence), "tasks")


def _t_interval(units: Array, statistic: Statistic, confidence: float) -> tuple[float, float]:
    """A t interval with the rows as units."""
    value, error = _standard_error(units, statistic)
    if len(units) == 1:
        return -math.inf, math.inf
    half = float(stats.t.ppf(0.5 + confidence / 2, len(units) - 1)) * error
    return value - half, value + half


def _standard_error(units: Array, statistic: Statistic) -> tuple[float, float]:
    """The statistic of all rows, and the standard error of its jackknife pseudo-values, with the rows as units."""
    n, whole = len(units), _statistic(units.reshape(1, -1), statistic)
    if n == 1:
        return float(whole[0]), math.inf
    without = _statistic(np.stack([np.delete(units, i, 0).ravel() for i in range(n)]), statistic)
    pseudo_values = n * whole - (n - 1) * without
    return float(whole[0]), float(pseudo_values.std(ddof=1)) / math.sqrt(n)


def p_value(values: npt.ArrayLike, statistic: Statistic = "mean") -> float:
    """Two-sided p-value of "the statistic is 0": the t test whose inversion is the t interval of ``interval``.

    Its units are the seeds, with one seed the tasks; for any number of them, also where ``interval`` resamples. 1 where there is
    one value.

    Args:
        values: (seeds, tasks), for example paired differences.
        statistic: the statistic.
    """
    array = _checked(values)
    units = array if len(array) > 1 else array.T
    value, error = _standard_error(units, statistic)
    if error == 0:
        return 0.0 if value else 1.0
    return float(2 * stats.t.sf(abs(value) / error, len(units) - 1)) if len(units) > 1 else 1.0


def holm(p_values: Sequence[float], level: float = 0.05) -> list[bool]:
    """Which of several hypotheses are rejected, so that a true one is rejected with a probability of at most ``level`` in all.

    Holm (Scandinavian Journal of Statistics 1979): from the smallest p-value on, each is compared with ``level`` divided by the
    number of those that are left; the first that is larger ends it. It holds for dependent tests, too.
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    rejected = [False] * len(order)
    for done, i in enumerate(order):
        if not p_values[i] <= level / (len(order) - done):
            break
        rejected[i] = True
    return rejected


def _resampled(array: Array, rng_seed: int, statistic: Statistic, confidence: float) -> tuple[float, float]:
    """Percentiles of the statistic over resampled seeds, and tasks resampled within each."""
    rng, (n, m) = np.random.default_rng(rng_seed), array.shape
    results, size = [], max(1, _CHUNK // (n * m))
    for start in range(0, RESAMPLES, size):
        count = min(size, RESAMPLES - start)
        seeds, tasks = rng.integers(n, size=(count, n, 1)), rng.integers(m, size=(count, n, m))
        results.append(_statistic(array[seeds, tasks].reshape(count, -1), statistic))
    # As far out as a t interval would be on normal data, for n resampled units that vary by (n - 1) / n too little.
    tail = 100 * stats.norm.cdf(-math.sqrt(n / (n - 1)) * stats.t.ppf(0.5 + confidence / 2, n - 1))
    low, high = np.percentile(np.concatenate(results), [tail, 100 - tail])
    return float(low), float(high)


def estimate(values: npt.ArrayLike, rng_seed: int, statistic: Statistic = "mean", confidence: float = 0.95) -> Estimate:
    """The statistic with its interval; see ``interval``."""
    value = mean(values) if statistic == "mean" else iqm(values)
    return Estimate(value, interval(values, rng_seed, statistic, confidence))


def paired_difference(
    a: npt.ArrayLike, b: npt.ArrayLike, rng_seed: int, statistic: Statistic = "mean", confidence: float = 0.95
) -> Estimate:
    """``a`` minus ``b``, value by value: the same seeds and tasks in the same order.

    Args:
        a: (seeds, tasks).
        b: (seeds, tasks).
        rng_seed: of the resampling.
        statistic: of the differences.
        confidence: nominal coverage.
    """
    first, second = _checked(a), _checked(b)
    if first.shape != second.shape:
        raise InvalidInputError(
            f"a of shape {first.shape} and b of shape {second.shape} must have the same seeds and tasks to be paired"
        )
    return estimate(first - second, rng_seed, statistic, confidence)


def recovered_fraction(adapted: npt.ArrayLike, best_non_adapting: npt.ArrayLike, informed: npt.ArrayLike) -> Array:
    """The score of a family, role and panel: the fraction of the headroom that adaptation recovers.

    (adapted - best non-adapting) / headroom for each value, where the headroom is the mean of informed - best non-adapting.
    The mean of the result is the ratio of the means, and ``interval`` takes it as it takes returns; the headroom counts as
    known. May exceed 1, since the informed player does not know its opponent.

    Args:
        adapted: (seeds, tasks) returns at one shot.
        best_non_adapting: (seeds, tasks) returns of the best player that does not adapt; other seeds, the same tasks.
        informed: (seeds, tasks) returns of the informed player; other seeds, the same tasks.

    Returns:
        (seeds, tasks) of ``adapted``.

    Raises:
        InvalidInputError: different tasks, or no headroom to recover.
    """
    own, floor, ceiling = _checked(adapted), _checked(best_non_adapting), _checked(informed)
    if not own.shape[1] == floor.shape[1] == ceiling.shape[1]:
        counts = f"{own.shape[1]}, {floor.shape[1]} and {ceiling.shape[1]}"
        raise InvalidInputError(f"adapted, best_non_adapting and informed have {counts} tasks: must be the same tasks")
    headroom = float(ceiling.mean() - floor.mean())
    if headroom <= 0:
        raise InvalidInputError(
            f"no headroom: informed {ceiling.mean():.4g} must be above best_non_adapting {floor.mean():.4g}"
        )
    result: Array = (own - floor.mean(0)) / headroom
    return result
