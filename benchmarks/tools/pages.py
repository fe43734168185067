"""One page per family, from its docstring and its measurements: ``metaduel pages``.

It first copies measurements into the families' folders: the certificates of ``metaduel headroom`` under ``runs/``, and the panels
of scripted players, which it plays if players are missing or with ``panels`` (as after a change of a player). Then it writes
``docs/games/`` and the gallery beside it.
No part of a page is written by hand.
"""

from __future__ import annotations

import importlib
import importlib.resources
import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metaduel.benchmarks.core.report import Sheet
from metaduel.benchmarks.tools.panel import panel
from metaduel.envs.core import registry
from metaduel.envs.core.arguments import AnyPath, as_path
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.files import write_atomic
from metaduel.envs.core.measured import FOLDER, file_name, measured
from metaduel.envs.core.spec import OPPONENT_SPLITS, ROLES, GameSpec, Role
from metaduel.envs.players.scripted import scripted
from metaduel.envs.render import gallery


def write_pages(docs: AnyPath, runs: AnyPath, panels: bool = False) -> None:
    """Copy measurements and write all pages and the gallery.

    Args:
        docs: the folder of the pages; the gallery lies beside it.
        runs: folder with the certificates, as ``headroom-GAME/headroom.json``.
        panels: play the panels of scripted players again.

    Raises:
        InvalidInputError: a certificate of another version of its game, or a file that is no certificate; nothing is written.
    """
    docs, runs = as_path(docs, "docs"), as_path(runs, "runs")
    files = {spec.name: runs / f"headroom-{spec.name}" / "headroom.json" for spec in registry.builtin().values()}
    certificates = {name: read_certificate(path, registry.find(name)) for name, path in files.items() if path.is_file()}
    for spec in registry.builtin().values():
        known = measured(spec)
        changes: dict[str, Any] = {}
        if spec.name in certificates:
            changes["headroom"] = certificates[spec.name]
        if panels or any(_rated(known, role) != set(scripted(spec, role)) for role in ROLES):
            changes["panel"] = panel(spec)
        if changes:
            folder = Path(str(importlib.resources.files(spec.package))) / FOLDER
            content = json.dumps({**known, **changes}, indent=1, sort_keys=True) + "\n"
            write_atomic(folder / file_name(spec), content.encode())
    for package, specs in registry.families(registry.builtin()).items():
        name = package.rpartition(".")[2]
        write_atomic(docs / f"{name}.md", page(specs).encode())
        gallery.write_png(docs / f"{name}.png", gallery.shrink(gallery.portrait(specs[0])))
    write_atomic(docs / "README.md", index().encode())
    gallery.write_gallery(docs.parent / "gallery.png")


def _rated(known: Mapping[str, Any], role: Role) -> set[str]:
    """The players of a role that the panel knows."""
    return set(known.get("panel", {}).get(role, {}).get("ratings", {}))


def read_certificate(path: Path, spec: GameSpec) -> dict[str, Any]:
    """A certificate of ``metaduel headroom``.

    Raises:
        InvalidInputError: the file belongs to another version of the game, or is no certificate.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InvalidInputError(f"{path}: not a certificate of `metaduel headroom` ({error})") from None
    if content["game"] != f"{spec.name}-v{spec.version}":
        raise InvalidInputError(f"{path} is of {content['game']}, not of {spec.name}-v{spec.version}: measure it again")
    return content


def page(specs: Sequence[GameSpec]) -> str:
    """The page of one family's folder: [Markdown]."""
    package = specs[0].package
    docstring = inspect.getdoc(importlib.import_module(package)) or ""
    name = package.rpartition(".")[2]
    parts = [f"# {name.replace('_', ' ').capitalize()}", docstring.replace("``", "`"), f"![a frame]({name}.png)"]
    for spec in specs:
        known = measured(spec)
        parts.append(f"## {spec.name}: measurements")
        parts += _headroom_parts(known.get("headroom"), spec)
        if "panel" in known:
            parts += [_players(spec, role, known["panel"][role]).markdown() for role in ROLES]
            parts.append(_PANEL_NOTE)
    return "\n\n".join(part.strip() for part in parts) + "\n"


_PANEL_NOTE = (
    "Rating: all players of a role meet the same opponents on the same tasks and are ranked by return (Plackett-Luce, starts "
    "at 25); ± one standard deviation. Nearest: the training player that a held-out one disagrees with least along its own "
    "episodes, and by how much (share of the largest distance between actions; share of different actions where they are "
    "discrete). Options: see `metaduel.envs.players`; every player has `noise`, and those with continuous actions `delay`, "
    "too."
)


