"""Few-shot generation; the study itself is in ``metaduel.benchmarks.studies.generation``.

python examples/few_shot_generation.py --iterations 20 --test-tasks 20
"""

import sys

import tyro

from metaduel import InvalidInputError
from metaduel.benchmarks.studies.generation.study import main

if __name__ == "__main__":
    try:
        tyro.cli(main)
    except InvalidInputError as error:
        print(f"few_shot_generation: {error}", file=sys.stderr)
        sys.exit(2)
