"""Images by class: characters of our own, digits, Omniglot from a folder, and the errors for wrong data."""

import pathlib
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from metaduel.benchmarks.studies.images import classes
from metaduel.benchmarks.studies.images.characters import characters
from metaduel.envs.core.errors import InvalidInputError


@pytest.fixture(scope="module")
def few():
    return characters(16, seed=3)


def test_characters_are_seeded_and_differ_more_between_classes_than_within(few):
    assert few.shape == (16, 20, 28, 28)
    assert 0 <= few.min() < 0.1
    assert 0.9 < few.max() <= 1
    assert torch.equal(characters(16, seed=3), few)
    assert not torch.equal(characters(16, seed=4), few)
    flat = few.flatten(2)
    within = torch.cdist(flat, flat).mean()
    between = torch.cdist(flat[:-1], flat[1:]).mean()
    assert between > 1.1 * within
    assert (few.mean((2, 3)) > 0.02).all()  # no character left the page


def test_splits_are_disjoint_and_rotations_stay_with_their_character(few):
    parts = classes.split(few, 8, 4, rotations=True)
    assert [len(part) for part in parts] == [32, 4, 4]
    assert torch.equal(parts.train[8], torch.rot90(parts.train[0], 1, (1, 2)))
    kept = [row for part in (parts.train[:8], *parts[1:]) for row in part.flatten(1)]
    assert sorted(map(float, (row.double().sum() for row in kept))) == sorted(
        map(float, few.flatten(1).double().sum(1))
    )
    with pytest.raises(InvalidInputError, match="leave none of 16 to test on"):
        classes.split(few, 12, 4)


def test_digits_need_no_download():
    assert classes.digits().shape == (10, 174, 8, 8)


@pytest.mark.parametrize(
    ("module", "load", "message"),
    [
        ("sklearn.datasets", classes.digits, r'digits need scikit-learn: pip install "metaduel\[examples\]"'),
        (
            "PIL",
            lambda: classes.omniglot(pathlib.Path("omniglot")),
            r'omniglot needs pillow: pip install "metaduel\[examples\]"',
        ),
    ],
)
def test_what_is_not_installed_is_named(monkeypatch, module, load, message):
    monkeypatch.setitem(sys.modules, module, None)  # as if it were not there
    with pytest.raises(InvalidInputError, match=message):
        load()


# Omniglot's layout


def write_omniglot(folder, characters=8, drawings=4, size=105):
    generator = np.random.default_rng(0)
    for i in range(characters):
        half = "images_background" if i < 5 else "images_evaluation"
        path = folder / half / f"Alphabet_{i % 2}" / f"character{i:02d}"
        path.mkdir(parents=True)
        for j in range(drawings):
            ink = np.full((size, size), 255, np.uint8)
            ink[20:80, 20 + 10 * i : 30 + 10 * i] = generator.integers(0, 40)
            Image.fromarray(ink).convert("1").save(path / f"{i:04d}_{j:02d}.png")
    return folder


def test_omniglot_from_a_folder_in_its_layout(tmp_path):
    found = classes.omniglot(write_omniglot(tmp_path))
    assert found.shape == (8, 4, 28, 28)
    assert found.min() == 0  # paper
    assert found.max() == 1  # ink
    column = found.mean((1, 2)).argmax(1)
    assert column.unique().numel() == 8  # every character is where it was drawn


def test_what_is_not_omniglot(tmp_path):
    with pytest.raises(InvalidInputError, match=r"expected images_background/.*found no such folder"):
        classes.omniglot(tmp_path / "nowhere")
    (tmp_path / "photos").mkdir()
    with pytest.raises(InvalidInputError, match=r"expected images_background/.*found photos"):
        classes.omniglot(tmp_path)
    (tmp_path / "images_background").mkdir()
    (tmp_path / "images_evaluation").mkdir()
    with pytest.raises(InvalidInputError, match="found no drawings"):
        classes.omniglot(tmp_path)
    folder = write_omniglot(tmp_path / "mixed")
    file = next((folder / "images_evaluation").glob("*/*/*.png"))
    Image.new("L", (50, 50)).save(file)
    with pytest.raises(InvalidInputError, match=r"\(50, 50\) pixels, but others have \(105, 105\): must be one size"):
        classes.omniglot(folder)
    file.unlink()
    with pytest.raises(InvalidInputError, match=r"3 drawings, but .* has 4: must be the same number"):
        classes.omniglot(folder)
