"""A meta-iteration on 2-D navigation: its seconds by method, its floor, and the cost of a TRPO outer step."""

from __future__ import annotations

import gc
import itertools
import math
import statistics
import time
from typing import NamedTuple

from torch.utils.flop_counter import FlopCounterMode

from metaduel.agents.objective.config import LossConfig
from metaduel.agents.policies.base import Weights
from metaduel.agents.policies.mlp import MLPPolicy
from metaduel.agents.runtime import configured
from metaduel.benchmarks.core.report import Sheet
from metaduel.benchmarks.tools.speed.measure import ProductLog, peak_memory, product_seconds
from metaduel.benchmarks.tools.speed.timed import TimedProblem
from metaduel.envs.core import registry
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.game import make_game
from metaduel.envs.core.spec import Role
from metaduel.envs.core.tasks import sample_tasks, task_rows
from metaduel.envs.players.names import load_player
from metaduel.meta.learners.learner import Learner
from metaduel.meta.learners.methods import find_method
from metaduel.meta.learners.trpo import TRPO, TRPOConfig
from metaduel.meta.problems.duels import Matchups

TASKS, EPISODES = 20, 20  # of the meta-iteration
PEER_SECONDS = (
    5.9  # pytorch-maml-rl on torch 2.13, two workers of one thread, on two such cores: the fastest other TRPO
)
METHOD_LOADS = (
    ("maml", 1), ("maml", 3), ("fomaml", 1), ("reptile", 1), ("anil", 1), ("meta_sgd", 1), ("e_maml", 1), ("promp", 1),
)  # fmt: skip


class Split(NamedTuple):
    """Seconds of one meta-iteration."""

    total: float
    rollout: float  # both shots
    inner: float  # loss before the update, and the update
    outer: float  # loss after it, the meta-gradient and the outer step; making the tasks is in none of the three


class MetaIteration:
    """The workload. Every iteration has fresh tasks and noise; making the problem counts.

    Args:
        share: TRPO outside with this ``curvature_share``; None: another method.
        method: which one; Adam outside.
        steps: its updates.
    """

    def __init__(self, share: float | None = None, method: str = "maml", steps: int = 1) -> None:
        self.spec = registry.find("Navigation")
        self.duel = Duel(make_game(self.spec))
        self.policy = MLPPolicy(2, self.duel.action_space("protagonist"))
        start: dict[Role, Weights] = {"protagonist": self.policy.init(0)}
        if share is None:
            one = find_method(method)
            heads: dict[Role, tuple[str, ...]] = {"protagonist": self.policy.head_names}
            self.learner: Learner = one.learner(start, one.configure(one.settings(steps=steps, inner_lr=0.1)), heads)
            self.loss = LossConfig(one.surrogates[0])
        else:
            self.loss = LossConfig()
            self.learner = TRPO(start, TRPOConfig(steps=1, inner_lr=0.1, curvature_share=share))
        self.opponent = load_player(self.duel, "adversary", "idle")
        self.done = 0
        self.metrics: dict[str, float] = {}  # of the last iteration

    def run(self) -> Split:
        """One iteration."""
        start = time.perf_counter()
        tasks = [{**task, "push": 0.0} for task in sample_tasks(self.spec, TASKS, seed=self.done)]
        rows = task_rows(self.spec, tasks, {})
        matchups = Matchups(rows, against_adversaries=[(self.opponent, TASKS)])
        seed = self.done * TASKS * EPISODES
        problem = TimedProblem(self.duel, {"protagonist": self.policy}, matchups, EPISODES, seed, self.loss)
        self.metrics = self.learner.update(problem).metrics
        self.done += 1
        end, played = time.perf_counter(), problem.rollouts
        rollouts = sum(after - begin for begin, after in played)
        between = sum(begin - after for (_, after), (begin, _) in itertools.pairwise(played))
        return Split(end - start, rollouts, between, end - played[-1][1])


def median_split(workload: MetaIteration, iterations: int) -> Split:
    """Medians over ``iterations``, after two for warm-up."""
    for _ in range(2):
        workload.run()
    gc.collect()
    splits = [workload.run() for _ in range(iterations)]
    return Split(*(statistics.median(part) for part in zip(*splits, strict=True)))


