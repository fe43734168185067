"""The headroom certificate, per game and role: how much there is to gain by adapting.

On one fixed panel (the validation tasks, the training opponents) it compares

- **informed**: feed-forward players that see every context, hidden ones included, with three strengths of exploration and the
  best scripted player as their first teacher; and scripted players that read hidden contexts. The best of them is the ceiling.
  The headroom by the best *trained* informed player stands beside it;
- **agnostic**: feed-forward players that see no hidden context and never adapt, with the same three strengths of exploration and
  the best scripted player that reads no hidden context as their first teacher;
- every **scripted** player that reads no hidden context, searchers included, and a player that acts at random;
- **recurrent**: an agnostic player with a memory of its episode, its actions and its rewards;
- **random start**: an untrained network that is fine-tuned on each task with the shots and episodes of the few-shot
  evaluation; its rate and its discount are tuned on the same panel as the test.

Headroom is the return of the best informed player minus that of the best non-adapting player (agnostic or scripted).
All trained players learn in the same way with the same budget (``benchmarks.tools.population``). The best of a kind is chosen on
the test panel, which favours the kind with more candidates: the players that don't adapt.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor

from metaduel.agents.objective.config import LossConfig
from metaduel.agents.policies.base import Policy
from metaduel.agents.policies.mlp import MLPPolicy
from metaduel.agents.policies.recurrent import GRUPolicy
from metaduel.agents.runtime import configured
from metaduel.benchmarks.core import few_shot, metrics
from metaduel.benchmarks.core.few_shot import Contender, Protocol
from metaduel.benchmarks.core.terminal import FittedTable
from metaduel.benchmarks.tools.population import BIAS, GAIN, Budget, OnIteration, Population
from metaduel.envs.core.arguments import AnyPath, as_path
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.files import write_atomic
from metaduel.envs.core.game import View, make_game
from metaduel.envs.core.noise import derive_seed
from metaduel.envs.core.purposes import Purpose
from metaduel.envs.core.spec import ROLES, GameSpec, Role
from metaduel.envs.players.names import load_player
from metaduel.envs.players.scripted import scripted
from metaduel.meta.adaptation.adapters import GradientAdapter

EXPLORATION = (0.0, 0.01, 0.05)  # entropy bonuses, of which the best counts; players with a memory have the middle one
LOOK_AHEAD = (0.0, 0.9)  # support discounts of the random start to choose from
RATES = (0.1, 0.5, 2.0, 5.0, 20.0, 60.0, 200.0, 600.0)  # its rates to choose from; high ones for games that end early
PASS_SHARE = 0.2  # of the informed player's gain over a random one
INITIAL_LOG_STD = -0.5


class Row(NamedTuple):
    """One player of the certificate."""

    player: str
    kind: str
    returns: npt.NDArray[np.float64]  # [seeds, tasks]; one seed for players that were not trained
    rise: float = 0.0  # rise of the return over the last quarter of training

    @property
    def mean(self) -> float:
        """Mean over seeds and tasks."""
        return float(self.returns.mean())

    def summary(self) -> dict[str, Any]:
        """For the certificate: mean with a 95% interval over seeds, or over tasks where there are none."""
        interval = metrics.interval(self.returns, 0)
        numbers = {"mean": self.mean, "low": interval.low, "high": interval.high, "rise": self.rise}
        rounded = {name: round(value, 4) for name, value in numbers.items()}
        return {"player": self.player, "kind": self.kind, **rounded, "seeds": len(self.returns)}


@configured(1)
def certify(spec: GameSpec, out: AnyPath, budget: Budget, quiet: bool = False) -> dict[str, Any]:
    """Train and test all players of both roles and write ``out/headroom.json``; see the module.

    Each kind of player is kept in ``out/parts`` as soon as it is done, so that the same call resumes an interrupted measurement.

    Args:
        spec: the game.
        out: folder.
        budget: the budget of each trained player.
        quiet: no progress.

    Returns:
        The content of ``headroom.json``.

    Raises:
        InvalidInputError: ``out`` holds parts that were made with another budget.
    """
    out = as_path(out, "out")
    game = f"{spec.name}-v{spec.version}"
    stages = [(role, kind) for role in ROLES for kind in KINDS]
    with _display(game, len(stages) * budget.iterations, quiet) as step:
        rows: dict[Role, list[Row]] = {role: [] for role in ROLES}
        for i, (role, kind) in enumerate(stages):
            step(f"{role}: {kind}", i * budget.iterations)
            path = out / "parts" / f"{role}-{kind.replace(',', '').replace(' ', '-')}.json"
            made_with = {"game": game, "budget": asdict(budget)}
            part = _read_part(path, made_with)
            if part is None:
                made = KINDS[kind](spec, role, budget, partial(_within, step, f"{role}: {kind}", i * budget.iterations))
                part = [row._replace(returns=row.returns.round(5)) for row in made]
                path.parent.mkdir(parents=True, exist_ok=True)
                kept = [row._replace(returns=row.returns.tolist())._asdict() for row in part]
                write_atomic(path, json.dumps({**made_with, "rows": kept}).encode())
            rows[role] += part
    result = {
        "game": game,
        "command": _command(spec, budget),
        "budget": asdict(budget),
        "roles": {role: verdict(found) for role, found in rows.items()},
    }
    write_atomic(out / "headroom.json", (json.dumps(result, indent=1) + "\n").encode())
    return result


def _command(spec: GameSpec, budget: Budget) -> str:
    usual = Budget()
    options = {name: getattr(budget, name) for name in ("seeds", "iterations")}
    changed = [f" --{name} {value}" for name, value in options.items() if value != getattr(usual, name)]
    return f"metaduel headroom {spec.name}{''.join(changed)}"


def _read_part(path: Path, made_with: Mapping[str, Any]) -> list[Row] | None:
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_bytes())
        rows = [Row(**{**row, "returns": np.asarray(row["returns"], np.float64)}) for row in content.pop("rows")]
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInputError(f"{path}: corrupt ({error}): delete it") from None
    if content != made_with:
        raise InvalidInputError(f"{path}: made with {content}, not with {dict(made_with)}: choose another folder")
    return rows


def verdict(rows: Sequence[Row]) -> dict[str, Any]:
    """The verdict from all players' returns.

    ``share`` is the lower end of the headroom's interval as a share of the informed player's gain over a random one,
    ``trained_share`` the same for the best trained informed player; the shares of the recurrent player and of the random start
    are the fractions of the headroom that they recover.
    """
    by_kind = {kind: [row for row in rows if row.kind == kind] for kind in dict.fromkeys(row.kind for row in rows)}
    recurrent, start, chance = (by_kind[kind][0] for kind in ("recurrent", "random start", "random"))
    trained = max(by_kind["informed"], key=lambda row: row.mean)
    informed = max((trained, *by_kind.get("informed script", ())), key=lambda row: row.mean)
    best = max((*by_kind["agnostic"], *by_kind["scripted"]), key=lambda row: row.mean)
    difference = informed.returns - best.returns  # a scripted player is paired with every seed
    headroom, interval = float(difference.mean()), metrics.interval(difference, 0)
    share = _share(informed, best, chance)
    recovered = {name: (row.mean - best.mean) / headroom for name, row in (("recurrent", recurrent), ("start", start))}
    if share < PASS_SHARE or recovered["start"] >= 0.5:
        text = "no adaptation needed"
    elif recovered["recurrent"] >= 0.5:
        text = "within-episode inference"
    else:
        text = "adaptation pays"
    numbers = {"mean": headroom, "low": interval.low, "high": interval.high}
    return {
        "players": [row.summary() for row in sorted(rows, key=lambda row: -row.mean)],
        "informed": informed.player,
        "best": best.player,
        "headroom": {name: round(value, 4) for name, value in numbers.items()},
        "gain": round(informed.mean - chance.mean, 4),
        "share": round(share, 4),
        "trained_share": round(_share(trained, best, chance), 4),
        "recurrent_share": round(recovered["recurrent"], 4),
        "random_start_share": round(recovered["start"], 4),
        "verdict": text,
    }


def _share(informed: Row, best: Row, chance: Row) -> float:
    """The lower end of an informed player's headroom as a share of its gain over a random one."""
    gain = informed.mean - chance.mean
    return metrics.interval(informed.returns - best.returns, 0).low / gain if gain > 0 else 0.0


