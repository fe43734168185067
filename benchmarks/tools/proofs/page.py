"""docs/learners.md: every method, the proofs and the tables. No part of the page is written by hand."""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Sequence

from metaduel.agents.runtime import configured
from metaduel.benchmarks.core.report import Sheet
from metaduel.benchmarks.tools.proofs.cases import Case, cases
from metaduel.benchmarks.tools.proofs.tables import bias_sheet, chain_sheet, memory_sheet, proof_sheet, sampled_sheet
from metaduel.envs.core.arguments import AnyPath, as_path
from metaduel.envs.core.files import write_atomic
from metaduel.meta.learners.maml import MAML
from metaduel.meta.learners.methods import METHODS, Method
from metaduel.meta.learners.reptile import Reptile

FORMULAS = {  # the proven gradient, by kind of flow
    "nothing": "`mean_k ∇L(θ_k, φ_k)`, updates being constants",
    "own": "`∇ mean_k L(θ_k, φ_k)` with `dθ_k+1 = dθ_k − a_k H dθ_k` and `dφ_k = 0`",
    "total": (
        "`∇ mean_k L(θ_k, φ_k)` with `dθ_k+1 = dθ_k − a_k (H dθ_k + H_φ dφ_k)` and "
        "`dφ_k+1 = dφ_k − b_k (H' dφ_k + H'_θ dθ_k)`"
    ),
    "peer": "`∇L(θ, φ_K)` with `dφ_k+1 = dφ_k − b_k (H' dφ_k + H'_θ dθ)`; θ takes no update",
}


@configured(1)
def prove(out: AnyPath) -> Sheet:
    """Prove every gradient, measure the bias of its sampled estimates, and write the page.

    Args:
        out: the page.

    Returns:
        The table of the proofs.
    """
    path = as_path(out, "out")
    sheets = [proof_sheet(), chain_sheet(), bias_sheet(), sampled_sheet(), memory_sheet()]
    write_atomic(path, page(sheets).encode())
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
    """The section of a method, for newcomers."""
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
    """The proven gradient of a case, in a line."""
    if not case.updates:
        return "`∇L(θ, φ)`"
    if case.batches:
        return "`∇ Σ_τ P(τ | θ, φ) mean_k L(θ_k(τ), φ_k(τ))`, τ: the batches of episodes that the updates are given"
    return "`θ − θ_K` stands for it" if METHODS[case.method].learner is Reptile else FORMULAS[case.through]


def _source(method: Method) -> tuple[str, str]:
    """The module of a method, and the method's text there; no text if the method is a setting of another one."""
    if isinstance(method.memory, type):
        return method.memory.__module__, inspect.getdoc(method.memory) or ""
    own = method.configure.__module__  # a setting of MAML's may have a file of its own
    module = own if method.learner is MAML and own != Method.__module__ else method.learner.__module__
    stem = module.rpartition(".")[2]
    return module, (sys.modules[module].__doc__ or "") if stem == method.name or stem not in METHODS else ""


_INTRODUCTION = """
# Learners

    metaduel proofs    # writes this page; a minute with one thread

The methods of `metaduel train --method NAME`, the gradient that each of them estimates, and the proof that the shipped code
estimates it.

A task has two players, the player under study with weights θ and its opponent with weights φ. Each has a loss, minus its return
per step of the horizon T: L(θ, φ) and L'(θ, φ). Both adapt at once, K times,

    θ_k+1 = θ_k − a_k ∇L(θ_k, φ_k)        φ_k+1 = φ_k − b_k ∇L'(θ_k, φ_k)

from starts θ_0 = θ and φ_0 = φ that are shared by all tasks. The outer gradient moves the starts (and the logarithms of the step
sizes, where they are learned). It is a mean over tasks, and over the shots k = 1..K (mean_k) unless only the last counts
(`outer_shots="last"`) or shot 0 does, too (`outer_shots="every"`). Methods differ in the weights that adapt, and in the
derivatives of the updates that they include: none (first order), those of the player's *own* learning, or the *total* derivative,
which includes that the opponent's episodes, and so its updates, depend on θ as well. Below, dθ_k is the derivative of θ_k with
respect to the start. The same holds for the
opponent with the names exchanged.

Gradients are estimated from episodes, by a *surrogate* whose derivatives estimate those of L
([agents/objective/losses.py](../agents/objective/losses.py)). The first derivative is the same for all surrogates. The second
derivatives differ: H, twice with respect to θ, and H_φ, with respect to θ and φ. With s_t = ∇ log π_t of the player's own action
at step t, s'_t of the opponent's, and A_t the advantage:

- `dice`: those of L, exactly.
- `lvc`: H = −E Σ_t A_t (∇² log π_t + s_t s_tᵀ) / T, H_φ = −E Σ_t A_t s_t s'_tᵀ / T. Biased, since it leaves
  out the products of scores of different steps: the effect of an action on later steps. Low variance.
- `plain`: H = −E Σ_t A_t ∇² log π_t / T, H_φ = 0. Leaves out the effect of the weights on the data; with it
  the total derivative is that of own learning alone.
"""


_MEASURED = """
## Proofs and measurements

The proofs use the shipped losses, inner step and learners on games so short that all outcomes can be listed and weighted by their
probability. The estimate is then its own expectation, without chance. It must equal the derivative of the objective in closed
form, which the tests compare with finite differences in turn. Methods that remember instead of taking an inner
step are compared with finite differences on chains that were played.
"""


_READING = {
    "Proofs": """
- ProMP and TRPO: the gradient at the weights that drew the data. The gradient of ProMP's later steps on the same data, and the
  curvature of TRPO's trust region, are compared with finite differences and with double differentiation in the tests.
- RARL takes the gradient of `joint`, for one player at a time.
""",
    "Chains": """
- Advantages and the critic's targets are constants of the loss; the tests compare them with numbers that are worked by hand.
- The gradient of `latent`'s policy stops at the belief.
""",
    "Biases": """
- Biased methods, too, are proven to estimate what they declare; this table gives the distance from the exact derivative. It grows
  with the step size.
- Differentiating `plain` twice is worse here than differentiating nothing (`fomaml`): E-MAML, which uses `plain`, adds the
  missing term.
- `lvc` includes the opponent's learning only within a step: here its total derivative is about as far off as leaving the
  opponent's learning out. Use `dice` with `peer=True`.
""",
    "Small batches": """
- The proofs are about expectations at given weights. An update from few episodes is itself random, and the loss after it is not
  linear in it, so that the mean of sampled gradients is *not* the gradient of the exact objective. (E-MAML's objective is about
  finite batches, and so is its proof.)
- A baseline that is fitted to the same few episodes removes a part of every reward, even without an update (K = 0).
- With 100,000 episodes neither effect is distinguishable from chance.
""",
    "Memory": """
With second order, memory grows linearly with K, unless updates are recomputed. `recompute=True` is the default of Meta-PG,
Meta-MAPG and LOLA-DiCE, whose chains are long; gradients are the same.
""",
}
