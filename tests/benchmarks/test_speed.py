"""What the speed benchmark runs and counts; never how fast it was."""

import re
import subprocess

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from metaduel import cli
from metaduel.benchmarks.tools.speed import (
    chains,
    classification,
    gpu,
    history,
    iterations,
    kinds,
    measure,
    packages,
    page,
    pairs,
    peers,
    steps,
    timed,
    workloads,
)
from metaduel.envs.core import registry
from metaduel.envs.core.duel import Duel
from metaduel.envs.core.game import make_game
from metaduel.envs.core.spec import ROLES
from metaduel.meta.learners.trpo import TRPO


@pytest.mark.parametrize("game", registry.games())
def test_random_actions_are_within_the_spaces(game):
    duel = Duel(make_game(registry.find(game)))
    pair = steps.random_actions(duel, 200, torch.Generator().manual_seed(0))
    for role, actions in zip(ROLES, pair, strict=True):
        space = duel.action_space(role)
        assert all(space.contains(action) for action in actions.numpy())
        assert len(actions.unique()) >= 2


def test_an_advance_is_a_step_and_what_is_seen_then():
    duel = Duel(make_game(registry.find("Pursuit")))
    params = duel.game.params([{}] * 3)
    start = duel.reset(params, torch.arange(3), torch.zeros(3, dtype=torch.int64))
    actions = steps.random_actions(duel, 3, torch.Generator().manual_seed(0))
    episode, transition, seen = steps.advance(duel, start, actions)
    expected, outcome = duel.step(start, actions)
    assert torch.equal(transition.reward, outcome.reward)
    assert torch.equal(episode.step, torch.ones(3, dtype=torch.int64))
    for a, b in zip(seen, duel.observe(expected), strict=True):
        assert torch.equal(a, b)


def test_matrix_products_are_counted_by_shape_and_layout():
    a, b = torch.randn(2, 5, 3), torch.randn(2, 3, 4)
    with FlopCounterMode(display=False) as counter, measure.ProductLog() as log:
        torch.baddbmm(torch.randn(2, 1, 4), a, b)
        torch.bmm(a, b)
        torch.bmm(a, b)
        torch.bmm(b.mT, a.mT)
        torch.sigmoid(a)
    # 2 * 2 * 5 * 3 * 4 = 240 for each of four products, of three kinds
    assert counter.get_total_flops() == 960 == sum(log.calls[p] * log.flops[p] for p in log.calls)
    assert sorted(log.calls.values()) == [1, 1, 2]
    assert ((2, 4, 3), (12, 1, 4)) in {layout for product in log.calls for layout in product.layouts}
    assert measure.product_seconds(log) > 0


def test_a_meta_iteration_is_the_stated_workload(monkeypatch):
    monkeypatch.setattr(iterations, "TASKS", 2)
    monkeypatch.setattr(iterations, "EPISODES", 2)
    played = []

    class Counting(timed.TimedProblem):
        def collect(self, players, shot):
            data = super().collect(players, shot)
            played.append(data["protagonist"].split(2).reward.shape)
            return data

    monkeypatch.setattr(iterations, "TimedProblem", Counting)
    workload = iterations.MetaIteration()
    before = workload.learner.start["protagonist"]["layer1.weight"].clone()
    split = workload.run()
    assert played == [(2, 100, 2)] * 2
    assert before.shape == (64, 64)
    assert not torch.equal(before, workload.learner.start["protagonist"]["layer1.weight"])
    assert min(split) > 0
    assert split.rollout + split.inner + split.outer <= split.total


def test_a_trust_region_goes_with_the_same_workload(monkeypatch, threads_kept):
    monkeypatch.setattr(iterations, "TASKS", 2)
    monkeypatch.setattr(iterations, "EPISODES", 4)
    workload = iterations.MetaIteration(share=0.5)
    split = workload.run()
    assert type(workload.learner) is TRPO
    assert workload.metrics["protagonist/kl"] <= 0.01
    assert workload.learner.config.cg_iterations == 10
    assert workload.learner.config.line_search_steps == 15
    assert split.rollout + split.inner + split.outer <= split.total
    sheet = iterations.trpo_sheet(1)
    assert [row[0] for row in sheet.rows] == ["1", "2"]
    for row in sheet.rows:
        assert float(row[-1]) == pytest.approx(iterations.PEER_SECONDS / float(row[1]), rel=0.1)


