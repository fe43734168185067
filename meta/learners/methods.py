"""The methods by name. A new one is a file beside ``maml.py`` and a line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from metaduel.agents.objective.losses import Surrogate
from metaduel.agents.policies.base import ActionSpace
from metaduel.agents.policies.latent import LatentPolicy
from metaduel.agents.policies.memory import MemoryPolicy
from metaduel.envs.core.errors import InvalidInputError, unknown
from metaduel.meta.learners import (
    anil,
    e_maml,
    joint,
    latent,
    mapg,
    meta_sgd,
    promp,
    rarl,
    reptile,
    rl2,
    self_play,
    trpo,
)
from metaduel.meta.learners.learner import Learner
from metaduel.meta.learners.maml import MAML, MAMLConfig


@dataclass(frozen=True)
class Method:
    """A method, by its name.

    Attributes:
        name: the name, for ``train``.
        paper: the source.
        adapts: the parameters that change within a task.
        flows: what the outer gradient flows through.
        configure: turns the user's settings into the method's; refuses those that contradict it.
        learner: makes the learner from starts, settings and the names of the players' heads.
        settings: the class of its settings.
        surrogates: the surrogates that it supports; the first is the default.
        personas: whether its players may meet learning personas.
        meets: whether the opponent is the other learner: all tasks are against it unless ``learned_share`` says otherwise, and
            some must be.
        on_data: whether it needs only losses, so that tasks may be data, see ``meta.problems.supervised``.
        ignores: settings of the learner and the loss that have no effect in it.
        memory: for methods that adapt by remembering: makes the policy, from the size of observations, the player's and the
            opponent's action space, the width, the initial log standard deviation, and the mask.
    """

    name: str
    paper: str
    adapts: str
    flows: str
    configure: Callable[[MAMLConfig], MAMLConfig]
    learner: Callable[..., Learner] = MAML
    settings: type[MAMLConfig] = MAMLConfig
    surrogates: tuple[Surrogate, ...] = ("lvc", "plain", "dice")
    personas: bool = True
    meets: bool = False
    on_data: bool = False
    ignores: tuple[str, ...] = ()
    memory: Callable[[int, ActionSpace, ActionSpace, int, float, slice | None], MemoryPolicy] | None = None

    def idle(self, learner: MAMLConfig) -> tuple[str, ...]:
        """Settings without effect: those that it ignores, unless their value is the one that the method has anyway."""
        made = self.configure(self.settings())
        return tuple(name for name in self.ignores if getattr(learner, name, self) != getattr(made, name, None))


def _first_order(config: MAMLConfig) -> MAMLConfig:
    if config.peer:
        raise InvalidInputError("peer=True: first-order MAML differentiates no update; use method maml")
    return replace(config, second_order=False)


# The settings of learned step sizes and of an update's derivative, for methods that are fine-tuned in validation alone.
_LEARNED = (
    *("inner_lr", "adversary_inner_lr", "learn_inner_lr", "inner_lr_per", "inner_lr_outer_lr"),
    *("second_order", "outer_shots", "peer", "recompute"),
)
# The settings of an update, for methods that have none anywhere.
_MEMORY = (*_LEARNED, "adapts", "inner_discount", "adversary_inner_discount", "inner_baseline", "baseline")

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            "maml",
            "Finn, Abbeel and Levine, ICML 2017",
            "all weights, with learned rates per step",
            "own learning, second order (peer=True: the other player's learning too)",
            lambda config: config,
            on_data=True,
        ),
        Method(
            "maml_trpo",
            "Finn, Abbeel and Levine, ICML 2017; Schulman et al., ICML 2015",
            "all weights, with learned rates per step",
            "own learning, second order; the outer step stays within a trust region of the adapted policies",
            lambda config: config,
            trpo.TRPO,
            trpo.TRPOConfig,
            surrogates=("lvc",),
            personas=False,
            ignores=("outer_lr",),
        ),
        Method(
            "fomaml",
            "Finn, Abbeel and Levine, ICML 2017, section 5.2",
            "all weights, with learned rates per step",
            "nothing: updates are constants",
            _first_order,
            on_data=True,
            ignores=("second_order", "recompute"),
        ),
        Method(
            "anil",
            "Raghu, Raghu, Bengio and Vinyals, ICLR 2020",
            "the head's weights alone",
            "own learning, second order",
            anil.configure,
            on_data=True,
            ignores=("adapts",),
        ),
        Method(
            "meta_sgd",
            "Li, Zhou, Chen and Li, 2017",
            "all weights, with a learned rate for each number in them",
            "own learning, second order",
            meta_sgd.configure,
            on_data=True,
            ignores=("inner_lr_per",),
        ),
        Method(
            "e_maml",
            "Stadie et al., 2018",
            "all weights, with learned rates per step",
            "own learning, second order, and the probability of the adaptation data",
            e_maml.configure,
            e_maml.EMAML,
            e_maml.EMAMLConfig,
            surrogates=("plain",),
        ),
        Method(
            "promp",
            "Rothfuss et al., ICLR 2019",
            "all weights, with learned rates per step",
            "own learning, second order; several clipped outer steps per sample",
            lambda config: config,
            promp.ProMP,
            promp.ProMPConfig,
            surrogates=("lvc",),
        ),
        Method(
            "reptile",
            "Nichol, Achiam and Schulman, 2018",
            "all weights, with one fixed rate per update",
            "nothing: the start moves towards the adapted weights",
            reptile.configure,
            reptile.Reptile,
            reptile.ReptileConfig,
            on_data=True,
            ignores=(
                "learn_inner_lr",
                "inner_lr_outer_lr",
                "second_order",
                "outer_shots",
                "recompute",
                "discount",
                "baseline",
            ),
        ),
        Method(
            "rl2",
            "Duan et al., 2016; Wang et al., 2016",
            "no weights: a memory that lasts over the episodes of a task",
            "the whole chain of episodes",
            rl2.configure,
            rl2.RL2,
            rl2.RL2Config,
            memory=lambda size, own, other, units, log_std, mask: MemoryPolicy(size, own, units, log_std, mask),
            surrogates=("lvc",),
            personas=False,
            ignores=_MEMORY,
        ),
        Method(
            "latent",
            "Zintgraf et al., ICLR 2020 (VariBAD), with the opponent's actions as in Papoudakis et al., NeurIPS 2021 (LIAM)",
            "no weights: a belief about task and opponent, kept by a memory that lasts over the episodes of a task",
            "the policy's gradient stops at the belief, which learns to predict rewards and the opponent's actions",
            rl2.configure,
            latent.Latent,
            rl2.RL2Config,
            memory=LatentPolicy,
            surrogates=("lvc",),
            personas=False,
            ignores=_MEMORY,
        ),
        Method(
            "joint",
            "the no-adaptation baseline: one policy for all tasks",
            "nothing in training",
            "nothing: there is no inner step; it gets the same number of episodes per iteration",
            joint.configure,
            joint.Joint,
            joint.JointConfig,
            on_data=True,
            ignores=_LEARNED,
        ),
        Method(
            "self_play",
            "Heinrich, Lanctot and Silver, ICML 2015; Vinyals et al., Nature 2019",
            "nothing in training",
            "nothing: both players learn at once, each against past selves of the other",
            self_play.configure,
            self_play.SelfPlay,
            self_play.SelfPlayConfig,
            personas=False,
            meets=True,
            ignores=_LEARNED,
        ),
        Method(
            "rarl",
            "Pinto, Davidson, Sukthankar and Gupta, ICML 2017",
            "nothing in training",
            "nothing: both players learn in turn, each against the other held fixed",
            rarl.configure,
            rarl.RARL,
            rarl.RARLConfig,
            meets=True,
            ignores=(*_LEARNED, "momentum"),
        ),
        Method(
            "meta_pg",
            "Al-Shedivat, Bansal, Burda, Sutskever, Mordatch and Abbeel, ICLR 2018",
            "all weights, with learned rates per step",
            "current policy + own learning, unbiased: the peer's learning is constant",
            mapg.meta_pg,
            mapg.MAPG,
            mapg.MAPGConfig,
            ("dice", "lvc", "plain"),
        ),
        Method(
            "meta_mapg",
            "Kim et al., ICML 2021",
            "all weights, with learned rates per step",
            "current policy + own learning + peer learning: the total derivative through both players' updates",
            mapg.meta_mapg,
            mapg.MAPG,
            mapg.MAPGConfig,
            ("dice",),
            ignores=("peer",),
        ),
        Method(
            "lola_dice",
            "Foerster et al., AAMAS 2018 and ICML 2018",
            "nothing in training: the own weights stay while the other takes look-ahead steps, with one fixed rate",
            "current policy + peer learning: the other's look-ahead updates",
            mapg.lola_dice,
            mapg.MAPG,
            mapg.MAPGConfig,
            ("dice",),
            ignores=("learn_inner_lr", "inner_lr_outer_lr", "outer_shots", "peer"),
        ),
    )
}


def find_method(name: str) -> Method:
    """The method of that name, or the error that lists them."""
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    return METHODS[name]