def _trained(
    kind: str, make_policy: Callable[..., Policy], sees: bool, bonuses: Sequence[float], taught: bool = False
) -> Callable[[GameSpec, Role, Budget, OnIteration], list[Row]]:
    def make(spec: GameSpec, role: Role, budget: Budget, on_iteration: OnIteration) -> list[Row]:
        duel = Duel(make_game(spec), informed=(role,) if sees else ())
        size, actions = duel.observation_space(role).shape[0], duel.action_space(role)
        policy = make_policy(size, actions, initial_log_std=INITIAL_LOG_STD, mask=duel.game.mask)
        teacher, by = None, ""
        if taught:
            by = _best_script(spec, role, budget, sees)
            teacher = load_player(duel, role, by)
        before, after = Population(duel, role, policy, bonuses, budget, teacher).train(on_iteration)
        names = [f"{kind}, entropy bonus {bonus:g}" for bonus in bonuses]
        if len(bonuses) == 1:
            names = [f"{kind}, taught by {by}" if by else kind]
        return [
            Row(name, kind, after[i].double().numpy(), float((after[i] - before[i]).mean()))
            for i, name in enumerate(names)
        ]

    return make


def _best_script(spec: GameSpec, role: Role, budget: Budget, sees: bool) -> str:
    """The best scripted player on the panel, among all (``sees``) or among those that read no hidden context."""
    panel = Protocol("validation", "train", 0, 1, budget.test_episodes)
    found = few_shot.evaluate_scripted(spec, role, panel, blind_only=not sees)
    return max(found, key=lambda one: float(one.returns.mean())).method.removeprefix("scripted: ")