def test_every_method_has_the_same_workload(monkeypatch, threads_kept):
    monkeypatch.setattr(iterations, "TASKS", 2)
    monkeypatch.setattr(iterations, "EPISODES", 4)
    sheet = iterations.methods_sheet(1)
    assert [row[:3] for row in sheet.rows[:4]] == [
        (method, str(steps), threads) for method, steps in iterations.METHOD_LOADS[:2] for threads in ("1", "2")
    ]
    for row in sheet.rows:
        total, *parts = (float(value) for value in row[3:])
        assert 0 < sum(parts) <= total + 0.002


def test_gains_are_compared_on_the_same_starts_and_data(monkeypatch):
    monkeypatch.setattr(iterations, "TASKS", 2)
    monkeypatch.setattr(iterations, "EPISODES", 4)
    assert iterations.gain_ratio(1.0, 3) == (1.0, 1.0, 1.0)
    ratio, low, high = iterations.gain_ratio(0.25, 3)
    assert low <= ratio <= high
    assert low < high


@pytest.mark.parametrize("policy", chains.CHAIN_POLICIES)
@pytest.mark.parametrize(("load", "steps"), list(zip(chains.CHAINS, (50, 150), strict=True)))
def test_chains_are_the_stated_workload(load, steps, policy, monkeypatch):
    monkeypatch.setattr(chains, "CHAIN_EPISODES", 2)
    played = []

    class Counting(timed.TimedProblem):
        def collect(self, players, shot):
            data = super().collect(players, shot)
            played.append((shot, *(data[role].reward.shape[1] for role in ROLES)))
            assert all(one.reward.numel() == 3 * steps * 2 for one in data.values())
            return data

    monkeypatch.setattr(chains, "TimedProblem", Counting)
    workload = chains.Chains(load._replace(personas=3), policy)
    assert set(workload.learner.config.terms) == {"own", "peer"}
    before = {name: value.clone() for name, value in workload.learner.start["protagonist"].items()}
    seconds, rollouts = workload.run()
    assert played == [(shot, steps, steps) for shot in range(8)]
    assert 0 < rollouts < seconds
    assert all(not torch.equal(value, before[n]) for n, value in workload.learner.start["protagonist"].items())


def test_sheet_of_chains(monkeypatch, threads_kept):
    monkeypatch.setattr(chains, "CHAIN_EPISODES", 2)
    monkeypatch.setattr(chains, "UPDATES", 1)
    monkeypatch.setattr(chains, "CHAINS", (chains.CHAINS[0]._replace(personas=2),))
    monkeypatch.setattr(
        chains, "product_seconds", lambda log: sum(log.calls[p] * log.flops[p] for p in log.calls) / 1e9
    )
    sheet = chains.chains_sheet(1)
    assert [row[:3] for row in sheet.rows] == [("RockPaperScissors-v0", name, "2") for name in chains.CHAIN_POLICIES]
    seconds, faster = float(sheet.rows[-1][3]), float(sheet.rows[-1][6])
    assert faster == pytest.approx(4.3 / seconds, rel=0.05, abs=1)
    assert float(sheet.rows[-1][8]) > float(sheet.rows[0][8])  # a GRU has more to multiply


def test_default_is_one_game_of_every_folder():
    games = steps.default_games()
    assert {"Navigation", "Pursuit", "RockPaperScissors"} <= set(games)
    folders = [registry.find(game).package for game in games]
    assert sorted(folders) == sorted({spec.package for spec in registry.specs().values()})


def test_sheet_of_steps_without_a_compiler(monkeypatch, threads_kept):
    monkeypatch.setattr(steps, "BATCHES", (1, 3))
    monkeypatch.setenv("CXX", "no-such-compiler")
    sheet = steps.steps_sheet(["Pursuit"], 0.0)
    assert sheet.note == "not compiled: torch.compile needs a C++ compiler, and there is no no-such-compiler here"
    assert [row[:3] for row in sheet.rows] == [
        ("Pursuit-v0", "eager", "1"), ("Pursuit-v0", "eager", "2"), ("Pursuit-v0", "with autoreset", "1"),
    ]  # fmt: skip
    assert [bool(cell) for cell in sheet.rows[1][3:]] == [False, True]
    assert all(float(cell.split()[0]) > 0 for cell in sheet.rows[0][3:])


def test_sheet_of_an_accelerator(monkeypatch):
    monkeypatch.setattr(steps, "ACCELERATED", (2, 300))
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cpu"))
    sheet = steps.accelerator_sheet(["Goalkeeper"], 0.0)
    assert sheet.title.endswith("on cpu")
    assert sheet.rows[0][0] == "Goalkeeper-v0"
    assert all(float(cell.split()[0]) > 0 for cell in sheet.rows[0][1:])


