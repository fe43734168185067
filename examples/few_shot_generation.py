"""Few-shot generation: a generator and a discriminator that both adapt to a distribution that was never seen, from a few samples.

    python examples/few_shot_generation.py                       # rings, grids and spirals in the plane, one seed
    python examples/few_shot_generation.py --seeds 5 --methods maml reptile
    python examples/few_shot_generation.py --data characters --shots 4 --iterations 500 --tasks 4 --folder runs/characters
    python examples/few_shot_generation.py --data digits --shots 4 --iterations 300 --tasks 4 --folder runs/digits

The generator is the protagonist, the discriminator the adversary; up to ten simultaneous updates on the shots. Both starts are
meta-learned by the learners of games: MAML, of second order or first, and Reptile as in FIGR (Clouatre and Demers, 2019). In an
update the generator descends what the discriminator says. After it, the discriminator is judged by how well it tells fresh
samples from the adapted generator's; the generator by the best discriminator that there is in a ball of functions, whose value
is known: the energy distance to fresh samples (``judge="distance"``; of images the kernel distance in features, which is one as
well, is added), or by its own opponent (``judge="discriminator"``).

Where there are too few classes to learn from what tells images apart, the discriminator starts from a critic that needs no
learning, and learns the rest: the witness of the energy distance between the shots and what is forged.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from image_classes import ImageClasses, characters, digits, split
from results import against_sheet, plot_steps, steps_sheet, write_results, write_sheets
from rich.console import Console
from torch import Tensor, nn

from metaduel.agents.networks import Convolutional, Dense, Network
from metaduel.agents.policies.base import Weights, stack
from metaduel.benchmarks.core.report import COLOURS, canvas, rendered
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.files import write_atomic
from metaduel.envs.core.game import make_game
from metaduel.envs.core.noise import derive_seed
from metaduel.envs.core.purposes import DataPurpose
from metaduel.envs.core.registry import find
from metaduel.envs.core.spec import Role, Split
from metaduel.envs.core.tasks import frozen_tasks, sample_tasks
from metaduel.envs.forgery.distance import draw_real, energy_distance
from metaduel.envs.forgery.game import EXTENT
from metaduel.meta.adaptation.supervised import adapt
from metaduel.meta.problems.problem import Players
from metaduel.meta.problems.supervised import Data, Part, Tasks
from metaduel.meta.runs.supervised import DataRun, meta_train

STEPS = 10  # joint updates, at most
FORGED = 64  # samples that an update judges
Distance = Callable[[Tensor, Tensor], Tensor]  # of samples [n, a, ...] and [n, b, ...]: [n]
Real = Callable[
    [int, Split, int], tuple[Tensor, Tensor]
]  # (tasks, split, seed): shots [n, K, ...] and fresh samples [n, M, ...]


class Waves:
    """A network on random Fourier features of its inputs (Tancik et al., NeurIPS 2020): few updates make it rise in one place.

    Frequencies are of every scale alike, and amplitudes fall with their roots, as in the energy distance's kernel in the plane.

    Args:
        inputs: how many.
        units: of the hidden layer.
        low: least frequency, radians per unit of input.
        high: largest.
        features: how many.
    """

    def __init__(self, inputs: int, units: int = 64, low: float = 0.5, high: float = 6.0, features: int = 96) -> None:
        generator = torch.Generator().manual_seed(0)
        size = low * (high / low) ** torch.rand(features, generator=generator)
        self._frequencies = size * nn.functional.normalize(torch.randn(inputs, features, generator=generator), dim=0)
        self._amplitudes = size**-0.5 / (1 / size).sum() ** 0.5
        self._net = Dense((2 * features, units, 1), slope=0.2, bounded=True)
        self.head_names, self.init = self._net.head_names, self._net.init

    def __call__(self, weights: Weights, x: Tensor) -> Tensor:
        """Outputs [N, M, 1] for inputs [N, M, d]."""
        phase = x @ self._frequencies
        return self._net(weights, torch.cat([torch.sin(phase), torch.cos(phase)], -1) * self._amplitudes.repeat(2))


def latents(generator: torch.Generator, *shape: int) -> Tensor:
    """Normal latents [*shape], d numbers each, that fill their space evenly: a few tell more of what is made of all than
    independent ones do.

    Sobol points, moved by a random shift in every set (Cranley and Patterson, SIAM Journal on Numerical Analysis 1976).
    """
    points = torch.quasirandom.SobolEngine(shape[-1], scramble=True, seed=0).draw(shape[-2])
    moved = (points + torch.rand(*shape[:-2], 1, shape[-1], generator=generator)) % 1
    return torch.special.ndtri(moved.clamp(1e-6, 1 - 1e-6))


def blank(outputs: Tensor) -> Tensor:
    """Ink in [0, 1]: little where the outputs are 0, as on most of a page."""
    return torch.sigmoid(outputs - 3)


@dataclass(frozen=True)
class Kind:
    """What differs between data.

    Attributes:
        latent: d, numbers that a sample is made of.
        squash: of the generator's outputs.
        witness: share of the energy distance's witness in a verdict, see ``Forging.verdicts``.
        learners: settings by method, other than ``LEARNERS``'.
    """

    latent: int
    squash: Callable[[Tensor], Tensor]
    witness: float = 0.0
    learners: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


# Images need many outer steps, on few tasks each; what is judged is then where ten updates lead, not each on the way there.
LAST: dict[str, Any] = {"outer_shots": "last"}
WITNESSED: dict[str, Any] = {**LAST, "inner_lr": 0.1, "outer_lr": 3e-3}
KINDS = {
    "plane": Kind(4, nn.Identity()),
    "characters": Kind(8, blank, learners={"maml": LAST, "fomaml": LAST}),
    "digits": Kind(16, torch.sigmoid, witness=2.0, learners={"maml": WITNESSED, "fomaml": WITNESSED}),
}


class Forging(Tasks):
    """Tasks of samples: K to adapt to, fresh ones to be judged by.

    Args:
        generator: from latents [N, M, d] to samples, flat.
        discriminator: from samples to verdicts [N, M, 1], the higher the more real.
        real: draws the samples.
        shape: of a sample.
        kind: of the data.
        judge: the distance to fresh samples that the generator is judged by after an update; None: by the discriminator.
        distance: in which validation is scored.
    """

    def __init__(
        self, generator: Network, discriminator: Network, real: Real, shape: tuple[int, ...], kind: Kind,
        judge: Distance | None, distance: Distance,
    ) -> None:  # fmt: skip
        self.networks = {"protagonist": generator, "adversary": discriminator}
        self._real, self._shape, self._kind, self._judge, self._distance = real, shape, kind, judge, distance

    def draw(self, n: int, split: Split, seed: int) -> Data:
        """Shots, fresh samples, latents of every update [n, 10, forged, d], latents of the samples that are judged [n, M, d]."""
        shots, fresh = self._real(n, split, seed)
        generator = torch.Generator().manual_seed(derive_seed(seed, DataPurpose.GENERATION_LATENTS))
        update = latents(generator, n, STEPS, FORGED, self._kind.latent)
        return shots, fresh, update, latents(generator, n, max(64, fresh.shape[1]), self._kind.latent)

    def made(self, players: Players, latent: Tensor) -> Tensor:
        """The generator's samples [N, M, ...]."""
        flat = self._kind.squash(self.networks["protagonist"](players["protagonist"], latent))
        return flat.view(*flat.shape[:2], *self._shape)

    def loss(self, role: Role, players: Players, data: Data, part: Part, shot: int) -> Tensor:
        """[n]: the generator's is minus the verdict on its samples, or the judge's; the discriminator's is the difference of the
        verdicts on forged and real ones, and half of their mean square, without which what it said before would never fade
        (least squares, as in Mao et al., ICCV 2017).
        """
        shots, fresh, update, latent = data
        made = self.made(players, update[:, shot % STEPS] if part == "support" else latent)
        if role == "protagonist" and part == "query" and self._judge is not None:
            return self._judge(made, fresh)
        if role == "protagonist":  # a pair of its samples is in the verdicts on both: half in each
            return -0.5 * self.verdicts(players, made, shots, made, share=0.5).mean(1)
        forged = self.verdicts(players, made, shots, made)
        real = self.verdicts(players, shots if part == "support" else fresh, shots, made)
        return forged.mean(1) - real.mean(1) + 0.5 * (forged.square().mean(1) + real.square().mean(1))

    def verdicts(self, players: Players, x: Tensor, shots: Tensor, made: Tensor, share: float = 1.0) -> Tensor:
        """[N, M]: how real each of ``x`` is. What the network says and, where data have it, the witness of the energy distance:
        how much farther x is from what is made (a ``share`` of that) than from the shots, on average (as the critic of
        Bellemare et al., 2017, in pixels).
        """
        said = self.networks["adversary"](players["adversary"], x).squeeze(2)
        if not self._kind.witness:
            return said
        return said + self._kind.witness * (share * away(x, made) - away(x, shots))

    def score(self, role: Role, players: Players, data: Data, shot: int) -> Tensor:
        """Minus the distance to fresh samples, for both."""
        return -self._distance(self.made(players, data[3]), data[1])


