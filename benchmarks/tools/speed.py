"""How fast the games and a meta-iteration are on this machine: ``python -m metaduel.benchmarks.tools.speed``.

Three measurements, medians, for comparing versions and machines:

- Environment steps per second of every family, by batch size. A step is ``Duel.step`` with the dynamics' noise, and
  ``Duel.observe`` for both roles; episodes start anew at the horizon. Random actions are drawn before, outside the time.
  *Eager*; *compiled* through ``torch.compile``; and *with autoreset*: one learner's seat, a scripted opponent that decides in
  the other, next-step resets with freshly sampled tasks, as in the vector environment but for NumPy. Then eager on the
  accelerator, where there is one.
- One meta-iteration of MAML on 2-D navigation: 20 tasks, 20 episodes each, 100 steps, one second-order inner step, Adam
  outside, two layers of 64 units. Beside its seconds stands its floor: every matrix product of the iteration, by shape and
  memory layout, run alone in the same process. What lies above it is sampling, element-wise work and overhead.
  Then the same with a TRPO step outside (10 conjugate-gradient iterations, up to 15 step lengths), and what its
  curvature's share of the episodes costs in gain.
- One chain of Meta-MAPG against a learning persona, as Kim et al. (ICML 2021) run it: 8 batches of 64 episodes with 7 updates of
  both players between them and the outer step, on rock-paper-scissors (50 steps) and the iterated prisoner's dilemma (150).
  Chains are batched over personas, a few at once as in training, and their seconds divided by how many there are. Once with the
  paper's recurrent policy, an LSTM of 64 units, once with a memory-1 network of 64 units that is asked once per state.
- Few-shot classification (`meta.data`): a meta-gradient of second and of first order with MAML's convolutional network, 32
  tasks at once, and the second-order one task by task in a Python loop over the same calls, with one and two threads. Each in a
  process of its own.

On a shared machine compare ratios within one run, never seconds of different runs.
"""

from __future__ import annotations

import gc
import itertools
import math
import multiprocessing
import os
import platform
import resource
import shutil
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
import tyro
from gymnasium import spaces
from rich.console import Console
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from metaduel.agents.networks import Convolutional, Network
from metaduel.agents.objective.config import LossConfig
from metaduel.agents.policies.base import Policy, Weights
from metaduel.agents.policies.mlp import MLPPolicy
from metaduel.agents.policies.recurrent import LSTMPolicy
from metaduel.agents.policies.tabular import PerState
from metaduel.agents.runtime import configure
from metaduel.agents.trajectories import Carry, Trajectories
from metaduel.benchmarks.core.report import Sheet
from metaduel.envs.adapters.seat import Seat
from metaduel.envs.core import registry
from metaduel.envs.core.duel import Duel, Transition
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.files import write_atomic
from metaduel.envs.core.game import Episode, Pair, make_game
from metaduel.envs.core.spec import ROLES, GameSpec, Role
from metaduel.envs.core.spec import Split as TaskSplit
from metaduel.envs.core.tasks import sample_tasks, task_rows
from metaduel.envs.core.trees import take_rows, tree_map
from metaduel.envs.players.names import load_player
from metaduel.meta.learners.learner import Learner
from metaduel.meta.learners.maml import MAML, MAMLConfig
from metaduel.meta.learners.mapg import MAPG, MAPGConfig, meta_mapg
from metaduel.meta.learners.methods import find_method
from metaduel.meta.learners.trpo import TRPO, TRPOConfig
from metaduel.meta.problems.duels import DuelProblem, Matches
from metaduel.meta.problems.personas import Personas, problem_sizes
from metaduel.meta.problems.problem import Mixture, Part, Players
from metaduel.meta.problems.supervised import Data, DataProblem, Tasks
from metaduel.meta.problems.supervised import Part as DataPart

BATCHES = (1, 64, 1024, 4096, 16384)
ACCELERATED = (16_384, 131_072, 1_048_576)  # an accelerator's
TASKS, EPISODES = 20, 20  # of the meta-iteration
ACTIONS_AHEAD = 8  # sets of random actions, taken in turn
PEER_SECONDS = (
    5.9  # pytorch-maml-rl on torch 2.13, two workers of one thread, on two such cores: the fastest other TRPO
)
METHOD_LOADS = (
    ("maml", 1), ("maml", 3), ("fomaml", 1), ("reptile", 1), ("anil", 1), ("meta_sgd", 1), ("e_maml", 1), ("promp", 1),
)  # fmt: skip
UPDATES, CHAIN_EPISODES = 7, 64  # of a chain: 8 batches


