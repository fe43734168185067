"""The learners, and the proof that each estimates what it says; writes docs/learners.md.

Every gradient below comes from the shipped losses, inner step and learners, on games so short that all that can happen is listed
(``enumerated``): an estimate is then its own expectation, and is compared with the derivative of the objective in closed form.
What sampled batches make of it, and how much memory an update holds, is measured. Nothing in the page is written by hand.
"""

from __future__ import annotations

import inspect
import math
import sys
import textwrap
import weakref
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
import tyro
from rich.console import Console
from rich.progress import track
from torch import Tensor

from metaduel.agents.objective.config import LossConfig
from metaduel.agents.objective.losses import Surrogate
from metaduel.agents.policies.base import Weights, stack
from metaduel.agents.runtime import configure
from metaduel.agents.trajectories import Trajectories
from metaduel.benchmarks.core.report import Sheet, number
from metaduel.benchmarks.tools.enumerated import (
    GAME,
    TASKS,
    AllBatches,
    AllTrajectories,
    Flow,
    batches_loss,
    declared_loss,
    exact_chain,
)
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.files import write_atomic
from metaduel.envs.core.noise import derive_seed
from metaduel.envs.core.spec import ROLES, Role
from metaduel.meta.adaptation.inner import Through, unroll
from metaduel.meta.learners.e_maml import EMAML
from metaduel.meta.learners.joint import Joint
from metaduel.meta.learners.learner import Learner
from metaduel.meta.learners.maml import MAML
from metaduel.meta.learners.mapg import MAPG
from metaduel.meta.learners.methods import METHODS, Method
from metaduel.meta.learners.promp import ProMP
from metaduel.meta.learners.reptile import Reptile
from metaduel.meta.learners.trpo import TRPO
from metaduel.meta.problems.duels import DuelProblem, Matches
from metaduel.meta.problems.problem import Losses, Players, Problem

RATE = 1.5  # step size of the updates; the objective is a return per step
STEPS = (1, 2, 3)  # K
HORIZON, DISCOUNT = 3, 0.9
HEAD = ("layer0.bias",)  # what ANIL adapts
BATCH = 2  # episodes of each batch that E-MAML's updates are given
BOUND = 1e-6  # relative error of a proof
KNOWN = (MAML, Joint, TRPO, ProMP, MAPG, EMAML, Reptile)  # learners whose declared objective is written out here
SAMPLED_HORIZON, ROWS = 2, 200_000  # of sampled episodes; how many are played at once
FEW, MANY = 20, 100_000  # episodes of a batch
SMALLER = 100  # batches of 1000 that tell how much one of MANY varies