def away(x: Tensor, others: Tensor) -> Tensor:
    """Mean distance of each of x [N, M, ...] to the others: [N, M]. Twice differentiable, which ``torch.cdist`` is not."""
    a, b = x.flatten(2), others.flatten(2)
    squares = a.square().sum(2).unsqueeze(2) + b.square().sum(2).unsqueeze(1) - 2 * a @ b.mT
    return torch.sqrt(squares.clamp(min=0) + 1e-4).mean(2)  # a sample's distance to itself has a slope, too: 0


@dataclass(frozen=True)
class Settings:
    """Train and test.

    Attributes:
        data: ``plane``, the distributions of the game Forgery; ``characters`` of our own, or ``digits``, with held-out classes.
        methods: to train, beside joint pretraining.
        shots: K, real samples that are adapted to.
        seeds: runs of each method.
        iterations: outer steps; joint training, which is cheaper, gets twice as many.
        tasks: distributions per iteration.
        judge: of the generator after an update, see the module.
        test_tasks: held-out distributions.
        classes: of our own characters.
        threads: torch's.
        folder: of runs, tables and pictures.
        quiet: no live display.
    """

    data: Literal["plane", "characters", "digits"] = "plane"
    methods: tuple[Literal["maml", "fomaml", "reptile"], ...] = ("maml", "reptile")
    shots: int = 8
    seeds: int = 1
    iterations: int = 1500
    tasks: int = 16
    judge: Literal["distance", "discriminator"] = "distance"
    test_tasks: int = 100
    classes: int = 400
    threads: int = 1
    folder: Path = Path("runs/few-shot-generation")
    quiet: bool = False


