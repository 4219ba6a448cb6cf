# Two targets do everything from nothing: `make demo` and `make test`. Both make .venv if it is not there.

PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/pip --disable-pip-version-check
INSTALL := $(PIP) install --quiet --constraint constraints.txt --editable

.PHONY: demo test lint types walls unit lowest lowest-few commands audit docs wheel reference zoo kills ranks sweeps load machines fuzz browser gpu streamed journey clients clean

demo: $(VENV)/demo
	$(VENV)/bin/rlprune demo

test: lint types walls unit docs

lint: $(VENV)/test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

# Neither mypy nor import-linter follows package-dir, so they check a copy as users install it.
types: build/installed
	cd build/installed && $(CURDIR)/$(VENV)/bin/mypy --package rlprune --config-file $(CURDIR)/pyproject.toml

walls: build/installed
	cd build/installed && $(CURDIR)/$(VENV)/bin/lint-imports $(CURDIR)/pyproject.toml

build/installed: $(VENV)/test $(shell find rlprune envs agents -name '*.py')
	rm -rf build/lib build/installed
	$(PIP) install --quiet --no-deps --target build/installed . && touch $@

# The whole suite with the lowest versions that pyproject.toml declares, in an environment of its own (half an hour on two cores). The torch
# of those days comes from PyPI with CUDA: 3 GB to fetch, 7 GB on disk.
lowest: build/lowest/all/ready
	OMP_NUM_THREADS=1 build/lowest/all/bin/python -m pytest --numprocesses 2 --dist loadscope

# What touches the packages most, in a minute or two, without extras and with the torch at hand: the old one is too large to be fetched in
# every run of CI.
lowest-few: build/lowest/few/ready
	OMP_NUM_THREADS=1 build/lowest/few/bin/python -m pytest --numprocesses 2 --dist loadscope $(FEW)

FEW := tests/graph/test_serialization.py tests/envs/test_twins.py tests/utils/test_locks.py

build/lowest/%/ready: pyproject.toml constraints.txt tests/lowest.py $(VENV)/test
	rm -rf $(@D) && $(PYTHON) -m venv $(@D)
	$(VENV)/bin/python tests/lowest.py $(if $(filter few,$*),--core torch) >$(@D)/pins.txt
	$(@D)/bin/pip --disable-pip-version-check install --quiet --no-compile --requirement $(@D)/pins.txt
	$(@D)/bin/pip --disable-pip-version-check install --quiet --no-deps --no-build-isolation --editable .
	touch $@

# One thread for each of two test processes: two threads in each would fight over two cores.
unit: $(VENV)/test
	OMP_NUM_THREADS=1 $(VENV)/bin/pytest --numprocesses 2 --dist loadscope

# Every wrong command line that the verbs' own types make (an hour on two cores); N=500 tries so many of them.
commands: $(VENV)/test
	OMP_NUM_THREADS=1 $(VENV)/bin/python tests/cli/wrong_calls.py $(if $(N),--calls $(N)) --json build/commands.json

# Weak spots of the code, then known vulnerabilities of what is installed. The second asks PyPI, and fails where that does not answer.
audit: $(VENV)/audit
	$(VENV)/bin/bandit --quiet --configfile pyproject.toml --recursive rlprune envs agents
	mkdir -p build && $(PIP) freeze --exclude-editable >build/installed.txt
	$(VENV)/bin/pip-audit --strict --no-deps --disable-pip --progress-spinner off --requirement build/installed.txt || \
		{ echo "audit: a package has a known vulnerability, or PyPI did not say whether it has: see above" >&2; exit 1; }

$(VENV)/audit: $(VENV)/test
	$(INSTALL) '.[audit]'
	touch $@

$(VENV)/demo: pyproject.toml constraints.txt
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) '.[demo,onnx,plots]'
	touch $@

$(VENV)/test: pyproject.toml constraints.txt
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) '.[dev]'
	touch $@ $(VENV)/demo

# The README's figures and the guide's pictures: the demo again, kept. Chromium takes the pictures of pages, if it is there.
reference: $(VENV)/demo
	$(VENV)/bin/rlprune demo --out runs/demo
	mkdir -p runs/reference/digits
	cp runs/demo/results.json runs/demo/report.json runs/demo/digits.png runs/reference/digits/
	$(VENV)/bin/python runs/reference/update_readme.py
	-$(VENV)/bin/python docs/pictures/report.py runs/demo

# The networks of timm and torchvision that tests/zoo.toml names, one by one (an hour on two cores), and their table.
zoo: $(VENV)/test
	OMP_NUM_THREADS=1 $(VENV)/bin/python tests/zoo.py --json runs/reference/zoo.json