@contextmanager
def double() -> Iterator[None]:
    """Compute in float64 inside."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


# What is proven


@dataclass(frozen=True)
class Case:
    """A method with settings.

    Attributes:
        method: its name.
        surrogate: of its losses.
        settings: of the method.
    """

    method: str
    surrogate: Surrogate
    settings: Mapping[str, Any] = field(default_factory=dict)

    def learner(self, steps: int, rate: float = RATE) -> Any:
        """With K = ``steps``, from the same start every time; all its step sizes are different, around ``rate``."""
        method = METHODS[self.method]
        config = method.configure(method.settings(steps=steps, inner_lr=rate, **self.settings))
        learner = method.learner(start_of_play() if self.batches else start(), config, dict.fromkeys(ROLES, HEAD))
        for log_rates in ({} if learner.inner is None else learner.inner.log_rates).values():
            with torch.no_grad():
                log_rates += torch.linspace(-0.3, 0.3, log_rates.numel(), dtype=log_rates.dtype).view_as(log_rates)
        return learner

    def problem(self, steps: int) -> AllTrajectories | AllBatches:
        """The listed game that it is proven in."""
        return AllBatches(steps, BATCH) if self.batches else AllTrajectories(self.surrogate, HORIZON, DISCOUNT)

    @property
    def flow(self) -> Flow:
        """What of the updates the method differentiates; E-MAML and Reptile declare objects of their own."""
        config = self.learner(1).config
        terms = getattr(config, "terms", ("own",))
        second = {"dice": "exact", "lvc": "lvc", "plain": "plain"}[self.surrogate] if config.second_order else "none"
        return Flow("own" in terms, config.peer, second)  # type: ignore[arg-type]

    @property
    def updates(self) -> bool:
        """Whether there is an inner step."""
        return bool(self.learner(1).config.steps > 0)

    @property
    def batches(self) -> bool:
        """Whether the objective is about finite batches."""
        return METHODS[self.method].learner is EMAML

    @property
    def through(self) -> str:
        """What flows, in a word."""
        if not self.updates or not self.learner(1).config.second_order:
            return "nothing"
        return {(True, False): "own", (True, True): "total", (False, True): "peer"}[self.flow[:2]]

    @property
    def labels(self) -> tuple[str, str, str]:
        """Method, surrogate and what flows."""
        name = self.method + "".join(f", {k}={v}" for k, v in self.settings.items() if k != "peer")
        return name, self.surrogate if self.through != "nothing" else "any", self.through


def gradient_based(method: Method) -> bool:
    """Whether it has an inner step on the weights."""
    return method.memory is None and method.configure(method.settings()).steps > 0


def cases() -> list[Case]:
    """Every method whose objective is known, with every surrogate that it takes, own learning alone and in total. Where nothing
    is differentiated, surrogates are the same: one of them.
    """
    found = []
    for method in METHODS.values():
        if method.learner not in KNOWN:
            continue
        configs: list[object] = []
        for settings in ({}, {"peer": True}):
            try:
                config = method.configure(method.settings(**settings))  # type: ignore[arg-type]
            except InvalidInputError:
                continue  # it has no total derivative
            if config in configs:
                continue
            configs.append(config)
            surrogates = method.surrogates if config.second_order else method.surrogates[:1]
            found += [Case(method.name, surrogate, settings) for surrogate in surrogates]
            if method.name == "maml":
                found.append(Case(method.name, "dice", {**settings, "inner_lr_per": "step"}))
    return found


def start(seed: int = 3) -> Players:
    """Both players' weights, far from symmetric."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"layer0.weight": (5, 2), "layer0.bias": (2,)}
    return {
        role: {n: torch.randn(*shape, generator=generator, dtype=torch.float64) for n, shape in shapes.items()}
        for role in ROLES
    }


def start_of_play() -> Players:
    """The same for one play: two logits, half as a weight on a constant and half as a bias."""
    logits: dict[Role, Tensor] = {"protagonist": torch.tensor([0.3, -0.4]), "adversary": torch.tensor([-0.2, 0.6])}
    halves = {role: 0.5 * value.double() for role, value in logits.items()}
    return {role: {"layer0.weight": half.view(1, 2), "layer0.bias": half} for role, half in halves.items()}


def flat(weights: Weights) -> Tensor:
    """[D] of weights that are not stacked."""
    return torch.cat([value.flatten() for value in weights.values()])


class Gradient(NamedTuple):
    """With respect to a player's start and to its log step sizes."""

    start: Tensor  # [D]
    log_rates: Tensor  # as the learner's


def shipped(case: Case, steps: int, rate: float = RATE, game: AllTrajectories | None = None) -> dict[Role, Gradient]:
    """What the learner makes of the listed game."""
    found = case.learner(steps, rate).gradients(game or case.problem(steps))
    return {role: Gradient(flat(weights), rates) for role, (weights, rates) in found.items()}


def declared(
    case: Case,
    steps: int,
    rate: float = RATE,
    game: AllTrajectories | None = None,
    flow: Flow | None = None,
) -> dict[Role, Gradient]:
    """What the method declares to estimate, in closed form; with another ``flow``, what another one would."""
    learner, problem, result = case.learner(steps, rate), game or case.problem(steps), {}
    last = learner.config.outer_shots == "last"
    for role in ROLES:
        flats, rates, leaf, log_rates = _leaves(learner, role)
        if isinstance(problem, AllBatches):
            loss = batches_loss(problem.drawn, flats, rates, role, last)
        elif isinstance(learner, Reptile) and flow is None:
            adapted = exact_chain(problem, flats, rates, Flow(second="none"), role)[-1][role]
            result[role] = Gradient(leaf.detach() - adapted.detach().mean(0), torch.zeros_like(log_rates))
            continue
        else:
            loss = declared_loss(problem, flats, rates, flow or case.flow, role, last)
        result[role] = Gradient(*torch.autograd.grad(loss, [leaf, log_rates], materialize_grads=True))
    return result