# Environment steps


def random_actions(duel: Duel, batch: int, generator: torch.Generator) -> Pair:
    """Uniform actions of both roles within their spaces."""
    pair = []
    for role in ROLES:
        space = duel.action_space(role)
        if isinstance(space, spaces.Discrete):
            pair.append(torch.randint(int(space.start), int(space.start + space.n), (batch,), generator=generator))
        else:
            low, high = torch.as_tensor(space.low), torch.as_tensor(space.high)
            pair.append(low + (high - low) * torch.rand(batch, *low.shape, generator=generator))
    return pair[0], pair[1]


def advance(duel: Duel, episode: Episode, actions: Pair) -> tuple[Episode, Transition, Pair]:
    """A step with its noise, and what both roles see then."""
    episode, transition = duel.step(episode, actions)
    return episode, transition, duel.observe(episode)


def core_steps(
    spec: GameSpec, batch: int, seconds: float, compiled: bool = False, device: torch.device | None = None
) -> float:
    """Steps per second of the batched core; ``device``: where, None is the processor."""
    duel, generator = Duel(make_game(spec)), torch.Generator().manual_seed(0)
    tasks = sample_tasks(spec, min(batch, 256))

    def place(tensor: Tensor) -> Tensor:
        return tensor.to(device)

    params = tree_map(place, take_rows(duel.game.params(tasks), torch.arange(batch) % len(tasks)))
    start = duel.reset(params, place(torch.arange(batch)), place(torch.zeros(batch, dtype=torch.int64)))
    drawn = [random_actions(duel, batch, generator) for _ in range(ACTIONS_AHEAD)]
    actions = [(place(one), place(other)) for one, other in drawn]
    step: Callable[[Episode, Pair], tuple[Episode, Transition, Pair]] = lambda e, a: advance(duel, e, a)  # noqa: E731
    if compiled:
        torch.compiler.reset()
        step = torch.compile(step, dynamic=False)

    def play() -> None:
        episode = start
        for t in range(duel.horizon):
            episode, _, _ = step(episode, actions[t % ACTIONS_AHEAD])
        if device is not None:
            episode.step.max().item()  # it is queued till somebody reads

    with torch.no_grad():
        return batch * duel.horizon / median_time(play, seconds)


def autoreset_steps(spec: GameSpec, batch: int, seconds: float) -> float:
    """Steps per second of a learner's seat with a scripted opponent and next-step resets."""
    seat, generator = Seat(spec, batch), torch.Generator().manual_seed(0)
    for row in range(batch):
        seat.reseed(row, row)
    seat.reset()
    actions = [random_actions(seat.duel, batch, generator)[seat.me] for _ in range(ACTIONS_AHEAD)]

    def play() -> None:
        for t in range(seat.duel.horizon + 1):  # and one for the reset
            seat.step(actions[t % ACTIONS_AHEAD], seat.done)

    return batch * (seat.duel.horizon + 1) / median_time(play, seconds)


def compiler_missing() -> str:
    """Why nothing can be compiled here, or an empty string."""
    names = [os.environ["CXX"]] if "CXX" in os.environ else ["g++", "clang++"]
    if any(shutil.which(name) for name in names):
        return ""
    return f"not compiled: torch.compile needs a C++ compiler, and there is no {' or '.join(names)} here"


def default_games() -> list[str]:
    """One id of every folder in ``envs/``, the one with the largest observations: the others do the same on less."""
    return [
        max(specs, key=lambda spec: spec.observation_space("protagonist").shape[0]).name
        for specs in registry.families(registry.builtin()).values()
    ]


def steps_sheet(games: Sequence[str], seconds: float) -> Sheet:
    """Environment steps per second of ``games`` at every batch size."""
    missing = compiler_missing()
    if not missing:
        import torch._inductor.config as inductor

        inductor.compile_threads = 1  # no pool of processes for kernels this small
    rows = []
    for name in games:
        spec = registry.find(name)
        modes: list[tuple[str, int, Sequence[int], Callable[[int], float]]] = [
            ("eager", 1, BATCHES, lambda b, s=spec: core_steps(s, b, seconds)),  # type: ignore[misc]
            ("eager", 2, BATCHES[-1:], lambda b, s=spec: core_steps(s, b, seconds)),  # type: ignore[misc]
            ("with autoreset", 1, BATCHES, lambda b, s=spec: autoreset_steps(s, b, seconds)),  # type: ignore[misc]
        ]
        if not missing:
            run = lambda b, s=spec: core_steps(s, b, seconds, compiled=True)  # noqa: E731
            modes[2:2] = [("compiled", 1, BATCHES, run), ("compiled", 2, BATCHES[-1:], run)]
        for mode, threads, batches, measure in modes:
            configure(threads)
            cells = [_rate(measure(batch)) if batch in batches else "" for batch in BATCHES]
            rows.append((spec.id.removeprefix("metaduel/"), mode, str(threads), *cells))
        configure(1)
    header = ("game", "mode", "threads", *(f"batch {batch:,}" for batch in BATCHES))
    return Sheet(
        "Environment steps per second", header, tuple(rows), missing or "A step is step + noise + observation."
    )


