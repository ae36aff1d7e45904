# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint typecheck tests bench clean

demo: $(VENV)/.demo
	$(BIN)/treadle demo

test: $(VENV)/.test lint typecheck tests

lint: $(VENV)/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

# mypy sees the package as users import it: a tree of links that mirrors the package-dir mapping.
typecheck: $(VENV)/.test
	rm -rf build/typecheck
	mkdir -p build/typecheck/treadle
	ln -s $(addprefix ../../../,$(wildcard treadle/*.py)) ../../../treadle/py.typed ../../../treadle/cli build/typecheck/treadle/
	for part in tracer ir passes codegen runtime nn examples bench; do \
	  ln -s ../../../$$part build/typecheck/treadle/$$part; done
	MYPYPATH=build/typecheck $(BIN)/mypy -p treadle

tests: $(VENV)/.test
	$(BIN)/python -m pytest

bench: $(VENV)/.bench
	$(BIN)/treadle bench

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[demo]'
	touch $@

$(VENV)/.test: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[demo,test]'
	touch $@

$(VENV)/.bench: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[demo,bench]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
