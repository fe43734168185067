"""New places of version 0.1's modules: an import of an old name fails and names the new place. docs/migration.md lists them."""

from __future__ import annotations

import importlib.abc
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

# Old module -> its replacement. A module that held several things has several.
MODULES = {
    "metaduel.agents.baselines": "metaduel.agents.objective.baselines",
    "metaduel.agents.distributions": "metaduel.agents.policies.distributions",
    "metaduel.agents.latent": "metaduel.agents.policies.latent",
    "metaduel.agents.losses": "metaduel.agents.objective.losses",
    "metaduel.agents.memory": "metaduel.agents.policies.memory",
    "metaduel.agents.recurrent": "metaduel.agents.GRUPolicy and LSTMPolicy",
    "metaduel.agents.returns": "metaduel.agents.objective.returns",
    "metaduel.agents.statistics": "metaduel.agents.policies.statistics",
    "metaduel.agents.tabular": "metaduel.agents.TabularPolicy",
    "metaduel.benchmarks.clouds": "metaduel.benchmarks.tools.clouds, or the command `metaduel clouds`",
    "metaduel.benchmarks.comparison": "metaduel.benchmarks.studies.comparison",
    "metaduel.benchmarks.demo": "metaduel.benchmarks.tools.demo",
    "metaduel.benchmarks.dynamics": "metaduel.benchmarks.studies.dynamics, or the command `metaduel dynamics`",
    "metaduel.benchmarks.enumerated": "metaduel.benchmarks.tools.enumerated",
    "metaduel.benchmarks.evaluate": "metaduel.evaluate",
    "metaduel.benchmarks.exploitability": "metaduel.benchmarks.tools.exploitability",
    "metaduel.benchmarks.few_shot": "metaduel.benchmarks.core.few_shot",
    "metaduel.benchmarks.film": "metaduel.benchmarks.tools.film",
    "metaduel.benchmarks.headroom": "metaduel.benchmarks.tools.headroom",
    "metaduel.benchmarks.lola": "metaduel.benchmarks.studies.lola",
    "metaduel.benchmarks.metrics": "metaduel.benchmarks.estimate, paired_difference, iqm",
    "metaduel.benchmarks.optimum": "metaduel.benchmarks.studies.optimum",
    "metaduel.benchmarks.pages": "metaduel.benchmarks.tools.pages, or the command `metaduel pages`",
    "metaduel.benchmarks.panel": "metaduel.benchmarks.tools.panel",
    "metaduel.benchmarks.peers": "metaduel.benchmarks.studies.peers",
    "metaduel.benchmarks.population": "metaduel.benchmarks.tools.population",
    "metaduel.benchmarks.progress": "metaduel.benchmarks.core.progress",
    "metaduel.benchmarks.proofs": "metaduel.benchmarks.tools.proofs, or the command `metaduel proofs`",
    "metaduel.benchmarks.published": "metaduel.benchmarks.studies.published, or the command `metaduel published`",
    "metaduel.benchmarks.remembering": "metaduel.benchmarks.studies.remembering",
    "metaduel.benchmarks.report": "metaduel.benchmarks.core.report",
    "metaduel.benchmarks.reproduce": "metaduel.benchmarks.studies.reproduce",
    "metaduel.benchmarks.robustness": "metaduel.benchmarks.studies.robustness",
    "metaduel.benchmarks.scratch": "metaduel.benchmarks.core.scratch",
    "metaduel.benchmarks.speed": "metaduel.benchmarks.tools.speed, or the command `metaduel speed`",
    "metaduel.benchmarks.suite": "metaduel.benchmarks.core.suite",
    "metaduel.benchmarks.summary": "metaduel.benchmarks.core.summary",
    "metaduel.benchmarks.table": "metaduel.benchmarks.Table",
    "metaduel.envs.adapters.gymnasium_registration": "metaduel.register",
    "metaduel.envs.adapters.pettingzoo_registration": "metaduel.register",
    "metaduel.envs.errors": "metaduel.envs.InvalidInputError",
    "metaduel.envs.gallery": "metaduel.envs.render.gallery",
    "metaduel.envs.human": "metaduel.envs.render.human",
    "metaduel.envs.measured": "metaduel.envs.core.measured",
    "metaduel.envs.noise": "metaduel.envs.core.noise",
    "metaduel.envs.opponents": "metaduel.sample_opponents, metaduel.envs.Scripted and metaduel.envs.players.names",
    "metaduel.envs.play": "metaduel.envs.players.play and metaduel.envs.render.film",
    "metaduel.envs.registry": "metaduel.find, games, opponents, register",
    "metaduel.envs.spec": "metaduel.envs.GameSpec, Context, Task",
    "metaduel.envs.tasks": "metaduel.sample_tasks and metaduel.envs.frozen_tasks",
    "metaduel.meta.agent": "metaduel.load and metaduel.meta.Agent, Run",
    "metaduel.meta.anil": "metaduel.meta.learners.anil",
    "metaduel.meta.black_box": "metaduel.meta.SB3Inner and metaduel.meta.train_sb3",
    "metaduel.meta.chains": "metaduel.meta.problems.chains",
    "metaduel.meta.checkpoint": "metaduel.meta.runs.checkpoint",
    "metaduel.meta.config": "metaduel.meta.runs.config",
    "metaduel.meta.data": "metaduel.meta.Tasks, Data, meta_train and metaduel.meta.adaptation.supervised.adapt",
    "metaduel.meta.duels": "metaduel.meta.problems.duels and metaduel.agents.objective.config",
    "metaduel.meta.e_maml": "metaduel.meta.learners.e_maml",
    "metaduel.meta.few_shot": "metaduel.meta.adaptation.few_shot",
    "metaduel.meta.foreign": "metaduel.envs.adapters.parallel and metaduel.meta.runs.foreign",
    "metaduel.meta.inner": "metaduel.meta.adaptation.inner",
    "metaduel.meta.latent": "metaduel.meta.learners.latent",
    "metaduel.meta.maml": "metaduel.meta.learners.maml",
    "metaduel.meta.mapg": "metaduel.meta.learners.mapg",
    "metaduel.meta.meta_sgd": "metaduel.meta.learners.meta_sgd",
    "metaduel.meta.methods": "metaduel.meta.METHODS",
    "metaduel.meta.outer": "metaduel.meta.adaptation.outer",
    "metaduel.meta.personas": "metaduel.meta.problems.personas",
    "metaduel.meta.problem": "metaduel.meta.problems.problem",
    "metaduel.meta.promp": "metaduel.meta.learners.promp",
    "metaduel.meta.rarl": "metaduel.meta.learners.rarl",
    "metaduel.meta.reptile": "metaduel.meta.learners.reptile",
    "metaduel.meta.rl2": "metaduel.meta.learners.rl2",
    "metaduel.meta.self_play": "metaduel.meta.learners.self_play",
    "metaduel.meta.source": "metaduel.meta.runs.source and metaduel.meta.runs.players",
    "metaduel.meta.train": "metaduel.train_meta_adversarial and metaduel.TaskList",
    "metaduel.meta.trainer": "metaduel.meta.runs.trainer",
    "metaduel.meta.trpo": "metaduel.meta.learners.trpo",
}


class _Moved(importlib.abc.MetaPathFinder):
    """The last finder on the path, so that it hides no module that exists."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname in MODULES:
            # No ModuleNotFoundError: `from metaduel.meta import duels` would swallow it.
            raise ImportError(f"{fullname} has moved: {MODULES[fullname]} (docs/migration.md)", name=fullname)
        return None


def install() -> None:
    """Make imports of old modules fail with the name of the new place."""
    if not any(isinstance(finder, _Moved) for finder in sys.meta_path):
        sys.meta_path.append(_Moved())
