# `make demo` and `make test` make their own environment on first use; nothing has to be typed before them.
comma := ,
# PYTHON=python3.12 or python3.13 takes the newer TensorFlow generation, in an environment of its own.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
STACK := $(shell $(PYTHON) -c 'import sys; print("py%d%d" % sys.version_info[:2])')
VENV ?= $(if $(filter py311,$(STACK)),.venv,.venv-$(STACK))
CONSTRAINTS ?= constraints/$(STACK).txt
WORKDIR ?= workdir/demo
EXTRAS = addons,experiments,test$(if $(filter py312,$(STACK)),$(comma)tpu)
# `experiments` is no top-level name of an installation; child processes of tests find it by the path.
RUN = PYTHONPATH="$(CURDIR)" TF_CPP_MIN_LOG_LEVEL=3 $(VENV)/bin/python

.PHONY: demo test keras3 matrix slow thorough coverage docs lint wheel release clean

demo: $(VENV)/installed  ## pre-train, fine-tune with few labels, print the table (IMAGES=folder-or-zip for your own pictures)
	$(RUN) -m experiments.demo --workdir=$(WORKDIR) $(if $(IMAGES),--images=$(IMAGES))

test: $(VENV)/installed  ## the quick tests
	$(RUN) -m pytest -n 2

keras3: $(VENV)/installed  ## the quick tests of layers, losses, backbones and the pretext model under Keras 3 (PYTHON=python3.12 or python3.13)
	TF_USE_LEGACY_KERAS=0 $(RUN) -m pytest -n 2

matrix:  ## install each stack of constraints/ from nothing, test it, print a table (STACKS=names for some alone)
	python3 .ci/matrix $(STACKS)

slow: $(VENV)/installed  ## training runs and process kills (TESTS=a folder or file for those alone)
	$(RUN) -m pytest -n 2 -m slow $(TESTS)

thorough: $(VENV)/installed  ## what takes too long for every change: all transfer configs
	$(RUN) -m pytest -m thorough

coverage: $(VENV)/installed  ## line coverage of the quick tests, into build/coverage
	$(RUN) -m pytest -n 2 --cov=tf_evonorm --cov=tf_pixpro --cov=experiments --cov-report=term --cov-report=html:build/coverage

docs: $(VENV)/installed  ## the API reference, into build/docs
	$(RUN) -W ignore -m pdoc --docformat google -o build/docs $$(find tf_pixpro tf_evonorm experiments -name '*.py' -not -path '*/configs/*' | sed 's|/__init__||; s|\.py$$||; s|/|.|g' | sort)

lint: $(VENV)/installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

wheel: $(VENV)/installed  ## build the sdist, and from it the wheel, into dist/; run the README's examples with it alone, in an environment of its own
	rm -rf dist build
	$(VENV)/bin/python -m build -o dist .
	rm -rf build/wheel-venv && $(PYTHON) -m venv build/wheel-venv
	build/wheel-venv/bin/pip install -q -c $(CONSTRAINTS) dist/*.whl
	cd build && TF_CPP_MIN_LOG_LEVEL=3 wheel-venv/bin/python ../tests/examples.py ../README.md ../docs/layers.md ../docs/serving.md

constraints/%.txt:
	@echo "Python 3.11, 3.12 or 3.13 is needed. Received $(PYTHON), which is $*. Pass PYTHON=/path/to/python3.11."; exit 1

$(VENV)/installed: setup.py $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install -q --disable-pip-version-check -c $(CONSTRAINTS) setuptools -e ".[$(EXTRAS)]"
	$(VENV)/bin/pip check
	touch $@

release: lint test wheel  ## VERSION=X.Y.Z: tags it, where the tree is clean and the changelog has its dated section
	@test -z "$$(git status --porcelain)" || { echo "The tree must be clean. Commit first."; exit 1; }
	@grep -q '__version__ = "$(VERSION)"' tf_pixpro/version.py || { echo "tf_pixpro/version.py must say $(VERSION)."; exit 1; }
	@grep -qE '^## $(VERSION) \([0-9]{4}-[0-9]{2}-[0-9]{2}\)' CHANGELOG.md || { echo "CHANGELOG.md needs '## $(VERSION) (YYYY-MM-DD)'."; exit 1; }
	test -f dist/tf_pixpro-$(VERSION)-py3-none-any.whl
	git tag -a v$(VERSION) -m "Version $(VERSION)"
	@echo "Tagged v$(VERSION); dist/ holds the sdist and the wheel."

clean:
	rm -rf .venv .venv-* build dist
