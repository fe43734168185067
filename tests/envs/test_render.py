"""Pictures, windows and videos."""

import builtins
import dataclasses
import gc
import weakref

import imageio.v2 as imageio
import numpy as np
import pygame
import pytest
import torch

from metaduel.envs.core.duel import Duel
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.game import make_game
from metaduel.envs.core.registry import find, specs
from metaduel.envs.core.spec import ROLES
from metaduel.envs.core.tasks import frozen_tasks
from metaduel.envs.players.scripted import scripted
from metaduel.envs.render import screen as render
from metaduel.envs.render.film import film

BLUE, WHITE = (11, 102, 195), (255, 255, 255)  # PROTAGONIST, the arena
TOP, SIDE = render.HEADER, render.WIDTH


def picture(canvas):
    canvas.dress("Title", "caption", "step 0", (0.0, 0.0), ("a", "b"))
    return canvas._pygame.surfarray.array3d(canvas.surface()).swapaxes(0, 1)


@pytest.fixture
def canvas():
    made = render.Canvas()
    made.clear()
    return made


def test_the_world_is_centred_undistorted_and_its_y_points_up(canvas):
    # A world of 4 x 2 units on 576 x 576 px: 144 px per unit, the origin (2, 1) in the middle.
    canvas.view(0, 4, 0, 2)
    canvas.circle((3, 1.5), 0.1, render.PROTAGONIST)
    blue = np.argwhere((picture(canvas)[TOP : TOP + SIDE] == BLUE).all(-1))
    assert blue.mean(0) == pytest.approx([SIDE / 2 - 0.5 * 144, SIDE / 2 + 144], abs=1)
    assert (blue.max(0) - blue.min(0)) == pytest.approx([2 * 14.4, 2 * 14.4], abs=2.5)


