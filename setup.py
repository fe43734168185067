from setuptools import find_packages, setup

# Renaming discovery (envs/ -> metaduel.envs) cannot be declared in pyproject.toml.
ROOMS = ("envs", "agents", "meta", "benchmarks")
inside = [p for room in ROOMS for p in (room, *(f"{room}.{sub}" for sub in find_packages(room)))]
setup(
    packages=["metaduel", "metaduel.cli", *(f"metaduel.{p}" for p in inside)],
    package_dir={"metaduel": "metaduel", **{f"metaduel.{room}": room for room in ROOMS}},
)
