"""The results of an evaluation, computed from its table alone: the sheets of a report, and the report itself.

The headline panel is that of the table's first rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

from metaduel.benchmarks.core import metrics
from metaduel.benchmarks.core.metrics import Array
from metaduel.benchmarks.core.report import (
    RNG_SEED,
    Comparison,
    Sheet,
    cell,
    cover_note,
    crossed_sheet,
    difference_sheet,
    number,
    plot_shots,
    returns_sheet,
    starred,
)
from metaduel.benchmarks.core.table import UNTRAINED, Table
from metaduel.envs.core.arguments import AnyPath, as_path, several
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.files import write_atomic
from metaduel.envs.core.registry import find
from metaduel.envs.core.spec import OPPONENT_SPLITS, ROLES

JOINT, RANDOM, INFORMED, SCRIPTED = "joint", "random start", "informed", "scripted: "
SCRATCH = "SB3 PPO from scratch"
# The opponent split of two learners that meet each other, and the endings of their opponents' names.
LEARNED, LEARNING, AT_START, AT_ADAPTED = "learned", "learning too", "unadapted", "adapted"


def key_shots(last: int) -> tuple[int, ...]:
    """The shots that are compared: 1, 3 and the last."""
    return tuple(sorted({shot for shot in (1, 3, last) if 1 <= shot <= last}))


def headline(table: Table) -> Table:
    """The rows of the headline panel, that of the first row, without methods that play only a part of it."""
    panel = _panel(table)
    return panel.filter(method=[method for method in panel.values("method") if method != SCRATCH])


def _panel(table: Table) -> Table:
    return table.filter(task_split=table["task_split"][0], opponent_split=table["opponent_split"][0])


def meta_learned(table: Table) -> list[str]:
    """The methods that adapt and are no baselines: they have rows at every shot."""
    last = max(table.values("shot"), default=0)
    own = [
        m for m in table.values("method") if m not in (JOINT, RANDOM, INFORMED, SCRATCH) and not m.startswith(SCRIPTED)
    ]
    return [m for m in own if last in table.filter(method=m).values("shot")]


def sheets(table: Table) -> list[Sheet]:
    """Every sheet that the table has the rows for, the headline panel first; one page, see ``starred``."""
    panel = headline(table)
    found = []
    for role in (role for role in ROLES if role in panel.values("role")):
        own = panel.filter(role=role)
        found += [returns_sheet(own, role), *_differences(own, role)]
    found += _from_scratch(_panel(table))
    found += _headroom(panel)
    found += _crossed(table)
    found += _both(table)
    return starred(found)


def _differences(own: Table, role: str) -> list[Sheet]:
    """Meta-learned minus random start and minus joint at the same shot, and minus its own start; on shared seeds."""
    learned, methods = meta_learned(own), own.values("method")
    shots = key_shots(max(own.values("shot")))
    if not learned or not shots:
        return []
    shared = {seed for method in learned for seed in own.filter(method=method).values("seed")}
    others: list[str] = []
    for other in (RANDOM, JOINT):
        seeds = shared.intersection(own.filter(method=other).values("seed")) if other in methods else set()
        if seeds:
            shared, others = seeds, [*others, other]
    comparisons = []
    for method in learned:
        mine = set(own.filter(method=method).values("seed"))
        if not shared <= mine:
            continue
        comparisons += [Comparison(method, shot, other, shot) for other in others for shot in shots]
        comparisons += [Comparison(method, shot, method, 0) for shot in shots]
    if not others:  # no baseline to compare with: compare the methods themselves
        paired = [method for method in learned if shared <= set(own.filter(method=method).values("seed"))]
        comparisons += [Comparison(a, shots[-1], b, shots[-1]) for a, b in itertools.combinations(paired, 2)]
    if not comparisons:
        return []
    return [difference_sheet(own.filter(seed=(*shared, UNTRAINED)), role, comparisons)]


def _from_scratch(panel: Table) -> list[Sheet]:
    """SB3's PPO with an adaptation's budget, beside all learners, on its own tasks and opponents."""
    found = []
    for role in (role for role in ROLES if role in panel.filter(method=SCRATCH).values("role")):
        own = panel.filter(role=role)
        part = {name: own.filter(method=SCRATCH).values(name) for name in ("task", "opponent")}
        learners = [method for method in own.values("method") if not method.startswith(SCRIPTED)]
        sheet = returns_sheet(own.filter(method=learners, **part), role)
        note = (
            "An unmodified PPO, trained on one task against one opponent with as many episodes per shot as an "
            f"adaptation has, beside all other methods on the same tasks ({len(part['task'])}) against the same opponents "
            f"({', '.join(part['opponent'])}). {sheet.note}"
        )
        found.append(replace(sheet, title=f"Learning from scratch: {sheet.title}", note=note))
    return found


def best_non_adapting(own: Table, role: str) -> str | None:
    """The best of joint at shot 0 and every scripted player, by its mean; None if there is neither."""
    known = [m for m in own.values("method") if m == JOINT or m.startswith(SCRIPTED)]
    return max(known, key=lambda method: metrics.mean(own.pivot(method, role, 0)), default=None)


def best_scripted(own: Table, role: str) -> str | None:
    """The best scripted player, by its mean; None if there is none."""
    return best_non_adapting(own.filter(method=[m for m in own.values("method") if m.startswith(SCRIPTED)]), role)


def _headroom(panel: Table) -> list[Sheet]:
    """Headroom of every role, and the fraction of it that the meta-learned players recover."""
    shots = key_shots(max(panel.values("shot")))
    rows: list[tuple[str, ...]] = []
    arrays: list[Array] = []
    for role in (role for role in ROLES if role in panel.values("role")):
        own = panel.filter(role=role)
        best = best_non_adapting(own, role)
        if INFORMED not in own.values("method") or best is None:
            continue
        floor, ceiling = own.pivot(best, role, 0), own.pivot(INFORMED, role, 0)
        arrays += [floor, ceiling]
        start = (
            best + (", shot 0" if best == JOINT else ""),
            *(cell(metrics.estimate(one, RNG_SEED)) for one in (floor, ceiling)),
            _difference(own, role, best),
        )
        for method in meta_learned(own):
            found = [own.pivot(method, role, shot) for shot in shots]
            arrays += found
            rows.append((role, method, *start, *(_recovered(one, floor, ceiling) for one in found)))
    if not rows:
        return []
    header = (
        "role", "method", "best non-adapting player", "its return", "informed", "headroom",
        *(f"recovered at shot {shot}" for shot in shots),
    )  # fmt: skip
    note = (
        "The best non-adapting player is the best, on this panel, of joint training at shot 0 and every scripted player that "
        "reads no hidden context. Recovered: (return − best non-adapting) / headroom; its interval takes the headroom as "
        f"known. {cover_note(arrays)}"
    )
    return [Sheet("Headroom and the fraction that adaptation recovers", header, tuple(rows), note)]


def _difference(own: Table, role: str, best: str) -> str:
    """Informed minus best, paired where both have the same seeds."""
    try:
        return cell(metrics.paired_difference(*own.pair(INFORMED, best, role, 0), RNG_SEED))
    except InvalidInputError:
        return number(metrics.mean(own.pivot(INFORMED, role, 0)) - metrics.mean(own.pivot(best, role, 0)))


def _recovered(own: Array, floor: Array, ceiling: Array) -> str:
    if ceiling.mean() <= floor.mean():
        return "no headroom"
    return cell(metrics.estimate(metrics.recovered_fraction(own, floor, ceiling), RNG_SEED))


def _crossed(table: Table) -> list[Sheet]:
    """Seen and held-out tasks x training and held-out opponents, for methods that played them all."""
    split = table.filter(opponent_split=OPPONENT_SPLITS, task_split=("train", "held_out"))
    pairs = set(zip(split["task_split"].tolist(), split["opponent_split"].tolist(), strict=True))
    if len(pairs) < 4:
        return []
    methods = [m for m in (*meta_learned(split), JOINT) if len(split.filter(method=m).values("task_split")) == 2]
    shots = [shot for shot in (0, 1, 3, max(split.values("shot"))) if shot in split.values("shot")]
    sheet = crossed_sheet(split.filter(method=methods), methods, list(dict.fromkeys(shots)))
    return [sheet]


def _both(table: Table) -> list[Sheet]:
    """Both learners of a run against each other: each adapted or not, and learning against learning."""
    met = table.filter(opponent_split=LEARNED)
    if not len(met):
        return []
    last = max(met.values("shot"))
    # In a zero-sum game one player's returns are minus the other's.
    roles = ROLES[:1] if find(table["family"][0]).zero_sum else ROLES
    square: list[tuple[str, ...]] = []
    curves: list[tuple[str, ...]] = []
    arrays = []
    for method in met.values("method"):
        for role in roles:
            own = {name: _ending(met.filter(role=role), name) for name in (AT_START, AT_ADAPTED, LEARNING)}
            for shot, name in ((0, AT_START), (last, AT_ADAPTED)):
                values = [own[opponent].pivot(method, role, shot) for opponent in (AT_START, AT_ADAPTED)]
                arrays += values
                square.append((method, f"{role} {name}", *(cell(metrics.estimate(v, RNG_SEED)) for v in values)))
            values = [own[LEARNING].pivot(method, role, shot) for shot in range(last + 1)]
            curves.append((method, role, *(cell(metrics.estimate(v, RNG_SEED)) for v in values)))
    note = f"Adapted: at shot {last}, both having adapted to each other at once. {cover_note(arrays)}"
    whose = "the protagonist's return; zero-sum" if len(roles) == 1 else "the row's player's return"
    return [
        Sheet(f"Both players of a run, each adapted or not ({whose})", ("method", "", "opponent unadapted", "opponent adapted"),
              tuple(square), note),
        Sheet(f"Learning against learning ({whose})", ("method", "role", *(f"shot {k}" for k in range(last + 1))),
              tuple(curves), cover_note(arrays)),
    ]  # fmt: skip


def _ending(table: Table, name: str) -> Table:
    return table.filter(opponent=[one for one in table.values("opponent") if one.endswith(f" {name}")])


def write_report(table: Table, out: AnyPath, runs: Sequence[str], tuned: Sequence[str]) -> None:
    """Write ``report.md`` and ``shots.png``.

    Args:
        table: the table of an evaluation.
        out: folder.
        runs: a line about each run.
        tuned: a line about each tuned rate.
    """
    panel, out = headline(table), as_path(out, "out")
    shown = {best for role in panel.values("role") if (best := best_scripted(panel.filter(role=role), role))}
    methods = [m for m in panel.values("method") if not m.startswith(SCRIPTED) or m in shown]
    plot_shots(panel.filter(method=methods), out / "shots.png")
    spec = find(table["family"][0])
    opponents = {role: ", ".join(panel.filter(role=role).values("opponent")) for role in panel.values("role")}
    robust = [returns_sheet(panel, role, "iqm") for role in ROLES if role in panel.values("role")]
    lines = [
        f"# {spec.name}-v{spec.version}: few-shot evaluation",
        "",
        f"{len(panel.values('task'))} tasks ({panel['task_split'][0]}), {len(panel.values('episode'))} test episodes for each "
        "task, opponent and shot: the same ones for every shot and method, apart from those that were adapted on. Undiscounted "
        "returns, averaged over episodes, then over opponents. Opponents: "
        + "; ".join(f"of the {role}: {names}" for role, names in opponents.items())
        + ".",
        "",
        "'Shot 0' of a meta-learned method is its start, unadapted. Beyond the number of updates that a run was trained with, "
        "the inner rate of the last one is kept.",
        "",
        "![return over shots](shots.png)",
        "",
        *(sheet.markdown() for sheet in (*sheets(table), *robust)),
        "### Entries",
        "",
        *(f"- {line}" for line in several(runs)),
        "",
    ]
    if tuned:
        lines += [
            "### Inner rates tuned on validation tasks against training opponents",
            "",
            *(f"- {t}" for t in several(tuned)),
            "",
        ]
    write_atomic(out / "report.md", "\n".join(lines).encode())
