"""Few-shot evaluation on held-out tasks and opponents, with honest statistics.

What is named here is public; the modules below it are not. Each name is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from metaduel.envs.core.lazy import exports

if TYPE_CHECKING:
    from metaduel.benchmarks.core.evaluate import EvaluationFailed as EvaluationFailed
    from metaduel.benchmarks.core.evaluate import evaluate as evaluate
    from metaduel.benchmarks.core.metrics import Estimate as Estimate
    from metaduel.benchmarks.core.metrics import estimate as estimate
    from metaduel.benchmarks.core.metrics import iqm as iqm
    from metaduel.benchmarks.core.metrics import mean as mean
    from metaduel.benchmarks.core.metrics import paired_difference as paired_difference
    from metaduel.benchmarks.core.metrics import probability_of_improvement as probability_of_improvement
    from metaduel.benchmarks.core.table import Table as Table

_PLACES = {
    "Estimate": "metaduel.benchmarks.core.metrics",
    "estimate": "metaduel.benchmarks.core.metrics",
    "evaluate": "metaduel.benchmarks.core.evaluate",
    "EvaluationFailed": "metaduel.benchmarks.core.evaluate",
    "iqm": "metaduel.benchmarks.core.metrics",
    "mean": "metaduel.benchmarks.core.metrics",
    "paired_difference": "metaduel.benchmarks.core.metrics",
    "probability_of_improvement": "metaduel.benchmarks.core.metrics",
    "Table": "metaduel.benchmarks.core.table",
}

__all__ = list(_PLACES)
__getattr__, __dir__ = exports(__name__, _PLACES)