# Training killed and resumed, 50 times each verb (an hour or so): it must end as if nothing had happened.
kills: $(VENV)/test
	OMP_NUM_THREADS=1 $(VENV)/bin/python tests/kills.py

# Eight policies on two cores, with processes killed meanwhile: a line per bar (a quarter of an hour).
sweeps: $(VENV)/test
	$(VENV)/bin/python tests/sweeps.py

# One of two processes that train together, killed at ten random moments (ten minutes): all resume, and end as if nothing had happened.
ranks: $(VENV)/test
	OMP_NUM_THREADS=1 PYTHONPATH=tests/support $(VENV)/bin/python tests/ranks_killed.py

# Threads, forked and spawned workers, 10,000 calls and 1,000 reloads: a line per bar (a quarter of an hour).
load: $(VENV)/test
	OMP_NUM_THREADS=1 $(VENV)/bin/python tests/load.py

# Ray Data and Ray Serve while their processes are killed (half an hour on two cores): a line per bar. Needs RLPRUNE_ASSETS;
# BARS="serve --seconds 20" tries that.
machines: $(VENV)/test
	OMP_NUM_THREADS=1 $(VENV)/bin/python tests/machines.py $(BARS)

# Altered folders and ONNX files, read (half an hour on two cores); then five minutes of atheris, if it is installed.
fuzz: $(VENV)/test
	OMP_NUM_THREADS=1 $(VENV)/bin/python tests/fuzz/run.py --n 100000 --json runs/reference/fuzz.json
	mkdir -p build/fuzz && cd build/fuzz && OMP_NUM_THREADS=1 $(CURDIR)/$(VENV)/bin/python ../../tests/fuzz/guided.py \
		-max_total_time=300

# The example for browsers, in headless Chromium: 200 pictures get PyTorch's labels (a minute). DIR names another bundle
# or deploy folder, IMAGES a folder of pictures, CHROMIUM the browser. Needs Node.js and npm.
browser: $(VENV)/test examples/browser/node_modules
	OMP_NUM_THREADS=1 $(VENV)/bin/python examples/browser/prepare.py $(or $(DIR),runs/reference/resnet20/bundle) build/browser \
		$(if $(IMAGES),--images $(IMAGES))
	cd examples/browser && node check.mjs $(CURDIR)/build/browser

examples/browser/node_modules: examples/browser/package-lock.json
	cd examples/browser && npm ci --no-audit --no-fund --ignore-scripts && touch node_modules

# Memory that adapting on 200,000 files takes, and the pace of streamed beside in-memory training (half an hour on two cores).
# PICTURES names a folder of class folders, whose files are linked; IMAGES small images.
streamed: $(VENV)/test
	OMP_NUM_THREADS=1 $(VENV)/bin/python tests/streamed.py $(if $(PICTURES),--pictures $(PICTURES)) $(if $(IMAGES),--images $(IMAGES))

# Everything that takes a device, on a graphics card; then times beside the processor's (some minutes).
gpu: $(VENV)/test
	$(VENV)/bin/python tests/gpu.py

# The examples of clients (RL Zoo, RLlib, TorchRL, Tianshou, Optuna, a loop), each client in an environment of its own, in
# build/clients: a line per bar (an hour on two cores, and as many gigabytes as clients). CLIENTS="torchrl loop" tries those.
clients: $(VENV)/test
	OMP_NUM_THREADS=1 $(VENV)/bin/python tests/clients.py $(CLIENTS)

# From a checkpoint and 900 pictures to a verdict in one command, in build/journey: a line per bar (half an hour on two cores). Needs
# torchvision, and RLPRUNE_ASSETS for the pictures.
journey: $(VENV)/test
	OMP_NUM_THREADS=2 $(VENV)/bin/python tests/journey.py

# The documentation, in build/docs; a warning is an error.
docs: $(VENV)/test
	$(VENV)/bin/python -m sphinx -W --keep-going -q -b html docs build/docs

# The wheel, far from the sources, in an environment that has what its metadata asks for and nothing else.
wheel: $(VENV)/test
	rm -rf build/lib build/wheel && $(PIP) wheel --quiet --no-deps --wheel-dir build/wheel .
	$(PYTHON) -m venv --without-pip build/wheel/venv
	$(PIP) --python build/wheel/venv/bin/python install --quiet --no-deps build/wheel/*.whl
	$(VENV)/bin/python tests/support/lent.py build/wheel/venv
	cd build/wheel && venv/bin/rlprune inspect --model digits_cnn --image-shape 1 28 28 >/dev/null
	cd build/wheel && venv/bin/python -m rlprune --help >/dev/null

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache
