"""The command line: what it prints, what it writes, and one line with exit code 2 for every kind of bad input."""

import subprocess
import sys

import imageio.v2 as imageio
import pytest

from metaduel import cli


def fails(capsys, *args):
    """Run and return what went to standard error; the exit code must be 2, and nothing may look like a traceback."""
    with pytest.raises(SystemExit) as stopped:
        cli.main(args)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error


def test_help_names_every_subcommand(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--help"])
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    assert all(name in out for name in ("list", "info", "watch"))


def test_help_and_list_do_not_import_torch():
    code = "import sys; from metaduel import cli; cli.main(['list']); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Navigation" in done.stdout


def test_waiting_threads_sleep(monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "")  # recorded, so that it is put back
    monkeypatch.delenv("OMP_WAIT_POLICY")
    cli.main(["list"])
    assert cli.os.environ["OMP_WAIT_POLICY"] == "PASSIVE"


def test_info_shows_contexts_and_both_opponent_splits(capsys):
    cli.main(["info", "Navigation"])
    out = capsys.readouterr().out
    assert all(word in out for word in ("metaduel/Navigation-v0", "goal_x", "held_out", "swirl", "zero-sum"))


def test_watch_writes_a_video(tmp_path, capsys):
    video = tmp_path / "folder" / "walk.mp4"
    goal = '{"goal_x": 0.2, "goal_y": 0.0, "push": 0.0}'  # two steps of 0.1 m
    cli.main(
        ["watch", "Navigation", "--protagonist", "seeker", "--adversary", "idle", "--task", goal, "--video", str(video)]
    )
    assert capsys.readouterr().out == f"wrote {video}\n"
    assert [path.name for path in video.parent.iterdir()] == ["walk.mp4"]
    frames = imageio.mimread(video)
    assert len(frames) == 1 + 2 + 20  # the start, the steps, and the last frame for a second
    assert frames[0].shape == (672, 576, 3)


def test_watch_opens_a_window(monkeypatch, tmp_path):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.chdir(tmp_path)
    goal = '{"goal_x": 0.1, "goal_y": 0.0, "push": 0.0}'
    cli.main(["watch", "Navigation", "--task", goal, "--human"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["info", "Navigatoin"], "unknown game 'Navigatoin' (did you mean 'Navigation'?)"),
        (["watch", "Chess"], "unknown game 'Chess'"),
        (["watch", "Navigation", "--adversary", "swril"], "(did you mean 'swirl'?)"),
        (["watch", "Navigation", "--protagonist", "repel"], "protagonist's seat"),
        (["watch", "Navigation", "--task", "held_out:100"], "task='held_out:100' must be SPLIT:INDEX"),
        (["watch", "Navigation", "--task", "train:0"], "frozen split"),
        (["watch", "Navigation", "--task", '{"goal": 1}'], "unknown context of Navigation 'goal'"),
        (["watch", "Navigation", "--task", '{"push": 1'], "is not JSON"),
        (["watch", "Navigation", "--task", '{"push": 7}'], "push=7 must be a finite number in [0, 0.1]"),
        (["watch", "Navigation", "--task", '{"push": NaN}'], "push=nan must be"),
        (["watch", "Navigation", "--task", '{"push": "x"}'], "not str"),
        (["watch", "Navigation", "--video", "a.avi"], "must end with .mp4 or .gif"),
        (["watch", "Navigation", "--video", "a.mp4", "--human"], "choose one"),
        (["watch", "Navigation", "--episodes", "0"], "episodes=0"),
    ],
)
def test_bad_input_is_one_line(args, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    error = fails(capsys, *args)
    assert error.startswith("metaduel: ")
    assert error.count("\n") == 1
    assert message in error
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_is_one_line(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    error = fails(capsys, "watch", "Navigation", "--video", str(tmp_path / "file" / "a.mp4"))
    assert error.startswith("metaduel: ")
    assert error.count("\n") == 1


def test_a_reader_that_leaves_is_no_traceback():
    code = "from metaduel import cli; cli.main(['list'])"
    done = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    done.stdout.close()
    with done.stderr as stream:
        assert stream.read() == ""
    done.wait(timeout=60)


@pytest.mark.parametrize("args", [[], ["wach"], ["watch"], ["watch", "Navigation", "--seed", "x"], ["list", "--nope"]])
def test_bad_arguments_exit_with_2(args, capsys):
    fails(capsys, *args)


def test_interrupt_exits_with_130(monkeypatch):
    def stop(**_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.app, "cli", stop)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["list"])
    assert stopped.value.code == 130
