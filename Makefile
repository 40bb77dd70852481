# Every target is idempotent; a fresh machine needs Python >= 3.11 with venv, and pip's access to PyPI.
PYTHON ?= python3
EXTRA ?= cpu
VENV := .venv
STAMP := $(VENV)/.installed-$(EXTRA)

.PHONY: install test lint quickstart clean

install: $(STAMP)

$(STAMP): pyproject.toml
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -e ".[$(EXTRA),report,dev]"
	@touch $@

test: install lint
	OMP_WAIT_POLICY=PASSIVE $(VENV)/bin/python -m pytest -n 2

lint: install
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

quickstart: install
	$(VENV)/bin/curate samples runs/samples
	$(VENV)/bin/curate run configs/quickstart.yaml

clean:
	rm -rf $(VENV) runs build *.egg-info
