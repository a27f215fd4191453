# Two commands do everything on a fresh machine with Python 3.11 or newer:
#   make bench   NFE against error of every solver on real data, into report/
#   make test    the tests; make test-all adds the slow ones
# And for who works on it: make docs, the site; make dist, what is released.
# PYTHON=python3.12 picks another interpreter; ARGS="--nfe 5 --nfe 10" is handed on to the command.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
BIN := $(VENV)/bin
# Python compiles what it imports, and keeps it, whatever the environment says of that: pip would compile all 12,000
# files, most of which nothing imports.
export PYTHONDONTWRITEBYTECODE :=
PIP := $(BIN)/python -m pip --disable-pip-version-check install -q --no-compile -c constraints.txt
UNPACKED := build/unpacked

.PHONY: bench test test-all lint types format docs dist install clean $(UNPACKED)

bench: $(VENV)/.ready
	$(BIN)/logsnr bench --out report $(ARGS)

test: $(VENV)/.ready-test
	$(BIN)/python -m pytest -n auto --dist loadfile $(ARGS)

test-all: $(VENV)/.ready-test
	$(BIN)/python -m pytest -n auto --dist loadfile -m "" $(ARGS)

lint: $(VENV)/.ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# What is installed, not the tree: the folders become logsnr.* only once installed. The environment has setuptools, as
# torch needs it, so that pip need not fetch it to build.
$(UNPACKED): $(VENV)/.ready
	rm -rf build
	$(PIP) --no-deps --no-build-isolation --target $@ .

types: $(VENV)/.ready-dev $(UNPACKED)
	cd $(UNPACKED) && PYTHONPATH=. $(abspath $(BIN))/python -m logsnr.cli solvers >/dev/null
	cd $(UNPACKED) && $(abspath $(BIN))/mypy --config-file $(CURDIR)/pyproject.toml -p logsnr

format: $(VENV)/.ready-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The site, into site/, without a warning; ARGS=serve shows it instead. The reference is read from what is installed;
# nothing is imported.
docs: $(VENV)/.ready-docs $(UNPACKED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs $(or $(ARGS),build --strict --quiet)

# The wheel and the source archive, in dist/, and what a release must pass.
dist: $(VENV)/.ready-dev
	CONSTRAINTS=constraints.txt PYTHON=$(BIN)/python .ci/dist

# All packages of all commands at once: pip looks them up once, not once for each set.
install: $(VENV)/.ready-all

clean:
	rm -rf $(VENV) build dist report site

# One stamp per set of packages, newer than the files that say what belongs in it.
$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("logsnr needs Python 3.11 or newer; try make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.ready: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing into $(VENV) (a few minutes the first time)"
	$(PIP) -e '.[report]'
	@touch $@

$(VENV)/.ready-test: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing into $(VENV) (a few minutes the first time)"
	$(PIP) -e '.[test]'
	@touch $@ $(VENV)/.ready

$(VENV)/.ready-docs: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) -e '.[docs]'
	@touch $@ $(VENV)/.ready

$(VENV)/.ready-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) -e '.[dev]'
	@touch $@ $(VENV)/.ready $(VENV)/.ready-test

$(VENV)/.ready-all: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing into $(VENV) (a few minutes the first time)"
	$(PIP) -e '.[dev,docs]'
	@touch $@ $(VENV)/.ready $(VENV)/.ready-test $(VENV)/.ready-docs $(VENV)/.ready-dev
