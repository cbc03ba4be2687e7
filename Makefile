# `make demo`, `make mock` and `make test` need only Python 3.11 or newer: each creates .venv and
# installs the locked dependencies and the package first.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
WORKDIR ?= demo
MOCKDIR ?= mock

SMOKEDIR ?= smoke

.PHONY: demo mock mock-networks test test-all smoke lint types docs leaderboard wheel install clean

demo: install
	$(BIN)/python -m genbench_jax.main --config configs/demo.py --workdir $(WORKDIR)
	@echo "The page: $(WORKDIR)/report/index.html"

# All stages on all 22 datasets with drawn images instead of the data, in ten minutes.
mock: install
	$(BIN)/python -m genbench_jax.main --config configs/full.py:mock --workdir $(MOCKDIR)
	@echo "The page: $(MOCKDIR)/report/index.html"

# The same with networks that train for two steps on the images of every dataset.
mock-networks: install
	$(BIN)/python -m genbench_jax.main --config configs/full.py:mock,networks --workdir $(MOCKDIR)
	@echo "The page: $(MOCKDIR)/report/index.html"

PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# The tests that take up to some five seconds each, in about six minutes on two cores.
test: install
	$(PYTEST)

# Those that train networks, kill runs or follow the documentation as well.
test-all: install
	$(PYTEST) -m "not long" --cov --cov-report=term:skip-covered --cov-fail-under=85

# Checks for another Python and JAX: networks and metrics agree with the golden files, and a small
# run ends with its page.
# `make smoke PYTHON=python3.13 VENV=.venv-newest`
smoke: install
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile tests/models tests/metrics tests/test_config.py
	$(BIN)/genbench run demo:quick --workdir $(SMOKEDIR)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: install
	$(BIN)/mypy

docs: install
	$(BIN)/python -m mkdocs build --strict --quiet --site-dir site
	@echo "The pages: site/index.html"

leaderboard: install
	$(BIN)/python leaderboard/build.py

# The build tools are in the lock, so nothing is downloaded.
wheel: install
	rm -rf build dist
	$(BIN)/python -m pip wheel -q --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir dist .
	$(BIN)/python setup.py -q sdist
	rm -rf build
	@ls dist

install: $(VENV)/installed

# The lock is complete, so nothing is resolved: pip treats extras as unpinned when a newer version exists.
# uv installs in a fraction of pip's time; without it, pip does the same.
$(VENV)/installed: requirements.lock setup.py pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	if command -v uv >/dev/null 2>&1; then \
	  uv pip install -q -p $(BIN)/python --compile-bytecode --no-deps --require-hashes -r requirements.lock && \
	  uv pip install -q -p $(BIN)/python --no-deps --no-build-isolation -e .; \
	else \
	  $(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --require-hashes -r requirements.lock && \
	  $(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .; \
	fi
	touch $@

clean:
	rm -rf $(VENV) demo mock smoke site build dist
