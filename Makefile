# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint typecheck tests test-torch test-arm bench ulp soak clean

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
	ln -s $(addprefix ../../../,$(wildcard treadle/*.py)) ../../../treadle/py.typed ../../../treadle/cli ../../../treadle/optim ../../../treadle/data ../../../treadle/torch build/typecheck/treadle/
	for part in tracer ir passes codegen runtime nn examples bench; do \
	  ln -s ../../../$$part build/typecheck/treadle/$$part; done
	MYPYPATH=build/typecheck $(BIN)/mypy -p treadle

tests: $(VENV)/.test
	$(BIN)/python -m pytest -n 2

# Agreement with PyTorch, which it installs; without it, stored values are compared with.
test-torch: $(VENV)/.torch
	$(BIN)/python -m pytest tests/torch_agreement

# Code generation on an emulated aarch64 machine; WHAT chooses tests. See tests/emulated.py.
test-arm: $(VENV)/.test
	$(BIN)/python tests/emulated.py $(WHAT)

# The accuracy of every function, over all inputs where these are float32: half an hour. PEERS=1
# measures NumPy, torch and JAX too; WHAT chooses functions.
ulp: $(VENV)/.test
	$(BIN)/python -m treadle.bench.ulp $(if $(PEERS),--peers) $(WHAT) --json bench/results/ulp.json
	$(BIN)/python -m treadle.bench.ulp --json bench/results/ulp.json --page docs/accuracy.md

# The resident memory over 10,000 compilations and 1,000,000 calls: six minutes.
soak: $(VENV)/.test
	$(BIN)/python -m treadle.bench.soak --json bench/results/soak.json \
	  --table bench/results/soak.txt --picture bench/results/soak.png

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

$(VENV)/.torch: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[torch]'
	touch $@

$(VENV)/.bench: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[demo,bench]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
