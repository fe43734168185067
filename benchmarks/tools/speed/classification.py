"""A meta-gradient of few-shot classification: all tasks at once, and task by task."""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Mapping

import torch
from torch import Tensor

from metaduel.agents.networks import Convolutional, Network
from metaduel.agents.runtime import configure
from metaduel.benchmarks.core.report import Sheet
from metaduel.benchmarks.tools.speed.measure import peak_memory
from metaduel.envs.core.spec import Role
from metaduel.envs.core.spec import Split as TaskSplit
from metaduel.meta.learners.maml import MAML, MAMLConfig
from metaduel.meta.problems.problem import Players
from metaduel.meta.problems.supervised import Data, DataProblem, Tasks
from metaduel.meta.problems.supervised import Part as DataPart


class _Glyphs(Tasks):
    """5-way 1-shot tasks of random images, one query for each class."""

    def __init__(self) -> None:
        self.networks: Mapping[Role, Network] = {"protagonist": Convolutional(1, 5)}

    def draw(self, n: int, split: TaskSplit, seed: int) -> Data:
        """Support and query images [n, 5, 28, 28, 1] each."""
        generator = torch.Generator().manual_seed(seed)
        images = torch.empty(2, n, 5, 28, 28, 1, dtype=torch.float32, device="cpu").uniform_(generator=generator)
        return images[0], images[1]

    def loss(self, role: Role, players: Players, data: Data, part: DataPart, shot: int) -> Tensor:
        """Cross-entropy: [n]."""
        logits = self.networks[role](players[role], data[part == "query"])
        return -torch.log_softmax(logits, 2).diagonal(dim1=1, dim2=2).mean(1)


def classification_gradient(second_order: bool, looped: bool, threads: int, iterations: int) -> tuple[float, float]:
    """Median seconds of a meta-gradient on 32 tasks, and the process's additional MiB since before the first."""
    configure(threads)
    tasks = _Glyphs()
    learner = MAML(tasks.init(0), MAMLConfig(steps=1, inner_lr=0.4, second_order=second_order))
    whole = tasks.draw(32, "train", 0)
    batches = [tuple(tensor[i : i + 1] for tensor in whole) for i in range(32)] if looped else [whole]

    def play() -> None:
        for batch in batches:
            learner.gradients(DataProblem(tasks, batch))

    base = peak_memory()
    play()
    times = []
    for _ in range(iterations):
        start = time.perf_counter()
        play()
        times.append(time.perf_counter() - start)
    return statistics.median(times), peak_memory() - base


def classification_sheet(iterations: int) -> Sheet:
    """Meta-gradients of few-shot classification: second order, first order, and second order in a loop over tasks."""
    kinds = (
        ("second order", True, False),
        ("first order", False, False),
        ("second order, loop over tasks", True, True),
    )
    rows, context = [], multiprocessing.get_context("spawn")
    for threads in (1, 2):
        first = 0.0
        for name, second_order, looped in kinds:
            with context.Pool(1) as pool:
                seconds, memory = pool.apply(classification_gradient, (second_order, looped, threads, iterations))
            first = first or seconds
            rows.append((str(threads), name, f"{seconds:.3f}", f"{seconds / first:.2f}", f"{memory:.0f}"))
    note = "5-way 1-shot, 32 tasks, four blocks of 64 filters, one update; peak memory above the process's own."
    header = ("threads", "meta-gradient", "seconds", "times second order", "MiB more")
    return Sheet("Few-shot classification", header, tuple(rows), note)
