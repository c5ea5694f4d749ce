"""When a container with a new root counts as ready."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from syncd.errors import RequestError
from syncd.sync.readiness import Readiness
from syncd.targets.proxmox.root_swapper import RootSwapper
from tests.fakes.pve import Pve
from tests.targets.proxmox.test_root_swapper import OLD, container, plan, swapper


@pytest.fixture
def roots(pve: Pve, tmp_path: Path) -> RootSwapper:
    """Put a running container on the cluster; its address is this machine's."""
    container(pve)
    return swapper(pve, tmp_path)


@pytest.fixture
def port() -> Iterator[int]:
    """Serve 200 for /good, 302 for /moved, and 503 for everything else."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response({"/good": 200, "/moved": 302}.get(self.path, 503))
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
            """Keep quiet."""

    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("path", "lack"),
    [("/good", ""), ("/moved", ""), ("", "/ answers 503"), ("/bad", "/bad answers 503")],
)
def test_http(roots: RootSwapper, port: int, path: str, lack: str) -> None:
    """An answer of 2xx or 3xx means ready; another one is told."""
    found = Readiness(f"http:{port}{path}").lack(roots, plan(roots))
    assert found.endswith(lack)
    assert bool(found) == bool(lack)


@pytest.mark.parametrize(
    ("net0", "lack"),
    [
        ("name=eth0,bridge=vmbr0,ip=dhcp", "it has no address"),
        ("name=eth0,bridge=vmbr0,ip6=auto", "it has no address"),
        ("name=eth0,bridge=vmbr0,ip=manual", ""),
        ("name=eth0,bridge=vmbr0", ""),
        (None, ""),
    ],
)
def test_usual(pve: Pve, roots: RootSwapper, net0: str | None, lack: str) -> None:
    """Unless told otherwise, an address is waited for where the container is to get one."""
    config = pve.cluster.containers[100].config
    del config["net0"]
    config |= {} if net0 is None else {"net0": net0}
    swap = plan(roots)
    assert Readiness().lack(roots, swap) == ""
    pve.cluster.mute_images.add(OLD)
    assert Readiness().lack(roots, swap) == lack
    assert Readiness("running").lack(roots, swap) == ""


@pytest.mark.parametrize("text", ["", "running", "address", "http:80", "command:true"])
def test_not_running(pve: Pve, roots: RootSwapper, text: str) -> None:
    """A container that does not run is never ready."""
    swap = plan(roots)
    pve.cluster.containers[100].running = False
    assert Readiness(text).lack(roots, swap) == "it does not run"


@pytest.mark.parametrize(
    ("line", "lack"),
    [
        ("true", ""),
        ("sh -c 'exit 3'", "ended with 3"),
        ("/nowhere/program", "cannot be run"),
        ("'", "cannot be run"),
    ],
)
def test_command(roots: RootSwapper, line: str, lack: str) -> None:
    """A command that ends with 0 means ready; another end is told."""
    found = Readiness.parse(f"command:{line}", 1).lack(roots, plan(roots))
    assert lack in found
    assert bool(found) == bool(lack)


@pytest.mark.parametrize("text", ["http", "http:", "http:x", "https:443", "up", "command"])
def test_no_condition(text: str) -> None:
    """What is no condition is refused."""
    with pytest.raises(RequestError, match="nothing to wait for"):
        Readiness.parse(text, 1)
