"""Real samples: points of distributions in the plane, or drawings of one class."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from metaduel.benchmarks.studies.generation.settings import LATENTS
from metaduel.benchmarks.studies.images.classes import ImageClasses
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.game import make_game
from metaduel.envs.core.noise import derive_seed
from metaduel.envs.core.registry import find
from metaduel.envs.core.spec import Split
from metaduel.envs.core.tasks import frozen_tasks, sample_tasks
from metaduel.envs.forgery.distance import draw_real

# (tasks, split, seed): shots [n, K, ...] and fresh samples [n, M, ...]
Real = Callable[[int, Split, int], tuple[Tensor, Tensor]]


def plane(shots: int) -> Real:
    """Samples of Forgery's distributions."""
    spec = find("Forgery")
    game = make_game(spec)

    def real(n: int, split: Split, seed: int) -> tuple[Tensor, Tensor]:
        tasks = sample_tasks(spec, n, "train", seed) if split == "train" else frozen_tasks(spec, split)[:n]
        if len(tasks) < n:
            raise InvalidInputError(f"{n} distributions: the {split} list of Forgery holds {len(tasks)}")
        fresh = 64 if split == "train" else 200
        seeds = torch.arange(n, dtype=torch.int64, device="cpu") + (derive_seed(seed, LATENTS, 1) >> 1)
        samples = draw_real(game.params(tasks), shots + fresh, seeds).float()
        return samples[:, :shots], samples[:, shots:]

    return real


def drawings(classes: ImageClasses, shots: int, most: int = 64, turn: bool = False) -> Real:
    """Drawings of one class each: [n, K, height, width, 1], and the class's others.

    Args:
        classes: the classes.
        shots: K.
        most: maximum number of other drawings.
        turn: training classes are often turned, which makes more of them.

    Raises:
        InvalidInputError: fewer drawings than shots and two more.
    """
    if classes.train.shape[1] < shots + 2:
        raise InvalidInputError(f"shots={shots}: a class has {classes.train.shape[1]} drawings, needs {shots + 2}")

    def real(n: int, split: Split, seed: int) -> tuple[Tensor, Tensor]:
        images: Tensor = getattr(classes, split)
        generator = torch.Generator().manual_seed(seed)
        which = torch.randint(len(images), (n, 1), generator=generator, dtype=torch.int64, device="cpu")
        drawn = torch.rand(n, images.shape[1], generator=generator, dtype=torch.float32, device="cpu")
        order = drawn.topk(min(images.shape[1], shots + most)).indices
        found = images[which, order]
        if turn and split == "train":
            found = turned(found, generator)
        return found[:, :shots].unsqueeze(-1), found[:, shots:].unsqueeze(-1)

    return real


def turned(images: Tensor, generator: torch.Generator) -> Tensor:
    """Images [n, drawings, side, side]: half of the n as they are, the others lying on a side, mirrored or not, the same for all
    drawings of one. Upside down a 9 would be a 6 and mirrored a 5 nearly a 2, which may be held out; and nothing is interpolated,
    which would blur so few pixels.
    """
    lying = [image for side in (torch.rot90(images, q, (2, 3)) for q in (1, 3)) for image in (side, side.flip(3))]
    number = torch.arange(len(images), dtype=torch.int64, device=images.device)
    chosen = torch.randint(
        8, number.shape, generator=generator, dtype=torch.int64, device=images.device
    )  # 4 and more: as they are
    return torch.stack([*lying, *[images] * 4])[chosen, number]
