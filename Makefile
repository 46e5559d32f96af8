# make demo: the whole chain on real data.  make test: the tests.  make lint: ruff and mypy.
# Each installs into .venv first.

PYTHON ?= python3
JOBS ?= 2
PY := .venv/bin/python
DEMO := runs/demo

.PHONY: install demo test test-all test-browser lint format clean

install: .venv/installed

.venv/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else "Python 3.11, 3.12 or 3.13 is needed: make PYTHON=python3.12 ...")'
	@echo "Installing into .venv: this happens once and takes some minutes."
	@$(PYTHON) -m venv .venv
	@# The CPU build of PyTorch saves gigabytes of CUDA libraries on Linux; without its index PyPI's
	@# build is installed below. The version is that of the test extra.
	@$(PY) -m pip install -q --retries 0 --timeout 10 --index-url https://download.pytorch.org/whl/cpu 'torch==2.13.0' >/dev/null 2>&1 || true
	@$(PY) -m pip install -q -e '.[demo,test]'
	@touch $@

demo: install
	rm -rf $(DEMO)
	$(PY) train.py --config=configs/digits.py:bn --workdir=$(DEMO)/training/digits_bn
	$(PY) train.py --config=configs/digits.py:an --workdir=$(DEMO)/training/digits_an
	$(PY) -m convert $(DEMO)/training/digits_bn $(DEMO)/pth/digits_bn.pth --to-torch
	$(PY) -m convert $(DEMO)/training/digits_an $(DEMO)/pth/digits_an.pth --to-torch
	$(PY) -m convert $(DEMO)/pth/digits_bn.pth $(DEMO)/checkpoints/digits_bn
	$(PY) -m convert $(DEMO)/pth/digits_an.pth $(DEMO)/checkpoints/digits_an
	$(PY) -m an_jax.training.curves $(DEMO)/training/digits_an $(DEMO)/training/digits_bn --output $(DEMO)/training_curves.png
	$(PY) -m an_jax.attention --checkpoint $(DEMO)/checkpoints --output_dir $(DEMO) --datasets digits,digits-rotation
	$(PY) evaluate.py --checkpoint $(DEMO)/checkpoints --output_dir $(DEMO) --save_predictions \
	  --datasets digits,digits-noise,digits-blur,digits-rotation,digits-contrast,digits-translation

test: install
	$(PY) -m pytest -q -n $(JOBS) --dist worksteal

test-all: install
	$(PY) -m pytest -q -n $(JOBS) --dist worksteal -m 'not browser' --junit-xml=.cache/test-all.xml

test-browser: install
	$(PY) -m pytest -q -m browser

lint: install
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: install
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

clean:
	rm -rf .venv .cache .hypothesis .mypy_cache $(DEMO)
