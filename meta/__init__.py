"""Meta-learners around both players, and the trainer.

What is named here is public; the modules below it are not. Each name is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from metaduel.envs.core.lazy import exports

if TYPE_CHECKING:
    from metaduel.meta.adaptation.adapters import GradientAdapter as GradientAdapter
    from metaduel.meta.adaptation.adapters import MemoryAdapter as MemoryAdapter
    from metaduel.meta.learners.learner import Learner as Learner
    from metaduel.meta.learners.methods import METHODS as METHODS
    from metaduel.meta.learners.methods import Method as Method
    from metaduel.meta.problems.problem import Batch as Batch
    from metaduel.meta.problems.problem import Players as Players
    from metaduel.meta.problems.problem import Problem as Problem
    from metaduel.meta.problems.supervised import Data as Data
    from metaduel.meta.problems.supervised import Tasks as Tasks
    from metaduel.meta.runs.agent import Agent as Agent
    from metaduel.meta.runs.black_box import SB3Inner as SB3Inner
    from metaduel.meta.runs.black_box import train_sb3 as train_sb3
    from metaduel.meta.runs.load import ForeignRun as ForeignRun
    from metaduel.meta.runs.load import Run as Run
    from metaduel.meta.runs.load import load as load
    from metaduel.meta.runs.supervised import DataRun as DataRun
    from metaduel.meta.runs.supervised import meta_train as meta_train
    from metaduel.meta.runs.train import TaskList as TaskList
    from metaduel.meta.runs.train import train_meta_adversarial as train_meta_adversarial

_PLACES = {
    "Agent": "metaduel.meta.runs.agent",
    "Batch": "metaduel.meta.problems.problem",
    "Data": "metaduel.meta.problems.supervised",
    "DataRun": "metaduel.meta.runs.supervised",
    "ForeignRun": "metaduel.meta.runs.load",
    "GradientAdapter": "metaduel.meta.adaptation.adapters",
    "Learner": "metaduel.meta.learners.learner",
    "load": "metaduel.meta.runs.load",
    "MemoryAdapter": "metaduel.meta.adaptation.adapters",
    "meta_train": "metaduel.meta.runs.supervised",
    "Method": "metaduel.meta.learners.methods",
    "METHODS": "metaduel.meta.learners.methods",
    "Players": "metaduel.meta.problems.problem",
    "Problem": "metaduel.meta.problems.problem",
    "Run": "metaduel.meta.runs.load",
    "SB3Inner": "metaduel.meta.runs.black_box",
    "TaskList": "metaduel.meta.runs.train",
    "Tasks": "metaduel.meta.problems.supervised",
    "train_meta_adversarial": "metaduel.meta.runs.train",
    "train_sb3": "metaduel.meta.runs.black_box",
}

__all__ = list(_PLACES)
__getattr__, __dir__ = exports(__name__, _PLACES)
