"""The reproductions by name: ``metaduel reproduce NAME``, or ``make reproduce-NAME``. A new protocol is a file beside
``lola.py`` and a line here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metaduel.agents.runtime import configured
from metaduel.benchmarks.core import suite
from metaduel.benchmarks.core.suite import Report, Suite
from metaduel.benchmarks.studies.comparison import Comparison
from metaduel.benchmarks.studies.lola import Lola
from metaduel.benchmarks.studies.peers import Peers
from metaduel.benchmarks.studies.published import Navigation
from metaduel.benchmarks.studies.robustness import Robustness
from metaduel.envs.core.arguments import AnyPath
from metaduel.envs.core.errors import InvalidInputError, unknown
from metaduel.meta.runs.config import build

PROTOCOLS: dict[str, type[Suite]] = {
    "comparison": Comparison,
    "lola": Lola,
    "navigation": Navigation,
    "peers": Peers,
    "robustness": Robustness,
}


def make(values: Mapping[str, Any]) -> Suite:
    """The suite of a file's content.

    Raises:
        InvalidInputError: an unknown protocol or key, with the nearest known one, or a value that cannot work.
    """
    own = dict(values)
    if "protocol" not in own:
        raise InvalidInputError(f"the suite has no protocol; known: {', '.join(PROTOCOLS)}")
    protocol = own.pop("protocol")
    if protocol not in PROTOCOLS:
        raise unknown("protocol", protocol, PROTOCOLS)
    made: Suite = build(PROTOCOLS[protocol], own)
    return made


@configured(1)
def reproduce(name: str, folder: AnyPath, quiet: bool = False, workers: int = 1, keep: AnyPath | None = None) -> Report:
    """Play the unfinished cells of a reproduction in ``folder``, and write its table, report and pictures there; see
    ``suite.run``.
    """
    return suite.run(name, make(suite.settings(name)), folder, quiet, workers, keep)