@pytest.mark.parametrize(
    ("rate", "text"), [(950.4, "0.95 k"), (31_415.0, "31.4 k"), (123_456.0, "123 k"), (3.14159e6, "3.14 M")]
)
def test_rates_have_three_digits(rate, text):
    assert steps._rate(rate) == text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--games", "Persuit"], "did you mean 'Pursuit'"),
        (["--iterations", "0"], "iterations=0"),
        (["--chains", "0"], "chains=0"),
        (["--pairs", "0"], "pairs=0"),
        (["--only", "trainings"], "did you mean 'training'"),
        (["--compare", "no-such-commit"], "compare='no-such-commit' must be a commit, branch or tag"),
        (["--compare", "HEAD", "--only", "peers"], "no effect on table 'peers'"),
        (["--history", "page.md"], "no effect without compare"),
        (["--history", "no-such.md", "--compare", "HEAD"], "no-such.md': there is no such file"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(capsys, threads_kept, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["speed", *arguments])
    assert stopped.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1


@pytest.fixture
def threads_kept():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_sheet_of_classification():
    sheet = classification.classification_sheet(1)
    kinds = ["second order", "first order", "second order, loop over tasks"]
    assert [row[:2] for row in sheet.rows] == [(threads, kind) for threads in ("1", "2") for kind in kinds]
    assert all(float(row[2]) > 0 for row in sheet.rows)
    assert sheet.rows[0][3] == sheet.rows[3][3] == "1.00"


def commit(folder, files):
    """A repository of one commit."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    who = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.org"]
    for command in (["init", "-q"], ["add", "."], [*who, "commit", "-qm", "first"]):
        subprocess.run(["git", "-C", folder, *command], check=True)


def test_two_commits_are_measured_in_turn(tmp_path, capsys):
    """The same commit on both sides; W1 and steps as small as can be, and a line in the history."""
    columns = tuple(page.COMPARED)
    target = tmp_path / "speed.md"
    target.write_text(f"# Speed\n\n{history.header(columns)}\n|{' --- |' * 12}\n\nEnd\n")
    arguments = ["--dry-run", "--only", "steps", "navigation", "--compare", "HEAD", "--pairs", "2"]
    cli.main(["speed", *arguments, "--history", str(target), "--out", str(tmp_path / "tables.md")])
    assert "products alone" in capsys.readouterr().out.replace("\n", " ")
    tables = (tmp_path / "tables.md").read_text()
    rows = re.findall(r"^\| (?:Sumo|W1).*", tables, re.M)
    assert len(rows) == 2
    for row in rows:
        *_, ratio, low, high, count = (cell.strip() for cell in row.strip("|").split("|"))
        assert 0 < float(low) <= float(ratio) <= float(high)
        assert count == "2"
    lines = target.read_text().splitlines()
    assert lines[-1] == "End"
    cells = [cell.strip() for cell in lines[4].strip("|").split("|")]
    assert cells[2] == packages.commit_of("HEAD")
    assert [bool(cell) for cell in cells[3:]] == [name in ("steps", "navigation") for name in columns]


def test_a_workload_that_the_other_package_lacks_is_named():
    """The other side fails; this side is measured all the same."""

    class Fails(packages.Worker):
        def __init__(self):
            pass

        def ask(self, do, **more):
            raise packages.WorkloadFailed("AttributeError: no such thing")

    class Two(Fails):
        def ask(self, do, **more):
            return kinds.Played(10, 2) if do == "play" else kinds.Played(10, 1) if do == "floor" else None

    work = workloads.Workload("it", "steps/s", "core", {})
    measured = pairs.measure(work, Two(), Fails(), 3, 60)
    assert (len(measured.ours), measured.theirs) == (3, [])
    sheet = pairs.sheet("It", [measured], "abc")
    assert sheet.rows == (("it", "5.00 steps/s", "10.0 steps/s", "2.0", "not in abc", "", "", "", ""),)
    assert "it: not in abc: AttributeError: no such thing" in sheet.note
    with pytest.raises(packages.WorkloadFailed, match="no such thing"):
        pairs.measure(work, Fails(), None, 3, 60)


def test_ratios_say_how_many_times_better():
    measured = pairs.Measured(workloads.Workload("it", "s", "core", {}))
    measured.ours += [kinds.Played(1, 2.0), kinds.Played(2, 4.0), kinds.Played(1, 1.0)]
    measured.theirs += [kinds.Played(1, 6.0), kinds.Played(1, 4.0), kinds.Played(1, 8.0)]
    assert measured.ratios == [3.0, 2.0, 8.0]
    assert pairs.sheet("It", [measured], "abc").rows[0] == (
        "it",
        "2.00 s",
        "",
        "",
        "6.00 s",
        "3.00",
        "2.00",
        "8.00",
        "3",
    )


def test_a_failing_workload_says_why():
    with packages.Worker() as worker:
        with pytest.raises(packages.WorkloadFailed, match="did you mean 'Pursuit'"):
            worker.ask("make", kind="core", threads=1, arguments={"game": "Persuit", "batch": 1, "least": 1})
        worker.ask("make", kind="core", threads=1, arguments={"game": "Pursuit", "batch": 2, "least": 1})
        played = worker.ask("play")
        assert played.work == 2 * registry.find("Pursuit").horizon
        assert worker.ask("floor") is None


def test_a_commit_without_the_rooms_is_refused(tmp_path):
    commit(tmp_path, {"envs/__init__.py": "", "metaduel/__init__.py": ""})
    with (
        pytest.raises(ValueError, match=r"compare='HEAD': commit \w+ has no agents"),
        packages.package_of("HEAD", tmp_path),
    ):
        pass
    with pytest.raises(ValueError, match="not a git repository"):
        packages.commit_of("HEAD", tmp_path.parent)


def test_no_git(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match="needs git, which is not installed"):
        packages.commit_of("HEAD")
    assert packages.present() == ""


@pytest.mark.parametrize("name", ["training", "stacked", "chains", "evaluation"])
def test_smallest_workloads_run(name, threads_kept, monkeypatch):
    monkeypatch.setattr(
        kinds, "product_seconds", lambda log, clock: sum(log.calls[p] * log.flops[p] for p in log.calls) / 1e9
    )
    (work,) = workloads.smallest(page.COMPARED[name][1]())
    kind = kinds.KINDS[work.kind](work.threads, **work.arguments)
    kind.warm()
    assert min(kind.play()) > 0
    floor = kind.floor()
    assert (floor is None) == (name == "stacked")
    assert floor is None or min(floor) > 0


def test_every_workload_can_be_configured():
    for name, (_, listed) in page.COMPARED.items():
        for work in listed():
            assert work.kind in kinds.KINDS, name
            if "settings" in work.arguments:
                assert kinds.config_of(work.threads, work.arguments["settings"]).threads == work.threads


def test_seconds_of_a_run_are_counted_by_its_own_clock():
    import time

    before = time.perf_counter
    with kinds.own_clock(1):
        assert time.perf_counter is time.process_time
    assert time.perf_counter is before


def test_peers_that_are_not_installed_are_named(monkeypatch, threads_kept):
    absent = peers.Peer("absent", ("no_such_module",), "pip install it", lambda batch, seconds: 1 / 0)
    monkeypatch.setattr(peers, "PEERS", (peers.PEERS[2], absent))
    sheet = peers.peers_sheet(0.0, dry=True)
    assert sheet.rows[0][0].startswith("Gymnasium")
    assert sheet.rows[0][1].endswith("steps/s")
    assert sheet.rows[1] == ("absent", "not installed: pip install it")


def test_the_accelerators_script_runs_dry(monkeypatch, threads_kept):
    monkeypatch.setenv("CXX", "no-such-compiler")
    training, families = gpu.gpu_sheets(dry=True)
    assert len(training.rows) == 4
    assert not any("failed" in cell for row in (*training.rows, *families.rows) for cell in row)
    assert [row[:2] for row in families.rows] == [("Pursuit", "eager"), ("Pursuit", "eager, graphed")]


def test_without_an_accelerator_nothing_is_measured(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: None)
    (sheet,) = gpu.gpu_sheets(dry=False)
    assert (sheet.rows, sheet.note) == ((), "not measured: no accelerator")


def test_families_are_left_out_when_the_time_is_up():
    assert gpu.within(0.0, [("Pursuit", lambda: [("row",)])]) == ((), ["Pursuit"])
    assert gpu.within(float("inf"), [("Pursuit", lambda: [("row",)])]) == ((("row",),), [])


def test_the_history_is_found_on_its_page():
    path = packages.REPOSITORY / "docs" / "results" / "speed.md"
    assert history.page_of(path, tuple(page.COMPARED)) == path


def test_a_page_without_a_history_is_refused(tmp_path):
    (tmp_path / "speed.md").write_text("# Speed\n")
    with pytest.raises(ValueError, match=r"must hold a table that begins with \| date \| commit"):
        history.page_of(tmp_path / "speed.md", tuple(page.COMPARED))