def _leaves(learner: Any, role: Role) -> tuple[dict[Role, Tensor], dict[Role, Tensor], Tensor, Tensor]:
    """Flat weights and step sizes of both, and the leaves of ``role`` that they were made of."""
    flats = {r: flat(weights).detach().requires_grad_() for r, weights in learner.start.items()}
    own = {r: torch.zeros(0, 1) for r in learner.start} if learner.inner is None else learner.inner.log_rates
    logs = {r: value.detach().clone().requires_grad_() for r, value in own.items()}
    rates = {}
    for r, weights in learner.start.items():
        sizes = torch.tensor([value.numel() for value in weights.values()])
        full = logs[r].exp()
        if full.shape[1] == len(sizes):  # one for each weight tensor
            full = full.repeat_interleave(sizes, 1)
        if learner.config.adapts == "head":
            full = full * torch.tensor([float(name in HEAD) for name in weights]).repeat_interleave(sizes)
        rates[r] = full.expand(-1, int(sizes.sum()))
    return flats, rates, flats[role], logs[role]


def relative(ours: Tensor, exact: Tensor) -> float:
    """|ours - exact| / |exact|; 0 where both are 0."""
    return float((ours - exact).norm() / exact.norm()) if (ours != exact).any() else 0.0


def error(ours: Gradient, exact: Gradient) -> float:
    """The larger of the relative errors of the two parts."""
    return max(relative(a, b) for a, b in zip(ours, exact, strict=True))


# What sampled batches make of it


class NoBaseline(LossConfig):
    """Advantages are discounted returns, in the query, too."""

    def _advantages(self, data: Trajectories, discount: float, fit: bool = True, shared: bool = False) -> Tensor:
        return super()._advantages(data, discount, fit=False)


