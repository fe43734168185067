"""The cases of the proofs: methods with their settings, and their starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from metaduel.agents.objective.losses import Surrogate
from metaduel.benchmarks.tools.enumerated import AllBatches, AllTrajectories, Flow
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.spec import ROLES, Role
from metaduel.meta.learners.e_maml import EMAML
from metaduel.meta.learners.joint import Joint
from metaduel.meta.learners.maml import MAML
from metaduel.meta.learners.mapg import MAPG
from metaduel.meta.learners.methods import METHODS, Method
from metaduel.meta.learners.promp import ProMP
from metaduel.meta.learners.reptile import Reptile
from metaduel.meta.learners.trpo import TRPO
from metaduel.meta.problems.problem import Players

RATE = 1.5  # step size of the updates; the objective is a return per step
STEPS = (1, 2, 3)  # K
HORIZON, DISCOUNT = 3, 0.9
HEAD = ("layer0.bias",)  # the weights that ANIL adapts
BATCH = 2  # episodes in each batch of E-MAML's updates
KNOWN = (MAML, Joint, TRPO, ProMP, MAPG, EMAML, Reptile)  # learners whose declared objective is written out here


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
        """The learner with K = ``steps``, always from the same start; all its step sizes are different, around ``rate``."""
        method = METHODS[self.method]
        config = method.configure(method.settings(steps=steps, inner_lr=rate, **self.settings))
        learner = method.learner(start_of_play() if self.batches else start(), config, dict.fromkeys(ROLES, HEAD))
        for log_rates in ({} if learner.inner is None else learner.inner.log_rates).values():
            with torch.no_grad():
                kind, place = log_rates.dtype, log_rates.device
                log_rates += torch.linspace(-0.3, 0.3, log_rates.numel(), dtype=kind, device=place).view_as(log_rates)
        return learner

    def problem(self, steps: int) -> AllTrajectories | AllBatches:
        """The listed game of the proof."""
        return AllBatches(steps, BATCH) if self.batches else AllTrajectories(self.surrogate, HORIZON, DISCOUNT)

    @property
    def flow(self) -> Flow:
        """The derivatives of the updates that the method includes; E-MAML and Reptile declare objects of their own."""
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
        """The kind of flow, in a word."""
        if not self.updates or not self.learner(1).config.second_order:
            return "nothing"
        return {(True, False): "own", (True, True): "total", (False, True): "peer"}[self.flow[:2]]

    @property
    def labels(self) -> tuple[str, str, str]:
        """Method, surrogate and kind of flow."""
        name = self.method + "".join(f", {k}={v}" for k, v in self.settings.items() if k != "peer")
        return name, self.surrogate if self.through != "nothing" else "any", self.through


def gradient_based(method: Method) -> bool:
    """Whether it has an inner step on the weights."""
    return method.memory is None and method.configure(method.settings()).steps > 0


def cases() -> list[Case]:
    """Every method with a known objective, with every surrogate that it supports, for own learning alone and in total. Without a
    second derivative all surrogates are the same, and there is one case.
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
        role: {
            n: torch.randn(*shape, generator=generator, dtype=torch.float64, device="cpu")
            for n, shape in shapes.items()
        }
        for role in ROLES
    }


def start_of_play() -> Players:
    """The same for one play: two logits, half as a weight on a constant and half as a bias."""
    logits: dict[Role, Tensor] = {
        "protagonist": torch.tensor([0.3, -0.4], dtype=torch.float64, device="cpu"),
        "adversary": torch.tensor([-0.2, 0.6], dtype=torch.float64, device="cpu"),
    }
    halves = {role: 0.5 * value for role, value in logits.items()}
    return {role: {"layer0.weight": half.view(1, 2), "layer0.bias": half} for role, half in halves.items()}
