"""docs/learners.md: every method, what is proven of it, and the tables. Nothing in the page is written by hand."""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from metaduel.agents.runtime import configure
from metaduel.benchmarks.core.report import Sheet
from metaduel.benchmarks.tools.proofs.cases import Case, cases, double
from metaduel.benchmarks.tools.proofs.tables import bias_sheet, memory_sheet, proof_sheet, sampled_sheet
from metaduel.envs.core.files import write_atomic
from metaduel.meta.learners.maml import MAML
from metaduel.meta.learners.methods import METHODS, Method
from metaduel.meta.learners.reptile import Reptile

FORMULAS = {  # what is proven of each kind of flow
    "nothing": "`mean_k ∇L(θ_k, φ_k)`, updates being constants",
    "own": "`∇ mean_k L(θ_k, φ_k)` with `dθ_k+1 = dθ_k − a_k H dθ_k` and `dφ_k = 0`",
    "total": (
        "`∇ mean_k L(θ_k, φ_k)` with `dθ_k+1 = dθ_k − a_k (H dθ_k + H_φ dφ_k)` and "
        "`dφ_k+1 = dφ_k − b_k (H' dφ_k + H'_θ dθ_k)`"
    ),
    "peer": "`∇L(θ, φ_K)` with `dφ_k+1 = dφ_k − b_k (H' dφ_k + H'_θ dθ)`; θ takes no update",
}


def prove(out: Path) -> Sheet:
    """Prove every gradient, measure what samples make of it, and write the page.

    Args:
        out: the page.

    Returns:
        The table of the proofs.
    """
    configure(1)
    with double():
        sheets = [proof_sheet(), bias_sheet(), sampled_sheet(), memory_sheet()]
        write_atomic(out, page(sheets).encode())
    return sheets[0]


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


def formula(case: Case) -> str:
    """What is proven of a case, in a line."""
    if not case.updates:
        return "`∇L(θ, φ)`"
    if case.batches:
        return "`∇ Σ_τ P(τ | θ, φ) mean_k L(θ_k(τ), φ_k(τ))`, τ: the batches of episodes that the updates are given"
    return "`θ − θ_K` stands for it" if METHODS[case.method].learner is Reptile else FORMULAS[case.through]


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

    metaduel proofs    # writes this page; a minute with one thread

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
