# Two commands matter: `make demo` and `make test`. Each makes .venv first, if it is not there yet.
# Needs Python >= 3.11, make and a package index, nothing else.

PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13 python3.14; do \
	$$p -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
STAMP := .venv/.installed
CLIENTS := .venv-clients/.installed

# Waiting threads that spin starve the others on a small machine: ten times slower.
export OMP_WAIT_POLICY = PASSIVE

REPRODUCTIONS := comparison lola navigation peers robustness

.PHONY: demo examples test test-clients test-compiled lint types links pages bench-speed bench-peers bench-gpu dist clean $(REPRODUCTIONS:%=reproduce-%)

demo: $(STAMP)  ## train, evaluate and film a small run, in a few minutes
	$(BIN)/metaduel demo

examples: $(STAMP)  ## the same learners on images and samples, with short settings, in a minute or two
	$(BIN)/python examples/few_shot_classification.py --methods maml reptile --classes 100 --iterations 40 --test-episodes 60 --folder runs/examples/classification
	$(BIN)/python examples/few_shot_generation.py --iterations 20 --test-tasks 20 --folder runs/examples/generation

test: $(STAMP)  ## one thread per worker: the workers share the cores
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --maxprocesses 4

test-compiled: $(STAMP)  ## compiled steps against plain ones in every family, in some minutes
	OMP_NUM_THREADS=1 $(BIN)/pytest -m compiling tests/agents/test_compiled.py

test-clients: $(CLIENTS)  ## RLlib, TorchRL and Tianshou, which need an environment of their own: 2 GB to download, a few minutes to run
	OMP_NUM_THREADS=1 $(<D)/bin/pytest tests/clients

lint: $(STAMP) links
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	cd .types && ../$(BIN)/lint-imports --config ../pyproject.toml

types: $(STAMP) links
	cd .types && ../$(BIN)/mypy --config-file ../pyproject.toml metaduel

pages: $(STAMP)  ## the games' pages, from their docstrings and what `metaduel headroom` left under runs/
	$(BIN)/metaduel pages

bench-speed: $(STAMP)  ## in about ten minutes; with COMPARE=REF beside another commit, in turn, in about an hour
	$(BIN)/metaduel speed $(if $(COMPARE),--compare $(COMPARE)) $(if $(ONLY),--only $(ONLY))

bench-peers: $(STAMP)  ## other environments, where they are installed, beside ours
	$(BIN)/metaduel speed --only peers

bench-gpu: $(STAMP)  ## on an accelerator, in less than five minutes
	$(BIN)/metaduel speed --only gpu

dist: $(STAMP)  ## wheel and source archive in dist/, each installed and tested in a fresh environment, in several minutes
	.ci/dist $(BIN)/python

$(REPRODUCTIONS:%=reproduce-%): reproduce-%: $(STAMP)  ## reproduce a published experiment; an interrupted reproduction resumes
	OMP_NUM_THREADS=1 $(BIN)/metaduel reproduce $* $(if $(wildcard docs/results/cells/$*),--keep docs/results/cells/$*)

# mypy and import-linter don't follow setuptools' package-dir: show them the installed layout, made of links.
links:
	@mkdir -p .types/metaduel && find .types/metaduel -type l -exec rm {} +
	@for file in metaduel/*.py metaduel/py.typed; do ln -s ../../$$file .types/metaduel/; done
	@for room in envs agents meta benchmarks metaduel/cli; do ln -s ../../$$room .types/metaduel/; done

$(STAMP): EXTRAS := dev
$(CLIENTS): EXTRAS := dev,clients
$(STAMP) $(CLIENTS): %/.installed: pyproject.toml setup.py constraints.txt
	@test -n "$(PYTHON)" || { echo "metaduel needs Python >= 3.11 with its venv module" >&2; exit 2; }
	test -x $*/bin/python || $(PYTHON) -m venv $*
	$*/bin/python -m pip install --quiet --disable-pip-version-check -e ".[$(EXTRAS)]" -c constraints.txt
	touch $@

clean:  ## everything that was made here, runs excepted
	rm -rf .venv .venv-clients .types .cache .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
