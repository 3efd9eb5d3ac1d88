# make book   the whole book, from nothing, into _build/html
# make test   lint and the whole test suite, in the same environment
# make bench  how fast a training step is, on this machine; the book shows it
# make lock   exact versions and hashes of all that is installed, on every system; needs uv

VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
TORCH ?= torch==2.13.0
INSTALLED := $(VENV)/.installed

.PHONY: book test bench clean lock
.DELETE_ON_ERROR:

book: $(INSTALLED)
	@$(BIN)/icl build

test: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pytest --numprocesses logical --dist loadfile --no-loadscope-reorder

bench: $(INSTALLED)
	$(BIN)/python tests/benchmark.py

clean:
	rm -rf _build

# All but torch, whose build is for a processor: which one is taken depends on where pip looks.
lock:
	uv pip compile pyproject.toml --group test --universal --generate-hashes --no-annotate --quiet \
	  --no-emit-package torch --custom-compile-command "make lock" --output-file requirements.lock

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 5) and "Python 3.11.5 or newer is needed; name one with: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --require-hashes --no-deps -r requirements.lock
	$(PIP) install --no-build-isolation -e . "$(TORCH)"
	@touch $@
