"""Policies with a memory that lasts for one episode, on stacked weights."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from metaduel.agents.policies.base import REWARD, ActionSpace, Policy, Weights
from metaduel.agents.policies.recurrence import gru, lstm
from metaduel.agents.trajectories import Carry


class RecurrentPolicy(Policy):
    """A recurrent unit and a linear output.

    Its input holds the previous action and reward beside the observation (as in RL^2, Duan et al., 2016). The input, which a
    rollout records as the observation, is [..., d + A + 1]: the observation, the previous action (clipped to its bounds, or
    one-hot) and the previous reward, both 0 at the first step. PyTorch's cells have no batching rule over weights, so they
    are written out. The memory is [..., parts * units]; the output reads the first part.

    Args:
        observation_size: d.
        action_space: Box or Discrete.
        units: width of the memory.
        initial_log_std: see ``Policy``.
        mask: see ``Policy``.
    """

    gates: int  # blocks of ``units`` columns that input and memory are mapped to; the third is ``new``
    parts: int  # of the memory

    def __init__(
        self,
        observation_size: int,
        action_space: ActionSpace,
        units: int = 64,
        initial_log_std: float = 0.0,
        mask: slice | None = None,
    ) -> None:
        super().__init__(observation_size, action_space, initial_log_std, mask)
        self.units = units

    @property
    def head_names(self) -> tuple[str, ...]:
        """See ``Policy``."""
        return ("output.weight", "output.bias", "log_std")

    @property
    def carried(self) -> tuple[int, int]:
        """See ``Policy``: memory; previous action and reward."""
        return self.parts * self.units, self.action_size + 1

    @property
    def reward_at(self) -> int:
        """See ``Policy``."""
        return self.observation_size + self.action_size

    def init(self, seed: int, dtype: torch.dtype = torch.float32) -> Weights:
        """Fresh weights of one player: orthogonal, gain 0.1 at the output."""
        generator = torch.Generator().manual_seed(seed)

        def matrix(rows: int, columns: int, gain: float = 1.0) -> Tensor:
            values = torch.empty(rows, columns, dtype=torch.float64, device="cpu")
            return nn.init.orthogonal_(values, gain=gain, generator=generator).to(dtype)

        weights: Weights = {
            "input.weight": torch.cat([matrix(self.input_size, self.units) for _ in range(self.gates)], 1),
            "input.bias": torch.zeros(self.gates * self.units, dtype=dtype, device="cpu"),
            "memory.weight": torch.cat([matrix(self.units, self.units) for _ in range(self.gates)], 1),
            "memory.bias": torch.zeros(self.gates * self.units, dtype=dtype, device="cpu"),
            "output.weight": matrix(self.units, self.action_size, 0.1),
            "output.bias": torch.zeros(self.action_size, dtype=dtype, device="cpu"),
        }
        if not self.discrete:
            weights["log_std"] = torch.full((self.action_size,), self.initial_log_std, dtype=dtype, device="cpu")
        return weights

    def remember(self, carry: Carry, action: Tensor, reward: Tensor) -> Carry:
        """See ``Policy``."""
        return Carry(carry.memory, self.noted(action, reward))

    def noted(self, action: Tensor, reward: Tensor) -> Tensor:
        """The numbers of the next input that follow the observation, [N, M, A + 1]: ``action`` as sampled, ``reward`` [N, M]."""
        return torch.cat([self.shown(action).to(reward.dtype), reward.unsqueeze(-1)], -1)

    def choose(
        self, prepared: Weights, given: Tensor, carry: Carry, scaled_noise: Tensor | None
    ) -> tuple[Tensor, Carry]:
        """See ``Policy``."""
        out, carry = self.advance(prepared, given, carry)
        if scaled_noise is None:
            return self.head(prepared, out).mode(), carry
        return self.pick(prepared, out, scaled_noise), carry

    def end_episode(self, prepared: Weights, carry: Carry) -> Carry:
        """See ``Policy``; nothing outlives an episode."""
        return self.initial_carry(prepared, carry.memory.shape[1])

    def shown(self, action: Tensor) -> Tensor:
        """Actions as an input, [..., A]: clipped to their bounds, or one-hot."""
        return torch.nn.functional.one_hot(action, self.action_size) if self.discrete else self.clip(action)

    def prepare(self, weights: Weights) -> Weights:
        """Fold the normalisation of observations and the reward's scale into the weights (the previous action stays as it is),
        and double what goes into ``new``: tanh(x) = 2 sigmoid(2 x) - 1, several times faster on CPUs.
        """
        matrix, bias = self._fold(weights, weights["input.weight"], weights["input.bias"])
        if REWARD in weights:
            rows = torch.ones_like(matrix[..., :1])
            rows[..., self.reward_at, 0] = weights[REWARD][..., 0]
            matrix = matrix * rows
        prepared = {**weights, "input.weight": matrix, "input.bias": bias}
        double = bias.new_ones(self.gates * self.units)
        double[2 * self.units : 3 * self.units] = 2.0
        return prepared | {name: prepared[name] * double for name in _GATES}

    def advance(self, prepared: Weights, given: Tensor, carry: Carry) -> tuple[Tensor, Carry]:
        """See ``Policy``; inputs [N, M, d + A + 1], memory [N, M, parts * units]."""
        state = self._cell(prepared, affine(prepared, "input", given), carry.memory.chunk(self.parts, -1))
        out = self._masked(affine(prepared, "output", state[0]), given)
        return out, carry._replace(memory=state[0] if len(state) == 1 else torch.cat(state, -1))

    def over_time(self, prepared: Weights, observation: Tensor) -> Tensor:
        """Means or logits [N, T, M, A] for whole episodes of inputs [N, T, M, d + A + 1]."""
        n, steps, episodes, _ = observation.shape
        hidden = self._over_steps(prepared, observation)
        out = affine(prepared, "output", hidden.flatten(1, 2))
        return self._masked(out.view(n, steps, episodes, -1), observation)

    def outputs(self, prepared: Weights, observation: Tensor) -> Tensor:
        """Means or logits [N, M, A] at the first step of an episode, for inputs [N, M, d + A + 1]."""
        return self.advance(prepared, observation, self.initial_carry(prepared, observation.shape[1]))[0]

    @abstractmethod
    def _cell(self, prepared: Weights, given: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The new state, ``parts`` tensors [N, M, units], from the input's share of the gates [N, M, gates * units]."""

    @abstractmethod
    def _over_steps(self, prepared: Weights, observation: Tensor) -> Tensor:
        """The first part of the state at every step, [N, T, M, units], for inputs [N, T, M, d + A + 1]; from zeros."""


