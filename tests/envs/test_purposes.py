"""What seeds are for: a number for every purpose, and the seeds that published results were made with."""

import pytest

from metaduel.envs.core.noise import derive_seed
from metaduel.envs.core.purposes import PERSONA_EPISODES, PERSONA_TASKS, DataPurpose, Purpose


@pytest.mark.parametrize("purposes", [Purpose, DataPurpose])
def test_no_two_purposes_share_a_number(purposes):
    assert len({int(purpose) for purpose in purposes}) == len(purposes.__members__)


@pytest.mark.parametrize(
    ("parts", "seed"),
    [
        ((0, Purpose.TASKS), 2812178212566171247),
        ((3, Purpose.EPISODES, 7), 5049041093331064795),
        ((1, PERSONA_TASKS[0], 0), 5227557188498364520),
        ((Purpose.TRAIN_PERSONAS, 2, PERSONA_EPISODES[0], 4), 1742617738693490064),
        ((0, Purpose.ADAPT), 4879738952404276561),
        ((0, Purpose.TEST), 6303600794585705137),
        ((5, Purpose.RANDOM_START), 2572542299641262921),
        ((4, Purpose.REMEMBERING_TRAIN, 9), 6157577577820565744),
        ((11, Purpose.SAMPLED_OPPONENTS), 231638435246820585),
        ((2, DataPurpose.TRAIN, 1), 5966037492455884641),
        ((0, DataPurpose.GENERATION_TUNE), 3391723590810907709),
    ],
)
def test_a_named_purpose_gives_the_seed_that_its_number_gave(parts, seed):
    assert derive_seed(*parts) == seed