MAML: dict[str, Any] = {"steps": STEPS, "inner_lr": 0.3, "inner_lr_outer_lr": 0.03, "outer_lr": 5e-3, "momentum": 0.9}
LEARNERS: dict[str, dict[str, Any]] = {
    "maml": MAML,
    "fomaml": MAML,
    "reptile": {"steps": STEPS, "inner_lr": 0.5, "outer_lr": 2e-3},
    "joint": {"steps": 0, "outer_lr": 3e-3},
}
RATES = (0.05, 0.15, 0.5, 1.5)  # among which players that have not learned theirs have them chosen, one for each
WIDTHS = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3)  # of the jitter around the shots, the same


def plane(shots: int) -> Real:
    """Samples of Forgery's distributions."""
    spec = find("Forgery")
    game = make_game(spec)

    def real(n: int, split: Split, seed: int) -> tuple[Tensor, Tensor]:
        tasks = sample_tasks(spec, n, "train", seed) if split == "train" else frozen_tasks(spec, split)[:n]
        if len(tasks) < n:
            raise InvalidInputError(f"{n} distributions: the {split} list of Forgery holds {len(tasks)}")
        fresh = 64 if split == "train" else 200
        seeds = torch.arange(n) + (derive_seed(seed, DataPurpose.GENERATION_LATENTS, 1) >> 1)
        samples = draw_real(game.params(tasks), shots + fresh, seeds).float()
        return samples[:, :shots], samples[:, shots:]

    return real


def drawings(classes: ImageClasses, shots: int, most: int = 64, turn: bool = False) -> Real:
    """Drawings of one class each: [n, K, height, width, 1], and the class's others.

    Args:
        classes: to draw from.
        shots: K.
        most: others.
        turn: classes to train on are often turned, so that there are more of them.

    Raises:
        InvalidInputError: fewer drawings than shots and two more.
    """
    if classes.train.shape[1] < shots + 2:
        raise InvalidInputError(f"shots={shots}: a class has {classes.train.shape[1]} drawings, needs {shots + 2}")

    def real(n: int, split: Split, seed: int) -> tuple[Tensor, Tensor]:
        images: Tensor = getattr(classes, split)
        generator = torch.Generator().manual_seed(seed)
        which = torch.randint(len(images), (n, 1), generator=generator)
        order = torch.rand(n, images.shape[1], generator=generator).topk(min(images.shape[1], shots + most)).indices
        found = images[which, order]
        if turn and split == "train":
            found = turned(found, generator)
        return found[:, :shots].unsqueeze(-1), found[:, shots:].unsqueeze(-1)

    return real