class GRUPolicy(RecurrentPolicy):
    """A gated recurrent unit (Cho et al., EMNLP 2014), with the reset gate after the product as in cuDNN."""

    gates = 3  # reset, keep, new
    parts = 1

    def _cell(self, prepared: Weights, given: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        (hidden,) = state
        # Split, not sliced: the gradient of a slice is a block of zeros of the whole's size; those of a split are joined once.
        sizes = [2 * self.units, self.units]
        gates_own, new_own = torch.split(affine(prepared, "memory", hidden), sizes, -1)
        gates_given, new_given = torch.split(given, sizes, -1)
        reset, keep = torch.sigmoid(gates_given + gates_own).chunk(2, -1)
        new = 2 * torch.sigmoid(new_given + reset * new_own) - 1
        return (new + keep * (hidden - new),)

    def _over_steps(self, prepared: Weights, observation: Tensor) -> Tensor:
        """See ``RecurrentPolicy``."""
        n, _, episodes, _ = observation.shape
        return self.memories(prepared, observation, observation.new_zeros(n, episodes, self.units))

    def memories(self, prepared: Weights, given: Tensor, start: Tensor) -> Tensor:
        """The memory at every step, [N, T, M, units], for inputs [N, T, M, input_size]; before the first it is ``start``
        [N, M, units].
        """
        own, bias = torch.split(prepared["memory.bias"], [2 * self.units, self.units], -1)
        biases = prepared["input.bias"] + torch.nn.functional.pad(own, (0, self.units))
        matrix, biases = (part.roll(self.units, -1) for part in (prepared["input.weight"], biases))  # new comes first
        shares = torch.baddbmm(biases.unsqueeze(1), given.flatten(1, 2), matrix)
        return gru(shares, prepared["memory.weight"], bias, start, given.shape[1])


class LSTMPolicy(RecurrentPolicy):
    """Long short-term memory (Hochreiter and Schmidhuber, 1997, with the forget gate of Gers et al., 2000, which starts open:
    a bias of 1, Jozefowicz et al., ICML 2015). It carries its output and its cells.
    """

    gates = 4  # input, forget, new, output
    parts = 2

    def init(self, seed: int, dtype: torch.dtype = torch.float32) -> Weights:
        """See ``RecurrentPolicy``."""
        weights = super().init(seed, dtype)
        weights["memory.bias"][self.units : 2 * self.units] = 1.0
        return weights

    def _cell(self, prepared: Weights, given: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden, cells = state
        gates = torch.sigmoid(given + affine(prepared, "memory", hidden))
        enter, keep, new, leave = gates.chunk(4, -1)
        cells = keep * cells + enter * (2 * new - 1)  # tanh(x) = 2 sigmoid(2 x) - 1, several times faster on CPUs
        return leave * (2 * torch.sigmoid(2 * cells) - 1), cells

    def _over_steps(self, prepared: Weights, observation: Tensor) -> Tensor:
        """See ``RecurrentPolicy``."""
        bias = prepared["input.bias"] + prepared["memory.bias"]
        shares = torch.baddbmm(bias.unsqueeze(1), observation.flatten(1, 2), prepared["input.weight"])
        return lstm(shares, prepared["memory.weight"], observation.shape[1])


RECURRENT: dict[str, type[RecurrentPolicy]] = {"gru": GRUPolicy, "lstm": LSTMPolicy}  # by a setting's value
_GATES = ("input.weight", "input.bias", "memory.weight", "memory.bias")


def affine(weights: Weights, name: str, x: Tensor) -> Tensor:
    """The layer ``name`` of stacked weights at inputs [N, M, i]: [N, M, o]."""
    return torch.baddbmm(weights[f"{name}.bias"].unsqueeze(1), x, weights[f"{name}.weight"])
