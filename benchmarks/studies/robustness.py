"""RARL (Pinto, Davidson, Sukthankar and Gupta, ICML 2017) against plain PPO: which is more robust to changes of the task?

Two protagonists learn by the same PPO (Stable-Baselines3's; Schulman et al., 2017) from the same number of steps of their own, on
one task: *PPO* alone, *RARL* against an adversary that learns in turn with it, one rollout each. Both are then tested on other
masses and lengths, which are hidden from them, with three adversaries: *none*; *random*, which draws its actions evenly;
*learnt*, a PPO that was trained from scratch against the finished, frozen protagonist.

The row of a (mass, length) is the mean return of its test episodes, as episode 0.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from metaduel.agents.adapters.sb3 import globals_kept
from metaduel.agents.sb3 import MlpPlayer
from metaduel.benchmarks.core.metrics import Array, estimate, mean, p_value, paired_difference
from metaduel.benchmarks.core.report import COLOURS, RNG_SEED, Sheet, canvas, cell, cover_note, rendered, starred
from metaduel.benchmarks.core.scratch import untrained_ppo
from metaduel.benchmarks.core.suite import Cell, Report, Suite
from metaduel.benchmarks.core.table import Table, concatenate, from_returns
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.errors import InvalidInputError, check_whole, unknown
from metaduel.envs.core.files import write_atomic
from metaduel.envs.core.game import Player, View, make_game
from metaduel.envs.core.noise import derive_seed
from metaduel.envs.core.purposes import Purpose
from metaduel.envs.core.registry import find
from metaduel.envs.core.spec import GameSpec, Role, Task
from metaduel.envs.core.tasks import task_rows
from metaduel.envs.players.names import load_player
from metaduel.envs.players.play import play

if TYPE_CHECKING:
    from stable_baselines3 import PPO

METHODS = ("PPO", "RARL")
ADVERSARIES = ("none", "random", "learnt")


@dataclass(frozen=True, kw_only=True)
class Varied:
    """A game's part of the suite.

    Attributes:
        mass: name of the context that is the mass.
        length: name of the context that is the length.
        fixed: other contexts that are not at their defaults, such as how strong the adversary is.
        steps: environment steps of each training.
        ppo: settings of PPO where they are not Stable-Baselines3's own.
    """

    mass: str
    length: str
    fixed: dict[str, float]
    steps: int
    ppo: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Robustness(Suite):
    """The protocol's numbers.

    Attributes:
        seeds: training seeds.
        factors: of mass and length, ascending; 1 among them.
        environments: played at once in training.
        episodes: per test.
        games: by name.
    """

    seeds: int
    factors: tuple[float, ...]
    environments: int
    episodes: int
    games: dict[str, Varied]

    def __post_init__(self) -> None:
        for name in ("seeds", "environments", "episodes"):
            check_whole(name, getattr(self, name))
        if 1 not in self.factors or list(self.factors) != sorted(set(self.factors)) or self.factors[0] <= 0:
            raise InvalidInputError(f"factors={self.factors!r} must ascend, be above 0, and have 1 among them")

    def cells(self) -> list[Cell]:
        """See ``Suite.cells``."""
        from stable_baselines3 import PPO

        known = inspect.signature(PPO.__init__).parameters
        shared = {"factors": self.factors, "environments": self.environments, "episodes": self.episodes}
        made = []
        for game, own in self.games.items():
            spec = find(game)
            for name in (own.mass, own.length, *own.fixed):
                if name not in spec.context_names:
                    raise unknown(f"context of {spec.name}", name, spec.context_names)
            for name in own.ppo:
                if name not in known:
                    raise unknown("setting of PPO", name, known)
            check_whole("steps", own.steps)
            for method in METHODS:
                for seed in range(self.seeds):
                    settings = {**shared, **asdict(own), "method": method, "seed": seed}
                    work = partial(self._play, game, method, seed)
                    made.append(Cell(f"{game}, {method}, seed {seed}", spec, settings, work))
        return made

    def _play(self, game: str, method: str, seed: int, folder: Path) -> Table:
        spec, own = blindfolded(find(game)), self.games[game]
        with globals_kept():
            protagonist = learn(spec, method, own, self.environments, seed)
            adversary = model(
                spec, "adversary", MlpPlayer(protagonist.policy, sample=True), own, self.environments, seed + 50
            )
            adversary.learn(own.steps)
        duel = Duel(make_game(spec))
        others: dict[str, Player] = {
            "none": load_player(duel, "adversary", "idle"),
            "random": Even(int(np.prod(duel.action_space("adversary").shape or ()))),
            "learnt": MlpPlayer(adversary.policy, sample=True),
        }
        tasks = grid(spec, own, self.factors)
        blocks = [
            from_returns(
                test(duel, MlpPlayer(protagonist.policy), other, list(tasks.values()), self.episodes)[None, None, :, None],
                find(game), role="protagonist", method=method, seed=seed, task_split="extrapolation", tasks=list(tasks),
                opponent_split="held_out", opponents=[name], actions="mode",
            )
            for name, other in others.items()
        ]  # fmt: skip
        return concatenate(blocks)

    # The report

    def report(self, table: Table, out: Path) -> Report:
        """See ``Suite.report``."""
        sheets, pictures = [], {}
        for game in self.games:
            own = table.filter(family=game)
            sheets.append(self._sheet(game, own))
            for kind, draw in (("curves", self._curves), ("heat", self._heat)):
                name = f"robustness-{kind}-{game}.png"
                draw(game, own, out / name)
                pictures[name] = f"Return of {game}'s protagonists over mass and length"
        return Report(starred(sheets), pictures)

    def _array(self, own: Table, method: str, adversary: str, tasks: list[str] | None = None) -> Array:
        part = own.filter(opponent=adversary)
        return (part if tasks is None else part.filter(task=tasks)).pivot(method, "protagonist", 0)

    def _sheet(self, game: str, own: Table) -> Sheet:
        low, high = self.factors[0], self.factors[-1]
        places = {
            "as trained": [label(1, 1)],
            f"mass and length x {low:g} to {high:g}": None,
            "worst corner": None,
        }  # fmt: skip
        corners = [label(a, b) for a in (low, high) for b in (low, high)]
        rows, arrays, tests = list[tuple[str, ...]](), list[Array](), list[tuple[int, int, float]]()
        for adversary in ADVERSARIES:
            for place, tasks in places.items():
                if place == "worst corner":
                    worst = min(
                        corners, key=lambda one: sum(mean(self._array(own, m, adversary, [one])) for m in METHODS)
                    )
                    tasks, place = [worst], f"worst corner ({worst})"
                plain, robust = (self._array(own, method, adversary, tasks) for method in METHODS)
                arrays += [plain]
                difference = paired_difference(robust, plain, RNG_SEED)
                tests.append((len(rows), 4, p_value(robust - plain)))
                values = (cell(estimate(one, RNG_SEED)) for one in (plain, robust))
                rows.append((adversary, place, *values, cell(difference)))
        header = ("adversary", "where", *METHODS, "RARL − PPO")
        note = f"{self.episodes} test episodes each, likeliest actions. {cover_note(arrays)}"
        return Sheet(f"{game}: return of the protagonist", header, tuple(rows), note, tuple(tests))

    def _curves(self, game: str, own: Table, path: Path) -> None:
        figure = canvas(10.5, 6.0)
        panels = figure.subplots(2, len(ADVERSARIES), sharex=True, sharey=True, squeeze=False)
        for line, what in zip(panels, ("mass", "length"), strict=True):
            places = [label(f, 1) if what == "mass" else label(1, f) for f in self.factors]
            for axes, adversary in zip(line, ADVERSARIES, strict=True):
                for colour, method in zip(COLOURS, METHODS, strict=False):
                    found = [estimate(self._array(own, method, adversary, [place]), RNG_SEED) for place in places]
                    low, high = np.array([one.interval[:2] for one in found]).T
                    axes.plot(self.factors, [one.value for one in found], color=colour, linewidth=1.6, label=method)
                    if np.isfinite(low).all():
                        axes.fill_between(self.factors, low, high, color=colour, alpha=0.15, linewidth=0)
                axes.set_title(f"adversary: {adversary}", fontsize=10, loc="left")
                axes.set_xlabel(f"{what} x")
                axes.spines[["top", "right"]].set_visible(False)
        figure.supylabel("return")
        figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
        write_atomic(path, rendered(figure, "png"))

    def _heat(self, game: str, own: Table, path: Path) -> None:
        figure, n = canvas(10.0, 6.2), len(self.factors)
        panels = figure.subplots(len(METHODS), len(ADVERSARIES), sharex=True, sharey=True, squeeze=False)
        maps = {
            (m, a): np.array(
                [[mean(self._array(own, m, a, [label(x, y)])) for x in self.factors] for y in self.factors]
            )
            for m in METHODS
            for a in ADVERSARIES
        }
        limits = {"vmin": min(one.min() for one in maps.values()), "vmax": max(one.max() for one in maps.values())}
        for line, method in zip(panels, METHODS, strict=True):
            for axes, adversary in zip(line, ADVERSARIES, strict=True):
                image = axes.imshow(maps[method, adversary], origin="lower", cmap="viridis", **limits)
                axes.set_title(f"{method}, adversary: {adversary}", fontsize=10)
                axes.set_xticks(range(n), [f"{f:g}" for f in self.factors], fontsize=7)
                axes.set_yticks(range(n), [f"{f:g}" for f in self.factors], fontsize=7)
        figure.supxlabel("mass x")
        figure.supylabel("length x")
        figure.colorbar(image, ax=panels, label=f"return in {game}, mean over seeds")
        write_atomic(path, rendered(figure, "png"))


@dataclass(frozen=True)
class Even:
    """An adversary that draws every number of its action evenly from [-1, 1].

    Attributes:
        noise: how many there are.
    """

    noise: int
    memory: int = 0

    def act(self, view: View, memory: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """See ``core.Player.act``."""
        return 2 * noise - 1, memory


def blindfolded(spec: GameSpec) -> GameSpec:
    """The game with all contexts hidden: otherwise, on other masses, a player's inputs would be outside its training."""
    return replace(spec, contexts=tuple(replace(one, visible_to=()) for one in spec.contexts))