def turned(images: Tensor, generator: torch.Generator) -> Tensor:
    """Images [n, drawings, side, side]: half of the n as they are, the others lying on a side, mirrored or not, the same for all
    drawings of one. Upside down a 9 would be a 6 and mirrored a 5 nearly a 2, which may be held out; and nothing is interpolated,
    which would blur so few pixels.
    """
    lying = [image for side in (torch.rot90(images, q, (2, 3)) for q in (1, 3)) for image in (side, side.flip(3))]
    chosen = torch.randint(8, (len(images),), generator=generator)  # 4 and more: as they are
    return torch.stack([*lying, *[images] * 4])[chosen, torch.arange(len(images))]


def feature_distance(classes: ImageClasses, seed: int = 0) -> Distance:
    """Kernel distance (Binkowski et al., ICLR 2018: unbiased squared MMD, cubic kernel) in the features of a small classifier of
    the *training* classes.
    """
    images, count = classes.train.unsqueeze(-1), len(classes.train)
    net = Convolutional(1, count, (32, 32), normalise=False, pooled=False, side=images.shape[2])
    weights = {name: value.requires_grad_() for name, value in net.init(seed).items()}
    optimiser = torch.optim.Adam(weights.values(), lr=2e-3)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(300):
        which = torch.randint(count, (64,), generator=generator)
        drawn = images[which, torch.randint(images.shape[1], (64,), generator=generator)]
        loss = nn.functional.cross_entropy(net(stack(weights, 1), drawn.unsqueeze(0))[0], which)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    fixed = {name: value.detach() for name, value in weights.items()}

    def features(x: Tensor) -> Tensor:
        found = net.embed(stack(fixed, len(x)), x)
        return found / found.shape[2] ** 0.5

    def distance(made: Tensor, real: Tensor) -> Tensor:
        a, b = features(made), features(real)
        own = [
            ((x @ x.mT + 1) ** 3 * (1 - torch.eye(x.shape[1]))).sum((1, 2)) / (x.shape[1] * (x.shape[1] - 1))
            for x in (a, b)
        ]
        return own[0] + own[1] - 2 * ((a @ b.mT + 1) ** 3).mean((1, 2))

    return distance


def make_tasks(settings: Settings) -> tuple[Forging, Distance]:
    """The tasks, and the distance that is reported."""
    judged, kind = settings.judge == "distance", KINDS[settings.data]
    if settings.data == "plane":
        networks, judge = (Dense((kind.latent, 64, 64, 2)), Waves(2)), energy_distance if judged else None
        return Forging(*networks, plane(settings.shots), (2,), kind, judge, energy_distance), energy_distance
    if settings.data == "digits":
        classes = split(digits(), 6, 1)
    else:
        images = nn.functional.avg_pool2d(
            characters(settings.classes), 2
        )  # 14 x 14: half the pixels are enough to tell
        classes = split(images, round(0.8 * len(images)), round(0.1 * len(images)))
    side, distance = classes.train.shape[-1], feature_distance(classes)

    def both(made: Tensor, fresh: Tensor) -> Tensor:
        return energy_distance(made.flatten(2), fresh.flatten(2)) + distance(made, fresh)

    generator = Dense((kind.latent, 64, 128, side * side))
    discriminator = Convolutional(1, 1, (16, 32), normalise=False, slope=0.2, pooled=False, side=side, bounded=True)
    real = drawings(classes, settings.shots, turn=settings.data == "digits")
    return Forging(generator, discriminator, real, (side, side, 1), kind, both if judged else None, distance), distance


def distances(
    tasks: Forging, data: Data, players: Players, rates: Mapping[Role, Tensor], distance: Distance
) -> tuple[Tensor, Tensor]:
    """After every update: the distance to fresh samples, and how far samples are from the nearest shot, [11, n] each."""
    apart, copied = [], []
    for now in adapt(tasks, data, players, rates, STEPS):
        with torch.no_grad():
            made = tasks.made(now, data[3])
            apart.append(distance(made, data[1]))
            copied.append(nearest(made, data[0]))
    return torch.stack(apart), torch.stack(copied)


