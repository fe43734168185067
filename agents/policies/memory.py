"""A policy whose memory lasts over the episodes of a task: it adapts by remembering (RL^2, Duan et al., 2016)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from metaduel.agents.policies.base import REWARD, SHIFT, Weights
from metaduel.agents.policies.recurrence import packed_gru
from metaduel.agents.policies.recurrent import GRUPolicy, affine
from metaduel.agents.trajectories import Carry, Trajectories
from metaduel.envs.core.errors import InvalidInputError


class Played(NamedTuple):
    """The inputs of chains of episodes: the steps that were played and the ends of episodes, R in all, see ``packed_gru``. A
    sequence is a task's chain, or a segment of it.
    """

    given: Tensor  # [R, d + A + 2]
    ends: Tensor  # [R] bool: an extra input at the end of an episode
    last: Tensor  # [R] bool: the last step of an episode
    task: Tensor  # [R] int64
    step: Tensor  # [R] int64: which of the T M steps of the chains in time; at an end, the one before it
    time: Tensor  # [R] int64: number of the input in its sequence
    place: Tensor  # [R] int64: number of the input in its task's chain
    first: Tensor  # [S] int64: the task of each sequence
    before: (
        Tensor  # [S] int64: the row before each sequence, R where a task's chain begins; of the layout it was cut from
    )

    @property
    def sizes(self) -> list[int]:
        """The number of sequences that have each step."""
        return torch.bincount(self.time).tolist()

    def pick(self, field: Tensor) -> Tensor:
        """[R, ...] of a field [1, T, M, ...] of the whole chain; at an end, of the step before it."""
        return field[0].flatten(0, 1)[self.step]

    def spread(self, values: Tensor, like: Tensor) -> Tensor:
        """Values [R] at steps that were played as [1, T, M], 0 elsewhere; ``like`` [1, T, M]."""
        flat = values.new_zeros(like.numel())
        flat[self.step[~self.ends]] = values[~self.ends]
        return flat.view_as(like)

    def of(self, tasks: Tensor) -> tuple[Played, Tensor, Tensor]:
        """Those of some tasks [k] int64; and which rows and sequences these are, [R'] and [S'] int64."""
        mine = torch.zeros(int(self.task.max()) + 1, dtype=torch.bool, device=self.task.device)
        mine[tasks] = True
        rows, sequences = mine[self.task].nonzero().squeeze(1), mine[self.first].nonzero().squeeze(1)
        own = [part.index_select(0, rows) for part in self[:7]]
        return Played._make(own + [part.index_select(0, sequences) for part in self[7:]]), rows, sequences

    def cut(self, length: int) -> tuple[Played, Tensor]:
        """The same in segments of ``length`` inputs, and which row of this layout each of its rows is, [R] int64."""
        segments = int(self.place.max()) // length + 1
        sequence, time = self.task * segments + self.place // length, self.place % length
        rows, sequence = _packed(sequence, time)
        size = int(self.task.max()) + 1, segments * length + 1
        chain = torch.full(size, len(rows), dtype=torch.int64, device=rows.device)
        chain[self.task, self.place + 1] = torch.arange(len(rows), dtype=torch.int64, device=rows.device)
        before = chain[sequence // segments, sequence % segments * length]
        parts = self.given, self.ends, self.last, self.task, self.step, time, self.place
        return Played._make([*(part[rows] for part in parts), sequence // segments, before]), rows


def _packed(sequence: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
    """The order [R] int64 that ``packed_gru`` needs of rows [R] with these sequences and times; and the numbers of the sequences
    [S] int64, the longest first.
    """
    counts = torch.bincount(sequence)
    longest = torch.argsort(counts, descending=True, stable=True)
    rank = torch.empty_like(longest)
    rank[longest] = torch.arange(len(longest), dtype=torch.int64, device=longest.device)
    return torch.argsort(time * len(longest) + rank[sequence]), longest[: int((counts > 0).sum())]


class MemoryPolicy(GRUPolicy):
    """A gated recurrent unit whose memory outlives an episode; at the first episode it is the weight ``memory.start``.

    Its carry is the adapted state: test episodes start from copies of the carry. Its input is [..., d + A + 2]: the
    observation, the previous action and reward (0 at the first step), and whether the episode is over. An extra input at the end
    of an episode holds the last action and reward. A critic with one hidden layer, half as wide as the memory, reads the
    observation and what the policy reads of the memory; only training needs it.
    """

    aids = ("critic", "value")
    lasting = True

    @property
    def carried(self) -> tuple[int, int]:
        """See ``Policy``: memory; previous action, reward, and whether the episode is over."""
        return self.units, self.action_size + 2

    @property
    def read_size(self) -> int:
        """Numbers that policy and critic read of the memory."""
        return self.units

    def init(self, seed: int, dtype: torch.dtype = torch.float32) -> Weights:
        """Fresh weights of one player, with an empty memory, and a critic whose values are near 0."""
        weights = super().init(seed, dtype)
        weights["memory.start"] = torch.zeros(self.units, dtype=dtype, device="cpu")
        sizes = self.observation_size + self.read_size, max(1, self.units // 2), 1
        return weights | layers(("critic", "value"), sizes, (1.0, 0.1), seed + 2, dtype)

    def prepare(self, weights: Weights) -> Weights:
        """Fold the normalisation of inputs into the layers that see them."""
        prepared = super().prepare(weights)
        if "critic.weight" in weights:
            matrix, bias = self._fold(weights, weights["critic.weight"], weights["critic.bias"])
            # tanh(x) = 2 sigmoid(2 x) - 1, several times faster on CPUs
            prepared |= {"critic.weight": 2.0 * matrix, "critic.bias": 2.0 * bias}
            matrix, bias = weights["value.weight"], weights["value.bias"]
            prepared |= {"value.weight": 2.0 * matrix, "value.bias": bias - matrix.sum(-2)}
        return prepared

    def noted(self, action: Tensor, reward: Tensor) -> Tensor:
        """The numbers of the next input that follow the observation, [N, M, A + 2]."""
        before = super().noted(action, reward)
        return torch.cat([before, torch.zeros_like(before[..., :1])], -1)

    def initial_carry(self, weights: Weights, episodes: int) -> Carry:
        """See ``Policy``; the memory of M episodes is ``memory.start``."""
        start = weights["memory.start"].unsqueeze(1).repeat_interleave(episodes, 1)
        return Carry(start, start.new_zeros(*start.shape[:2], self.carried[1]))

    def end_episode(self, prepared: Weights, carry: Carry) -> Carry:
        """See ``Policy``: the memory after an extra input that holds the last action and reward."""
        memory = self._close(prepared, carry.before, carry.memory)
        return Carry(memory, torch.zeros_like(carry.before))

    def _close(self, prepared: Weights, before: Tensor, hidden: Tensor) -> Tensor:
        given = self._ended(prepared, self._end(before))
        return self._step(prepared, affine(prepared, "input", given), hidden)

    def _end(self, before: Tensor) -> Tensor:
        """The extra input [..., d + A + 2] at the end of an episode, see ``_ended``, from its last part."""
        blank = before.new_zeros(*before.shape[:-1], self.observation_size)
        return torch.cat([blank, before[..., :-1], torch.ones_like(before[..., :1])], -1)

    def _ended(self, prepared: Weights, given: Tensor) -> Tensor:
        """Extra inputs [N, M, d + A + 2] for the prepared layer, which normalises them like all others: observations that are 0
        after that, and rewards in the scale of those that end an episode.
        """
        if SHIFT in prepared:
            given = given + nn.functional.pad(prepared[SHIFT], (0, self.carried[1])).unsqueeze(1)
        if REWARD in prepared:
            within, last = torch.split(prepared[REWARD], 1, -1)
            factors = torch.ones_like(given[:, :1])
            factors[..., self.reward_at] = last / within
            given = given * factors
        return given

    def played(self, chain: Sequence[Trajectories]) -> Played:
        """The inputs of episodes [1, T, M, ...], one after another.

        Raises:
            InvalidInputError: episodes of several sets of weights.
        """
        if len(chain[0].reward) != 1:
            raise InvalidInputError(f"chains of {len(chain[0].reward)} sets of weights: give those of one")
        inputs, alive, ends, lasts, steps = [], [], [], [], []
        first, rows = 0, torch.arange(chain[0].reward.shape[2], dtype=torch.int64, device=chain[0].reward.device)
        for data in chain:
            inputs += [data.observation[0], self._end(self._last(data))]
            alive += [data.alive[0] > 0, torch.ones_like(data.alive[0, :1], dtype=torch.bool)]
            ends += [torch.zeros_like(alive[-2]), alive[-1]]
            length = data.alive[0].sum(0).long()
            times = torch.arange(len(alive[-2]), dtype=torch.int64, device=rows.device)
            lasts += [times.unsqueeze(1) == length - 1, torch.zeros_like(alive[-1])]
            steps += [
                (first + times).unsqueeze(1) * len(rows) + rows,
                ((first + length - 1) * len(rows) + rows).unsqueeze(0),
            ]
            first += len(times)
        # No step follows the last end.
        given, taken, end, last, step = (torch.cat(p[:-1]).transpose(0, 1) for p in (inputs, alive, ends, lasts, steps))
        task, place = torch.nonzero(taken)[:, 0], taken.cumsum(1)[taken] - 1
        order, longest = _packed(task, place)
        parts = [part[order] for part in (given[taken], end[taken], last[taken], task, step[taken], place, place)]
        return Played._make([*parts, longest, torch.full_like(longest, len(order))])

    def over_chain(self, prepared: Weights, played: Played, carries: Tensor | None = None) -> Tensor:
        """The memory [1, R, units] at every input of chains, with one set of weights; first derivatives alone.

        Args:
            prepared: [1, ...] each.
            played: the inputs.
            carries: [S, units] memories before each sequence, constants; ``memory.start`` where a task's chain begins. None: all
                sequences are whole chains.
        """
        given = played.given
        if SHIFT in prepared or REWARD in prepared:
            ends = played.ends.nonzero().squeeze(1)
            given = given.index_copy(0, ends, self._ended(prepared, given[ends].unsqueeze(0))[0])
        start = prepared["memory.start"].expand(len(played.first), -1)
        if carries is not None:
            begins = played.place[: len(played.first)] == 0
            start = torch.where(begins.unsqueeze(-1), start, carries)
        own, bias = torch.split(prepared["memory.bias"][0], [2 * self.units, self.units])
        biases = prepared["input.bias"][0] + nn.functional.pad(own, (0, self.units))
        matrix, biases = (
            part.roll(self.units, -1) for part in (prepared["input.weight"][0], biases)
        )  # new comes first
        shares = torch.addmm(biases, given, matrix)
        return packed_gru(shares, prepared["memory.weight"][0], bias, start, played.sizes).unsqueeze(0)

    def _last(self, data: Trajectories) -> Tensor:
        """The extra input at the end of an episode: the last action and reward of every episode, [N, M, A + 2]."""
        last = (data.alive.sum(1, keepdim=True) - 1).long()
        reward = data.reward.gather(1, last).squeeze(1)
        if data.action.dim() == 4:
            last = last.unsqueeze(-1).expand(-1, -1, -1, data.action.shape[-1])
        return self.noted(data.action.gather(1, last).squeeze(1), reward)

    def read(self, prepared: Weights, observation: Tensor, hidden: Tensor) -> Tensor:
        """Means or logits [N, M, A] at inputs [N, M, d + A + 2] with the memory [N, M, units] that includes them."""
        return self._masked(affine(prepared, "output", self.readable(prepared, hidden)), observation)

    def readable(self, prepared: Weights, hidden: Tensor) -> Tensor:
        """The numbers [N, M, read_size] that policy and critic read of the memory [N, M, units]."""
        return hidden

    def value(self, prepared: Weights, given: Tensor, hidden: Tensor) -> Tensor:
        """The critic's values [N, M] at inputs [N, M, d + A + 2] with the memory that includes them."""
        seen, read = torch.split(prepared["critic.weight"], [self.observation_size, self.read_size], -2)
        # One product for each part: no gradient of the observation is computed.
        inside = torch.baddbmm(prepared["critic.bias"].unsqueeze(1), given[..., : self.observation_size], seen)
        inside = torch.baddbmm(inside, self.readable(prepared, hidden), read)
        return affine(prepared, "value", torch.sigmoid(inside)).squeeze(-1)

    def prediction_loss(
        self, prepared: Weights, data: Trajectories, played: Played, hidden: Tensor, seed: int
    ) -> Tensor:
        """The prediction error of the belief in the memory, []; for policies that have one.

        Raises:
            TypeError: this policy has none.
        """
        raise TypeError(f"{type(self).__name__} predicts nothing")

    def _step(self, prepared: Weights, given: Tensor, hidden: Tensor) -> Tensor:
        return self._cell(prepared, given, (hidden,))[0]

    def advance(self, prepared: Weights, given: Tensor, carry: Carry) -> tuple[Tensor, Carry]:
        """See ``Policy``; inputs [N, M, d + A + 2], memory [N, M, units]."""
        hidden = self._step(prepared, affine(prepared, "input", given), carry.memory)
        return self.read(prepared, given, hidden), carry._replace(memory=hidden)


