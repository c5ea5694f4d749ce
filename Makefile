# The commands of README.md.  Everything is installed into .venv, from pinned requirements.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test check e2e bench lock install clean
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
	$(BIN)/python -m pytest

e2e: $(VENV)/ready  ## as root: the real parts, installed from Debian
	tests/e2e/run

bench: $(VENV)/ready  ## as root: speed and memory against skopeo, umoci, tar and zstd
	$(BIN)/python -m bench

lock: $(VENV)/ready  ## pin the requirements again, to what is newest
	$(BIN)/python -m pip install --quiet pip-tools
	for extra in "requirements.txt" "requirements-dev.txt --extra dev"; do \
	  $(BIN)/pip-compile --quiet --upgrade --generate-hashes --allow-unsafe --strip-extras \
	    --no-emit-options --no-header \
	    -o $$extra pyproject.toml; done

install: $(VENV)/ready  ## as root: into /opt/syncd, with the systemd units
	rm -rf dist && $(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	umask 022 && $(PYTHON) -m venv /opt/syncd
	umask 022 && /opt/syncd/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	umask 022 && /opt/syncd/bin/pip install --quiet --disable-pip-version-check --no-deps --force-reinstall dist/*.whl
	install -d -m 755 /etc/syncd
	[ -e /etc/syncd/syncd.toml ] || install -m 644 config/syncd.toml /etc/syncd/syncd.toml
	for secret in webhook-secret api-token; do [ -e /etc/syncd/$$secret ] || \
	  (umask 077 && $(BIN)/python -c 'import secrets; print(secrets.token_urlsafe(32))' >/etc/syncd/$$secret); done
	install -m 644 systemd/syncd.service systemd/syncd.socket /etc/systemd/system/

clean:
	rm -rf $(VENV) .demo .e2e dist
