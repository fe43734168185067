"""The tables of the learners' page: proofs, biases, small batches and memory."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
from rich.progress import track

from metaduel.benchmarks.core.report import Sheet, number
from metaduel.benchmarks.tools.enumerated import AllTrajectories, Flow
from metaduel.benchmarks.tools.proofs.cases import BATCH, DISCOUNT, HORIZON, RATE, STEPS, Case, cases
from metaduel.benchmarks.tools.proofs.chains import EPISODES, GAME, LENGTH, TASKS, chain_cases, chain_error
from metaduel.benchmarks.tools.proofs.gradients import declared, error, relative, shipped
from metaduel.benchmarks.tools.proofs.memory import held
from metaduel.benchmarks.tools.proofs.sampled import FEW, MANY, SAMPLED_HORIZON, sampled
from metaduel.envs.core.spec import ROLES, Role
from metaduel.meta.learners.methods import METHODS
from metaduel.meta.learners.reptile import Reptile


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
        f"log step sizes (both are 0 if a method has none). All {4**HORIZON} trajectories of an iterated prisoner's dilemma "
        f"over {HORIZON} steps, two tasks, discount {DISCOUNT:g}, step sizes around {RATE:g}, a baseline that depends on the "
        f"state; for E-MAML all sequences of batches of {BATCH} plays of a 2 x 2 game. Surrogate: any, if there is no "
        "second derivative. K is 0 for methods without an inner step. Rounding alone gives 1e−16 to 1e−14."
    )
    return Sheet("Proofs", header, tuple(rows), note)


def chain_sheet() -> Sheet:
    """The relative error of every loss on chains, for both players."""
    rows = [(*case.labels, *(f"{chain_error(case, role):.0e}" for role in ROLES)) for case in chain_cases()]
    note = (
        "Error of the shipped gradient's directional derivatives against central differences of the loss, relative to the "
        "largest: one direction for each weight tensor, at weights other than those that played. Chains of "
        f"{EPISODES} episodes of at most {LENGTH} steps of {GAME} on {TASKS} tasks, in double precision. Loss ppo: policy, "
        "critic and entropy. Memories with which truncated segments begin are constants."
    )
    return Sheet("Chains", ("method", "loss", "gradient", *ROLES), tuple(rows), note)


def truth(case: Case) -> Flow | None:
    """The unbiased flow of a biased case; None for an unbiased one."""
    flow = case.flow
    if case.batches or not case.updates or (flow.second == "exact" and METHODS[case.method].learner is not Reptile):
        return None
    return flow._replace(second="exact")


def bias_sheet(rates: Sequence[float] = (RATE / 10, RATE)) -> Sheet:
    """The bias of biased methods, and the distance of own learning from the total derivative."""
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
        "updates. Reptile's direction is no gradient and has a length of its own: cosine only. The bias of `plain` depends on "
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
        "advantages not normalised. Episodes: per task and shot. Off by: |mean − exact| / |exact|; chance: its value "
        "without a bias; largest z: among the components of both players' starts."
    )
    return Sheet("Small batches", header, tuple(rows), note)


def memory_sheet(steps: Sequence[int] = (1, 2, 4, 8)) -> Sheet:
    """The memory of the graph, by K."""
    rows = []
    for name, settings in (("maml", {}), ("maml", {"recompute": True}), ("fomaml", {})):
        case = Case(name, "dice", settings)
        sizes = [held(case.learner(k), AllTrajectories("dice", HORIZON, DISCOUNT)) for k in steps]
        label = name + "".join(f", {k}={v}" for k, v in settings.items())
        rows.append((label, *(f"{size / 1024:.0f}" for size in sizes)))
    note = (
        "KiB that autograd keeps between the losses and their derivatives, in the game of the proofs. With `recompute` each "
        "update keeps weights and step sizes, and its data outside of autograd; its graph is built again in the backward pass. "
        "First order keeps the graph of every shot's loss, but no graph of gradients."
    )
    return Sheet("Memory", ("method", *(f"K = {k}" for k in steps)), tuple(rows), note)
