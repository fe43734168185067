"""Settings of the study of few-shot generation. Imports no torch: a command line's ``--help`` answers at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from metaduel.envs.core.arguments import as_path, several

STEPS = 10  # joint updates, at most
TEST, LATENTS, SCRATCH, TUNE, JITTER = range(210, 215)  # purposes of the seeds, apart from those of training

MAML: dict[str, Any] = {"steps": STEPS, "inner_lr": 0.3, "inner_lr_outer_lr": 0.03, "outer_lr": 5e-3, "momentum": 0.9}
LEARNERS: dict[str, dict[str, Any]] = {
    "maml": MAML,
    "fomaml": MAML,
    "reptile": {"steps": STEPS, "inner_lr": 0.5, "outer_lr": 2e-3},
    "joint": {"steps": 0, "outer_lr": 3e-3},
}


@dataclass(frozen=True)
class Settings:
    """Settings of training and test.

    Attributes:
        data: ``plane``, the distributions of the game Forgery; ``characters`` of our own, or ``digits``, with held-out classes.
        methods: methods to train, beside joint pretraining.
        shots: K, real samples to adapt to.
        seeds: runs of each method.
        iterations: outer steps; joint training, which is cheaper, gets twice as many.
        tasks: distributions per iteration.
        judge: the generator's outer loss: the ``distance`` to fresh samples, or the verdict of its own ``discriminator``.
        test_tasks: number of held-out distributions.
        classes: number of classes of our own characters.
        threads: number of torch's threads.
        folder: folder for runs, tables and pictures.
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

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", as_path(self.folder, "folder"))
        object.__setattr__(self, "methods", tuple(several(self.methods)))


Options = Annotated[Settings, tyro.conf.arg(name="")]  # on a command line: --data, not --settings.data
