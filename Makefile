# Everything runs in .venv, which is created if it is missing; only Python 3.11 or newer is needed.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
RUN := runs/digits

.PHONY: help demo test test-all check format docs clean

help:
	@echo "make demo      train, evaluate and export SupCon on the built-in digits; see the report"
	@echo "make test      the tests, without those marked slow"
	@echo "make test-all  all tests"
	@echo "make check     format, lint, types, import layers, known vulnerabilities"
	@echo "make docs      the documentation as a web site, in build/site"
	@echo "make format    rewrite the files in the format that make check requires"

$(INSTALLED): setup.cfg pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed: make PYTHON=/path/to/python" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(INSTALLED)
	$(BIN)/python -m supcon_tf.train --gin_file=gin_configs/digits/supcon.gin --workdir=$(RUN)
	@echo "open $(RUN)/report.html"

test: $(INSTALLED)
	$(BIN)/python -m pytest --numprocesses=2 --dist=worksteal -m "not slow"

test-all: $(INSTALLED)
	$(BIN)/python -m pytest --numprocesses=2 --dist=worksteal

check: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/audit_packages.py

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(INSTALLED)
	$(BIN)/python tools/docs_site.py
	@echo "open build/site/index.html; to search in it: $(BIN)/python -m http.server --directory build/site"

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
