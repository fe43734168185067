"""What seeds are for. A purpose is a part of every derived seed, so that no two purposes share noise.

The numbers never change: results hang on them. A new purpose takes one that nobody has.
"""

from __future__ import annotations

from enum import IntEnum, unique


@unique
class Purpose(IntEnum):
    """Of seeds in games; see ``noise.derive_seed``."""

    # Training runs
    TASKS = 0  # which tasks a batch has
    EPISODES = 1  # the noise of its episodes
    INIT = 2  # the weights that a run begins with
    VALIDATION_ADAPT = 3  # episodes that are adapted to on the validation split
    VALIDATION_TEST = 4  # episodes that are tested on there
    PROTAGONIST_PERSONA_TASKS = 5  # tasks on which the protagonist meets personas
    ADVERSARY_PERSONA_TASKS = 6  # tasks on which the adversary does
    PROTAGONIST_PERSONA_EPISODES = 7  # the noise of their episodes, and the personas
    ADVERSARY_PERSONA_EPISODES = 8  # the same for the adversary

    # Few-shot evaluation
    ADAPT = 100  # episodes that are adapted to
    TEST = 101  # episodes that are tested on
    TUNE_ADAPT = 102  # episodes that are adapted to while a rate is chosen
    TUNE_TEST = 103  # episodes that a rate is chosen by
    SEEN_TASKS = 104  # training tasks that are tested on
    RANDOM_START = 105  # weights of a player that has learned nothing
    SCRATCH = 106  # learning a task from scratch
    RESPOND = 107  # learning a best response to a frozen player
    PRETRAIN = 108  # learning by PPO, before any task is adapted to

    # The published Navigation experiment
    NAVIGATION_ADAPT = 110  # episodes that are adapted to
    NAVIGATION_TEST = 111  # episodes that are tested on

    # Clouds of forged samples
    CLOUDS_ADAPT = 120  # episodes that are adapted to
    CLOUDS_TEST = 121  # episodes that are tested on, and samples that are shown
    CLOUDS_REAL = 122  # real samples
    CLOUDS_AGAIN = 123  # other real samples, to compare the first with

    # Dynamics of two learners
    DYNAMICS_START = 140  # the tastes that both begin with
    DYNAMICS_TRAIN = 141  # the tasks of an iteration
    DYNAMICS_PLAYS = 142  # the noise of its plays
    DYNAMICS_TEST = 143  # the noise of held-out plays

    # LOLA
    LOLA_START = 150  # the tables that runs begin with
    LOLA_EPOCH = 151  # the noise of an epoch

    # Peers that learn
    PEERS_MEET = 160  # the noise of meetings
    PEERS_IMAGINE = 161  # the noise of meetings that a player imagines
    PEERS_DRAW = 162  # which personas are met
    REMEMBERING_TRAIN = 163  # episodes that a player with a memory learns from
    OPTIMUM_START = 164  # starts of the search for the best player
    OPTIMUM_TRAIN = 165  # personas that the search plays

    # Robustness
    ROBUSTNESS_LEARN = 170  # the learner's own numbers
    ROBUSTNESS_TEST = 171  # episodes that are tested on

    # Headroom: populations of best responses, and what adapts without having learned
    POPULATION_INIT = 200  # weights of the players
    POPULATION_POOL = 201  # tasks that batches are drawn from
    POPULATION_TRAIN = 202  # a batch, and how it is cut
    POPULATION_TEST = 203  # episodes that are tested on
    HEADROOM_START = 204  # random starts
    POPULATION_CRITIC = 205  # weights of the critics

    # Signal: what an update knows
    SIGNAL_TASKS = 210  # the tasks of a measurement
    SIGNAL_START = 211  # random starts
    SIGNAL_TRUTH = 212  # episodes of the true gradient
    SIGNAL_UPDATE = 213  # episodes of an update

    # Ratings of scripted players
    PANEL_MATCHES = 300  # the noise of their matches
    PANEL_ORDER = 301  # the order in which matches are rated

    # Opponents, whose seeds anybody may give: far from the small numbers that come after a seed elsewhere
    MATRIX_PERSONAS = 1_000_003  # personas of a repeated matrix game
    SAMPLED_OPPONENTS = 1_000_033  # scripted controllers with other numbers
    TRAIN_PERSONAS = 7_000_003  # personas of the training split
    VALIDATION_PERSONAS = 7_000_009  # personas of the validation split
    HELD_OUT_PERSONAS = 7_000_033  # personas of the held-out split


# By seat.
PERSONA_TASKS = (Purpose.PROTAGONIST_PERSONA_TASKS, Purpose.ADVERSARY_PERSONA_TASKS)
PERSONA_EPISODES = (Purpose.PROTAGONIST_PERSONA_EPISODES, Purpose.ADVERSARY_PERSONA_EPISODES)


@unique
class DataPurpose(IntEnum):
    """Of seeds where tasks are data. No game is played there, so that these numbers may be those of games."""

    # Training runs
    TRAIN = 0  # the tasks of a batch
    INIT = 1  # the weights that a run begins with
    VALIDATION = 2  # the tasks of the validation

    # The example of few-shot classification
    CLASSIFICATION_TEST = 200  # tasks that are tested on
    CLASSIFICATION_SCRATCH = 201  # weights of those that learn a task from scratch
    CLASSIFICATION_TUNE = 202  # tasks that a rate is chosen by

    # The example of few-shot generation
    GENERATION_TEST = 210  # tasks that are tested on
    GENERATION_LATENTS = 211  # what samples are made of
    GENERATION_SCRATCH = 212  # weights of those that learn a task from scratch
    GENERATION_TUNE = 213  # tasks that rates and widths are chosen by
    GENERATION_JITTER = 214  # noise around the shots
