"""Run folders: ``config.yaml``, ``metrics.csv``, ``checkpoints/*.safetensors``; and saved agents: ``agent.safetensors``. Nothing
in them can execute code.

A checkpoint holds named tensors; its metadata is one JSON object with the run's state and a SHA-256 digest of the
tensors, since safetensors notices a truncated file but not a flipped byte. Every write is atomic.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.files import write_atomic

FORMAT = 2
STATE = ("config", "loss", "random", "role", "seed", "shots")  # of a saved agent
AGENT = "agent.safetensors"  # the one file of a saved agent's folder: its tensors, and as JSON its state and its run's settings


def _digest(tensors: Mapping[str, Tensor], state: str) -> str:
    sha = hashlib.sha256(state.encode())
    for name in sorted(tensors):
        value = tensors[name]
        sha.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        sha.update(value.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write tensors and a JSON-able state."""
    own = {name: value.detach().clone().contiguous() for name, value in tensors.items()}
    text = json.dumps(state, sort_keys=True)
    metadata = {"format": str(FORMAT), "state": text, "digest": _digest(own, text)}
    write_atomic(path, save(own, metadata))


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read tensors and state.

    Raises:
        InvalidInputError: the file is missing, truncated, changed, or of another format.
    """
    if not path.is_file():
        raise InvalidInputError(f"{path}: no such checkpoint")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError, ValueError) as error:
        raise InvalidInputError(f"{path}: corrupt or truncated checkpoint ({str(error).splitlines()[0]})") from None
    if metadata.get("format") != str(FORMAT):
        raise InvalidInputError(f"{path}: checkpoint format {metadata.get('format')!r}, this version reads {FORMAT}")
    if metadata.get("digest") != _digest(tensors, metadata.get("state", "")):
        raise InvalidInputError(f"{path}: corrupt checkpoint (its digest does not match its content)")
    state: dict[str, Any] = json.loads(metadata["state"])
    return tensors, state


def load_agent(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors and the state of a saved agent.

    Raises:
        InvalidInputError: see ``load_checkpoint``; or a checkpoint of anything else.
    """
    tensors, state = load_checkpoint(folder / AGENT)
    missing = [name for name in STATE if name not in state] + [name for name in ("rates",) if name not in tensors]
    if missing:
        raise InvalidInputError(f"{folder / AGENT}: not a saved agent's file: it has no {', '.join(missing)}")
    return tensors, state


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write the run's ``config.yaml``."""
    write_atomic(folder / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False).encode())


def holds_players(folder: Path) -> bool:
    """Whether a folder is a run's, or a saved agent's."""
    return (folder / "config.yaml").is_file() or (folder / AGENT).is_file()


def check_free(folder: Path) -> None:
    """Raise ``InvalidInputError`` where an agent cannot be saved: a file, or a folder with anything but a saved agent in it."""
    if folder.exists() and not folder.is_dir():
        raise InvalidInputError(f"folder={str(folder)!r} is a file: name a new folder, or one of a saved agent")
    others = sorted({path.name for path in folder.iterdir()} - {AGENT}) if folder.is_dir() else []
    if others:
        raise InvalidInputError(
            f"folder={str(folder)!r} holds {', '.join(others[:3])}: name a new folder, an empty one, or one of a saved agent"
        )


def read_config(folder: Path) -> dict[str, Any]:
    """Read the settings of a run: its ``config.yaml``, or those in the file of a saved agent.

    Raises:
        InvalidInputError: neither of these folders, or a corrupt or another file.
    """
    if (folder / AGENT).is_file():
        settings: dict[str, Any] = load_agent(folder)[1]["config"]
        return settings
    path = folder / "config.yaml"
    if not path.is_file():
        raise InvalidInputError(f"{folder} is not a run folder: it has no config.yaml (made by `metaduel train`)")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise InvalidInputError(f"{path}: not YAML ({str(error).splitlines()[0]})") from None
    if not isinstance(content, dict):
        raise InvalidInputError(f"{path}: must hold a mapping of settings")
    return content
