"""Policies as functions of stacked weights: N tasks are one set of tensors with a leading dimension N, and no loop."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from gymnasium import spaces
from torch import Tensor

from metaduel.agents.policies.distributions import Categorical, Distribution, Gaussian
from metaduel.agents.policies.groups import Group
from metaduel.agents.trajectories import Carry
from metaduel.envs.core import noise
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.placed import Placed

Weights = dict[str, Tensor]  # name -> [...] for one player, [N, ...] when stacked
ActionSpace = spaces.Box | spaces.Discrete

ILLEGAL = -1e9  # a logit: finite, so that 0 times it is 0
MIN_LOG_STD = -3.0  # a standard deviation of 0.05: keeps the score function finite
MIN_STD = 1e-6  # an observation that varies less is a constant: shifted, not scaled
FIXED = "fixed."  # weights of these names belong to a player and never adapt
SHIFT, SCALE = f"{FIXED}shift", f"{FIXED}scale"  # [d] each: networks see (observation - shift) * scale
REWARD = f"{FIXED}reward"  # [2]: memories see rewards times the first, those that end an episode times the second


class Policy(ABC):
    """A stochastic policy; stateless: weights are arguments.

    Args:
        observation_size: d.
        action_space: a one-dimensional Box (Gaussian with state-independent standard deviation) or a Discrete.
        initial_log_std: where the Gaussian's log standard deviation starts.

        mask: the part of an observation that says which actions are legal, 1 or 0 each; illegal actions have probability 0.
            None: all actions are legal.

    A step is ``step(weights, carry, input)``: the carry comes from ``initial_carry``, the input from ``input``, and
    ``remember`` adds the action and its reward to the carry. Weights named ``fixed.shift`` and ``fixed.scale`` normalise
    observations, and ``fixed.reward`` scales the rewards among the inputs; each player has its own, and they never adapt.

    Attributes:
        lasting: the carry outlives an episode: the policy adapts by remembering.
        aids: layers that only training needs; checkpoints of before there were any lack them.
        by_row: outputs depend on the step's own input alone, and can be computed at any steps, see ``at_rows``.
    """

    lasting: bool = False
    aids: tuple[str, ...] = ()
    by_row: bool = False

    def __init__(
        self,
        observation_size: int,
        action_space: ActionSpace,
        initial_log_std: float = 0.0,
        mask: slice | None = None,
    ) -> None:
        self.observation_size, self.mask = observation_size, mask
        self.action_space = action_space
        self.initial_log_std = initial_log_std
        self.discrete = isinstance(action_space, spaces.Discrete)
        if isinstance(action_space, spaces.Discrete):
            self.action_size = int(action_space.n)
            self.noise = 1
        elif isinstance(action_space, spaces.Box) and len(action_space.shape) == 1:
            self.action_size = int(action_space.shape[0])
            self.noise = 2 * math.ceil(self.action_size / 2)
            self._bounds = [Placed(torch.from_numpy(bound)) for bound in (action_space.low, action_space.high)]
        else:
            raise InvalidInputError(f"action_space={action_space} must be Discrete or a one-dimensional Box")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.observation_size} to {self.action_size})"

    @abstractmethod
    def init(self, seed: int, dtype: torch.dtype = torch.float32) -> Weights:
        """Fresh weights of one player."""

    @property
    def head_names(self) -> tuple[str, ...]:
        """Names of the weights of the last layer, a Gaussian's deviation included; empty where they are unknown."""
        return ()

    @property
    def carried(self) -> tuple[int, int]:
        """Sizes of the carry's two parts: the memory, and the next input's numbers after the observation."""
        return 0, 0

    @property
    def reward_at(self) -> int | None:
        """The place of the last reward in the network's input; None: it is not there."""
        return None

    @property
    def input_size(self) -> int:
        """Size of the network's input at a step."""
        return self.observation_size + self.carried[1]

    def initial_carry(self, weights: Weights, episodes: int) -> Carry:
        """The carry with which ``episodes`` episodes start for each of N stacked players: [N, episodes, ...]."""
        first = next(iter(weights.values()))
        memory, before = (first.new_zeros(len(first), episodes, size) for size in self.carried)
        return Carry(memory, before)

    def input(self, observation: Tensor, carry: Carry) -> Tensor:
        """The network's input [N, M, input_size]: observations [N, M, d], and the carry's numbers that follow them."""
        return torch.cat([observation, carry.before], -1) if self.carried[1] else observation

    def step(self, prepared: Weights, carry: Carry, given: Tensor) -> tuple[Distribution, Carry]:
        """The action distribution [N, M] at inputs [N, M, input_size], and the carry after it."""
        out, carry = self.advance(prepared, given, carry)
        return self.head(prepared, out), carry

    def advance(self, prepared: Weights, given: Tensor, carry: Carry) -> tuple[Tensor, Carry]:
        """As ``step``, with means or logits [N, M, A]."""
        return self.outputs(prepared, given), carry

    def ready(self, weights: Weights) -> Weights:
        """Stacked weights as ``choose`` takes them: prepared, without a graph, and laid out for the many steps of a rollout."""
        prepared = self.prepare({name: value.detach() for name, value in weights.items()})
        # Stacked weights may be views of one set; products with real copies are faster.
        return {name: value.contiguous() for name, value in prepared.items()}

    def choose(
        self, prepared: Weights, given: Tensor, carry: Carry, scaled_noise: Tensor | None
    ) -> tuple[Tensor, Carry]:
        """Actions at inputs [N, M, input_size], sampled, or without noise the modes, and the carry after them; with weights that
        went through ``ready``.
        """
        if scaled_noise is None:
            distribution, carry = self.step(prepared, carry, given)
            return distribution.mode(), carry
        return self.sample(prepared, given, scaled_noise), carry

    def remember(self, carry: Carry, action: Tensor, reward: Tensor) -> Carry:
        """The carry for the next step: it holds the action [N, M, A] as sampled and its reward [N, M]."""
        return carry

    def end_episode(self, prepared: Weights, carry: Carry) -> Carry:
        """The carry with which the next episode starts."""
        return carry

    def prepare(self, weights: Weights) -> Weights:
        """All that can be computed from stacked weights alone, once for many observations."""
        return weights

    @staticmethod
    def _fold(weights: Weights, matrix: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """The same first layer ([..., d or more, H] and [..., H]) for observations that are not normalised: a normalisation
        that is folded into the weights costs a rollout nothing. Inputs after the observation are left alone.
        """
        if SHIFT not in weights:
            return matrix, bias
        shift, scale = weights[SHIFT], weights[SCALE]
        size = shift.shape[-1]
        seen, rest = matrix[..., :size, :] * scale.unsqueeze(-1), matrix[..., size:, :]
        return torch.cat([seen, rest], -2), bias - (shift.unsqueeze(-2) @ seen).squeeze(-2)

    def _masked(self, out: Tensor, observation: Tensor) -> Tensor:
        """Logits [..., A] at observations [..., d or more], so small for illegal actions that their probability is 0."""
        if self.mask is None:
            return out
        return torch.where(observation[..., self.mask] > 0, out, ILLEGAL)

    @abstractmethod
    def outputs(self, prepared: Weights, observation: Tensor) -> Tensor:
        """Means or logits [N, M, A] for prepared stacked weights and observations [N, M, d]."""

    def __call__(self, weights: Weights, observation: Tensor) -> Distribution:
        """The action distribution: stacked weights and observations [N, M, d] give a batch of shape [N, M]."""
        return self.distribution(self.prepare(weights), observation)

    def over_time(self, prepared: Weights, observation: Tensor) -> Tensor:
        """Means or logits [N, T, M, A] for whole episodes [N, T, M, d]; policies with a memory override this."""
        n, steps, episodes, size = observation.shape
        return self.outputs(prepared, observation.reshape(n, steps * episodes, size)).view(n, steps, episodes, -1)

    def distribution(self, weights: Weights, observation: Tensor) -> Distribution:
        """As ``__call__``, for weights that went through ``prepare``."""
        return self.head(weights, self.outputs(weights, observation))

    def head(self, weights: Weights, out: Tensor) -> Distribution:
        """The distribution with means or logits [N, M, A]."""
        if self.discrete:
            return Categorical(torch.log_softmax(out, -1))
        return Gaussian(out, _log_std(weights))

    def log_prob(self, prepared: Weights, observation: Tensor, action: Tensor) -> Tensor:
        """Log-probabilities [N, T, E] of actions [N, T, E, a] (or [N, T, E] int64) in whole episodes [N, T, E, d]."""
        distribution = self.head(prepared, self.over_time(prepared, observation).flatten(1, 2))
        return distribution.log_prob(action.flatten(1, 2)).view(observation.shape[:3])

    def at_rows(self, prepared: Weights, given: Tensor, groups: tuple[Group, ...]) -> Distribution:
        """The distributions [R, 1] at rows of inputs [R, input_size], in groups, whose sets are those
        of the weights; of policies with ``by_row``.

        Raises:
            NotImplementedError: the policy has no such outputs.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has by_row=False: its outputs are computed over whole episodes"
        )

    def prepare_noise(self, uniforms: Tensor) -> Tensor:
        """The noise for ``Distribution.sample``, from [..., self.noise] uniforms: computed once for a whole rollout."""
        return uniforms if self.discrete else noise.normal(uniforms)[..., : self.action_size].contiguous()

    def scale_noise(self, weights: Weights, prepared_noise: Tensor) -> Tensor:
        """The noise for ``sample``, from prepared noise [..., N, M, n] and stacked weights: once for a whole rollout."""
        return prepared_noise if self.discrete else prepared_noise * torch.exp(_log_std(weights))

    def sample(self, prepared: Weights, observation: Tensor, scaled_noise: Tensor) -> Tensor:
        """Actions as ``distribution(...).sample`` gives them, without the distribution: [N, M, A], or [N, M] int64."""
        return self.pick(prepared, self.outputs(prepared, observation), scaled_noise)

    def pick(self, prepared: Weights, out: Tensor, scaled_noise: Tensor) -> Tensor:
        """Actions with means or logits [N, M, A]."""
        return self.head(prepared, out).sample(scaled_noise) if self.discrete else out + scaled_noise

    def clip(self, action: Tensor) -> Tensor:
        """Clip actions to the action space, for the game; log-probabilities are of the unclipped action."""
        return action if self.discrete else torch.clamp(action, *(bound.on(action.device) for bound in self._bounds))


def _log_std(weights: Weights) -> Tensor:
    """[N, 1, A], kept above the smallest."""
    return weights["log_std"].clamp(min=MIN_LOG_STD).unsqueeze(1)


def adapting(weights: Weights) -> Weights:
    """The weights that may change within a task, in their order."""
    return {name: value for name, value in weights.items() if not name.startswith(FIXED)}


def normalisation(statistics: tuple[Tensor, Tensor], dtype: torch.dtype = torch.float32) -> Weights:
    """Weights that normalise observations by their mean [d] and standard deviation [d]."""
    mean, std = statistics
    return {SHIFT: mean.to(dtype), SCALE: torch.where(std > MIN_STD, 1.0 / std, 1.0).to(dtype)}


def reward_scale(deviations: tuple[Tensor, Tensor], dtype: torch.dtype = torch.float32) -> Weights:
    """Weights that divide rewards among the inputs by their deviations from 0, [] each: within episodes, and at their ends."""
    found = torch.stack(deviations)
    return {REWARD: torch.where(found > MIN_STD, 1.0 / found, 1.0).to(dtype)}


def stack(weights: Weights, n: int) -> Weights:
    """Repeat one player's weights for ``n`` tasks (a view: gradients add up)."""
    return {name: value.unsqueeze(0).expand(n, *value.shape) for name, value in weights.items()}
