"""Few-shot classification of images; the study itself is in ``metaduel.benchmarks.studies.classification``.

python examples/few_shot_classification.py --methods maml reptile --classes 100 --iterations 40 --test-episodes 60
"""

import sys

import tyro

from metaduel import InvalidInputError
from metaduel.benchmarks.studies.classification.study import main

if __name__ == "__main__":
    try:
        tyro.cli(main)
    except InvalidInputError as error:
        print(f"few_shot_classification: {error}", file=sys.stderr)
        sys.exit(2)