def estimates(
    case: Case, steps: int, episodes: int, repeats: int, seed: int = 0, baseline: bool = True
) -> dict[Role, Tensor]:
    """Sampled gradients of the start, advantages not normalised.

    Args:
        case: of MAML's kind.
        steps: K.
        episodes: in a batch: per task and shot.
        repeats: how many gradients.
        seed: of all noise.
        baseline: fit the usual linear baseline to every batch.

    Returns:
        Per role [repeats, D].
    """
    learner, found = case.learner(steps), {role: list[Tensor]() for role in ROLES}
    kind = LossConfig if baseline else NoBaseline
    loss = kind(case.surrogate, DISCOUNT, DISCOUNT, normalise=False, exact_discount=True)
    policies = AllTrajectories(horizon=1).policies
    duel, at_once = Duel(GAME, SAMPLED_HORIZON), max(1, ROWS // (episodes * len(TASKS)))
    for done in range(0, repeats, at_once):
        n = min(at_once, repeats - done)
        matches = Matches(TASKS.repeat(n, 1), duels=n * len(TASKS))
        for number_of, roles in enumerate([ROLES] if case.flow.own else [(role,) for role in ROLES]):
            problem = DuelProblem(duel, policies, matches, episodes, derive_seed(seed, episodes, done, number_of), loss)
            for role, rows in row_gradients(learner, problem, roles).items():
                found[role].append(rows.view(n, len(TASKS), -1).mean(1))
    return {role: torch.cat(parts) for role, parts in found.items()}


def row_gradients(learner: Any, problem: Problem, roles: Collection[Role] = ROLES) -> dict[Role, Tensor]:
    """Each task's own outer gradient [N, D] with respect to its start, for learners that share MAML's outer loss.

    Args:
        learner: whose starts, step sizes and settings.
        problem: in which learners meet each other alone.
        roles: whose; one alone where it does not learn itself (LOLA).
    """
    players: Players = {
        role: {n: v.detach().clone().requires_grad_() for n, v in stack(weights, problem.tasks[role]).items()}
        for role, weights in learner.start.items()
    }
    config, rates = learner.config, {role: learner.rates(role).detach() for role in players}
    still = "own" not in getattr(config, "terms", ("own",))
    moving = [role for role in ROLES if role not in roles] if still else None
    through = Through(config.second_order, config.peer)
    history, _ = unroll(problem, players, rates, config.steps, through, moving)
    result = {}
    for role in roles:
        loss = outer_loss(learner, role, history) * problem.tasks[role]
        parts = torch.autograd.grad(loss, list(players[role].values()), retain_graph=True)
        result[role] = torch.cat([part.flatten(1) for part in parts], 1)
    return result


def outer_loss(learner: Learner, role: Role, history: list[Losses]) -> Tensor:
    """A player's mean loss over the shots that training counts."""
    return torch.stack([losses.query[role].mean() for losses in learner.counted(history)]).mean()


class Sampled(NamedTuple):
    """How far the mean of sampled gradients is from what is declared, over both players' components."""

    bias: float  # |mean - exact| / |exact|
    error: float  # what chance alone would make of it: the standard errors' norm / |exact|
    z: float  # the largest |mean - exact| / standard error of a component


def sampled(case: Case, steps: int, episodes: int, repeats: int = 1, seed: int = 0, baseline: bool = True) -> Sampled:
    """Compare sampled gradients with the declared one; see ``estimates``.

    Standard errors are those of the repeats, or of a single batch from ``SMALLER`` of 1000 episodes.
    """
    exact = declared(case, steps, game=AllTrajectories(case.surrogate, SAMPLED_HORIZON, DISCOUNT))
    wanted = torch.cat([exact[role].start for role in ROLES])
    every = _both(estimates(case, steps, episodes, repeats, seed, baseline))
    if repeats > 1:
        deviation = every.std(0) / math.sqrt(repeats)
    else:
        deviation = _both(estimates(case, steps, 1000, SMALLER, seed, baseline)).std(0) * math.sqrt(1000 / episodes)
    off, norm = every.mean(0) - wanted, float(wanted.norm())
    return Sampled(float(off.norm()) / norm, float(deviation.norm()) / norm, float((off / deviation).abs().max()))


def _both(found: Mapping[Role, Tensor]) -> Tensor:
    return torch.cat([found[role] for role in ROLES], 1)


# What updates hold


def held(learner: Any, problem: Problem) -> int:
    """Bytes that the graph of the outer losses keeps for its derivatives."""
    alive: weakref.WeakSet[_Kept] = weakref.WeakSet()

    def keep(tensor: Tensor) -> _Kept:
        kept = _Kept(tensor.detach())  # with its graph it would hold itself
        alive.add(kept)
        return kept

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda kept: kept.tensor):
        losses = learner.outer_losses(problem)
    storages = [kept.tensor.untyped_storage() for kept in alive]
    total = sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
    del losses  # until here it held the graph
    return total


class _Kept:
    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


# The page


def proof_sheet() -> Sheet:
    """The relative error of every case, for both players and every K."""
    rows = []
    for case in cases():
        errors: dict[tuple[Role, int], str] = {}
        for steps in STEPS if case.updates else (0,):
            ours, exact = shipped(case, steps), declared(case, steps)
            errors |= {(role, steps): f"{error(ours[role], exact[role]):.0e}" for role in ROLES}
        cells = [errors.get((role, steps if case.updates else 0), "") for role in ROLES for steps in STEPS]
        if not case.updates:  # K is 0
            cells = [cell if i % len(STEPS) == 0 else "" for i, cell in enumerate(cells)]
        rows.append((*case.labels, *cells))
    header = ("method", "surrogate", "flows", *(f"{role}, K = {steps}" for role in ROLES for steps in STEPS))
    note = (
        f"Relative error |shipped − declared| / |declared|, the larger of two: of the gradient of the start and of that of the "
        f"log step sizes (where a method has none, both are 0). All {4**HORIZON} trajectories of an iterated prisoner's dilemma "
        f"over {HORIZON} steps, two tasks, discount {DISCOUNT:g}, step sizes around {RATE:g}, a baseline that depends on the "
        f"state; for E-MAML all sequences of batches of {BATCH} plays of a 2 x 2 game. Surrogate: any, where nothing is "
        "differentiated twice. K is 0 for methods without an inner step. Rounding alone makes 1e−16 to 1e−14."
    )
    return Sheet("Proofs", header, tuple(rows), note)


