"""RL^2: fast reinforcement learning via slow reinforcement learning (Duan et al., 2016; Wang et al., 2016), for both players.

    memory       h <- f_theta(h, observation, previous action and reward, end of episode), from one episode into the next
    policy       pi_theta(action | h)
    critic       V_theta(observation, h), in units of the running deviation of its targets
    advantages   GAE (Schulman et al., ICLR 2016) over a whole chain: gamma within an episode, another across its end
    outer loss   PPO's (Schulman et al., 2017): the clipped surrogate, the critic's squared error, an entropy bonus;
                 several epochs of minibatches of tasks

No weight changes within a task: a player adapts by remembering, and both players do so at once. A chain (the paper's *trial*)
has as many episodes as a gradient-based method uses for ``steps`` updates and the tests, (K + 1) times ``episodes``, or
``chain_episodes``. Credit flows over the ends of episodes. Inputs, rewards among them, are divided by their running deviations.

Order: first. Differs from the papers: PPO in place of TRPO and of A3C.

Limits: the gradient goes back through the whole chain, so that memory grows with its length, unless ``truncation`` cuts it;
needs a policy with a memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from metaduel.agents.objective.config import LossConfig
from metaduel.agents.policies.base import Weights
from metaduel.envs.core.errors import InvalidInputError, check_whole, unknown, without_effect
from metaduel.envs.core.spec import Role
from metaduel.meta.adaptation.pieces import Chaining
from metaduel.meta.adaptation.work import Work, alone
from metaduel.meta.learners.learner import Learner, Starts, Update, adam
from metaduel.meta.learners.maml import MAMLConfig
from metaduel.meta.problems.chains import Chain, ChainProblem
from metaduel.meta.problems.problem import Tasks

CARRIES = ("stored", "refreshed")
MINIBATCHES = 4  # PPO's usual number
TINY = 1e-12  # a mean square of targets that are 0
EPS = 1e-5  # of Adam, as is usual with PPO


@dataclass(frozen=True)
class RL2Config(MAMLConfig):
    """MAML's settings, without effect for those of the inner step except ``steps``, and

    Attributes:
        outer_steps: epochs: passes over every batch of chains.
        minibatches: parts of a batch's tasks, with a step of the optimiser on each; None: 4, or as many as there are tasks.
        clip: ratios are clipped to [1 - clip, 1 + clip].
        value_coefficient: weight of the critic's loss.
        entropy: weight of the policy's entropy, a bonus.
        episode_discount: gamma from the last step of an episode to the first step of the next; within episodes it is the loss's
            ``discount``.
        chain_episodes: episodes of a chain; 0: (K + 1) times ``episodes``.
        truncation: inputs through which gradients go back in time; 0: through the whole chain.
        carries: the memories with which truncated segments begin: ``stored`` when the chain was played, or ``refreshed`` with
            the present weights at every epoch.
        outer_lr: as in MAML's settings.
        momentum: as in MAML's settings, with PPO's usual default.
        max_norm: as in MAML's settings, with PPO's usual default.
    """

    outer_steps: int = 4
    minibatches: int | None = None
    clip: float = 0.2
    value_coefficient: float = 0.5
    entropy: float = 0.003
    episode_discount: float = 0.9
    chain_episodes: int = 0
    truncation: int = 0
    carries: Literal["stored", "refreshed"] = "stored"
    outer_lr: float = 1e-3
    momentum: float = 0.9
    max_norm: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("outer_steps", self.outer_steps)
        if self.minibatches is not None:
            check_whole("minibatches", self.minibatches)
        check_whole("chain_episodes", self.chain_episodes, 0)
        check_whole("truncation", self.truncation, 0)
        if not 0 < self.clip < 1:
            raise InvalidInputError(f"clip={self.clip!r} must be between 0 and 1")
        if not self.value_coefficient > 0:
            raise InvalidInputError(
                f"value_coefficient={self.value_coefficient!r} must be above 0, or the critic would learn nothing"
            )
        if not self.entropy >= 0:
            raise InvalidInputError(f"entropy={self.entropy!r} must be at least 0")
        if not 0 <= self.episode_discount <= 1:
            raise InvalidInputError(f"episode_discount={self.episode_discount!r} must be in [0, 1]")
        if self.carries not in CARRIES:
            raise unknown("carries", self.carries, CARRIES)
        if self.carries != "stored" and not self.truncation:
            raise without_effect("carries", self.carries, "truncation=0: gradients go back through the whole chain")

    def chain(self, episodes: int) -> int:
        """Episodes of a chain, from those of a shot."""
        return self.chain_episodes or (self.steps + 1) * episodes

    def parts(self, tasks: int) -> int:
        """Minibatches of so many tasks."""
        return min(MINIBATCHES, tasks) if self.minibatches is None else self.minibatches


def check_chains(config: MAMLConfig, loss: LossConfig, tasks: int) -> None:
    """Refuse settings of chains that cannot work together.

    Args:
        config: the learner's settings.
        loss: settings of the loss.
        tasks: tasks per iteration and player.

    Raises:
        InvalidInputError: more minibatches than tasks; discounts with which no step bears credit for a later one.
    """
    minibatches = getattr(config, "minibatches", None)
    if minibatches is not None and minibatches > tasks:
        raise InvalidInputError(f"minibatches={minibatches}: there are {tasks} tasks; use at most as many")
    if loss.discount == 0 and getattr(config, "episode_discount", 0.0) == 0:
        raise InvalidInputError(
            "discount=0 and episode_discount=0: no step follows another, and the critic has nothing to bootstrap; set one above 0"
        )


def configure(config: MAMLConfig) -> MAMLConfig:
    """RL^2's settings.

    Raises:
        InvalidInputError: a setting of the inner step, which this method does not have, or no episode to remember.
    """
    if config.peer:
        raise InvalidInputError("peer=True: there is no update to differentiate; use method maml")
    if config.steps < 1:
        raise InvalidInputError(
            f"steps={config.steps}: must be at least 1, or there is nothing to remember; see method joint"
        )
    if config.adapts != "all":
        raise InvalidInputError(f"adapts={config.adapts!r}: no weight adapts, a memory does; use method anil")
    if config.recompute:
        raise InvalidInputError("recompute=True: there is no update whose graph could be built again; leave it out")
    return replace(config, learn_inner_lr=False, inner_lr_per="step", adapts="all", second_order=False)


class RL2(Learner):
    """See the module.

    Args:
        start: initial weights per player.
        config: settings.
        heads: unused: no weight adapts.
        moves: names of the weights that these steps move; None: all.
    """

    def __init__(
        self,
        start: Mapping[Role, Weights],
        config: RL2Config,
        heads: Mapping[Role, tuple[str, ...]] | None = None,
        moves: Callable[[str], bool] | None = None,
    ) -> None:
        self.config = config
        optimiser = adam(len(start), config.momentum, config.max_norm, eps=EPS)
        self.starts = Starts(start, config.outer_lr, optimiser, moves)
        self._values = self.scales = ValueScales(start)
        self.parts = (self.starts, self._values)

    def updating(self, problem: Tasks, lr_scale: float = 1.0) -> Work[Update]:
        """``outer_steps`` passes over one batch of chains; see ``Learner.updating``."""
        chain = yield from self.chain(problem)
        return Update(self.learn(chain, lr_scale), chain=chain)

    def chain(self, problem: Tasks) -> Work[Chain]:
        """The chains of all tasks, one for each.

        Raises:
            InvalidInputError: a problem without episodes.
        """
        if not isinstance(problem, ChainProblem):
            raise InvalidInputError(
                f"{type(problem).__name__}: a memory that lasts over episodes is not supported here"
            )
        episodes = self.config.chain(problem.episodes)
        shots = min(self.config.steps + 1, episodes)
        chain: Chain = yield Chaining(problem, self.starts.once(), episodes, shots)
        return chain

    def learn(self, chain: Chain, lr_scale: float) -> dict[str, float]:
        """Take the steps; returns metrics by name."""
        config, metrics, scales = self.config, dict[str, float](), self._values.scales
        once = self.starts.once()
        credits = {
            role: chain.credit(role, once[role], scales[role], config.episode_discount, config.truncation)
            for role in chain.episodes
        }
        for epoch in range(config.outer_steps):
            if epoch and config.truncation and config.carries == "refreshed":
                once = self.starts.once()
                credits = {role: chain.refreshed(role, once[role], own) for role, own in credits.items()}
            batches = self.batches(chain, epoch)
            for tasks in batches:
                once = self.starts.once()
                losses = {
                    role: chain.loss(
                        role, once[role], credits[role].of(own), scales[role], config.clip, config.value_coefficient,
                        config.entropy,
                    )
                    for role, own in tasks.items()
                }  # fmt: skip
                for role, gradient in alone(self.starts.gradients(losses)).items():
                    metrics |= self.starts.step(role, gradient, lr_scale)
        for role, credit in credits.items():
            self._values.add(role, credit.target[~credit.played.ends])
            metrics[f"{role}/value_scale"] = self._values.scales[role]
        return metrics

    def batches(self, chain: Chain, draw: int) -> list[dict[Role, Tensor]]:
        """Minibatches: each player's tasks in random parts, which depend on ``draw``."""
        parts = {
            role: chain.batches(role, self.config.parts(own[0].reward.shape[2]), draw)
            for role, own in chain.episodes.items()
        }
        return [dict(zip(parts, own, strict=True)) for own in zip(*parts.values(), strict=True)]


class ValueScales:
    """Running deviations of the critics' targets from 0, by which they are divided.

    Args:
        roles: the players.

    Attributes:
        scales: per role; 1 before the first batch.
    """

    KEPT = 0.95  # of the mean square, from one batch to the next

    def __init__(self, roles: Iterable[Role]) -> None:
        self._squares = {role: torch.zeros(2, dtype=torch.float64, device="cpu") for role in roles}  # sum and weight

    @property
    def scales(self) -> dict[Role, float]:
        """See the class."""
        found = {}
        for role, (total, weight) in self._squares.items():
            mean = float(total / weight) if weight > 0 else 1.0
            found[role] = max(mean, TINY) ** 0.5
        return found

    def add(self, role: Role, target: Tensor) -> None:
        """Include a batch's targets [R]."""
        now = torch.stack([target.double().square().mean(), torch.ones((), dtype=torch.float64, device="cpu")])
        self._squares[role] = self.KEPT * self._squares[role] + (1 - self.KEPT) * now

    def state(self) -> dict[str, Tensor]:
        """See ``Stateful``."""
        return {f"{role}/value_squares": squares for role, squares in self._squares.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """See ``Stateful``."""
        self._squares = {role: state[f"{role}/value_squares"].clone() for role in self._squares}
