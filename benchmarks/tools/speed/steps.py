"""Environment steps per second of the games, by batch size: eager, compiled, with autoreset, and on an accelerator."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence

import torch
from gymnasium import spaces
from torch import Tensor

from metaduel.agents.runtime import configured
from metaduel.benchmarks.core.report import Sheet
from metaduel.benchmarks.tools.speed.measure import median_time
from metaduel.envs.adapters.seat import Seat
from metaduel.envs.core import registry
from metaduel.envs.core.duel import Duel, Transition
from metaduel.envs.core.game import Episode, Pair, make_game
from metaduel.envs.core.spec import ROLES, GameSpec
from metaduel.envs.core.tasks import sample_tasks
from metaduel.envs.core.trees import take_rows, tree_map

BATCHES = (1, 64, 1024, 4096, 16384)
ACCELERATED = (16_384, 131_072, 1_048_576)  # an accelerator's
ACTIONS_AHEAD = 8  # sets of random actions, taken in turn


def random_actions(duel: Duel, batch: int, generator: torch.Generator) -> Pair:
    """Uniform actions of both roles within their spaces."""
    pair = []
    for role in ROLES:
        space = duel.action_space(role)
        if isinstance(space, spaces.Discrete):
            first, end = int(space.start), int(space.start + space.n)
            pair.append(torch.randint(first, end, (batch,), generator=generator, dtype=torch.int64, device="cpu"))
        else:
            low, high = torch.from_numpy(space.low), torch.from_numpy(space.high)
            share = torch.rand(batch, *low.shape, generator=generator, dtype=low.dtype, device="cpu")
            pair.append(low + (high - low) * share)
    return pair[0], pair[1]


def advance(duel: Duel, episode: Episode, actions: Pair) -> tuple[Episode, Transition, Pair]:
    """A step with its noise, and both roles' observations after it."""
    episode, transition = duel.step(episode, actions)
    return episode, transition, duel.observe(episode)


def core_steps(
    spec: GameSpec, batch: int, seconds: float, compiled: bool = False, device: torch.device | None = None
) -> float:
    """Steps per second of the batched core on ``device``; None is the processor."""
    duel, generator = Duel(make_game(spec)), torch.Generator().manual_seed(0)
    tasks = sample_tasks(spec, min(batch, 256))

    def place(tensor: Tensor) -> Tensor:
        return tensor.to(device)

    row = torch.arange(batch, dtype=torch.int64, device="cpu")
    params = tree_map(place, take_rows(duel.game.params(tasks), row % len(tasks)))
    start = duel.reset(params, place(row), place(torch.zeros_like(row)))
    drawn = [random_actions(duel, batch, generator) for _ in range(ACTIONS_AHEAD)]
    actions = [(place(one), place(other)) for one, other in drawn]
    step: Callable[[Episode, Pair], tuple[Episode, Transition, Pair]] = lambda e, a: advance(duel, e, a)  # noqa: E731
    if compiled:
        torch.compiler.reset()
        step = torch.compile(step, dynamic=False)

    def play() -> None:
        episode = start
        for t in range(duel.horizon):
            episode, _, _ = step(episode, actions[t % ACTIONS_AHEAD])
        if device is not None:
            episode.step.max().item()  # work is queued until a value is read

    with torch.no_grad():
        return batch * duel.horizon / median_time(play, seconds)


def autoreset_steps(spec: GameSpec, batch: int, seconds: float) -> float:
    """Steps per second of a learner's seat with a scripted opponent and next-step resets."""
    seat, generator = Seat(spec, batch), torch.Generator().manual_seed(0)
    for row in range(batch):
        seat.reseed(row, row)
    seat.reset()
    actions = [random_actions(seat.duel, batch, generator)[seat.me] for _ in range(ACTIONS_AHEAD)]

    def play() -> None:
        for t in range(seat.duel.horizon + 1):  # and one for the reset
            seat.step(actions[t % ACTIONS_AHEAD], seat.done)

    return batch * (seat.duel.horizon + 1) / median_time(play, seconds)


def compiler_missing() -> str:
    """The reason why ``torch.compile`` does not work here, or an empty string."""
    names = [os.environ["CXX"]] if "CXX" in os.environ else ["g++", "clang++"]
    if any(shutil.which(name) for name in names):
        return ""
    return f"not compiled: torch.compile needs a C++ compiler, and there is no {' or '.join(names)} here"


def default_games() -> list[str]:
    """One id of every family's folder, the one with the largest observations; the others do the same with less data."""
    return [
        max(specs, key=lambda spec: spec.observation_space("protagonist").shape[0]).name
        for specs in registry.families(registry.builtin()).values()
    ]


def steps_sheet(games: Sequence[str], seconds: float) -> Sheet:
    """Environment steps per second of ``games`` at every batch size."""
    missing = compiler_missing()
    if not missing:
        import torch._inductor.config as inductor

        alone = inductor.patch(compile_threads=1)  # no pool of processes for kernels this small
    rows = []
    for name in games:
        spec = registry.find(name)
        modes: list[tuple[str, int, Sequence[int], Callable[[int], float]]] = [
            ("eager", 1, BATCHES, lambda b, s=spec: core_steps(s, b, seconds)),  # type: ignore[misc]
            ("eager", 2, BATCHES[-1:], lambda b, s=spec: core_steps(s, b, seconds)),  # type: ignore[misc]
            ("with autoreset", 1, BATCHES, lambda b, s=spec: autoreset_steps(s, b, seconds)),  # type: ignore[misc]
        ]
        if not missing:
            run = alone(lambda b, s=spec: core_steps(s, b, seconds, compiled=True))
            modes[2:2] = [("compiled", 1, BATCHES, run), ("compiled", 2, BATCHES[-1:], run)]
        for mode, threads, batches, measure in modes:
            with configured(threads):
                cells = [_rate(measure(batch)) if batch in batches else "" for batch in BATCHES]
            rows.append((spec.id.removeprefix("metaduel/"), mode, str(threads), *cells))
    header = ("game", "mode", "threads", *(f"batch {batch:,}" for batch in BATCHES))
    return Sheet(
        "Environment steps per second", header, tuple(rows), missing or "A step is step + noise + observation."
    )


def accelerator_sheet(games: Sequence[str], seconds: float) -> Sheet:
    """Environment steps per second of ``games`` on the accelerator."""
    device = torch.accelerator.current_accelerator()
    rows = []
    for spec in map(registry.find, games):
        cells = [_rate(core_steps(spec, batch, seconds, device=device)) for batch in ACCELERATED]
        rows.append((spec.id.removeprefix("metaduel/"), *cells))
    header = ("game", *(f"batch {batch:,}" for batch in ACCELERATED))
    return Sheet(f"Environment steps per second on {device}", header, tuple(rows), "Eager, one thread beside it.")


def _rate(steps: float) -> str:
    """Three significant digits: 31.4 k, 3.14 M."""
    value, unit = (steps / 1e6, " M") if steps >= 1e6 else (steps / 1e3, " k")
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}{unit}"