def _headroom_parts(certificate: Mapping[str, Any] | None, spec: GameSpec) -> list[str]:
    if certificate is None:
        return [f"Headroom has not been measured for this version yet: `metaduel headroom {spec.name}`."]
    parts = []
    for role, found in certificate["roles"].items():
        parts.append(f"### Headroom as {role}: {found['verdict']}")
        parts.append(headroom_sheet(role, found).markdown())
        parts.append(_summary(found))
    budget = certificate["budget"]
    parts.append(
        f"`{certificate['command']}`: {budget['seeds']} seeds, {budget['iterations']} batches of {budget['steps']:,} environment "
        "steps for every trained player; validation tasks, training opponents; 95% intervals over seeds (scripted players: over "
        "tasks)."
    )
    if "slices" not in budget:
        parts.append(
            "Its trained players learned in an earlier way, without value networks and normalised observations "
            "([how the certificate's players learn](../decisions/headroom.md#how-do-the-certificates-players-learn))."
        )
    return parts


def headroom_sheet(role: Role | str, found: Mapping[str, Any]) -> Sheet:
    """The returns of all players in one role, the best first."""
    rows = tuple(
        (row["player"], row["kind"], f"{row['mean']:.3f}", f"[{row['low']:.3f}, {row['high']:.3f}]", _rise(row))
        for row in found["players"]
    )
    return Sheet(f"Return as {role}", ("player", "kind", "return", "95% interval", "last quarter"), rows, "")


def _rise(row: Mapping[str, Any]) -> str:
    return f"{row['rise']:+.3f}" if row["rise"] else ""


def _summary(found: Mapping[str, Any]) -> str:
    headroom, recovered = found["headroom"], ""
    if headroom["mean"] > 0:
        recovered = (
            f" Memory within the episode recovers {_share(found, 'recurrent_share')} of it, a fine-tuned random start "
            f"{_share(found, 'random_start_share')} (less than 0.5 is required)."
        )
    return (
        f"Headroom of the informed player ({found['informed']}) over the best non-adapting player ({found['best']}): "
        f"{headroom['mean']:.3f} [{headroom['low']:.3f}, "
        f"{headroom['high']:.3f}]; its lower end is {found['share']:.0%} of the informed player's gain over a random one "
        f"(the best trained player alone: {_percent(found['trained_share'])}) "
        f"(at least 20% is required)." + recovered
    )


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0 else "below 0"


def _share(found: Mapping[str, Any], name: str) -> str:
    """The fraction of the headroom that is recovered; none without headroom."""
    return f"{found[name]:.2f}" if found["headroom"]["mean"] > 0 else ""


def _players(spec: GameSpec, role: Role, found: Mapping[str, Any]) -> Sheet:
    known = scripted(spec, role)
    rows = []
    for split in OPPONENT_SPLITS:
        for name in sorted(spec.opponents[role][split], key=lambda one: -found["ratings"][one]["mu"]):
            rated, near = found["ratings"][name], found["nearest"].get(name)
            own = ", ".join(f"{o.name} {o.default:.3g} ({o.low:g} to {o.high:g})" for o in known[name].options)
            nearest = f"{near['name']}, {near['disagreement']:.2f}" if near else ""
            rows.append(
                (
                    name,
                    split,
                    known[name].description,
                    f"{rated['mu']:.1f} ± {rated['sigma']:.1f}",
                    f"{rated['mean']:.2f}",
                    nearest,
                    own,
                )
            )
    header = ("player", "split", "what it does", "rating", "mean return", "nearest training player", "options")
    return Sheet(f"Scripted players as {role}", header, tuple(rows), "")


def index() -> str:
    """The table of all games and roles: [Markdown]."""
    rows = []
    for package, specs in registry.families(registry.builtin()).items():
        for spec in specs:
            certificate = measured(spec).get("headroom")
            link = f"[{spec.name}]({package.rpartition('.')[2]}.md)"
            for role in ROLES:
                found = certificate["roles"][role] if certificate else None
                cells = ("", "", "", "", "", "not measured yet")
                if found:
                    headroom = found["headroom"]
                    cells = (
                        f"{headroom['mean']:.3f} [{headroom['low']:.3f}, {headroom['high']:.3f}]",
                        f"{found['share']:.0%}",
                        _percent(found["trained_share"]),
                        *(_share(found, name) for name in ("random_start_share", "recurrent_share")),
                        found["verdict"],
                    )
                rows.append((link, role, *cells))
    header = (
        "game",
        "role",
        "headroom",
        "share of what knowing gains",
        "trained alone",
        "random start recovers",
        "memory recovers",
        "verdict",
    )
    note = (
        "Headroom: the return of the best informed player, which sees the hidden contexts, minus that of the best player that "
        "neither sees them nor adapts. Either may be a trained player or a script; each page says which. A role passes if the "
        "lower end of the interval is at least 20% of the informed player's gain over a random one (trained alone: the best "
        "trained informed player's) and if a fine-tuned random start recovers less than half of the headroom."
    )
    sheet = Sheet("Headroom of every game and role", header, tuple(rows), note)
    return "# The games\n\n![one frame of every family](../gallery.png)\n\n" + sheet.markdown().strip() + "\n"