def _untrained(spec: GameSpec, role: Role, budget: Budget, on_iteration: OnIteration) -> list[Row]:
    """Scripted players, and a player that acts at random."""
    panel = Protocol("validation", "train", 0, 1, budget.test_episodes)
    rows = []
    for one in few_shot.evaluate_scripted(spec, role, panel, blind_only=False):
        name = one.method.removeprefix("scripted: ")
        kind = "informed script" if scripted(spec, role)[name].informed else "scripted"
        rows.append(Row(name, kind, one.returns[0].mean((0, 2))[None]))
    chance = few_shot.evaluate_player(spec, role, panel, "random", _Random(spec.action_spaces[role]))
    return [*rows, Row("random", "random", chance.returns[0].mean((0, 2))[None])]


def _random_start(spec: GameSpec, role: Role, budget: Budget, on_iteration: OnIteration) -> list[Row]:
    """Untrained networks after fine-tuning, with the best rate and discount."""
    duel = Duel(make_game(spec))
    size, actions, mask = duel.observation_space(role).shape[0], duel.action_space(role), duel.game.mask
    policy = MLPPolicy(size, actions, initial_log_std=INITIAL_LOG_STD, mask=mask)
    panel = Protocol("validation", "train", budget.shots, budget.episodes_per_shot, budget.test_episodes)
    quick = replace(panel, task_count=20)
    tuned = []
    for discount in LOOK_AHEAD:
        loss = LossConfig(inner_discount=discount, inner_baseline=False, inner_clip=0.4)
        start = policy.init(derive_seed(Purpose.HEADROOM_START, 0))
        trial = Contender(
            "", 0, role, duel, GradientAdapter(role, policy, start, next(iter(start.values())).new_ones(1), loss)
        )
        trial = few_shot.tune_rate(trial, quick, RATES, 20)
        tuned.append((few_shot.evaluate(trial, quick).returns[-1].mean(), trial))
    best = max(tuned, key=lambda pair: pair[0])[1]
    starts = [
        best._replace(adapter=replace(best.adapter, weights=policy.init(derive_seed(Purpose.HEADROOM_START, seed))))  # type: ignore[type-var]
        for seed in range(budget.seeds)
    ]
    played = few_shot.evaluate_all(starts, panel, tested=(panel.shots,))
    returns = np.stack([few_shot.result(one).returns[-1].mean((0, 2)) for one in played])
    return [Row("random start, tuned", "random start", returns)]