def truth(case: Case) -> Flow | None:
    """What a biased case would differentiate if it were not; None for one that is what it seems."""
    flow = case.flow
    if case.batches or not case.updates or (flow.second == "exact" and METHODS[case.method].learner is not Reptile):
        return None
    return flow._replace(second="exact")


def bias_sheet(rates: Sequence[float] = (RATE / 10, RATE)) -> Sheet:
    """What biased methods leave out, and what own learning alone does of the total derivative."""
    rows = [
        (*case.labels, "own exact" if case.through != "total" else "total exact", case, flow)
        for case in cases()
        if (flow := truth(case)) is not None
    ]
    own, total = Case("maml", "dice"), Case("maml", "dice", {"peer": True})
    rows.append((*own.labels, "total exact", own, total.flow))
    lines: dict[tuple[str, ...], list[str]] = {}  # methods that share a line
    for name, surrogate, through, against, case, flow in rows:
        for rate in rates:
            cells = [_against(case, flow, steps, rate) for steps in STEPS]
            lines.setdefault((surrogate, through, against, f"{rate:g}", *cells), []).append(name)
    header = ("method", "surrogate", "flows", "against", "rate", *(f"K = {steps}" for steps in STEPS))
    note = (
        "|declared − exact| / |exact| (cosine between them), of the start's gradient, the worse of both players, in the game of "
        "the proofs. Exact: the derivative of the loss after adaptation, through own learning alone or through both players' "
        "updates. Reptile's direction is no gradient and has a length of its own: cosine alone. What `plain` misses depends on "
        "the baseline. Step sizes lie around the rate; rewards are of the order of 1."
    )
    merged = tuple((", ".join(names), *line) for line, names in lines.items())
    return Sheet("Biases", header, merged, note)


def _against(case: Case, flow: Flow, steps: int, rate: float) -> str:
    ours, exact = declared(case, steps, rate), declared(case, steps, rate, flow=flow)
    sizes = [relative(ours[role].start, exact[role].start) for role in ROLES]
    cosines = [float(torch.cosine_similarity(ours[role].start, exact[role].start, 0)) for role in ROLES]
    cosine = f"{min(cosines):.3f}".replace("-", "−")
    return f"({cosine})" if METHODS[case.method].learner is Reptile else f"{number(max(sizes))} ({cosine})"


def sampled_sheet(small: int = 10_000) -> Sheet:
    """Gradients of batches of 20 and of 100,000 episodes against the declared ones."""
    rows = []
    plans = [(Case("joint", "dice"), 0), (Case("maml", "dice"), 1), (Case("maml", "dice"), 3)]
    todo = [
        (case, steps, baseline, episodes)
        for case, steps in plans
        for baseline in (True, False)
        for episodes in (FEW, MANY)
    ]
    for case, steps, baseline, episodes in track(todo, "sampled batches", disable=not sys.stderr.isatty()):
        repeats = small if episodes == FEW else 1
        found = sampled(case, steps, episodes, repeats, baseline=baseline)
        rows.append(
            (
                case.method, str(steps), "fitted" if baseline else "none", f"{episodes:,}", f"{repeats:,}",
                f"{100 * found.bias:.1f}%", f"{100 * found.error:.1f}%", f"{found.z:.1f}",
            )
        )  # fmt: skip
    header = ("method", "K", "baseline", "episodes", "repeats", "off by", "chance", "largest z")
    note = (
        f"Mean of sampled gradients against the exact one, surrogate dice, own learning, {SAMPLED_HORIZON} steps, rate {RATE:g}, "
        "advantages not normalised. Episodes: per task and shot. Off by: |mean − exact| / |exact|; chance: what it would be "
        "without a bias; largest z: of the components of both players' starts."
    )
    return Sheet("Small batches", header, tuple(rows), note)


