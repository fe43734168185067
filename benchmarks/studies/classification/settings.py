"""Settings of the study of few-shot classification. Imports no torch: a command line's ``--help`` answers at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from metaduel.envs.core.arguments import as_path, several

TEST, SCRATCH, TUNE = range(200, 203)  # purposes of the seeds, apart from those of training

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
    """Settings of training and test.

    Attributes:
        data: ``characters`` of our own, scikit-learn's ``digits``, or ``omniglot``.
        omniglot_folder: folder with images_background and images_evaluation.
        methods: methods to train; the baselines are always tested.
        network: ``conv``, four blocks of 64 filters, or ``dense``, both as in MAML's paper.
        ways: N, classes in an episode.
        shots: K, drawings of each.
        seeds: runs of each method.
        iterations: outer steps; Reptile takes half as many again.
        tasks: episodes per iteration.
        outer_lr: Adam's initial step size.
        test_episodes: number of episodes of held-out classes, the same for all methods.
        test_steps: updates at test.
        classes: number of classes of our own characters.
        threads: number of torch's threads.
        folder: folder for runs, tables and pictures.
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

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", as_path(self.folder, "folder"))
        object.__setattr__(self, "methods", tuple(several(self.methods)))


Options = Annotated[Settings, tyro.conf.arg(name="")]  # on a command line: --data, not --settings.data