def nearest(samples: Tensor, shots: Tensor) -> Tensor:
    """Mean distance of samples to the nearest shot: [n]. Far below that of fresh samples, they are copies."""
    return torch.cdist(samples.flatten(2), shots.flatten(2)).amin(2).mean(1)


def jittered(data: Data, width: float) -> Tensor:
    """As many samples as are tested: the shots themselves, and Gaussian jitter."""
    shots, m = data[0], data[3].shape[1]
    chosen = shots[:, torch.arange(m) % shots.shape[1]]
    generator = torch.Generator().manual_seed(derive_seed(0, DataPurpose.GENERATION_JITTER))
    return chosen + width * torch.randn(chosen.shape, generator=generator)


def fresh_starts(tasks: Forging, n: int, seed: int) -> Players:
    """Random weights, others for each task."""
    starts = [tasks.init(derive_seed(seed, DataPurpose.GENERATION_SCRATCH, i)) for i in range(n)]
    return {
        role: {name: torch.stack([s[role][name] for s in starts]) for name in starts[0][role]}
        for role in tasks.networks
    }


def main(settings: Settings) -> dict[str, np.ndarray]:
    """Train what is not yet trained, test all, write tables and pictures. Returns distances, see ``results.Found``."""
    torch.set_num_threads(settings.threads)
    tasks, distance = make_tasks(settings)
    data = tasks.draw(settings.test_tasks, "held_out", derive_seed(0, DataPurpose.GENERATION_TEST))
    tuning = tasks.draw(min(40, settings.test_tasks), "validation", derive_seed(0, DataPurpose.GENERATION_TUNE))
    check_folder(settings)  # once the settings are known to be good, or the folder would remember bad ones
    apart: dict[str, list[Tensor]] = {}
    copied: dict[str, list[Tensor]] = {}

    def tuned(start: Callable[[int], Players]) -> dict[Role, Tensor]:
        """The two players' rates that are best after all updates on the validation tasks."""
        pairs = itertools.product(torch.tensor(RATES).view(-1, 1, 1), repeat=2)
        choices: list[dict[Role, Tensor]] = [{"protagonist": one, "adversary": other} for one, other in pairs]
        n = len(tuning[0])
        ends = [distances(tasks, tuning, start(n), rates, distance)[0][-1].mean() for rates in choices]
        return choices[int(torch.stack(ends).nan_to_num(nan=float("inf")).argmin())]

    def test(name: str, players: Players, rates: Mapping[Role, Tensor]) -> None:
        found = distances(tasks, data, players, rates, distance)
        apart.setdefault(name, []).append(found[0])
        copied.setdefault(name, []).append(found[1])

    first: DataRun | None = None
    n, own = settings.test_tasks, KINDS[settings.data].learners
    for seed in range(settings.seeds):
        for method in (*settings.methods, "joint"):
            iterations = settings.iterations * (2 if method == "joint" else 1)
            run = meta_train(
                tasks, settings.folder / f"{method}-{seed}", resume=True, quiet=settings.quiet, method=method, seed=seed,
                iterations=iterations, tasks=settings.tasks, validate_every=max(1, iterations // 10),
                validation_tasks=len(tuning[0]), threads=settings.threads, **{**LEARNERS[method], **own.get(method, {})},
            )  # fmt: skip
            first = first or run

            def start(n: int, run: DataRun = run) -> Players:
                return {role: stack(weights, n) for role, weights in run.start.items()}

            test(method, start(n), run.rates if "inner_lr_outer_lr" in LEARNERS[method] else tuned(start))
        random = lambda n, seed=seed: fresh_starts(tasks, n, seed)  # noqa: E731
        test("scratch", random(n), tuned(random))
    width = min(WIDTHS, key=lambda width: float(distance(jittered(tuning, width), tuning[1]).mean()))
    for values, of in ((apart, lambda made: distance(made, data[1])), (copied, lambda made: nearest(made, data[0]))):
        values["jittered shots"] = [of(jittered(data, width)).unsqueeze(0)] * settings.seeds
    again = derive_seed(0, DataPurpose.GENERATION_TEST, 1)
    other = tasks.draw(n, "held_out", again)[1] if settings.data == "plane" else None
    if other is not None:  # the least that there is, and how far samples are from shots that are no copies
        apart["fresh samples"] = [distance(other, data[1]).unsqueeze(0)] * settings.seeds
    copied["fresh samples"] = [nearest(data[1], data[0]).unsqueeze(0)] * settings.seeds
    found, copies = ({m: torch.stack(v).double().numpy() for m, v in part.items()} for part in (apart, copied))
    report(settings, found, copies, width)
    if first is not None:
        picture(settings.folder / "samples.png", tasks, first, data)
    return found


def check_folder(settings: Settings) -> None:
    """Runs of other tasks are not gone on with: their own settings do not say which they were.

    Raises:
        InvalidInputError: the folder holds some.
    """
    path = settings.folder / "tasks.json"
    mine = {name: getattr(settings, name) for name in ("data", "shots", "judge", "classes")}
    found = json.loads(path.read_text()) if path.exists() else mine
    if found != mine:
        raise InvalidInputError(
            f"folder={str(settings.folder)!r} holds runs of {found}, not {mine}: name another folder"
        )
    settings.folder.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(mine).encode())


