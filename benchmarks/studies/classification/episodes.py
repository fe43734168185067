"""Episodes of N classes and K drawings of each, as tasks that any learner on data takes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from metaduel.agents.networks import Network
from metaduel.benchmarks.studies.images.classes import ImageClasses
from metaduel.envs.core.errors import InvalidInputError
from metaduel.envs.core.spec import Role, Split
from metaduel.meta.problems.problem import Players
from metaduel.meta.problems.supervised import Data, Part, Tasks

ROLE: Role = "protagonist"


class Episodes(Tasks):
    """Episodes of N ways, K shots.

    Args:
        classes: the image classes.
        network: from images [N, M, height, width, 1] to ``ways`` logits.
        ways: classes in an episode.
        shots: drawings of each class to adapt to.
        queries: drawings of each class to test on.
        train_queries: the same in training and validation.
        fresh: number of batches of shots in an episode's support in training; the k-th update uses the k-th batch, in turn.
        fresh_shots: drawings of each class in such a batch.

    Raises:
        InvalidInputError: fewer classes than ways, or fewer drawings than shots and queries.
    """

    def __init__(
        self,
        classes: ImageClasses,
        network: Network,
        ways: int = 5,
        shots: int = 1,
        queries: int = 5,
        train_queries: int = 3,
        fresh: int = 1,
        fresh_shots: int | None = None,
    ) -> None:
        self.networks = {ROLE: network}
        self.classes, self.ways, self.shots, self.queries = classes, ways, shots, queries
        self._train = fresh, fresh_shots or shots, train_queries
        for name, images in classes._asdict().items():
            if len(images) < ways:
                raise InvalidInputError(f"ways={ways}: there are {len(images)} classes in {name}")
            batches, own, asked = self._parts(name)
            if images.shape[1] < batches * own + asked:
                raise InvalidInputError(
                    f"shots={own}, queries={asked}: a class in {name} has {images.shape[1]} drawings, "
                    f"needs {batches * own + asked}"
                )

    def _parts(self, split: str) -> tuple[int, int, int]:
        if split == "train":
            return self._train
        return 1, self.shots, self.queries if split == "held_out" else self._train[2]

    def draw(self, n: int, split: Split, seed: int) -> Data:
        """``n`` episodes: support images [n, batches, ways * shots, height, width, 1] and queries [n, ways * queries, ...]."""
        images: Tensor = getattr(self.classes, split)
        batches, shots, queries = self._parts(split)
        generator = torch.Generator().manual_seed(seed)
        drawn = batches * shots + queries
        # The indices of the largest random numbers are a random choice.
        which, drawings = (
            torch.rand(n, *shape, generator=generator, dtype=torch.float32, device="cpu")
            for shape in ((len(images),), (self.ways, images.shape[1]))
        )
        which, drawings = which.topk(self.ways).indices, drawings.topk(drawn).indices
        found = images[which.unsqueeze(2), drawings].unsqueeze(-1)  # [n, ways, drawings, height, width, 1]
        support, query = torch.split(found, [batches * shots, queries], 2)
        support = support.reshape(n, self.ways, batches, shots, *found.shape[3:]).transpose(1, 2).flatten(2, 3)
        return support, query.flatten(1, 2)

    def logits(self, players: Players, data: Data, part: Part, shot: int) -> tuple[Tensor, Tensor]:
        """The network's outputs [n, M, ways] and the labels [n, M]."""
        images = data[0][:, shot % data[0].shape[1]] if part == "support" else data[1]
        way = torch.arange(self.ways, dtype=torch.int64, device=images.device)
        target = way.repeat_interleave(images.shape[1] // self.ways).expand(len(images), -1)
        return self.networks[ROLE](players[ROLE], images), target

    def loss(self, role: Role, players: Players, data: Data, part: Part, shot: int) -> Tensor:
        """Cross-entropy: [n]."""
        logits, target = self.logits(players, data, part, shot)
        return cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none").view(target.shape).mean(1)

    def score(self, role: Role, players: Players, data: Data, shot: int) -> Tensor:
        """Accuracy on the queries: [n]."""
        logits, target = self.logits(players, data, "query", shot)
        return (logits.argmax(2) == target).float().mean(1)


def in_parts(data: Data, size: int = 20) -> Iterator[Data]:
    """A batch in parts that fit into memory."""
    return zip(*(torch.split(tensor, size) for tensor in data), strict=True)
