"""The tidy table: its errors, averages and pairs, and its files."""

import gzip

import numpy as np
import pytest

from metaduel.benchmarks.core import table as tables
from metaduel.benchmarks.core.summary import sheets
from metaduel.benchmarks.core.table import COLUMNS, UNTRAINED, Table
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.registry import find
from metaduel.envs.core.tasks import frozen_tasks, task_id

TASKS, OPPONENTS = ("held_out:0", "held_out:1", "held_out:2"), ("swirl", "block")


def returns(seed=0, shots=2, opponents=2, tasks=3, episodes=4):
    return np.random.default_rng(seed).standard_normal((shots + 1, opponents, tasks, episodes))


def make(array, method="maml", seed=0, **changes):
    settings = {
        "role": "protagonist", "task_split": "held_out", "tasks": TASKS, "opponent_split": "held_out",
        "opponents": OPPONENTS, "actions": "sampled",
    }  # fmt: skip
    return tables.from_returns(array, find("Navigation"), method=method, seed=seed, **(settings | changes))


def columns(table):
    return {name: table[name] for name in COLUMNS}


def test_pivot_averages_over_episodes_then_opponents():
    first, second = returns(0), returns(1)
    table = make(second, seed=7).append(make(first, seed=3))
    assert len(table) == 2 * 3 * 2 * 3 * 4
    for shot in range(3):
        expected = [first[shot].mean((0, 2)), second[shot].mean((0, 2))]
        np.testing.assert_allclose(table.pivot("maml", "protagonist", shot), expected)


def test_opponents_count_alike_whatever_their_number_of_episodes():
    few, many = np.full((1, 1, 3, 1), 1.0), np.full((1, 1, 3, 9), 3.0)
    table = make(few, opponents=("swirl",)).append(make(many, opponents=("block",)))
    np.testing.assert_array_equal(table.pivot("maml", "protagonist", 0), [[2.0, 2.0, 2.0]])


def test_pivot_does_not_depend_on_the_order_of_rows():
    table = make(returns(0), seed=1).append(make(returns(1), seed=0))
    order = np.random.default_rng(0).permutation(len(table))
    shuffled = Table({name: column[order] for name, column in columns(table).items()})
    np.testing.assert_allclose(shuffled.pivot("maml", "protagonist", 1), table.pivot("maml", "protagonist", 1))


def test_missing_cells_are_named():
    table = make(returns(0)).append(make(returns(1), seed=1))
    gone = (table["seed"] == 1) & (table["task"] == "held_out:2") & (table["opponent"] == "block")
    part = Table({name: column[~gone] for name, column in columns(table).items()})
    with pytest.raises(
        InvalidInputError, match="maml as protagonist, shot 0: no rows for seed 1, task held_out:2, opponent block"
    ):
        part.pivot("maml", "protagonist", 0)


def test_an_episode_that_occurs_twice_is_named():
    table = make(returns()).append(make(returns()))
    with pytest.raises(InvalidInputError, match="seed 0, task held_out:0, opponent block, episode 0 occurs more than"):
        table.pivot("maml", "protagonist", 0)


@pytest.mark.parametrize(
    "changes", [{"opponent_split": "train"}, {"task_split": "validation"}, {"actions": "mode"}], ids=str
)
def test_what_has_no_common_mean_is_refused_until_filtered(changes):
    table = make(returns()).append(make(returns(1), **changes))
    name = next(iter(changes))
    with pytest.raises(InvalidInputError, match=f"rows of {name}=.* have no common mean: filter one"):
        table.pivot("maml", "protagonist", 0)
    chosen = table.filter(**changes).pivot("maml", "protagonist", 0)
    np.testing.assert_allclose(chosen, [returns(1)[0].mean((0, 2))])


