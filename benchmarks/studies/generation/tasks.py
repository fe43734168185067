"""Tasks of a generator and a discriminator.

In an update the generator descends minus the discriminator's verdict. The discriminator's outer loss is its error in telling
fresh samples from the adapted generator's. The generator's outer loss is the verdict of the best discriminator in a ball of
functions, which is known: the energy distance to fresh samples (``judge="distance"``; for images, plus the kernel distance in
features, which has the same form), or the verdict of its own opponent (``judge="discriminator"``).

With too few classes to learn to distinguish images, the discriminator starts from a critic that needs no learning, the witness of
the energy distance between the shots and the forged samples, and learns the rest.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from metaduel.agents.networks import Convolutional, Dense, Network
from metaduel.benchmarks.studies.generation.judges import Distance, away, feature_distance
from metaduel.benchmarks.studies.generation.kinds import KINDS, Kind
from metaduel.benchmarks.studies.generation.networks import Waves, latents
from metaduel.benchmarks.studies.generation.samples import Real, drawings, plane
from metaduel.benchmarks.studies.generation.settings import LATENTS, STEPS, Settings
from metaduel.benchmarks.studies.images.characters import characters
from metaduel.benchmarks.studies.images.classes import digits, split
from metaduel.envs.core.noise import derive_seed
from metaduel.envs.core.spec import Role, Split
from metaduel.envs.forgery.distance import energy_distance
from metaduel.meta.problems.problem import Players
from metaduel.meta.problems.supervised import Data, Part, Tasks

FORGED = 64  # samples per update


class Forging(Tasks):
    """Tasks of samples: K to adapt to, fresh ones to be judged by.

    Args:
        generator: from latents [N, M, d] to samples, flat.
        discriminator: from samples to verdicts [N, M, 1], the higher the more real.
        real: draws the samples.
        shape: of a sample.
        kind: of the data.
        judge: the generator's outer loss: a distance to fresh samples; None: the discriminator's verdict.
        distance: the distance for the validation score.
    """

    def __init__(
        self, generator: Network, discriminator: Network, real: Real, shape: tuple[int, ...], kind: Kind,
        judge: Distance | None, distance: Distance,
    ) -> None:  # fmt: skip
        self.networks = {"protagonist": generator, "adversary": discriminator}
        self._real, self._shape, self._kind, self._judge, self._distance = real, shape, kind, judge, distance

    def draw(self, n: int, split: Split, seed: int) -> Data:
        """Shots, fresh samples, latents of every update [n, 10, forged, d], latents of the samples that are judged [n, M, d]."""
        shots, fresh = self._real(n, split, seed)
        generator = torch.Generator().manual_seed(derive_seed(seed, LATENTS))
        update = latents(generator, n, STEPS, FORGED, self._kind.latent)
        return shots, fresh, update, latents(generator, n, max(64, fresh.shape[1]), self._kind.latent)

    def made(self, players: Players, latent: Tensor) -> Tensor:
        """The generator's samples [N, M, ...]."""
        flat = self._kind.squash(self.networks["protagonist"](players["protagonist"], latent))
        return flat.view(*flat.shape[:2], *self._shape)

    def loss(self, role: Role, players: Players, data: Data, part: Part, shot: int) -> Tensor:
        """[n]: the generator's loss is minus the verdict on its samples, or the judge's distance. The discriminator's loss is the
        difference of the verdicts on forged and real samples, plus half of their mean square, without which old verdicts would
        never fade (least squares, as in Mao et al., ICCV 2017).
        """
        shots, fresh, update, latent = data
        made = self.made(players, update[:, shot % STEPS] if part == "support" else latent)
        if role == "protagonist" and part == "query" and self._judge is not None:
            return self._judge(made, fresh)
        if role == "protagonist":  # a pair of its samples is in the verdicts on both: half in each
            return -0.5 * self.verdicts(players, made, shots, made, share=0.5).mean(1)
        forged = self.verdicts(players, made, shots, made)
        real = self.verdicts(players, shots if part == "support" else fresh, shots, made)
        return forged.mean(1) - real.mean(1) + 0.5 * (forged.square().mean(1) + real.square().mean(1))

    def verdicts(self, players: Players, x: Tensor, shots: Tensor, made: Tensor, share: float = 1.0) -> Tensor:
        """Verdicts [N, M] on ``x``, the higher the more real: the network's output plus, for some data, the witness of the energy
        distance: how much farther x is from the made samples (a ``share`` of that distance) than from the shots, on average (as
        the critic of Bellemare et al., 2017, in pixels).
        """
        said = self.networks["adversary"](players["adversary"], x).squeeze(2)
        if not self._kind.witness:
            return said
        return said + self._kind.witness * (share * away(x, made) - away(x, shots))

    def score(self, role: Role, players: Players, data: Data, shot: int) -> Tensor:
        """Minus the distance to fresh samples, for both."""
        return -self._distance(self.made(players, data[3]), data[1])


def make_tasks(settings: Settings) -> tuple[Forging, Distance]:
    """The tasks, and the distance that is reported."""
    judged, kind = settings.judge == "distance", KINDS[settings.data]
    if settings.data == "plane":
        networks, judge = (Dense((kind.latent, 64, 64, 2)), Waves(2)), energy_distance if judged else None
        return Forging(*networks, plane(settings.shots), (2,), kind, judge, energy_distance), energy_distance
    if settings.data == "digits":
        classes = split(digits(), 6, 1)
    else:
        # 14 x 14: half the pixels are enough to distinguish classes
        images = nn.functional.avg_pool2d(characters(settings.classes), 2)
        classes = split(images, round(0.8 * len(images)), round(0.1 * len(images)))
    side, distance = classes.train.shape[-1], feature_distance(classes)

    def both(made: Tensor, fresh: Tensor) -> Tensor:
        return energy_distance(made.flatten(2), fresh.flatten(2)) + distance(made, fresh)

    generator = Dense((kind.latent, 64, 128, side * side))
    discriminator = Convolutional(1, 1, (16, 32), normalise=False, slope=0.2, pooled=False, side=side, bounded=True)
    real = drawings(classes, settings.shots, turn=settings.data == "digits")
    return Forging(generator, discriminator, real, (side, side, 1), kind, both if judged else None, distance), distance
