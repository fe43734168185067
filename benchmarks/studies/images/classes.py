"""Sets of image classes: scikit-learn's digits, Omniglot from a folder, and the split into classes to train and to test on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from metaduel.benchmarks.studies.images.characters import SIDE
from metaduel.envs.core.arguments import AnyPath, as_path
from metaduel.envs.core.errors import InvalidInputError


class ImageClasses(NamedTuple):
    """Images by class, in three disjoint sets of classes."""

    train: Tensor  # [classes, drawings, height, width] in [0, 1], ink is 1
    validation: Tensor
    held_out: Tensor


def digits() -> Tensor:
    """scikit-learn's handwritten digits (Alpaydin and Kaynak, 1998), 174 of each: [10, 174, 8, 8] in [0, 1].

    Raises:
        InvalidInputError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise InvalidInputError('digits need scikit-learn: pip install "metaduel[examples]"') from None
    found = load_digits()
    images = torch.from_numpy(found.images).to(torch.float32) / 16
    target = torch.from_numpy(found.target)
    least = int(torch.bincount(target).min())
    return torch.stack([images[target == digit][:least] for digit in range(10)])


def omniglot(folder: AnyPath) -> Tensor:
    """Omniglot (Lake, Salakhutdinov and Tenenbaum, Science 2015) from a folder in its standard layout: [characters, 20, 28, 28].

    Args:
        folder: with ``images_background`` and ``images_evaluation``, in each ``<alphabet>/<character>/*.png``.

    Raises:
        InvalidInputError: pillow is not installed, another layout, images of different sizes, or characters of different numbers
            of drawings.
    """
    try:
        from PIL import Image
    except ImportError:
        raise InvalidInputError('omniglot needs pillow: pip install "metaduel[examples]"') from None
    folder = as_path(folder, "folder")
    halves = [folder / name for name in ("images_background", "images_evaluation")]
    for half in halves:
        if not half.is_dir():
            there = (
                ", ".join(sorted(path.name for path in folder.iterdir())[:5]) if folder.is_dir() else "no such folder"
            )
            raise InvalidInputError(
                f"{folder}: expected {half.name}/<alphabet>/<character>/*.png, found {there or 'nothing'}"
            )
    characters = sorted(path for half in halves for path in half.glob("*/*") if path.is_dir())
    drawings = [sorted(path.glob("*.png")) for path in characters]
    if not characters or not all(drawings):
        empty = next((path for path, found in zip(characters, drawings, strict=True) if not found), halves[0])
        raise InvalidInputError(f"{folder}: expected <alphabet>/<character>/*.png, found no drawings in {empty}")
    images: list[Tensor] = []
    size = (0, 0)
    for path, files in zip(characters, drawings, strict=True):
        if len(files) != len(drawings[0]):
            raise InvalidInputError(
                f"{path}: {len(files)} drawings, but {characters[0].name} has {len(drawings[0])}: must be the same number"
            )
        for file in files:
            with Image.open(file) as image:
                size = size if images else image.size
                if image.size != size:
                    raise InvalidInputError(f"{file}: {image.size} pixels, but others have {size}: must be one size")
                small = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
                images.append(torch.from_numpy(np.array(small)))
    return (1 - torch.stack(images).float() / 255).view(len(characters), -1, SIDE, SIDE)


def split(images: Tensor, train: int, validation: int, seed: int = 0, rotations: bool = False) -> ImageClasses:
    """Split classes at random; the split is the same for the same seed.

    Args:
        images: [classes, drawings, height, width].
        train: classes to train on.
        validation: classes to validate on; all that remain are held out.
        seed: of the split.
        rotations: by 90, 180 and 270 degrees make new classes to train on; a character stays in one split.

    Raises:
        InvalidInputError: no class would be held out.
    """
    if not train > 0 or not validation > 0 or train + validation >= len(images):
        raise InvalidInputError(
            f"{train} classes to train and {validation} to validate on leave none of {len(images)} to test on"
        )
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(images), generator=generator, dtype=torch.int64, device="cpu")
    parts = [images[rows] for rows in torch.tensor_split(order, (train, train + validation))]
    turned = [torch.rot90(parts[0], quarter, (2, 3)) for quarter in range(4 if rotations else 1)]
    return ImageClasses(torch.cat(turned), *parts[1:])