def layers(
    names: Sequence[str], sizes: Sequence[int], gains: Sequence[float], seed: int, dtype: torch.dtype
) -> Weights:
    """Fresh linear layers one after another: orthogonal, and biases of 0.

    Args:
        names: of the layers.
        sizes: of their inputs, and of the last one's outputs.
        gains: of the layers.
        seed: seed of the weights.
        dtype: of the weights.
    """
    generator, weights = torch.Generator().manual_seed(seed), {}
    for name, (rows, columns), gain in zip(names, itertools.pairwise(sizes), gains, strict=True):
        matrix = torch.empty(rows, columns, dtype=torch.float64, device="cpu")
        weights[f"{name}.weight"] = nn.init.orthogonal_(matrix, gain=gain, generator=generator).to(dtype)
        weights[f"{name}.bias"] = torch.zeros(columns, dtype=dtype, device="cpu")
    return weights


def join(chain: Sequence[Trajectories]) -> Trajectories:
    """All episodes, concatenated along the time axis."""
    observation, action, reward, alive = (
        torch.cat(parts, 1) for parts in zip(*(data[:4] for data in chain), strict=True)
    )
    others = [data.other for data in chain if data.other is not None]
    return Trajectories(observation, action, reward, alive, torch.cat(others, 1) if others else None)