def accelerator_sheet(games: Sequence[str], seconds: float) -> Sheet:
    """Environment steps per second of ``games`` on the accelerator that there is."""
    device = torch.accelerator.current_accelerator()
    rows = []
    for spec in map(registry.find, games):
        cells = [_rate(core_steps(spec, batch, seconds, device=device)) for batch in ACCELERATED]
        rows.append((spec.id.removeprefix("metaduel/"), *cells))
    header = ("game", *(f"batch {batch:,}" for batch in ACCELERATED))
    return Sheet(f"Environment steps per second on {device}", header, tuple(rows), "Eager, one thread beside it.")


# The meta-iteration


class Split(NamedTuple):
    """Seconds of one meta-iteration."""

    total: float
    rollout: float  # both shots
    inner: float  # loss before the update, and the update
    outer: float  # loss after it, the meta-gradient and the outer step; making the tasks is in none of the three


class TimedProblem(DuelProblem):
    """A problem that notes when its rollouts begin and end; everything else of a shot follows its rollout."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.rollouts: list[tuple[float, float]] = []

    def collect(
        self, players: Players, shot: int, carries: Mapping[Role, Carry] | None = None
    ) -> dict[Role, Trajectories]:
        """See ``DuelProblem.collect``."""
        start = time.perf_counter()
        data = super().collect(players, shot, carries)
        self.rollouts.append((start, time.perf_counter()))
        return data


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
        rows = torch.tensor([[task[name] for name in self.spec.context_names] for task in tasks], dtype=torch.float64)
        matches = Matches(rows, against_adversaries=[(self.opponent, TASKS)])
        seed = self.done * TASKS * EPISODES
        problem = TimedProblem(self.duel, {"protagonist": self.policy}, matches, EPISODES, seed, self.loss)
        self.metrics = self.learner.update(problem).metrics
        self.done += 1
        end, played = time.perf_counter(), problem.rollouts
        rollouts = sum(after - begin for begin, after in played)
        between = sum(begin - after for (_, after), (begin, _) in itertools.pairwise(played))
        return Split(end - start, rollouts, between, end - played[-1][1])


class Product(NamedTuple):
    """A matrix product: the operator, and size and stride of each tensor that it takes."""

    operator: Any
    layouts: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]
    dtype: torch.dtype


class ProductLog(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the matrix products that run below it, and their floating-point operations."""

    _operators = (torch.ops.aten.mm, torch.ops.aten.bmm, torch.ops.aten.addmm, torch.ops.aten.baddbmm)

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: Counter[Product] = Counter()
        self.flops: dict[Product, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operator and note it if it is a matrix product."""
        out = func(*args, **(kwargs or {}))
        operator = func.overloadpacket
        if operator in self._operators:
            tensors = [a for a in args if isinstance(a, Tensor)]
            product = Product(operator, tuple((tuple(t.shape), t.stride()) for t in tensors), tensors[0].dtype)
            self.calls[product] += 1
            self.flops[product] = flop_registry[operator](*args, **(kwargs or {}), out_val=out)
        return out


def product_seconds(log: ProductLog, share: float = 0.999) -> float:
    """Seconds that the logged products take when they run alone; the last 0.1 % of operations at the others' rate."""
    work = sorted(((log.calls[p] * log.flops[p], p) for p in log.calls), key=lambda item: -item[0])
    total, measured, seconds = sum(flops for flops, _ in work), 0, 0.0
    with torch.no_grad():
        for flops, product in work:
            tensors = [_laid_out(*layout, product.dtype) for layout in product.layouts]
            calls = max(1, min(log.calls[product], 20))

            def play(operator: Any = product.operator, tensors: list[Tensor] = tensors, calls: int = calls) -> None:
                for _ in range(calls):
                    operator(*tensors)

            seconds += log.calls[product] * median_time(play, 0.05) / calls
            measured += flops
            if measured >= share * total:
                break
    return seconds * total / measured


def _laid_out(size: tuple[int, ...], stride: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Random numbers in that layout; rows may share memory, as weights that are repeated for every task do."""
    last = sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    return torch.randn(last + 1, dtype=dtype).as_strided(size, stride)


def meta_sheet(iterations: int) -> Sheet:
    """Seconds, floating-point operations and memory of one meta-iteration with one and two threads."""
    rows, flops, base = [], 0, peak_memory()
    for threads in (1, 2):
        configure(threads)
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
    configure(1)
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
            configure(threads)
            middle = median_split(MetaIteration(method=method, steps=steps), iterations)
            rows.append((method, str(steps), str(threads), *(f"{value:.3f}" for value in middle)))
    configure(1)
    header = ("method", "updates", "threads", "seconds", "rollouts", "inner", "outer")
    note = f"Medians of {iterations} iterations of the workload above. ProMP takes five outer steps on its data."
    return Sheet("One meta-iteration on Navigation, by method", header, tuple(rows), note)


def trpo_sheet(iterations: int) -> Sheet:
    """Seconds of a meta-iteration with a TRPO step outside beside those with Adam, with one and two threads."""
    rows = []
    share = TRPOConfig.curvature_share
    for threads in (1, 2):
        configure(threads)
        adam, middle = (median_split(MetaIteration(s), iterations) for s in (None, share))
        rows.append(
            (
                str(threads),
                *(f"{value:.3f}" for value in middle),
                f"{middle.total / adam.total:.1f}",
                f"{PEER_SECONDS / middle.total:.1f}",
            )
        )
    configure(1)
    gain, low, high = gain_ratio(share, iterations)
    header = ("threads", "seconds", "rollouts", "inner", "outer", "x Adam's", "peer's x")
    note = (
        f"Medians of {iterations} iterations. Peer's: {PEER_SECONDS} s, of another process on two cores of this kind. "
        f"Curvature from {share:g} of the episodes: over {iterations} iterations, from the same starts on the same data, its "
        f"steps improve the surrogate {gain:.2f} times as much as with all of them ({low:.2f} to {high:.2f} in a single one)."
    )
    return Sheet("One meta-iteration of MAML, second order, TRPO outside, on Navigation", header, tuple(rows), note)


def gain_ratio(share: float, iterations: int) -> tuple[float, float, float]:
    """What a step gains on the surrogate with a ``share`` of the episodes in its curvature, over what it gains with all of
    them: from the same starts on the same data, summed over iterations; and the smallest and largest of a single one.
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


# Chains


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
        load: which workload.
        policy: of the protagonist, a name in ``CHAIN_POLICIES``; the personas in the other seat have tables.
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
            problem = TimedProblem(self.duel, policies, Matches(rows, duels=n), CHAIN_EPISODES, seed, losses)
            problems.append(problem)
            parts.append(Part(problem, {"adversary": self.personas.sample(n, "train", self.done)}))
            self.done += 1
        self.learner.update(Mixture(tuple(parts)))
        rollouts = sum(end - begin for problem in problems for begin, end in problem.rollouts)
        return (time.perf_counter() - start) / total, rollouts / total


def chains_sheet(repeats: int) -> Sheet:
    """Seconds, floating-point operations and memory of a chain, beside what the authors' code takes."""
    configure(1)
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


# Measuring


def median_split(workload: MetaIteration, iterations: int) -> Split:
    """Medians over ``iterations``, after two that aren't counted."""
    for _ in range(2):
        workload.run()
    gc.collect()
    splits = [workload.run() for _ in range(iterations)]
    return Split(*(statistics.median(part) for part in zip(*splits, strict=True)))


def median_time(play: Callable[[], None], seconds: float) -> float:
    """Median seconds of a call: at least 3, for at least ``seconds`` in all, after one that isn't counted."""
    play()
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        start = time.perf_counter()
        play()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


class _Glyphs(Tasks):
    """5-way 1-shot tasks of random images, one query for each class."""

    def __init__(self) -> None:
        self.networks: Mapping[Role, Network] = {"protagonist": Convolutional(1, 5)}

    def draw(self, n: int, split: TaskSplit, seed: int) -> Data:
        """Support and query images [n, 5, 28, 28, 1] each."""
        generator = torch.Generator().manual_seed(seed)
        return torch.rand(n, 5, 28, 28, 1, generator=generator), torch.rand(n, 5, 28, 28, 1, generator=generator)

    def loss(self, role: Role, players: Players, data: Data, part: DataPart, shot: int) -> Tensor:
        """Cross-entropy: [n]."""
        logits = self.networks[role](players[role], data[part == "query"])
        return -torch.log_softmax(logits, 2).diagonal(dim1=1, dim2=2).mean(1)


def classification_gradient(second_order: bool, looped: bool, threads: int, iterations: int) -> tuple[float, float]:
    """Median seconds of a meta-gradient on 32 tasks, and the process's MiB above what it had before the first."""
    configure(threads)
    tasks = _Glyphs()
    learner = MAML(tasks.init(0), MAMLConfig(steps=1, inner_lr=0.4, second_order=second_order))
    whole = tasks.draw(32, "train", 0)
    batches = [tuple(tensor[i : i + 1] for tensor in whole) for i in range(32)] if looped else [whole]

    def play() -> None:
        for batch in batches:
            learner.gradients(DataProblem(tasks, batch))

    base = peak_memory()
    play()
    times = []
    for _ in range(iterations):
        start = time.perf_counter()
        play()
        times.append(time.perf_counter() - start)
    return statistics.median(times), peak_memory() - base


def classification_sheet(iterations: int) -> Sheet:
    """Meta-gradients of few-shot classification: second order, first order, and second order in a loop over tasks."""
    kinds = (
        ("second order", True, False),
        ("first order", False, False),
        ("second order, loop over tasks", True, True),
    )
    rows, context = [], multiprocessing.get_context("spawn")
    for threads in (1, 2):
        first = 0.0
        for name, second_order, looped in kinds:
            with context.Pool(1) as pool:
                seconds, memory = pool.apply(classification_gradient, (second_order, looped, threads, iterations))
            first = first or seconds
            rows.append((str(threads), name, f"{seconds:.3f}", f"{seconds / first:.2f}", f"{memory:.0f}"))
    note = "5-way 1-shot, 32 tasks, four blocks of 64 filters, one update; peak memory above the process's own."
    header = ("threads", "meta-gradient", "seconds", "times second order", "MiB more")
    return Sheet("Few-shot classification", header, tuple(rows), note)


def peak_memory() -> float:
    """The process's largest resident memory so far, MiB."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def _rate(steps: float) -> str:
    """Three significant digits: 31.4 k, 3.14 M."""
    value, unit = (steps / 1e6, " M") if steps >= 1e6 else (steps / 1e3, " k")
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}{unit}"


def machine() -> str:
    """What was measured on, in a line."""
    load = f", load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    passive = os.environ.get("OMP_WAIT_POLICY", "").upper() == "PASSIVE"
    waiting = "" if passive else "; OMP_WAIT_POLICY is not PASSIVE: idle threads take time from busy ones"
    return (
        f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}, "
        f"torch {torch.__version__}{load}{waiting}"
    )


def main(
    games: tuple[str, ...] = (),
    iterations: int = 15,
    chains: int = 3,
    seconds: float = 0.3,
    output: Path | None = None,
) -> None:
    """Measure the speed of the games, of meta-iterations and of a chain of Meta-MAPG.

    Args:
        games: games to measure; by default one of every family (compiling takes up to a minute each).
        iterations: meta-iterations to take the median of.
        chains: outer steps of Meta-MAPG to take the median of.
        seconds: least time of one measurement of environment steps.
        output: also write the tables here, as Markdown.
    """
    if iterations < 1:
        raise InvalidInputError(f"iterations={iterations} must be at least 1")
    if chains < 1:
        raise InvalidInputError(f"chains={chains} must be at least 1")
    names = [registry.find(name).name for name in games] or default_games()
    where, console = machine(), Console()
    if not console.is_terminal:
        console.width = 130
    console.print(where)
    sheets: list[Sheet] = []
    measures: list[Callable[[], Sheet]] = [
        lambda: meta_sheet(iterations),
        lambda: methods_sheet(iterations),
        lambda: trpo_sheet(iterations),
        lambda: chains_sheet(chains),
        lambda: classification_sheet(iterations),
        lambda: steps_sheet(names, seconds),
    ]
    if torch.accelerator.is_available():
        measures.append(lambda: accelerator_sheet(names, seconds))
    for measure in measures:
        sheets.append(measure())
        console.print(sheets[-1].rich())
    if output is not None:
        text = "\n".join(["## Speed", "", where, "", *(sheet.markdown() for sheet in sheets)])
        write_atomic(output, text.encode())


def cli(arguments: Sequence[str] | None = None) -> int:
    """Run ``main`` from a command line and return the exit code: 2 where the input cannot work."""
    configure(1)
    try:
        tyro.cli(main, args=arguments)
    except InvalidInputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(cli())
