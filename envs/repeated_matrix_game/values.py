"""Exact values of memory-1 policies in repeated matrix games, as differentiable functions of everything they depend on.

A memory-1 policy is a table of action probabilities [..., 1 + n * n, n]: row 0 at the start, row 1 + own * n + other after
that joint action, *own action first for both players*, as in the observation. Payoffs are [..., n, n, 2] as in
``Params.payoffs``. All functions batch over broadcast leading dimensions, and are differentiable any number of times;
use float64 where accuracy matters. The closed form is that of Press and Dyson (PNAS 2012) and of LOLA (Foerster et al.,
AAMAS 2018): with M the joint-action probabilities after each joint action and m those of the first step,
V = m (I - discount M)^-1 r.
"""

from __future__ import annotations

import torch
from torch import Tensor

from metaduel.envs.core.errors import InvalidInputError

_POLICY_ITERATIONS = 100  # a bound far above what a game of ten states needs


def memory_one_values(
    protagonist: Tensor,
    adversary: Tensor,
    payoffs: Tensor,
    discount: float | Tensor,
    horizon: int | None = None,
    normalised: bool = False,
) -> Tensor:
    """Expected discounted return of both players.

    Args:
        protagonist: [..., 1 + n * n, n] probabilities, own action first.
        adversary: [..., 1 + n * n, n] probabilities, own action first.
        payoffs: [..., n, n, 2] points of (protagonist, adversary), by the protagonist's and the adversary's action.
        discount: in [0, 1), or in [0, 1] with a horizon; a tensor must be a scalar.
        horizon: number of steps; None: infinitely many, by a linear solve.
        normalised: divide by the sum of the discounts, which gives points per step; otherwise the plain sum.

    Returns:
        [..., 2] (protagonist's, adversary's).

    Raises:
        InvalidInputError: shapes that don't fit each other, a discount or horizon out of range.
    """
    n = _check(payoffs, discount, horizon, protagonist=protagonist, adversary=adversary)
    seen = adversary[..., _swap(n, adversary.device), :]  # rows in the protagonist's order
    joint = (protagonist.unsqueeze(-1) * seen.unsqueeze(-2)).flatten(-2)  # [..., 1 + n * n, n * n]
    first, after = joint[..., :1, :], joint[..., 1:, :]
    points = payoffs.flatten(-3, -2)  # [..., n * n, 2]
    if horizon is None:
        eye = torch.eye(n * n, dtype=joint.dtype, device=joint.device)
        to_go = torch.linalg.solve(eye - discount * after, points)
    else:
        to_go = points
        for _ in range(horizon - 1):
            to_go = points + discount * (after @ to_go)
    values: Tensor = (first @ to_go).squeeze(-2)
    return values / discount_sum(discount, horizon) if normalised else values


def best_response_value(
    opponent: Tensor, payoffs: Tensor, discount: float | Tensor, horizon: int | None = None, normalised: bool = False
) -> Tensor:
    """The most that any player, of whatever memory, can expect against a memory-1 policy.

    Against a memory-1 policy the repeated game is a Markov decision process whose states are the policy's rows: backward
    induction with a horizon, policy iteration without.

    Args:
        opponent: [..., 1 + n * n, n] probabilities, *its* own action first.
        payoffs: [..., n, n] points of the best-responding player, its own action first.
        discount: in [0, 1), or in [0, 1] with a horizon.
        horizon: number of steps; None: infinitely many.
        normalised: points per step, as in ``memory_one_values``.

    Returns:
        [...].

    Raises:
        InvalidInputError: shapes that don't fit each other, a discount or horizon out of range.
    """
    n = _check(payoffs.unsqueeze(-1).expand(*payoffs.shape, 2), discount, horizon, opponent=opponent)
    reply = opponent[..., _swap(n, opponent.device), :]  # [..., 1 + n * n, n] rows in the responder's order
    now = reply @ payoffs.transpose(-1, -2)  # [..., 1 + n * n, n] expected points of each own action

    def look_ahead(to_go: Tensor) -> Tensor:  # [..., 1 + n * n] to [..., 1 + n * n, n]
        after = to_go[..., 1:].reshape(*to_go.shape[:-1], n, n)  # by own and other action
        return now + discount * (reply @ after.transpose(-1, -2))

    if horizon is not None:
        to_go = now.amax(-1)
        for _ in range(horizon - 1):
            to_go = look_ahead(to_go).amax(-1)
    else:
        # The policy is found without a graph; its value is then differentiable (the envelope theorem).
        with torch.no_grad():
            choice = now.argmax(-1)
            for _ in range(_POLICY_ITERATIONS):
                ahead = look_ahead(_value_of(choice, now, reply, discount))
                # Changing only for a real gain keeps ties and rounding from cycling.
                current = ahead.gather(-1, choice.unsqueeze(-1)).squeeze(-1)
                better = torch.where(ahead.amax(-1) > current + 1e-9 * (1 + current.abs()), ahead.argmax(-1), choice)
                if torch.equal(better, choice):
                    break
                choice = better
        to_go = _value_of(choice, now, reply, discount)
    value = to_go[..., 0]
    return value / discount_sum(discount, horizon) if normalised else value