def test_transparent_shapes_blend(canvas):
    canvas.polygon([(-1, -1), (1, -1), (1, 1), (-1, 1)], render.PROTAGONIST, alpha=128)
    middle = picture(canvas)[TOP + SIDE // 2, SIDE // 2]
    assert middle == pytest.approx([(b * 128 + w * 127) / 255 for b, w in zip(BLUE, WHITE, strict=True)], abs=2)


@pytest.mark.parametrize(
    "draw",
    [
        lambda c: c.circle((0, 0), 0.5, render.INK, width=2),
        lambda c: c.line([(0, 0), (0.5, 0.5), (0.5, 0)], render.INK),
        lambda c: c.line([(0, 0), (0.5, 0.5)], render.INK, width=4, alpha=90),
        lambda c: c.polygon([(0, 0), (0.5, 0.5), (0.5, 0)], render.INK),
        lambda c: c.arrow((0, 0), (0.3, 0.1), render.INK),
        lambda c: c.text((0, 0), "here", render.INK),
        lambda c: c.circle(torch.tensor([0.1, 0.2]), torch.tensor(0.2), render.INK, alpha=100),
    ],
)
def test_every_shape_leaves_a_mark(canvas, draw):
    blank = picture(canvas)
    draw(canvas)
    assert (picture(canvas) != blank).any()


@pytest.mark.parametrize(
    "draw",
    [
        lambda c: c.line([(0, 0)], render.INK),
        lambda c: c.arrow((0, 0), (0, 0), render.INK),
        lambda c: c.circle((50, 50), 0.1, render.INK, alpha=90),
        lambda c: c.line([(50, 50), (60, 60)], render.INK, alpha=90),
    ],
)
def test_nothing_to_see_draws_nothing(canvas, draw):
    blank = picture(canvas)
    draw(canvas)
    assert (picture(canvas) == blank).all()


@pytest.mark.parametrize("spec", specs().values(), ids=lambda spec: spec.name)
def test_every_family_is_drawn(spec):
    duel = Duel(make_game(spec), horizon=5)
    players = tuple(next(iter(scripted(spec, role).values())) for role in ROLES)
    screen = render.Screen(spec, "rgb_array", (players[0].name, players[1].name))
    frames = list(film(duel, players, frozen_tasks(spec, "held_out")[0], screen, caption="shot 2"))
    assert {(f.shape, f.dtype) for f in frames} == {((render.HEIGHT, render.WIDTH, 3), np.dtype(np.uint8))}
    arenas = [f[TOP : TOP + SIDE] for f in frames]
    assert any((a != arenas[0]).any() for a in arenas[1:])
    assert len(np.unique(arenas[-1].reshape(-1, 3), axis=0)) > 10
    assert (frames[-1] == frames[-2]).all()  # the last one is held


def test_a_picture_depends_on_its_arguments_alone():
    spec = find("Navigation")
    duel = Duel(make_game(spec))
    params = duel.game.params([{"goal_x": 0.2, "goal_y": -0.3, "push": 0.05}])
    rows = duel.reset(params, torch.tensor([0]), torch.tensor([0]))
    screen = render.Screen(spec, "rgb_array")
    first = screen.frame(params, [rows.state], (0.0, 0.0), "shot 0")
    other = screen.frame(params, [rows.state] * 3, (-1.5, 1.5), "shot 1")
    assert (screen.frame(params, [rows.state], (0.0, 0.0), "shot 0") == first).all()
    assert (first[:TOP] != other[:TOP]).any()  # step, caption and returns are in the header


@pytest.fixture
def window(monkeypatch):
    """A function that opens a window of Navigation and returns its screen, and one that shows the next frame there."""
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    spec = find("Navigation")
    duel = Duel(make_game(spec))
    params, screens = duel.game.params([{}]), []
    states = [duel.reset(params, torch.tensor([0]), torch.tensor([0])).state]

    def opened():
        screen = render.Screen(spec, "human")
        screens.append(screen)
        return screen, lambda caption="": screen.frame(params, states, (0.0, 0.0), caption)

    yield opened
    for screen in screens:
        screen.close()
    assert not pygame.display.get_init()


def seen(screen):
    """What a window shows: [W, H, 3]."""
    return pygame.surfarray.array3d(screen._window._handle.get_surface())


def happens(screen, kind, **values):
    pygame.event.post(pygame.event.Event(kind, window=screen._window._handle, **values))


def test_a_window_opens_and_closes(window):
    screen, show = window()
    assert show() is None
    assert seen(screen).shape == (render.WIDTH, render.HEIGHT, 3)
    happens(screen, pygame.WINDOWCLOSE)  # a person closes the window
    show()
    assert screen.closed
    assert not pygame.display.get_init()
    assert show() is None
    screen.close()
    screen.close()


@pytest.mark.parametrize("by", ["program", "person"])
def test_closing_one_window_leaves_the_others(by, window):
    (one, show_one), (two, show_two) = window(), window()
    show_one("left")
    show_two("right")
    left, right = seen(one), seen(two)
    assert (left != right).any()
    assert (seen(one) == left).all()
    if by == "person":
        happens(one, pygame.WINDOWCLOSE)
    else:
        one.close()
    show_two("right")
    assert one.closed
    assert not two.closed
    assert (seen(two) == right).all()
    show_two("other")
    assert (seen(two) != right).any()
    assert show_one() is None
    three, show_three = window()
    show_three("left")
    assert (seen(three) == left).all()
    pygame.event.post(pygame.event.Event(pygame.QUIT))  # the whole program is asked to end
    show_two()
    assert two.closed
    assert three.closed


def test_a_window_shows_what_an_array_holds(window):
    screen, show = window()
    show("here")
    array = render.Screen(screen.spec, "rgb_array")
    duel = Duel(make_game(screen.spec))
    params = duel.game.params([{}])
    rows = duel.reset(params, torch.tensor([0]), torch.tensor([0]))
    assert (seen(screen).swapaxes(0, 1) == array.frame(params, [rows.state], (0.0, 0.0), "here")).all()


@pytest.mark.parametrize("again", [False, True], ids=["ended", "begun again"])
def test_other_parts_of_a_program_may_end_pygame(again, window):
    screen, show = window()
    show("here")
    before = seen(screen)
    pygame.quit()  # as Gymnasium's own environments do when they are closed
    if again:
        pygame.init()
    show("here")
    assert not screen.closed
    assert (seen(screen) == before).all()
    screen.close()
    pygame.quit()


def test_a_display_of_the_program_itself_stays(window):
    pygame.display.init()
    own = pygame.display.set_mode((40, 30))
    screen, show = window()
    show()
    assert pygame.display.get_surface() is own
    screen.close()
    assert pygame.display.get_surface() is own
    pygame.display.quit()


def test_a_window_needs_pygame_ce(window, monkeypatch):
    monkeypatch.delattr(pygame, "Window")
    with pytest.raises(InvalidInputError, match=r"needs pygame-ce of at least 2\.5, not pygame"):
        window()[1]()


def test_a_screen_that_is_dropped_takes_its_window_along(window):
    kept, show = window()
    show()
    dropped = render.Screen(kept.spec, "human")
    dropped._show(kept._canvas.surface())
    reference = weakref.ref(dropped._window)
    del dropped
    gc.collect()
    assert reference() is None
    show()
    assert not kept.closed


def test_a_window_needs_a_display(monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "no such driver")
    spec = find("Navigation")
    duel = Duel(make_game(spec))
    params = duel.game.params([{}])
    states = [duel.reset(params, torch.tensor([0]), torch.tensor([0])).state]
    with pytest.raises(InvalidInputError, match=r"render_mode='human' needs a screen .* use 'rgb_array' here"):
        render.Screen(spec, "human").frame(params, states, (0.0, 0.0))


def test_an_unknown_mode_is_refused():
    with pytest.raises(InvalidInputError, match="unknown render_mode 'rgb_aray'"):
        render.Screen(find("Navigation"), "rgb_aray")


def test_a_family_without_a_viewer_is_not_drawn():
    spec = dataclasses.replace(find("Navigation"), package="metaduel.envs.core")
    screen = render.Screen(spec, "rgb_array")  # libraries ask for the mode and never draw
    with pytest.raises(InvalidInputError, match=r"Navigation cannot be drawn: metaduel.envs.core has no viewer.py"):
        screen.frame(None, [], (0.0, 0.0))


@pytest.fixture
def without(monkeypatch):
    """Make imports of some packages fail, as where the extra is not installed."""

    def hide(*names):
        real = builtins.__import__

        def fail(name, *args, **kwargs):
            if name.split(".")[0] in names:
                raise ImportError(name)
            return real(name, *args, **kwargs)

        monkeypatch.setattr(builtins, "__import__", fail)

    return hide


def test_a_missing_extra_is_named(without, tmp_path):
    without("pygame", "imageio")
    screen = render.Screen(find("Navigation"), "rgb_array")
    with pytest.raises(InvalidInputError, match=r'pip install "metaduel\[render\]"'):
        screen.prepare()
    with pytest.raises(InvalidInputError, match=r'pip install "metaduel\[render\]"'):
        screen.frame(None, [], (0.0, 0.0))
    with pytest.raises(InvalidInputError, match=r'pip install "metaduel\[render\]"'):
        render.write_video(tmp_path / "a.mp4", [], 10)


def frames(count):
    return [np.full((64, 48, 3), 40 * i, np.uint8) for i in range(count)]


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_write_video(tmp_path, suffix):
    path = tmp_path / "new" / f"film{suffix}"
    render.write_video(path, iter(frames(5)), 10)
    read = imageio.mimread(path)
    assert len(read) == 5
    assert read[4][..., :3].mean() == pytest.approx(160, abs=4)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_film_that_breaks_off_leaves_the_old_file(tmp_path):
    path = tmp_path / "film.mp4"
    path.write_text("old")

    def broken():
        yield from frames(3)
        raise RuntimeError("lost")

    with pytest.raises(RuntimeError, match="lost"):
        render.write_video(path, broken(), 10)
    with pytest.raises(InvalidInputError, match="needs at least one frame"):
        render.write_video(path, [], 10)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_another_suffix_is_refused(tmp_path):
    with pytest.raises(InvalidInputError, match=r"film.avi' must end with .mp4 or .gif"):
        render.write_video(tmp_path / "film.avi", frames(1), 10)
