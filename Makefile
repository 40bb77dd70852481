# Every target is idempotent; a fresh machine needs Python >= 3.11 with venv, and pip's access to PyPI.
PYTHON ?= python3
VENV := .venv
INSTALLED := $(patsubst $(VENV)/.installed-%,%,$(firstword $(wildcard $(VENV)/.installed-*)))
# cpu or gpu; what is installed stays until the other one is asked for.
EXTRA ?= $(or $(INSTALLED),cpu)
STAMP := $(VENV)/.installed-$(EXTRA)
PIP := -m pip install --quiet --disable-pip-version-check

FLOORS := constraints/floors.txt
# All extras but gpu, which overwrites cpu.
EXTRAS := cpu,slurm,report,wandb,huggingface,formats,s3,gcs,azure,http,map,onnx,nudity,faces,text,sign,c2pa,fuzz,dev
TESTS ?= tests
READER := datasets duckdb pillow
SITE := 'mkdocs>=1.6,<2' 'mkdocs-material>=9.6,<10'

.PHONY: install test lint quickstart readers docs reference floors resolve clean

install: $(STAMP)

# faiss-cpu and faiss-gpu write the same files: the one that is not wanted goes first.
$(STAMP): pyproject.toml
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@rm -f $(VENV)/.installed-*
	@$(VENV)/bin/python -m pip uninstall -qq --yes faiss-$(if $(findstring gpu,$(EXTRA)),cpu,gpu)
	$(VENV)/bin/python $(PIP) -e ".[$(EXTRA),report,dev]"
	@touch $@

test: install lint
	@$(MAKE) --no-print-directory -j 2 readers docs
	READERS=".venv-readers-floor/bin/python .venv-readers-newest/bin/python" \
		OMP_WAIT_POLICY=PASSIVE $(VENV)/bin/python -m pytest -n 2 -rfEs

lint: install
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# What reads the shards, without curate and torch: the oldest promised versions and the newest.
readers: .venv-readers-floor/.installed .venv-readers-newest/.installed

.venv-readers-floor/.installed: $(FLOORS)
	rm -rf $(@D) && $(PYTHON) -m venv $(@D)
	$(@D)/bin/python $(PIP) -c $(FLOORS) $(READER)
	@touch $@

.venv-readers-newest/.installed: $(FLOORS)
	rm -rf $(@D) && $(PYTHON) -m venv $(@D)
	$(@D)/bin/python $(PIP) $(READER)
	@touch $@

# The documents as static files in build/site; a link that leads nowhere is an error.
docs: .venv-docs/.installed
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --quiet --strict

.venv-docs/.installed: Makefile
	rm -rf $(@D) && $(PYTHON) -m venv $(@D)
	$(@D)/bin/python $(PIP) $(SITE)
	@touch $@

# The pages of docs/reference, which are written from the code.
reference: install
	$(VENV)/bin/python -m docs.generators docs/reference

# The oldest version of everything, together, and the tests with it: after a change of a lower bound, and before a
# release. It takes a Python 3.11, 8 GB and the time of an installation and of all tests; TESTS=tests/feed takes a part.
floors: .venv-floors/.installed
	OMP_WAIT_POLICY=PASSIVE .venv-floors/bin/python -m pytest -n 2 $(TESTS)

.venv-floors/.installed: pyproject.toml $(FLOORS)
	rm -rf $(@D) && $(PYTHON) -m venv $(@D)
	$(@D)/bin/python $(PIP) -c $(FLOORS) -e ".[$(EXTRAS)]"
	$(@D)/bin/python -m pip check
	@touch $@

# Whether pip finds versions for every extra, the oldest and the newest; what resolves together resolves alone.
resolve: .venv-resolve/.installed
	.venv-resolve/bin/python $(PIP) --dry-run -c $(FLOORS) ".[$(EXTRAS)]"
	.venv-resolve/bin/python $(PIP) --dry-run -c $(FLOORS) ".[gpu,report,dev]"
	.venv-resolve/bin/python $(PIP) --dry-run ".[$(EXTRAS)]"
	.venv-resolve/bin/python $(PIP) --dry-run ".[gpu,report]"

# The newest pip reads metadata alone, where older ones fetch whole wheels.
.venv-resolve/.installed:
	rm -rf $(@D) && $(PYTHON) -m venv $(@D)
	$(@D)/bin/python $(PIP) --upgrade pip
	@touch $@

quickstart: install
	$(VENV)/bin/curate samples runs/samples
	$(VENV)/bin/curate run configs/quickstart.yaml

clean:
	rm -rf $(VENV) .venv-docs .venv-floors .venv-readers-floor .venv-readers-newest .venv-resolve runs build *.egg-info