class _Random:
    """Acts uniformly at random."""

    memory = 0

    def __init__(self, space: spaces.Box | spaces.Discrete) -> None:
        self.space = space
        self.noise = 1 if isinstance(space, spaces.Discrete) else space.shape[0]

    def act(self, view: View, memory: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        if isinstance(self.space, spaces.Discrete):
            return (noise[:, 0] * int(self.space.n)).long(), memory
        low, high = torch.from_numpy(self.space.low), torch.from_numpy(self.space.high)
        return low + (high - low) * noise, memory


_feed_forward = partial(MLPPolicy, gain=GAIN, bias=BIAS)

KINDS: dict[str, Callable[[GameSpec, Role, Budget, OnIteration], list[Row]]] = {
    "informed": _trained("informed", _feed_forward, True, EXPLORATION),
    "informed, taught": _trained("informed", _feed_forward, True, EXPLORATION[1:2], taught=True),
    "agnostic": _trained("agnostic", _feed_forward, False, EXPLORATION),
    "agnostic, taught": _trained("agnostic", _feed_forward, False, EXPLORATION[1:2], taught=True),
    "recurrent": _trained("recurrent", GRUPolicy, False, EXPLORATION[1:2]),
    "untrained": _untrained,
    "random start": _random_start,
}


def show(result: Mapping[str, Any], console: Console) -> None:
    """Print a certificate."""
    for role, found in result["roles"].items():
        rows = []
        for row in found["players"]:
            rise = f"{row['rise']:+.3f}" if row["rise"] else ""
            interval = f"[{row['low']:.3f}, {row['high']:.3f}]"
            rows.append((row["player"], row["kind"], f"{row['mean']:.3f}", interval, rise))
        header = ("player", "kind", "return", "95% interval", "last quarter")
        console.print(FittedTable(header, rows, f"{result['game']}, {role}"))
        headroom = found["headroom"]
        console.print(
            f"headroom of {found['informed']} over {found['best']}: {headroom['mean']:.3f} [{headroom['low']:.3f}, "
            f"{headroom['high']:.3f}], at least"
            f" {found['share']:.0%} of the informed player's gain over a random one (the best trained player alone:"
            f" {found['trained_share']:.0%}); recovered by memory"
            f" {found['recurrent_share']:.2f}, by a fine-tuned random start {found['random_start_share']:.2f}:"
            f" [bold]{found['verdict']}[/bold]\n",
            highlight=False,
        )


def _within(step: Callable[[str, int], None], label: str, before: int, done: int) -> None:
    step(label, before + done)


@contextmanager
def _display(game: str, total: int, quiet: bool) -> Iterator[Callable[[str, int], None]]:
    """A bar on standard error, or a line for each kind of player if that is no terminal. Call it with the present work and the
    number of units done.
    """
    console, began, shown = Console(file=sys.stderr), time.perf_counter(), [""]

    def line(label: str, done: int) -> None:
        if label != shown[0]:
            shown[0], spent = label, time.perf_counter() - began
            left = f", about {spent / done * (total - done):.0f} s left" if done else ""
            print(f"{game}  {done / total:.0%} done, {spent:.0f} s{left}  {label}", file=sys.stderr, flush=True)

    if not quiet and not console.is_terminal:
        yield line
        return
    columns = (
        TextColumn(game), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"),
        TimeRemainingColumn(), TextColumn("{task.description}"),
    )  # fmt: skip
    with Progress(*columns, console=console, disable=quiet) as progress:
        task = progress.add_task("", total=total)
        yield lambda label, done: progress.update(task, completed=done, description=label)
        progress.update(task, completed=total, description="")