def memory_sheet(steps: Sequence[int] = (1, 2, 4, 8)) -> Sheet:
    """What the graph holds, by K."""
    rows = []
    for name, settings in (("maml", {}), ("maml", {"recompute": True}), ("fomaml", {})):
        case = Case(name, "dice", settings)
        sizes = [held(case.learner(k), AllTrajectories("dice", HORIZON, DISCOUNT)) for k in steps]
        label = name + "".join(f", {k}={v}" for k, v in settings.items())
        rows.append((label, *(f"{size / 1024:.0f}" for size in sizes)))
    note = (
        "KiB that autograd keeps between the losses and their derivatives, in the game of the proofs. With `recompute` each "
        "update keeps weights and step sizes, and its data outside of autograd; its graph is built again when it is its turn. "
        "First order keeps the graph of every shot's loss, but no graph of gradients."
    )
    return Sheet("Memory", ("method", *(f"K = {k}" for k in steps)), tuple(rows), note)


FORMULAS = {  # what is proven of each kind of flow
    "nothing": "`mean_k ∇L(θ_k, φ_k)`, updates being constants",
    "own": "`∇ mean_k L(θ_k, φ_k)` with `dθ_k+1 = dθ_k − a_k H dθ_k` and `dφ_k = 0`",
    "total": (
        "`∇ mean_k L(θ_k, φ_k)` with `dθ_k+1 = dθ_k − a_k (H dθ_k + H_φ dφ_k)` and "
        "`dφ_k+1 = dφ_k − b_k (H' dφ_k + H'_θ dθ_k)`"
    ),
    "peer": "`∇L(θ, φ_K)` with `dφ_k+1 = dφ_k − b_k (H' dφ_k + H'_θ dθ)`; θ takes no update",
}


def formula(case: Case) -> str:
    """What is proven of a case, in a line."""
    if not case.updates:
        return "`∇L(θ, φ)`"
    if case.batches:
        return "`∇ Σ_τ P(τ | θ, φ) mean_k L(θ_k(τ), φ_k(τ))`, τ: the batches of episodes that the updates are given"
    return "`θ − θ_K` stands for it" if METHODS[case.method].learner is Reptile else FORMULAS[case.through]


def page(sheets: Sequence[Sheet]) -> str:
    """docs/learners.md."""
    proven: dict[str, list[Case]] = {}
    for case in cases():
        proven.setdefault(case.method, []).append(case)
    parts = [_INTRODUCTION, "## Methods"]
    parts += [section(method, proven.get(method.name, [])) for method in METHODS.values()]
    parts.append(_MEASURED)
    for sheet in sheets:
        parts += [sheet.markdown(), _READING.get(sheet.title, "")]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def section(method: Method, proven: Sequence[Case]) -> str:
    """What a newcomer must know of a method."""
    lines = [f"- adapts: {method.adapts}", f"- what flows: {method.flows}"]
    if method.memory is None:
        first, *others = method.surrogates
        also = f", or {', '.join(f'`{name}`' for name in others)}" if others else ""
        lines.append(f"- surrogate: `{first}`{also}")
    for through in dict.fromkeys(case.through for case in proven):
        case = next(case for case in proven if case.through == through)
        peer = " with `peer=True`" if case.settings.get("peer") else ""
        lines.append(f"- outer gradient{peer}: {formula(case)}")
    module, text = _source(method)
    block = ""
    if not proven:
        block = next((part for part in text.split("\n\n") if part.startswith("    ")), "")
    _, _, limits = text.partition("Limits: ")
    if limits:
        lines.append("- limits: " + " ".join(limits.partition("\n\n")[0].split()).replace("``", "`"))
    if block:
        lines += ["", "```text", *textwrap.dedent(block).splitlines(), "```"]
    name = "/".join(module.split(".")[1:]) + ".py"
    return "\n".join([f"### {method.name}", "", f"{method.paper}. [{name}](../{name})", "", *lines])


def _source(method: Method) -> tuple[str, str]:
    """The module of a method, and what is written there of this method; nothing if it is a setting of another one."""
    if isinstance(method.memory, type):
        return method.memory.__module__, inspect.getdoc(method.memory) or ""
    own = method.configure.__module__  # a setting of MAML's may have a file of its own
    module = own if method.learner is MAML and own != Method.__module__ else method.learner.__module__
    stem = module.rpartition(".")[2]
    return module, (sys.modules[module].__doc__ or "") if stem == method.name or stem not in METHODS else ""


