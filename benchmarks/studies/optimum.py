"""Meta-MAPG and Meta-PG against personas with exact gradients: their start and step sizes, improved on closed forms.

Player and peer update along the exact gradients of their discounted values (``memory_one_values``, infinite horizon). The
gradient of the mean value after every update flows through all updates, as in Meta-MAPG (Kim et al., ICML 2021), or through the
player's own alone, as in Meta-PG (Al-Shedivat et al., ICLR 2018). The objective is not concave, and Meta-PG's direction is not
the gradient of what the player earns: many starts are improved at once, and the best one on the validation personas is kept.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from metaduel.agents.runtime import torch_defaults
from metaduel.benchmarks.core.metrics import Array
from metaduel.envs.core.errors import InvalidInputError, check_whole
from metaduel.envs.core.game import make_game
from metaduel.envs.core.noise import derive_seed
from metaduel.envs.core.purposes import Purpose
from metaduel.envs.core.spec import GameSpec
from metaduel.envs.repeated_matrix_game.values import memory_one_values
from metaduel.meta.runs.config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Ascent:
    """Settings of the search for the optimum.

    Attributes:
        games: the games.
        starts: number of starts that are improved at once.
        personas: number per iteration, of the training recipe.
        iterations: steps of Adam.
        lr: Adam's initial step size; decays to a tenth.
    """

    games: tuple[str, ...]
    starts: int
    personas: int
    iterations: int
    lr: float

    def __post_init__(self) -> None:
        for name in ("starts", "personas", "iterations"):
            check_whole(name, getattr(self, name))
        if not self.lr > 0:
            raise InvalidInputError(f"lr={self.lr!r} must be above 0")

    def plain(self) -> dict[str, Any]:
        """The plain values that a result depends on."""
        return {name: value for name, value in asdict(self).items() if name != "games"}


def best(
    ascent: Ascent,
    spec: GameSpec,
    config: TrainConfig,
    shots: int,
    validation: Tensor,
    tests: Tensor,
    through_peer: bool = True,
) -> Array:
    """Improve the starts, and play the personas ``tests`` [P, S, A] (logits) from the best.

    Args:
        ascent: settings.
        spec: the game.
        config: its fixed contexts and its discount.
        shots: number of updates.
        validation: personas [P, S, A] (logits) on which the best start is chosen.
        tests: personas [P, S, A] (logits) that are played.
        through_peer: see ``unrolled``.

    Returns:
        Expected undiscounted returns [shots + 1, P] over the game's horizon, in points.
    """
    game, discount = make_game(spec), config.loss.discount
    payoffs = game.params([config.fixed], torch.float64).payoffs
    generator = torch.Generator().manual_seed(Purpose.OPTIMUM_START)
    states, actions = validation.shape[1:]
    start, log_rates = (
        torch.randn(ascent.starts, *shape, generator=generator, dtype=torch.float64, device="cpu")
        for shape in ((states, actions), (shots,))
    )
    start, log_rates = start.requires_grad_(), (log_rates - 1.0).requires_grad_()
    optimiser = torch.optim.Adam([start, log_rates], lr=ascent.lr)
    for iteration in range(ascent.iterations):
        drawn = game.personas(ascent.personas, derive_seed(Purpose.OPTIMUM_TRAIN, iteration))
        assert drawn is not None
        pairs = unrolled(start, log_rates.exp(), drawn.log(), payoffs, discount, shots, True, through_peer)
        value = torch.stack([memory_one_values(*pair, payoffs, discount)[..., 0] for pair in pairs[1:]])
        optimiser.param_groups[0]["lr"] = ascent.lr * (1 - 0.9 * iteration / ascent.iterations)
        gradients = torch.autograd.grad(-value.mean((0, 2)).sum(), [start, log_rates])
        for leaf, gradient in zip((start, log_rates), gradients, strict=True):
            leaf.grad = gradient
        with torch_defaults():
            optimiser.step()

    def earned(personas: Tensor, which: slice) -> Tensor:  # [shots + 1, starts, P]
        pairs = unrolled(start[which], log_rates[which].exp(), personas.double(), payoffs, discount, shots, False)
        return torch.stack([memory_one_values(*pair, payoffs, 1.0, spec.horizon)[..., 0].detach() for pair in pairs])

    chosen = int(earned(validation, slice(None))[1:].mean((0, 2)).argmax())
    returns: Array = earned(tests, slice(chosen, chosen + 1))[:, 0].numpy()
    return returns


def unrolled(
    start: Tensor,
    rates: Tensor,
    personas: Tensor,
    payoffs: Tensor,
    discount: float,
    shots: int,
    graph: bool,
    through_peer: bool = True,
) -> list[tuple[Tensor, Tensor]]:
    """Both players' probabilities [R, P, S, A] at every shot.

    Args:
        start: [R, S, A] logits.
        rates: [R, shots] of the discounted return.
        personas: [P, S, A] logits; their rate is 1.
        payoffs: [1, A, A, 2] points.
        discount: discount of both players' returns.
        shots: number of updates.
        graph: keep the graph through the updates.
        through_peer: through the peer's updates too (Meta-MAPG); otherwise the peer's weights are constants (Meta-PG).
    """
    shape = (len(start), len(personas), *start.shape[1:])
    own, peer = start.unsqueeze(1).expand(shape), personas.unsqueeze(0).expand(shape).detach().requires_grad_()
    pairs = []
    for shot in range(shots + 1):
        pairs.append((own.softmax(-1), peer.softmax(-1)))
        if shot == shots:
            break
        values = memory_one_values(*pairs[-1], payoffs, discount)
        mine, theirs = (
            torch.autograd.grad(values[..., seat].sum(), who, create_graph=graph, retain_graph=True)[0]
            for seat, who in enumerate((own, peer))
        )
        own, peer = own + rates[:, shot].view(-1, 1, 1, 1) * mine, peer + theirs
        if not through_peer:
            peer = peer.detach().requires_grad_()
        if not graph:
            own, peer = own.detach().requires_grad_(), peer.detach().requires_grad_()
    return pairs
