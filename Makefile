# The commands of README.md.  Everything is installed into .venv, from pinned requirements.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test check coverage mutants e2e python313 e2e-unprivileged bench docs lock install uninstall wheel deb clean
.DELETE_ON_ERROR:

$(VENV)/ready: requirements-dev.txt pyproject.toml
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

demo: $(VENV)/ready  ## a loopback registry, the daemon, a signed webhook, a template at the end
	$(BIN)/python -m tests.demo

test: $(VENV)/ready  ## what needs neither root nor other services
	$(BIN)/python -m pytest

check: $(VENV)/ready  ## style, types, floors, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest $(PYTEST_OPTIONS)

coverage: $(VENV)/ready  ## the tests, and how many branches they take
	$(BIN)/python -m pytest --cov

$(VENV)/mutants: requirements-mutants.txt $(VENV)/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-mutants.txt
	touch $@

MINUTES ?= 30
mutants: $(VENV)/mutants  ## faults made in convert, events and oci: which ones does no test notice?
	timeout $(MINUTES)m $(BIN)/mutmut run --max-children $$(nproc) $(MUTANTS) >/dev/null || true
	$(BIN)/mutmut results
	$(BIN)/mutmut results --all true | sed 's/.*: //' | sort | uniq -c

e2e: $(VENV)/ready  ## as root: the real parts, installed from Debian
	tests/e2e/run

python313: $(VENV)/ready  ## as root: the unit tests under Debian 13's Python
	E2E=tests/e2e/python313.py tests/e2e/run

e2e-unprivileged: $(VENV)/ready  ## of the end-to-end tests those that need neither root nor Debian's parts
	$(BIN)/python -m pytest $(addprefix tests/e2e/test_,damage.py fuzz.py upload_memory.py)

bench: $(VENV)/ready  ## as root: speed and memory against skopeo, umoci, tar and zstd
	$(BIN)/python -m bench

docs: $(VENV)/ready  ## docs/configure.md, from the model and the example
	$(BIN)/python -m tests.configuration

lock: $(VENV)/ready  ## pin the requirements again, to what is newest
	$(BIN)/python -m pip install --quiet pip-tools
	for extra in "requirements.txt" "requirements-dev.txt --extra dev"; do \
	  $(BIN)/pip-compile --quiet --upgrade --generate-hashes --allow-unsafe --strip-extras \
	    --no-emit-options --no-header \
	    -o $$extra pyproject.toml; done
	printf '%s\n' 'hatchling>=1.26' 'hatch-vcs>=0.5' | $(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe \
	  --strip-extras --no-emit-options --no-header --no-annotate -c requirements-dev.txt -o requirements-build.txt -
	echo 'mutmut>=3.8' | $(BIN)/pip-compile --quiet --upgrade --generate-hashes --allow-unsafe --strip-extras \
	  --no-emit-options --no-header --no-annotate -c requirements-dev.txt -o requirements-mutants.txt -
	# sigstore asks for pydantic with an extra, which pip wants pinned, and a constraint may not name.
	sed -i 's/^pydantic==/pydantic[email]==/' requirements.txt requirements-dev.txt
	# pip-compile drops the markers of what an extra asks for.
	sed -i 's/^atheris==[^ ]*/& ; python_version < "3.14"/' requirements-dev.txt

install:  ## as root: into /opt/syncd, with the systemd units
	config/install $(PYTHON)

uninstall:  ## as root: what install made, but for configuration, secrets and state
	config/uninstall

wheel: $(VENV)/ready  ## dist/syncd-*.whl
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

deb: $(VENV)/ready  ## a package for Debian 12 and 13, Proxmox VE 8 and 9: dist/syncd_*.deb
	config/debian/build $(BIN)/python

clean:
	rm -rf $(VENV) .demo .e2e .coverage dist mutants