def meta_sheet(iterations: int) -> Sheet:
    """Seconds, floating-point operations and memory of one meta-iteration with one and two threads."""
    rows, flops, base = [], 0, peak_memory()
    for threads in (1, 2):
        with configured(threads):
            workload = MetaIteration()
            middle = median_split(workload, iterations)
            memory = peak_memory()
            with FlopCounterMode(display=False) as counter, ProductLog() as log:
                workload.run()
            flops, floor = counter.get_total_flops(), product_seconds(log)
        rows.append(
            (
                str(threads),
                *(f"{value:.3f}" for value in middle),
                f"{flops / 1e9:.2f}",
                f"{flops / floor / 1e9:.1f}",
                f"{floor:.3f}",
                f"{middle.total / floor:.1f}",
                f"{memory - base:.0f}",
            )
        )
    header = (
        "threads", "seconds", "rollouts", "inner", "outer", "GFLOP", "GFLOP/s alone", "s alone", "ratio", "MiB more",
    )  # fmt: skip
    steps = 2 * TASKS * EPISODES * registry.find("Navigation").horizon
    note = (
        f"Medians of {iterations} iterations of {steps:,} environment steps. GFLOP: matrix products, counted by PyTorch; "
        "alone: the same products, shape by shape, and nothing else; ratio: seconds / s alone. MiB more: peak "
        f"memory above the {base:.0f} MiB before the first iteration."
    )
    return Sheet("One meta-iteration of MAML, second order, on Navigation", header, tuple(rows), note)


def methods_sheet(iterations: int) -> Sheet:
    """Seconds of a meta-iteration by method, with one and two threads."""
    rows = []
    for method, steps in METHOD_LOADS:
        for threads in (1, 2):
            with configured(threads):
                middle = median_split(MetaIteration(method=method, steps=steps), iterations)
            rows.append((method, str(steps), str(threads), *(f"{value:.3f}" for value in middle)))
    header = ("method", "updates", "threads", "seconds", "rollouts", "inner", "outer")
    note = f"Medians of {iterations} iterations of the workload above. ProMP takes five outer steps on its data."
    return Sheet("One meta-iteration on Navigation, by method", header, tuple(rows), note)


def trpo_sheet(iterations: int) -> Sheet:
    """Seconds of a meta-iteration with a TRPO outer step beside those with Adam, with one and two threads."""
    rows = []
    share = TRPOConfig.curvature_share
    for threads in (1, 2):
        with configured(threads):
            adam, middle = (median_split(MetaIteration(s), iterations) for s in (None, share))
        rows.append(
            (
                str(threads),
                *(f"{value:.3f}" for value in middle),
                f"{middle.total / adam.total:.1f}",
                f"{PEER_SECONDS / middle.total:.1f}",
            )
        )
    with configured(1):
        gain, low, high = gain_ratio(share, iterations)
    header = ("threads", "seconds", "rollouts", "inner", "outer", "x Adam's", "peer's x")
    note = (
        f"Medians of {iterations} iterations. Peer's: {PEER_SECONDS} s, of another process on two cores of this kind. "
        f"Curvature from {share:g} of the episodes: over {iterations} iterations, from the same starts on the same data, its "
        f"steps improve the surrogate {gain:.2f} times as much as with all of them ({low:.2f} to {high:.2f} in a single one)."
    )
    return Sheet("One meta-iteration of MAML, second order, TRPO outside, on Navigation", header, tuple(rows), note)


def gain_ratio(share: float, iterations: int) -> tuple[float, float, float]:
    """Ratio of a step's gain on the surrogate with a ``share`` of the episodes in its curvature to its gain with all of them,
    from the same starts on the same data, summed over iterations; and the smallest and largest ratio of a single iteration.
    """
    part, full = MetaIteration(share), MetaIteration(1.0)
    gains: list[tuple[float, float]] = []
    for _ in range(iterations):
        full.learner.load({name: value.clone() for name, value in part.learner.state().items()})
        part.run()
        full.run()
        gains.append((part.metrics["protagonist/improvement"], full.metrics["protagonist/improvement"]))
    single = [a / b if b else math.inf for a, b in gains]
    return sum(a for a, _ in gains) / sum(b for _, b in gains), min(single), max(single)
