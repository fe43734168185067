"""The time of a chain of Meta-MAPG against a learning persona, beside that of the authors' own code."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple, cast

from torch.utils.flop_counter import FlopCounterMode

from metaduel.agents.objective.config import LossConfig
from metaduel.agents.policies.base import Policy
from metaduel.agents.policies.mlp import MLPPolicy
from metaduel.agents.policies.recurrent import LSTMPolicy
from metaduel.agents.policies.tabular import PerState
from metaduel.agents.runtime import configured
from metaduel.benchmarks.core.report import Sheet
from metaduel.benchmarks.tools.speed.measure import ProductLog, peak_memory, product_seconds
from metaduel.benchmarks.tools.speed.timed import TimedProblem
from metaduel.envs.core import registry
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.game import make_game
from metaduel.envs.core.spec import Role
from metaduel.envs.core.tasks import sample_tasks, task_rows
from metaduel.meta.learners.mapg import MAPG, MAPGConfig, meta_mapg
from metaduel.meta.problems.duels import Matchups
from metaduel.meta.problems.personas import Personas, problem_sizes
from metaduel.meta.problems.problem import Mixture, Part

UPDATES, CHAIN_EPISODES = 7, 64  # of a chain: 8 batches


class ChainLoad(NamedTuple):
    """A published workload."""

    game: str
    discount: float
    rate: float  # inner step size at the start
    seconds: float  # of one chain in the authors' own code, on two cores like those this was written on
    personas: int  # that are batched


CHAINS = (
    ChainLoad("RockPaperScissors", 0.9, 0.01, 4.3, 20),
    ChainLoad("IteratedPrisonersDilemma", 0.96, 0.1, 12.5, 20),
)


CHAIN_POLICIES: dict[str, Callable[[int, Any], Policy]] = {
    "memory-1 network": lambda size, space: PerState(MLPPolicy(size, space, (64,))),
    "LSTM of 64 units": LSTMPolicy,
}


class Chains:
    """One outer step of Meta-MAPG on a batch of chains; every one has fresh tasks, personas and noise.

    Args:
        load: the workload.
        policy: the protagonist's policy, a name in ``CHAIN_POLICIES``; the personas in the other seat have tables.
    """

    def __init__(self, load: ChainLoad, policy: str) -> None:
        self.load, self.spec, self.done = load, registry.find(load.game), 0
        self.duel = Duel(make_game(self.spec))
        size, space = self.duel.observation_space("protagonist").shape[0], self.duel.action_space("protagonist")
        self.policy = CHAIN_POLICIES[policy](size, space)
        self.loss = LossConfig("dice", load.discount, load.discount)
        self.personas = Personas(self.duel, "adversary", self.policy, self.loss, None, load.rate)
        config = cast(MAPGConfig, meta_mapg(MAPGConfig(steps=UPDATES, inner_lr=load.rate, inner_lr_per="step")))
        self.learner = MAPG({"protagonist": self.policy.init(0)}, config)

    def run(self) -> tuple[float, float]:
        """Seconds of a step and of its rollouts, per chain."""
        total, start = self.load.personas, time.perf_counter()
        policies: dict[Role, Policy] = {"protagonist": self.policy, "adversary": self.personas.policy}
        losses: dict[Role, LossConfig] = {"protagonist": self.loss, "adversary": self.personas.loss}
        problems, parts = [], []
        for n in problem_sizes(total, self.policy, CHAIN_EPISODES * self.duel.horizon):
            rows = task_rows(self.spec, sample_tasks(self.spec, n, seed=self.done), {})
            seed = self.done * total * CHAIN_EPISODES
            problem = TimedProblem(self.duel, policies, Matchups(rows, duels=n), CHAIN_EPISODES, seed, losses)
            problems.append(problem)
            parts.append(Part(problem, {"adversary": self.personas.sample(n, "train", self.done)}))
            self.done += 1
        self.learner.update(Mixture(tuple(parts)))
        rollouts = sum(end - begin for problem in problems for begin, end in problem.rollouts)
        return (time.perf_counter() - start) / total, rollouts / total


@configured(1)
def chains_sheet(repeats: int) -> Sheet:
    """Seconds, floating-point operations and memory of a chain, beside those of the authors' code."""
    rows, base = [], peak_memory()
    for policy in CHAIN_POLICIES:  # the smallest first: memory is the largest so far
        for load in CHAINS:
            workload = Chains(load, policy)
            with FlopCounterMode(display=False) as counter, ProductLog() as log:  # the run that isn't timed
                workload.run()
            gc.collect()
            seconds, rollouts = (statistics.median(part) for part in zip(*(workload.run() for _ in range(repeats))))
            memory = peak_memory()
            flops, floor = counter.get_total_flops() / load.personas, product_seconds(log) / load.personas
            rows.append(
                (
                    registry.find(load.game).id.removeprefix("metaduel/"),
                    policy,
                    str(load.personas),
                    f"{seconds:.4f}",
                    f"{rollouts:.4f}",
                    f"{load.seconds:g}",
                    f"{load.seconds / seconds:.0f}",
                    f"{flops / 1e9:.2f}",
                    f"{floor:.4f}",
                    f"{memory - base:.0f}",
                )
            )
    header = (
        "game", "policy", "personas", "seconds", "rollouts", "authors'", "times faster", "GFLOP", "s alone", "MiB more",
    )  # fmt: skip
    note = (
        f"Per chain of {UPDATES + 1} batches of {CHAIN_EPISODES} episodes, one thread; medians of {repeats} outer steps on all "
        "personas at once. Authors': their code, one chain at a time. GFLOP: matrix products, counted by PyTorch; alone: the "
        f"same products and nothing else. MiB more: the largest memory so far above the {base:.0f} MiB before."
    )
    return Sheet("One chain of Meta-MAPG against a learning persona", header, tuple(rows), note)
