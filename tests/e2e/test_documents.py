"""The commands of README.md and docs/, typed on a booted Debian 13 with the package.

Each block runs in a shell that ends at the first command that fails.  Names are changed in two
places only: the image is one of a registry on loopback, and the port is one that is free here.
Blocks that cannot be run have their reasons in `tests.documents`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.documents import Block, blocks
from tests.e2e import checkout, machine
from tests.e2e.command import CommandError, free_port, run, wait_for
from tests.e2e.debian import debian_root
from tests.e2e.machine import Machine
from tests.fakes.registry import Registry
from tests.harness import REPOSITORY, sample

PACKAGES = (
    *("ca-certificates", "caddy", "curl", "dbus", "jq", "nginx-light", "procps", "python3"),
    *("ssl-cert", "systemd-sysv"),
)
IMAGE = "ghcr.io/mieweb/opensource-server/base"
LAST = "install.md"  # it ends with the removal of the package


class Host(NamedTuple):
    """The machine, and what takes the places of the documents' image and port."""

    machine: Machine
    root: Path
    registry: str
    port: int

    def type(self, text: str) -> str:
        """Run commands as root in /root; raise CommandError when one of them fails."""
        text = text.replace(IMAGE, f"{self.registry}/{REPOSITORY}")
        text = text.replace("127.0.0.1:8750", f"127.0.0.1:{self.port}")
        text = text.replace("syncd init", f"syncd init --plain-http {self.registry}")
        text = text.replace("curl ", "curl --silent --show-error --fail-with-body ")
        done = self.machine.run("/bin/sh", "-euc", f"cd /root\n{text}")
        if done.returncode:
            log = self.machine.run("journalctl", "--unit=syncd", "--lines=30").stdout
            raise CommandError(f"{text}\n{done.stdout}{done.stderr}\n{log}")
        return done.stdout


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """Boot the machine, install the package, and configure a folder, as docs/install.md says."""
    root = tmp_path_factory.mktemp("documents") / "root"
    root.mkdir()
    run("tar", "-C", root, "-xpf", debian_root(PACKAGES))
    checkout.package(root / "root").rename(root / "root/syncd_1_amd64.deb")
    port = free_port()  # the machine shares this one's loopback, where 8750 may be taken
    elsewhere = root / "etc/systemd/system/syncd.socket.d/port.conf"
    elsewhere.parent.mkdir(parents=True)
    elsewhere.write_text(f"[Socket]\nListenStream=\nListenStream=127.0.0.1:{port}\n")
    (root / "var/lib/vz").mkdir()
    for service in ("nginx", "caddy"):
        (root / f"etc/systemd/system/multi-user.target.wants/{service}.service").unlink(
            missing_ok=True
        )
    with Registry() as registry, machine.boot(root, network=machine.OWN_NETWORK) as booted:
        registry.push(REPOSITORY, "latest", sample())
        booted.wait_for("multi-user.target")
        found = Host(booted, root, registry.address, port)
        for block in blocks("sh"):
            if (block.page.name == LAST and "dpkg" in block.text) or "--directory" in block.text:
                found.type(block.text)
        folder = root / "var/lib/vz/template/cache"
        wait_for("the first template", lambda: [*folder.glob("*.zst")], timeout=60)
        yield found


def in_order(found: list[Block]) -> list[Block]:
    """Return the blocks that can be run, with those of the last page at the end."""
    return sorted((each for each in found if not each.unrun), key=lambda e: e.page.name == LAST)


@pytest.mark.parametrize(
    "block", in_order(blocks("sh")), ids=lambda each: f"{each.page.name}:{each.line}"
)
def test_block(host: Host, block: Block) -> None:
    """What is shown can be typed."""
    host.type(block.text)


@pytest.mark.parametrize(
    ("language", "place", "check"),
    [
        ("nginx", "etc/nginx/conf.d/syncd.conf", "nginx -t"),
        ("caddy", "etc/caddy/Caddyfile", "caddy validate --config /etc/caddy/Caddyfile"),
    ],
)
def test_proxy(host: Host, language: str, place: str, check: str) -> None:
    """The proxies take the configurations that are shown."""
    (block,) = blocks(language)
    (host.root / place).write_text(block.text)
    host.type(check)
