# `make demo`: from a clean clone to a trained, measured, answering model.
# `make test`: the whole suite. `make gpu`: what only a GPU can show, with a torch made for it. `make bench`: training speed and memory beside its peers, an hour and a half on an idle machine.
# All make the environment they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test check bench gpu clean

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; set PYTHON=..."; exit 2; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV)
	@echo "installing locked dependencies into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -r requirements.lock
	@# Bytecode on all cores, which pip makes on one; of files that are no Python of this version it makes none either.
	@$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: $(STAMP)
	@$(BIN)/sensorium demo

test: $(STAMP)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

check: $(STAMP)
	@$(BIN)/ruff check sensorium tests benchmarks
	@$(BIN)/pyright --pythonpath $(BIN)/python

gpu: $(STAMP)
	@$(BIN)/python -m pytest tests/gpu

bench: $(STAMP)
	@for part in "compare.py --levers" memory.py feature_store.py pack_plan.py; do \
	  $(BIN)/python benchmarks/training/$$part || exit 1; done

clean:
	rm -rf $(VENV) runs build *.egg-info