def test_unknown_names_are_answered_with_the_nearest():
    table = make(returns())
    with pytest.raises(InvalidInputError, match=r"unknown method .*'mamml' \(did you mean 'maml'\?\)"):
        table.pivot("mamml", "protagonist", 0)
    with pytest.raises(InvalidInputError, match="unknown role 'adversary'"):
        table.pivot("maml", "adversary", 0)
    with pytest.raises(InvalidInputError, match=r"unknown shot .* 9; known: 0, 1, 2"):
        table.pivot("maml", "protagonist", 9)
    with pytest.raises(InvalidInputError, match="did you mean 'episode'"):
        table.filter(epsode=1)


def test_filter_takes_one_value_or_several():
    table = make(returns())
    assert len(table.filter(shot=(0, 2), opponent="swirl")) == 2 * 3 * 4
    assert len(table.filter(shot=7)) == len(table.filter(shot=())) == 0
    assert table.filter(shot=[2]).values("shot") == [2]


def test_pairs_have_the_same_seeds_and_tasks_in_the_same_order():
    a = make(returns(0), seed=0).append(make(returns(1), seed=1))
    b = make(returns(2)[:, :, ::-1], "joint", 1, tasks=TASKS[::-1]).append(make(returns(3), "joint", 0))
    first, second = a.append(b).pair("maml", "joint", "protagonist", 2)
    np.testing.assert_allclose(first, [returns(0)[2].mean((0, 2)), returns(1)[2].mean((0, 2))])
    np.testing.assert_allclose(second, [returns(3)[2].mean((0, 2)), returns(2)[2].mean((0, 2))])


def test_a_scripted_player_is_paired_with_every_seed():
    table = make(returns(0), seed=0).append(make(returns(1), seed=1), make(returns(2, shots=0), "spiral", UNTRAINED))
    first, second = table.pair("maml", "spiral", "protagonist", 2, other_shot=0)
    assert first.shape == second.shape == (2, 3)
    np.testing.assert_allclose(second[1], returns(2, shots=0)[0].mean((0, 2)))
    np.testing.assert_array_equal(table.pair("spiral", "maml", "protagonist", 0, other_shot=2)[1], first)


def test_what_cannot_be_paired_is_named():
    table = make(returns(0), seed=0).append(make(returns(1), "joint", 1))
    with pytest.raises(InvalidInputError, match="can't be paired: only one of them has seed 0, 1"):
        table.pair("maml", "joint", "protagonist", 0)
    other = make(returns(1), "joint", 0, tasks=(*TASKS[:2], "held_out:9"))
    with pytest.raises(InvalidInputError, match="only one of them has task held_out:2, held_out:9"):
        make(returns(0)).append(other).pair("maml", "joint", "protagonist", 0)


def test_versions_of_a_family_do_not_mix():
    one = make(returns())
    two = Table({**columns(one), "version": one["version"] + 1})
    with pytest.raises(InvalidInputError, match="results of Navigation-v0 and v1 do not mix"):
        one.append(two)
    other = Table({**columns(two), "family": np.full(len(two), "Pursuit", object)})
    assert one.append(other).values("family") == ["Navigation", "Pursuit"]
    with pytest.raises(InvalidInputError, match=r"family=.*no common mean"):
        one.append(other).pivot("maml", "protagonist", 0)