def label(mass: float, length: float) -> str:
    """The name of a task."""
    return f"mass x {mass:g}, length x {length:g}"


def grid(spec: GameSpec, own: Varied, factors: tuple[float, ...]) -> Mapping[str, Task]:
    """Every mass with every length; all other contexts as in training."""
    usual = default_task(spec, own)
    return {
        label(a, b): {**usual, own.mass: a * usual[own.mass], own.length: b * usual[own.length]}
        for a in factors
        for b in factors
    }


def default_task(spec: GameSpec, own: Varied) -> dict[str, float]:
    """The training task."""
    return {one.name: own.fixed.get(one.name, one.default) for one in spec.contexts}


def model(spec: GameSpec, seat: Role, other: Player | str, own: Varied, environments: int, seed: int) -> PPO:
    """An untrained PPO in a seat."""
    reduced = derive_seed(seed, Purpose.ROBUSTNESS_LEARN) % 2**31
    return untrained_ppo(spec, seat, other, default_task(spec, own), environments, reduced, **own.ppo)


def arena(spec: GameSpec, seat: Role, other: Player | str, own: Varied, environments: int) -> Any:
    """Environments of the training task, against one opponent."""
    from metaduel.envs.adapters.sb3 import make_sb3

    return make_sb3(spec, environments, seat, other, default_task(spec, own))