def report(settings: Settings, found: Mapping[str, np.ndarray], copies: Mapping[str, np.ndarray], width: float) -> None:
    """Write and show the tables and the curves."""
    what = "energy distance" if settings.data == "plane" else "kernel distance in features"
    note = f"{settings.test_tasks} held-out tasks, {settings.shots} shots. Jitter of {width}, and rates of all but MAML, which "
    note += "learns them (first-order too): chosen on validation tasks. Joint: adapted the same way after joint pretraining."
    taken = (0, 1, 2, 5, STEPS)
    sheets = [steps_sheet(f"{settings.data}: {what} to fresh samples", found, taken, 1.0, note)]
    others = (("scratch", STEPS), ("joint", STEPS), ("jittered shots", 0))
    pairs = [(method, STEPS, other, step) for method in settings.methods for other, step in others]
    sheets.append(against_sheet(f"Paired differences of {what}: below 0 is better", found, pairs))
    title = "Copy check: distance of a sample to the nearest shot"
    sheets.append(
        steps_sheet(title, copies, taken, 1.0, "Samples that are copies would be much nearer than fresh ones.")
    )
    write_results(settings.folder / "results.csv", found)
    write_sheets(settings.folder / "results.md", sheets)
    plot_steps(settings.folder / "steps.png", found, what)
    if not settings.quiet:
        for sheet in sheets:
            Console().print(sheet.rich())
        print(f"wrote results.md, results.csv, steps.png and samples.png in {settings.folder}")


def picture(path: Path, tasks: Forging, run: DataRun, data: Data, rows: int = 6) -> None:
    """A row per task: its shots, then samples before any update and after 1, 5 and 10."""
    rows = min(rows, len(data[0]))
    few = tuple(tensor[:rows] for tensor in data)
    shown: list[tuple[str, Tensor]] = [("shots", few[0])]
    for step, now in enumerate(run.adapt(few, STEPS)):
        if step in (0, 1, 5, STEPS):
            with torch.no_grad():
                shown.append((f"{step} update{'s' * (step != 1)}", tasks.made(now, few[3])))
    figure = canvas(2.0 * len(shown), 2.0 * rows, dpi=90)
    for row, line in enumerate(figure.subplots(rows, len(shown), squeeze=False)):
        for axes, (title, samples) in zip(line, shown, strict=True):
            axes.set(xticks=[], yticks=[], title=title if not row else "")
            if samples.dim() == 3:
                axes.scatter(*few[1][row].T.numpy(), s=1.5, color="#bbbbbb", linewidths=0)
                axes.scatter(*samples[row].T.numpy(), s=6 if title == "shots" else 2, color=COLOURS[0], linewidths=0)
                axes.set(xlim=(-EXTENT, EXTENT), ylim=(-EXTENT, EXTENT), aspect="equal")
            else:
                tile = nn.functional.pad(samples[row, :4, ..., 0], (1, 1, 1, 1))
                image = torch.cat([torch.cat([*tile[:2]], 1), torch.cat([*tile[2:]], 1)], 0)
                axes.imshow((1 - image).numpy(), cmap="gray", vmin=0, vmax=1)
    write_atomic(path, rendered(figure, path.suffix[1:]))


if __name__ == "__main__":
    try:
        main(tyro.cli(Settings))
    except InvalidInputError as error:
        print(f"few_shot_generation: {error}", file=sys.stderr)
        sys.exit(2)