@pytest.mark.parametrize("name", ["results.csv", "deep/results.csv.gz"])
def test_files_keep_every_bit(tmp_path, name):
    table = make(returns() / 3).append(make(returns(1) * 1e-9, 'a "quoted", name', 4, role="adversary"))
    path = tmp_path / name
    table.write(path)
    again = tables.read(path)
    for column in COLUMNS:
        np.testing.assert_array_equal(again[column], table[column])
        assert again[column].dtype == table[column].dtype
    before = path.read_bytes()
    table.write(path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_an_empty_table_survives_its_file(tmp_path):
    make(returns()).filter(shot=9).write(tmp_path / "empty.csv")
    assert len(tables.read(tmp_path / "empty.csv")) == 0


def test_bad_files_are_one_line(tmp_path):
    path = tmp_path / "results.csv.gz"
    with pytest.raises(InvalidInputError, match="no such table"):
        tables.read(path)
    make(returns()).write(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InvalidInputError, match="corrupt or truncated"):
        tables.read(path)
    lines = gzip.decompress(whole).decode().splitlines()
    broken = {
        "no column 'return'": [line.rsplit(",", 1)[0] for line in lines],
        "line 3 has 12 values, the header 13": [*lines[:2], lines[2].rsplit(",", 1)[0]],
        "'return' must hold numbers": [*lines[:2], lines[2].rsplit(",", 1)[0] + ",many"],
        "'version' must hold whole numbers": [lines[0], lines[1].replace(",0,", ",zero,", 1)],
        "return=nan must be finite": [*lines[:2], lines[2].rsplit(",", 1)[0] + ",nan"],
        "unknown role 'judge'": [line.replace("protagonist", "judge") for line in lines],
        "needs family": [],
    }
    for message, text in broken.items():
        path.write_bytes(gzip.compress("\n".join(text).encode()))
        with pytest.raises(InvalidInputError, match=message) as caught:
            tables.read(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_bad_columns_are_named():
    good = columns(make(returns()))
    for message, change in {
        "unknown column 'retrun'": {"retrun": good["return"]},
        "column 'seed' has 2 rows, 'return' has 72": {"seed": [1, 2]},
        "'shot' must hold whole numbers": {"shot": np.full(72, 0.5)},
        "column 'task': '' must be a name": {"task": [""] * 72},
        "one dimension": {"episode": np.zeros((72, 1), int)},
        "unknown actions 'greedy'": {"actions": ["greedy"] * 72},
    }.items():
        with pytest.raises(InvalidInputError, match=message):
            Table({**good, **change})
    with pytest.raises(InvalidInputError, match=r"must be \[shots \+ 1, 2 opponents, 3 tasks, episodes\]"):
        make(returns(tasks=4))


def test_an_old_table_and_a_new_one_give_the_same_report(tmp_path):
    """Tasks' ids had no letter in front."""
    ids = [task_id(task) for task in frozen_tasks(find("Navigation"), "held_out")[:3]]
    made = [make(returns(seed), method, seed, tasks=ids) for method in ("maml", "joint") for seed in (0, 1)]
    new = tables.concatenate(made)
    new.write(tmp_path / "new.csv")
    text = (tmp_path / "new.csv").read_text(encoding="utf-8")
    for name in ids:
        text = text.replace(name, name[1:])
    (tmp_path / "old.csv").write_text(text, encoding="utf-8")
    assert text.count(ids[0]) == 0
    old = tables.read(tmp_path / "old.csv")
    assert old.values("task") == ids
    assert [sheet.markdown() for sheet in sheets(old)] == [sheet.markdown() for sheet in sheets(new)]
    assert old.append(new.filter(method="joint")).values("task") == ids


WORDS = (
    "001",
    "1e5",
    "nan",
    "NA",
    "true",
    "inf",
    "null",
    "0x10",
    "1_000",
    "-",
    " x ",
    "a,b",
    'a"b',
    "a\r\nb",
    "2026-01-02",
)


def test_names_that_look_like_values_are_read_as_names(tmp_path):
    table = tables.concatenate(make(returns(seed), name, opponents=("007", "None")) for seed, name in enumerate(WORDS))
    table.write(tmp_path / "table.csv")
    found = tables.read(tmp_path / "table.csv")
    assert found.values("method") == list(WORDS)
    assert found.values("opponent") == ["007", "None"]


def test_pandas_reads_names_as_the_page_says(tmp_path):
    pandas = pytest.importorskip("pandas")
    path = tmp_path / "results.csv.gz"
    tables.concatenate(make(returns(seed), name, opponents=("007", "8")) for seed, name in enumerate(WORDS)).write(path)
    lines = [line.strip() for line in tables.__doc__.splitlines() if line.startswith("    ")]
    code = "; ".join(lines).replace('"results.csv.gz"', "path").replace("pandas.read", "found = pandas.read")
    scope = {"pandas": pandas, "path": path}
    exec(code, scope)
    assert list(dict.fromkeys(scope["found"]["method"])) == list(WORDS)
    assert pandas.read_csv(path)["opponent"].tolist()[:12] == [7, 7, 7, 7] * 3  # without being told
