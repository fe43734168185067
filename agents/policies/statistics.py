"""Statistics of players' inputs, gathered during play."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from metaduel.agents.policies.base import Policy, Weights, normalisation, reward_scale
from metaduel.agents.trajectories import Trajectories


class RunningStatistics:
    """Mean and variance over batches of any size, as if all had been one (Chan, Golub and LeVeque, 1979), in float64.

    Args:
        size: d.
    """

    def __init__(self, size: int) -> None:
        self.count = torch.zeros((), dtype=torch.float64, device="cpu")  # steps seen
        self.mean = torch.zeros(size, dtype=torch.float64, device="cpu")  # [d]
        self.squares = torch.zeros(size, dtype=torch.float64, device="cpu")  # [d] sum of squared distances to the mean

    def add(self, observation: Tensor, alive: Tensor) -> None:
        """Include the steps that were played.

        Args:
            observation: [N, T, E, d or more]; numbers after the first d (a memory's other inputs) are left out.
            alive: [N, T, E] 1 or 0.
        """
        seen = observation[..., : len(self.mean)][alive > 0].double()  # [steps, d]
        if not len(seen):
            return
        mean = seen.mean(0)
        total, apart = self.count + len(seen), mean - self.mean
        self.squares = self.squares + (seen - mean).square().sum(0) + apart.square() * self.count * len(seen) / total
        self.mean = self.mean + apart * len(seen) / total
        self.count = total

    @property
    def statistics(self) -> tuple[Tensor, Tensor] | None:
        """Mean [d] and standard deviation [d], see ``Policy.statistics``; None before the first observation."""
        return (self.mean, torch.sqrt(self.squares / self.count)) if self.count > 0 else None

    def state(self) -> dict[str, Tensor]:
        """All that ``load`` needs to continue from here."""
        return {"count": self.count, "mean": self.mean, "squares": self.squares}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a ``state``."""
        self.count, self.mean, self.squares = (state[name].clone() for name in ("count", "mean", "squares"))

    @property
    def deviation(self) -> Tensor:
        """Deviation from 0, [d]; 0 before the first observation."""
        return torch.sqrt(self.squares / self.count.clamp(min=1.0) + self.mean.square())


class InputStatistics:
    """Statistics of the inputs of a player's network, and the weights that normalise these.

    Rewards among the inputs are divided by their deviation from 0, since 0 means that there was none. Those that end an episode
    have a deviation of their own: results are often a hundred times as large as the rewards before them.

    Args:
        policy: the network.
        observations: shift and scale observations, too.
    """

    def __init__(self, policy: Policy, observations: bool) -> None:
        self.observations = RunningStatistics(policy.observation_size) if observations else None
        self.reward_at = policy.reward_at  # None: rewards are not scaled
        self.within, self.last = RunningStatistics(1), RunningStatistics(1)

    def __bool__(self) -> bool:
        """Whether anything is normalised."""
        return self.observations is not None or self.reward_at is not None

    def add(self, data: Trajectories) -> None:
        """Include the steps that were played."""
        if self.observations is not None:
            self.observations.add(data.observation, data.alive)
        if self.reward_at is not None:
            self.within.add(data.observation[..., self.reward_at : self.reward_at + 1], data.alive)
            over = data.alive - torch.cat([data.alive[:, 1:], torch.zeros_like(data.alive[:, :1])], 1)
            self.last.add(data.reward.unsqueeze(-1), over)

    @property
    def fixed(self) -> Weights:
        """The weights that normalise by all that was seen so far; empty before the first step."""
        found: Weights = {}
        if self.observations is not None and self.observations.statistics is not None:
            found |= normalisation(self.observations.statistics)
        if self.reward_at is not None and self.within.count > 0:
            found |= reward_scale((self.within.deviation[0], self.last.deviation[0]))
        return found

    @property
    def neutral(self) -> Weights:
        """The same weights before the first step: they change nothing."""
        found: Weights = {}
        if self.observations is not None:
            nothing = torch.zeros_like(self.observations.mean)
            found |= normalisation((nothing, torch.ones_like(nothing)))
        one = torch.ones((), dtype=torch.float64, device="cpu")
        return found | ({} if self.reward_at is None else reward_scale((one, one)))

    def state(self) -> dict[str, Tensor]:
        """All that ``load`` needs to continue from here."""
        state = {} if self.observations is None else self.observations.state()
        if self.reward_at is not None:
            for kind, running in (("within", self.within), ("last", self.last)):
                state |= {f"{kind}/{name}": value for name, value in running.state().items()}
        return state

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a ``state``; one of before rewards were scaled goes on without."""
        if self.observations is not None:
            self.observations.load(state)
        if "within/count" not in state:
            self.reward_at = None
        if self.reward_at is not None:
            for kind, running in (("within", self.within), ("last", self.last)):
                running.load({name: state[f"{kind}/{name}"] for name in running.state()})
