"""The rooms of a clone: there they lie beside the folder ``metaduel``, not in it.

With a clone's root as the present folder, ``import metaduel`` finds the clone's folder before the installed package. This module,
imported before all others, then makes the clone's own rooms parts of it, unless an editable install has done so. So the clone's
code runs, as it does in any project whose package lies in its root.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import metaduel

_ROOT = Path(metaduel.__file__).parents[1]

if importlib.util.find_spec("metaduel.envs") is None:
    if not (_ROOT / "envs" / "core").is_dir():
        raise ImportError(
            f"{_ROOT / 'metaduel'} is a part of metaduel's source and hides the installed package: start Python in another "
            "folder, or install the whole clone with `pip install -e .`",
            name="metaduel.envs",
        )
    metaduel.__path__.append(str(_ROOT))
