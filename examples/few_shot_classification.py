"""Few-shot classification of images: N classes that were never seen, K drawings of each, a few updates.

    python examples/few_shot_classification.py                     # our own characters, 5-way 1-shot, one seed
    python examples/few_shot_classification.py --data digits --ways 3 --methods maml reptile
    python examples/few_shot_classification.py --data omniglot --omniglot-folder ~/omniglot --seeds 5

Trains each method for each seed into a run folder, then tests all on the same episodes of held-out classes. Start it again and it
continues where it stopped. The learners are those that games are learned with; what is new is ``Episodes``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from image_classes import ImageClasses, characters, digits, omniglot, split
from results import against_sheet, plot_steps, steps_sheet, write_results, write_sheets
from rich.console import Console
from torch import Tensor
from torch.nn.functional import cross_entropy

from metaduel.agents.networks import Convolutional, Dense, Network
from metaduel.benchmarks.core.report import canvas, rendered
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.files import write_atomic
from metaduel.envs.core.noise import derive_seed
from metaduel.envs.core.purposes import DataPurpose
from metaduel.envs.core.spec import Role, Split
from metaduel.meta.adaptation.supervised import adapt
from metaduel.meta.problems.problem import Players
from metaduel.meta.problems.supervised import Data, Part, Tasks
from metaduel.meta.runs.supervised import DataRun, meta_train

ROLE: Role = "protagonist"
SCRATCH_RATES, SCRATCH_STEPS = (0.1, 0.3, 1.0, 3.0), 20


class Episodes(Tasks):
    """Episodes of N ways, K shots.

    Args:
        classes: of images.
        network: from images [N, M, height, width, 1] to ``ways`` logits.
        ways: classes in an episode.
        shots: drawings of each that are adapted to.
        queries: drawings of each that are tested on.
        train_queries: the same in training and validation.
        fresh: of how many batches of shots an episode's support is made in training; the k-th update takes the k-th in turn.
        fresh_shots: drawings of each class in such a batch.

    Raises:
        InvalidInputError: fewer classes than ways, or fewer drawings than shots and queries.
    """

    def __init__(
        self,
        classes: ImageClasses,
        network: Network,
        ways: int = 5,
        shots: int = 1,
        queries: int = 5,
        train_queries: int = 3,
        fresh: int = 1,
        fresh_shots: int | None = None,
    ) -> None:
        self.networks = {ROLE: network}
        self.classes, self.ways, self.shots, self.queries = classes, ways, shots, queries
        self._train = fresh, fresh_shots or shots, train_queries
        for name, images in classes._asdict().items():
            if len(images) < ways:
                raise InvalidInputError(f"ways={ways}: there are {len(images)} classes in {name}")
            batches, own, asked = self._parts(name)
            if images.shape[1] < batches * own + asked:
                raise InvalidInputError(
                    f"shots={own}, queries={asked}: a class in {name} has {images.shape[1]} drawings, "
                    f"needs {batches * own + asked}"
                )

    def _parts(self, split: str) -> tuple[int, int, int]:
        if split == "train":
            return self._train
        return 1, self.shots, self.queries if split == "held_out" else self._train[2]

    def draw(self, n: int, split: Split, seed: int) -> Data:
        """``n`` episodes: support images [n, batches, ways * shots, height, width, 1] and queries [n, ways * queries, ...]."""
        images: Tensor = getattr(self.classes, split)
        batches, shots, queries = self._parts(split)
        generator = torch.Generator().manual_seed(seed)
        which = (
            torch.rand(n, len(images), generator=generator).topk(self.ways).indices
        )  # ways of all classes, in any order
        drawings = (
            torch.rand(n, self.ways, images.shape[1], generator=generator).topk(batches * shots + queries).indices
        )
        found = images[which.unsqueeze(2), drawings].unsqueeze(-1)  # [n, ways, drawings, height, width, 1]
        support, query = found.split((batches * shots, queries), 2)
        support = support.unflatten(2, (batches, shots)).transpose(1, 2).flatten(2, 3)
        return support, query.flatten(1, 2)

    def logits(self, players: Players, data: Data, part: Part, shot: int) -> tuple[Tensor, Tensor]:
        """The network's outputs [n, M, ways] and what they should say [n, M]."""
        images = data[0][:, shot % data[0].shape[1]] if part == "support" else data[1]
        target = torch.arange(self.ways).repeat_interleave(images.shape[1] // self.ways).expand(len(images), -1)
        return self.networks[ROLE](players[ROLE], images), target

    def loss(self, role: Role, players: Players, data: Data, part: Part, shot: int) -> Tensor:
        """Cross-entropy: [n]."""
        logits, target = self.logits(players, data, part, shot)
        return cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none").view(target.shape).mean(1)

    def score(self, role: Role, players: Players, data: Data, shot: int) -> Tensor:
        """Accuracy on the queries: [n]."""
        logits, target = self.logits(players, data, "query", shot)
        return (logits.argmax(2) == target).float().mean(1)


# Settings by method; the network is the same for all.
LEARNERS: dict[str, dict[str, Any]] = {
    "maml": {"steps": 1, "inner_lr": 0.4},
    "fomaml": {"steps": 1, "inner_lr": 0.4},
    "reptile": {"steps": 5, "inner_lr": 0.5},
    "anil": {"steps": 1, "inner_lr": 0.4},
    "meta_sgd": {"steps": 1, "inner_lr": 0.4},
}
LONGER = {"reptile": 1.5}  # times as many iterations as the others
EPISODES: dict[str, dict[str, int]] = {"reptile": {"fresh": 5, "fresh_shots": 2, "train_queries": 1}}


@dataclass(frozen=True)
class Settings:
    """Train and test.

    Attributes:
        data: ``characters`` of our own, scikit-learn's ``digits``, or ``omniglot``.
        omniglot_folder: where images_background and images_evaluation are.
        methods: to train; the baselines are always there.
        network: ``conv``, four blocks of 64 filters, or ``dense``, both as in MAML's paper.
        ways: N, classes in an episode.
        shots: K, drawings of each.
        seeds: runs of each method.
        iterations: outer steps; Reptile takes half as many again.
        tasks: episodes per iteration.
        outer_lr: Adam's step size at the start.
        test_episodes: of held-out classes, the same for all.
        test_steps: updates at test.
        classes: of our own characters.
        threads: torch's.
        folder: of runs, tables and pictures.
        quiet: no live display.
    """

    data: Literal["characters", "digits", "omniglot"] = "characters"
    omniglot_folder: Path = Path("omniglot")
    methods: tuple[str, ...] = tuple(LEARNERS)
    network: Literal["conv", "dense"] = "conv"
    ways: int = 5
    shots: int = 1
    seeds: int = 1
    iterations: int = 600
    tasks: int = 16
    outer_lr: float = 3e-3
    test_episodes: int = 600
    test_steps: int = 5
    classes: int = 1000
    threads: int = 1
    folder: Path = Path("runs/few-shot-classification")
    quiet: bool = False


def load_classes(settings: Settings) -> ImageClasses:
    """The images, split by class."""
    if settings.data == "digits":
        return split(digits(), 4, 3)  # three digits are held out: at most 3 ways
    if settings.data == "omniglot":
        images = omniglot(settings.omniglot_folder)
        train = round(len(images) * 1200 / 1623)  # MAML's split, some of it to validate on
        return split(images, train - train // 12, train // 12, rotations=True)
    images = characters(settings.classes)
    return split(images, round(0.7 * len(images)), round(0.1 * len(images)))


def make_network(settings: Settings, side: int) -> Network:
    """The network of MAML's paper."""
    if settings.network == "dense":
        return Dense((side * side, 256, 128, 64, 64, settings.ways), normalise=True)
    return Convolutional(1, settings.ways, (64,) * (4 if side > 8 else 3))


def in_parts(data: Data, size: int = 20) -> Iterator[Data]:
    """A batch in parts that fit into memory."""
    return zip(*(tensor.split(size) for tensor in data), strict=True)


def test(tasks: Episodes, run: DataRun, data: Data, steps: int) -> Tensor:
    """Accuracy [steps + 1, n] of a trained start."""
    parts: list[Tensor] = []
    for part in in_parts(data):
        scores = []
        for shot, players in enumerate(run.adapt(part, steps)):
            with torch.no_grad():
                scores.append(tasks.score(ROLE, players, part, shot))
        parts.append(torch.stack(scores))
    return torch.cat(parts, 1)


def from_scratch(tasks: Episodes, data: Data, seed: int, rate: float) -> Tensor:
    """Accuracy [1, n] of random networks, another for each episode, after 20 updates on the shots alone."""
    parts: list[Tensor] = []
    for number, part in enumerate(in_parts(data)):
        n = len(part[0])
        starts = [tasks.init(derive_seed(seed, DataPurpose.CLASSIFICATION_SCRATCH, number, i))[ROLE] for i in range(n)]
        players = {ROLE: {name: torch.stack([start[name] for start in starts]) for name in starts[0]}}
        *_, players = adapt(tasks, part, players, {ROLE: torch.tensor([[rate]])}, SCRATCH_STEPS)
        with torch.no_grad():
            parts.append(tasks.score(ROLE, players, part, SCRATCH_STEPS))
    return torch.cat(parts).unsqueeze(0)


def nearest_centroid(tasks: Episodes, data: Data) -> Tensor:
    """Accuracy [1, n] of the nearest mean of a class's shots, in pixels."""
    support, query = data[0][:, 0].flatten(2), data[1].flatten(2)
    n, ways = len(support), tasks.ways
    nearest = torch.cdist(query, support.view(n, ways, -1, support.shape[2]).mean(2)).argmin(2)
    return (nearest.view(n, ways, -1) == torch.arange(ways).view(ways, 1)).float().mean((1, 2)).unsqueeze(0)


def picture(path: Path, tasks: Episodes, run: DataRun, data: Data, steps: int) -> None:
    """The first episode: a row for each class, its shots, then queries with what they are taken for before and after."""
    support, query = data[0][0, 0, ..., 0], data[1][0, ..., 0]
    ways, shown = tasks.ways, min(6, tasks.queries)
    found = []
    for now in list(run.adapt(tuple(tensor[:1] for tensor in data), steps))[:: steps or 1]:
        with torch.no_grad():
            found.append(
                tasks.logits(now, tuple(tensor[:1] for tensor in data), "query", 0)[0][0].argmax(1).view(ways, -1)
            )
    rows, columns = ways, tasks.shots + shown
    figure = canvas(1.05 * columns, 1.2 * rows, dpi=110)
    for way, line in enumerate(figure.subplots(rows, columns, squeeze=False)):
        images = [*support.unflatten(0, (ways, -1))[way], *query.unflatten(0, (ways, -1))[way, :shown]]
        for column, (axes, image) in enumerate(zip(line, images, strict=True)):
            axes.imshow((1 - image).numpy(), cmap="gray", vmin=0, vmax=1)
            axes.set(xticks=[], yticks=[])
            if column < tasks.shots:
                axes.set_title(f"class {way}: shot", fontsize=8)
                continue
            before, after = (int(guess[way, column - tasks.shots]) for guess in (found[0], found[-1]))
            axes.set_title(f"{before} → {after}", fontsize=8, color="black" if after == way else "#d55e00")
    figure.suptitle(f"Query drawings: taken for which class before → after {steps} updates", fontsize=9)
    write_atomic(path, rendered(figure, path.suffix[1:]))


def main(settings: Settings) -> dict[str, np.ndarray]:
    """Train what is not yet trained, test all, write tables and pictures. Returns accuracies, see ``results.Found``."""
    for method in settings.methods:
        if method not in LEARNERS:
            raise InvalidInputError(f"method {method!r} must be one of {', '.join(LEARNERS)}")
    torch.set_num_threads(settings.threads)
    console = Console(stderr=True, quiet=settings.quiet)
    with console.status("drawing characters"):
        classes = load_classes(settings)
    ways = {"ways": settings.ways, "shots": settings.shots}

    def make_tasks(method: str) -> Episodes:
        network = make_network(settings, classes.train.shape[-1])
        return Episodes(classes, network, **ways, **EPISODES.get(method, {}))  # type: ignore[arg-type]

    plain = make_tasks("maml")
    data = plain.draw(settings.test_episodes, "held_out", derive_seed(0, DataPurpose.CLASSIFICATION_TEST))
    found: dict[str, list[Tensor]] = {}
    first: DataRun | None = None
    for seed in range(settings.seeds):
        for method in settings.methods:
            tasks, iterations = make_tasks(method), round(settings.iterations * LONGER.get(method, 1))
            run = meta_train(
                tasks, settings.folder / f"{method}-{seed}", resume=True, quiet=settings.quiet, method=method, seed=seed,
                iterations=iterations, tasks=settings.tasks, outer_lr=settings.outer_lr,
                validate_every=max(1, iterations // 5), validation_tasks=40, validation_steps=3,
                threads=settings.threads, **LEARNERS[method],
            )  # fmt: skip
            first = first or run
            found.setdefault(method, []).append(test(tasks, run, data, settings.test_steps))
    tuning = plain.draw(40, "validation", derive_seed(0, DataPurpose.CLASSIFICATION_TUNE))
    rate = max(SCRATCH_RATES, key=lambda rate: float(from_scratch(plain, tuning, 0, rate).mean()))
    found["scratch"] = [from_scratch(plain, data, seed, rate) for seed in range(settings.seeds)]
    found["nearest centroid"] = [nearest_centroid(plain, data)] * settings.seeds
    arrays = {method: torch.stack(runs).double().numpy() for method, runs in found.items()}
    report(settings, arrays, rate)
    if first is not None:
        picture(settings.folder / "episode.png", plain, first, data, 3)
    return arrays


def report(settings: Settings, found: Mapping[str, np.ndarray], rate: float) -> None:
    """Write and show the tables and the curves."""
    title = f"{settings.ways}-way {settings.shots}-shot, {settings.data}, {settings.network}: accuracy, %"
    note = (
        f"{settings.test_episodes} test episodes of held-out classes. Scratch: {SCRATCH_STEPS} updates at rate {rate}."
    )
    sheets = [steps_sheet(title, found, range(settings.test_steps + 1), 100, note)]
    last, pairs = settings.test_steps, []
    for method in settings.methods:
        pairs += [(method, last, "nearest centroid", 0), (method, last, "scratch", 0)]
        pairs += [(method, last, "maml", last)] if "maml" in settings.methods and method != "maml" else []
    sheets.append(against_sheet("Paired differences of accuracy, points", found, pairs, 100))
    write_results(settings.folder / "results.csv", found)
    write_sheets(settings.folder / "results.md", sheets)
    plot_steps(settings.folder / "steps.png", found, "accuracy, %", 100)
    if not settings.quiet:
        for sheet in sheets:
            Console().print(sheet.rich())
        print(f"wrote results.md, results.csv, steps.png and episode.png in {settings.folder}")


if __name__ == "__main__":
    try:
        main(tyro.cli(Settings))
    except InvalidInputError as error:
        print(f"few_shot_classification: {error}", file=sys.stderr)
        sys.exit(2)
