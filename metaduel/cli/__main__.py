"""The command line as ``python -m metaduel.cli``, for processes that start others with their own interpreter."""

from metaduel.cli import main

main()