_INTRODUCTION = """
# Learners

    python -m metaduel.benchmarks.tools.proofs    # writes this page; a minute with one thread

What `metaduel train --method NAME` can do, which gradient each method estimates, and the proof that the shipped code does.

A task has two players with weights θ (the one who is looked at) and φ (the other), and each has a loss, minus its return per
step: L(θ, φ) and L'(θ, φ). Both adapt at once, K times,

    θ_k+1 = θ_k − a_k ∇L(θ_k, φ_k)        φ_k+1 = φ_k − b_k ∇L'(θ_k, φ_k)

from starts θ_0 = θ and φ_0 = φ that are shared by all tasks. The outer gradient moves the starts (and the logarithms of the step
sizes, where they are learned). It is a mean over tasks, and over the shots k = 1..K (mean_k) unless the last alone counts
(`outer_shots="last"`). Methods differ in what adapts, and in what of the updates is differentiated: nothing (first order), the
*own* learning, or the *total* derivative, which knows that the other's episodes, and so its updates, depend on θ as well. Below,
dθ_k is how θ_k changes with the start. Everything holds for both players: exchange the names for the other one.

Gradients are estimated from episodes, by a *surrogate* whose derivatives stand for those of L
([agents/objective/losses.py](../agents/objective/losses.py)). The first derivative is the same for all. The second differ: H,
twice by the own weights, and H_φ, by the own and the other's. With s_t = ∇ log π_t of the own action at step t, s'_t of the
other's, and A_t the advantage:

- `dice`: those of L, exactly.
- `lvc`: H = −E Σ_t A_t (∇² log π_t + s_t s_tᵀ) / T, H_φ = −E Σ_t A_t s_t s'_tᵀ / T. Biased, since it leaves
  out the products of scores of different steps: how an action changes the steps after it. Low variance.
- `plain`: H = −E Σ_t A_t ∇² log π_t / T, H_φ = 0. Leaves out how weights change which data there are; with it
  the total derivative is that of own learning alone.
"""

_MEASURED = """
## What was proven and measured

The proofs use the shipped losses, inner step and learners on games so short that all that can happen is listed and weighs as much
as it is likely: the estimate is its own expectation, and no luck is involved. What it must equal is differentiated from closed
forms, which the tests compare with finite differences in turn. Methods that remember instead of taking an inner step have no row.
"""

_READING = {
    "Proofs": """
- ProMP and TRPO: the gradient where the data are from. That of ProMP's later steps on the same data, and the curvature of
  TRPO's trust region, are compared with finite differences and with double differentiation in the tests.
- RARL takes the gradient of `joint`, for one player at a time.
""",
    "Biases": """
- Methods that are biased are proven, too, to be what they say; this is how far that is from the exact derivative. It grows with
  the step size.
- Differentiating `plain` twice is worse here than differentiating nothing (`fomaml`): E-MAML, which takes `plain`, adds the term
  that is missing.
- `lvc` knows of the other's learning only what happens within a step: here its total derivative is about as far off as leaving
  the other's learning out. Use `dice` with `peer=True`.
""",
    "Small batches": """
- The proofs are about expectations at given weights. An update from few episodes is itself random, and the loss after it is not
  linear in it, so that the mean of sampled gradients is *not* the gradient of the exact objective. (E-MAML's objective is about
  finite batches, and so is its proof.)
- A baseline that is fitted to the same few episodes takes a part of every reward away, with no update at all (K = 0).
- With 100,000 episodes neither can be told from chance.
""",
    "Memory": """
Memory of second order grows linearly with K, unless updates are recomputed. `recompute=True` is the default of Meta-PG, Meta-MAPG
and LOLA-DiCE, whose chains are long; gradients are the same.
""",
}


def main(out: Path = Path("docs/learners.md")) -> None:
    """Prove every gradient, measure what samples make of it, and write the page.

    Args:
        out: the page.
    """
    configure(1)
    console = Console()
    if not console.is_terminal:
        console.width = 130
    with double():
        sheets = [proof_sheet(), bias_sheet(), sampled_sheet(), memory_sheet()]
        write_atomic(out, page(sheets).encode())
    console.print(sheets[0].rich())
    print(f"wrote {out}")


if __name__ == "__main__":
    tyro.cli(main)
