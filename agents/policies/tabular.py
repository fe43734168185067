"""Policies on one-hot observations: with a finite number of states, a policy is a table with a row for each.

``TabularPolicy`` has its table as its weights; ``PerState`` computes the table of any policy without memory, once per state.
Both give the same numbers as the plain path: a product with a one-hot row selects a row of the table.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from metaduel.agents.policies.base import ActionSpace, Policy, Weights
from metaduel.agents.policies.distributions import Categorical, Distribution
from metaduel.envs.core.errors import InvalidInputError


class LookupPolicy(Policy):
    """A policy whose prepared weights are the log-probabilities of its actions in every state: [N, S, A].

    Args:
        states: S; the first S numbers of an observation are one-hot, the rest is ignored.
        observation_size: d.
        action_space: Discrete.

    Raises:
        InvalidInputError: another action space, or an observation smaller than the states.
    """

    def __init__(self, states: int, observation_size: int, action_space: ActionSpace) -> None:
        super().__init__(observation_size, action_space)
        if not self.discrete:
            raise InvalidInputError(f"action_space={action_space} must be Discrete: a table has a column per action")
        if not 1 <= states <= observation_size:
            raise InvalidInputError(
                f"states={states} must be between 1 and the observation's {observation_size} numbers"
            )
        self.states = states

    @abstractmethod
    def logits(self, weights: Weights) -> Tensor:
        """Logits in every state [N, S, A] for stacked weights."""

    def prepare(self, weights: Weights) -> Weights:
        """The table of log-probabilities."""
        return {"log_probs": torch.log_softmax(self.logits(weights), -1)}

    def outputs(self, prepared: Weights, observation: Tensor) -> Tensor:
        """Log-probabilities [N, M, A]."""
        return observation[..., : self.states] @ prepared["log_probs"]

    def head(self, weights: Weights, out: Tensor) -> Distribution:
        """See ``Policy.head``."""
        return Categorical(out)

    def sample(self, prepared: Weights, observation: Tensor, scaled_noise: Tensor) -> Tensor:
        """See ``Policy.sample``; sums over actions are taken once per state."""
        cumulative = torch.exp(prepared["log_probs"]).cumsum(-1)[..., :-1]
        return (observation[..., : self.states] @ cumulative <= scaled_noise).sum(-1)

    def log_prob(self, prepared: Weights, observation: Tensor, action: Tensor) -> Tensor:
        """See ``Policy.log_prob``; gathered from the table by state and action."""
        table = prepared["log_probs"].flatten(1)
        index = observation[..., : self.states].argmax(-1) * self.action_size + action
        return table.gather(1, index.flatten(1)).view(action.shape)


class TabularPolicy(LookupPolicy):
    """A table of logits, one row per state: in repeated matrix games any memory-1 policy is one. It starts uniform."""

    @property
    def head_names(self) -> tuple[str, ...]:
        """See ``Policy``."""
        return ("table",)

    def init(self, seed: int, dtype: torch.dtype = torch.float32) -> Weights:
        """The uniform policy, whatever the seed."""
        return {"table": torch.zeros(self.states, self.action_size, dtype=dtype, device="cpu")}

    def logits(self, weights: Weights) -> Tensor:
        """The weights."""
        return weights["table"]


class PerState(LookupPolicy):
    """A policy without memory, evaluated once per state instead of once per step.

    Args:
        policy: the policy; its weights are the weights.
    """

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy.observation_size, policy.observation_size, policy.action_space)
        self.policy = policy

    @property
    def head_names(self) -> tuple[str, ...]:
        """See ``Policy``."""
        return self.policy.head_names

    def init(self, seed: int, dtype: torch.dtype = torch.float32) -> Weights:
        """See ``Policy``."""
        return self.policy.init(seed, dtype)

    def logits(self, weights: Weights) -> Tensor:
        """The policy's logits in every state."""
        first = next(iter(weights.values()))
        every = torch.eye(self.states, dtype=first.dtype, device=first.device).expand(first.shape[0], -1, -1)
        return self.policy.outputs(self.policy.prepare(weights), every)