def discount_sum(discount: float | Tensor, horizon: int | None = None) -> float | Tensor:
    """The sum of discount^t over t < horizon, the factor between a return and its points per step."""
    if horizon is None:
        return 1 / (1 - discount)
    return float(horizon) if _number(discount) == 1 else (1 - discount**horizon) / (1 - discount)


def one_shot_security(strategy: Tensor, matrix: Tensor) -> Tensor:
    """What a mixed strategy earns in one play of a zero-sum matrix against the opponent's best response.

    Where the game's value is 0, as in rock-paper-scissors, minus this is the strategy's exploitability.

    Args:
        strategy: [..., n] probabilities.
        matrix: [..., n, m] points of its player, own action first.

    Returns:
        [...].
    """
    return (strategy.unsqueeze(-2) @ matrix).squeeze(-2).amin(-1)


def one_shot_exploitability(row: Tensor, column: Tensor, matrix: Tensor) -> Tensor:
    """Exploitability of a pair of mixed strategies in one play of a zero-sum matrix: half of NashConv.

    NashConv is the sum over the players of what a best response would gain (Lanctot et al., NeurIPS 2017); it is 0 at an
    equilibrium and nowhere else. The definition is that of OpenSpiel (Lanctot et al., 2019).

    Args:
        row: [..., n] probabilities of the row player.
        column: [..., m] probabilities of the column player.
        matrix: [..., n, m] points of the row player; the column player's are their negatives.

    Returns:
        [...].
    """
    best_row = (matrix @ column.unsqueeze(-1)).squeeze(-1).amax(-1)
    return (best_row - one_shot_security(row, matrix)) / 2


def _value_of(choice: Tensor, now: Tensor, reply: Tensor, discount: float | Tensor) -> Tensor:
    """Value [..., 1 + n * n] of playing ``choice`` [..., 1 + n * n] in each state, for ever."""
    n = reply.shape[-1]
    onto = torch.nn.functional.one_hot(choice, n).to(reply.dtype)
    step = (onto.unsqueeze(-1) * reply.unsqueeze(-2)).flatten(-2)  # [..., 1 + n * n, n * n]
    eye = torch.eye(n * n, dtype=reply.dtype, device=reply.device)
    points = (now * onto).sum(-1, keepdim=True)
    to_go = torch.linalg.solve(eye - discount * step[..., 1:, :], points[..., 1:, :])
    value: Tensor = (points + discount * (step @ to_go)).squeeze(-1)
    return value


def _swap(n: int, device: torch.device) -> Tensor:
    """The row of a policy of the other point of view, for each row of this one."""
    joint = torch.arange(n * n, dtype=torch.int64, device=device).view(n, n).t().flatten()
    return torch.cat([joint.new_zeros(1), 1 + joint])


def _number(discount: float | Tensor) -> float:
    return float(discount.detach()) if isinstance(discount, Tensor) else float(discount)


def _check(payoffs: Tensor, discount: float | Tensor, horizon: int | None, **policies: Tensor) -> int:
    """Return the number of actions."""
    n = payoffs.shape[-2] if payoffs.dim() >= 3 else 0
    if n == 0 or payoffs.shape[-3] != n or payoffs.shape[-1] != 2:
        raise InvalidInputError(f"payoffs of shape {tuple(payoffs.shape)} must have one entry per joint action")
    for name, policy in policies.items():
        if tuple(policy.shape[-2:]) != (1 + n * n, n):
            raise InvalidInputError(f"{name} of shape {tuple(policy.shape)} must be [..., {1 + n * n}, {n}]")
    if horizon is not None and (isinstance(horizon, bool) or not isinstance(horizon, int) or horizon < 1):
        raise InvalidInputError(f"horizon={horizon!r} must be a whole number of at least 1 step, or None")
    if not 0 <= _number(discount) <= 1 or (horizon is None and _number(discount) == 1):
        raise InvalidInputError(f"discount={_number(discount):g} must be in [0, 1), or in [0, 1] with a horizon")
    return n