def learn(spec: GameSpec, method: str, own: Varied, environments: int, seed: int) -> PPO:
    """Train the protagonist with ``own.steps`` steps of its own."""
    protagonist = model(spec, "protagonist", "idle", own, environments, seed)
    if method == "PPO":
        protagonist.learn(own.steps)
        return protagonist
    adversary = model(spec, "adversary", MlpPlayer(protagonist.policy, sample=True), own, environments, seed + 100)
    env = arena(spec, "protagonist", MlpPlayer(adversary.policy, sample=True), own, environments)
    env.seed(protagonist.seed)  # a new environment is unseeded
    protagonist.set_env(env)
    turn = protagonist.n_steps * environments
    for done in range(0, own.steps, turn):
        for player in (protagonist, adversary):
            player.learn(turn, reset_num_timesteps=done == 0)
    return protagonist


def test(duel: Duel, protagonist: Player, adversary: Player, tasks: list[Task], episodes: int) -> Array:
    """Mean returns [tasks] of the protagonist; the same noise for all players."""
    rows = task_rows(duel.spec, tasks, {}).repeat_interleave(episodes, 0)
    seeds = torch.arange(len(rows), dtype=torch.int64, device="cpu") + derive_seed(0, Purpose.ROBUSTNESS_TEST)
    played = play(duel, (protagonist, adversary), duel.game.params_from_rows(rows), seeds, torch.zeros_like(seeds))
    found: Array = played.returns[:, 0].double().view(len(tasks), episodes).mean(1).numpy().round(6)
    return found
