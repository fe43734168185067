"""Meta-PG, Meta-MAPG and LOLA-DiCE: one gradient, three choices of what flows through the updates.

Write x_k for a player's own weights after k updates and y_k for its peer's (the other learner's, or a persona's), L for its own
loss and M for the peer's, both expectations over episodes that x and y play together:

    x_(k+1) = x_k - a_k dL/dx (x_k, y_k)          y_(k+1) = y_k - b_k dM/dy (x_k, y_k)
    outer loss   J(x_0) = mean over k = 1..K of L(x_k, y_k)

The gradient of J with respect to the own start x_0 has three kinds of terms, written in scores s = grad log pi and with G the
return of the last episodes (Kim et al., theorem 1):

    E[ G(tau_K) ( s(tau_0 | x_0)  +  sum_(k=1..K) s(tau_k | x_k) dx_k/dx_0  +  sum_(k=1..K) s(tau_k | y_k) dy_k/dx_0 ) ]
                  current policy         own learning                              peer learning

The objects that are differentiated:

- ``meta_pg`` (Al-Shedivat et al., ICLR 2018), terms own: J with the y_k taken as constants. The peer learns, but the player's
  influence on its learning is ignored.
- ``meta_mapg`` (Kim et al., ICML 2021), terms own, peer: J itself, the total derivative. y_(k+1) depends on x_0 because x_k
  plays the episodes from which the peer learns.
- ``lola_dice`` (Foerster et al., AAMAS 2018; with DiCE, ICML 2018), terms peer: there is no own learning,

      y_(k+1) = y_k - b dM/dy (x, y_k),  k < K look-aheads        gradient of L(x, y_K(x)) with respect to x

  from the present (x, y_0) of both players. Each player imagines the other's updates and takes its own outer step. The two
  look-aheads are separate and drawn separately: shots 0..K are the protagonist's, K + 1..2 K + 1 the adversary's. The outer
  step is the learning that the other player looks ahead to: the trained player is its start. A loaded player adapts with the
  update that the other player imagined for it.

Order: second and above, exact: the surrogate is DiCE of the *sum* of both players' log-probabilities, whose derivatives of every
order are right (``Batch.losses(joint=True)``). Other surrogates lack the mixed terms and are refused where the peer term is on.
Meta-PG needs only the player's own log-probabilities. Advantages are as ``LossConfig`` says: with a discount below 1 set
``exact_discount`` for the derivative of the discounted return.

Differs from the papers: one learned rate per step and weight tensor unless ``inner_lr_per`` is ``step``; Adam outside.

Limits: the peer term needs a peer that learns. Each shot's graph is built again in the backward pass (``recompute``), so memory
does not grow with K.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

from torch import Tensor

from metaduel.agents.policies.base import Weights
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.spec import ROLES, Role
from metaduel.meta.adaptation.inner import Diverged
from metaduel.meta.adaptation.work import Work
from metaduel.meta.learners.maml import MAML, MAMLConfig, Unrolled, after_adaptation
from metaduel.meta.problems.problem import Mixture, Tasks, parts_of

Term = Literal["own", "peer"]
TERMS: dict[str, tuple[Term, ...]] = {"meta_pg": ("own",), "meta_mapg": ("own", "peer"), "lola_dice": ("peer",)}


@dataclass(frozen=True)
class MAPGConfig(MAMLConfig):
    """MAML's settings, and

    Attributes:
        terms: the terms beside the current policy: ``own`` learning, ``peer`` learning, or both; by default those of the
            method's name.
    """

    terms: tuple[Term, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        known = {frozenset(terms): terms for terms in TERMS.values()}
        if self.terms and (frozenset(self.terms) not in known or len(set(self.terms)) != len(self.terms)):
            raise InvalidInputError(f"terms={self.terms!r} must be one of {', '.join(map(repr, TERMS.values()))}")
        object.__setattr__(self, "terms", known.get(frozenset(self.terms), ()))


def meta_pg(config: MAMLConfig) -> MAMLConfig:
    """Meta-PG's settings; refuses those that contradict it."""
    if config.peer:
        raise InvalidInputError("peer=True: in Meta-PG the peer's learning is constant; use method meta_mapg")
    return _configure("meta_pg", config)


def meta_mapg(config: MAMLConfig) -> MAMLConfig:
    """Meta-MAPG's settings; refuses those that contradict it."""
    return _configure("meta_mapg", config)


def lola_dice(config: MAMLConfig) -> MAMLConfig:
    """LOLA-DiCE's settings: ``steps`` look-aheads at one fixed rate; refuses those that contradict it."""
    return replace(_configure("lola_dice", config), learn_inner_lr=False, outer_shots="last")


def _configure(name: str, config: MAMLConfig) -> MAPGConfig:
    terms = TERMS[name]
    own = {f.name: getattr(config, f.name) for f in fields(config)}
    if own.get("terms") and own["terms"] != terms:
        right = next(other for other, theirs in TERMS.items() if theirs == own["terms"])
        raise InvalidInputError(f"terms={own['terms']!r}: {name} is {terms!r}; use method {right}")
    if config.steps < 1:
        raise InvalidInputError(f"steps={config.steps}: {name} needs at least 1 update; use method joint for none")
    if not config.second_order:
        raise InvalidInputError(f"second_order=False: {name} is what flows through updates; use method fomaml")
    recompute = True if config.recompute is None else config.recompute
    return MAPGConfig(**(own | {"terms": terms, "peer": "peer" in terms, "recompute": recompute}))


def look_ahead(learner: MAML, problem: Tasks) -> Work[tuple[dict[Role, Tensor], Sequence[Unrolled]]]:
    """LOLA's objective: each player's loss after the other's imagined updates alone; see the module."""
    result: dict[Role, Tensor] = {}
    unrolled: list[Unrolled] = []
    for role in learner.start:
        first = 0 if role == ROLES[0] else learner.config.steps + 1
        met = {number: part for number, part in enumerate(parts_of(problem)) if role in part.learners}
        if met:
            moving = [other for other in ROLES if other != role]
            try:
                unrolled.append((yield from learner.unrolling(Mixture(tuple(met.values())), moving, first)))
            except Diverged as error:
                error.part = list(met)[error.part]
                drawn = [batch for one in unrolled for batches in one.batches for batch in batches]
                error.environment_steps += sum(batch.environment_steps for batch in drawn)
                raise
            result[role] = learner.outer_loss(role, unrolled[-1].losses)
    return result, unrolled


def MAPG(
    start: Mapping[Role, Weights], config: MAPGConfig, heads: Mapping[Role, tuple[str, ...]] | None = None
) -> MAML:
    """The learner of the terms that are on; see the module."""
    return MAML(start, config, heads, after_adaptation if "own" in config.terms else look_ahead)
