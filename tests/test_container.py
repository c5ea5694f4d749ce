"""What may be asked for when a container is made, and how an image wants to be run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from syncd.container import ContainerRequest, Startup
from syncd.errors import RequestError
from syncd.layout import Layout
from syncd.manifest import Image, read_image
from syncd.reference import Platform
from tests.archives import file
from tests.images import image, layer, write_layout


def image_with(folder: Path, runtime: dict[str, Any]) -> Image:
    content = image(layer(file("a")), runtime=runtime)
    source = Layout(write_layout(folder, {"": content}))
    return read_image(source, source.find(), Platform("linux", "amd64"))


def test_least() -> None:
    """A host name is enough."""
    request = ContainerRequest.parse({"hostname": "web.example.org"})
    assert (request.cores, request.memory, request.size) == (1, 512, 8)
    assert request.unprivileged


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({}, "hostname: Field required"),
        ({"hostname": "under_score"}, "hostname: 'under_score' is not a host name: letters"),
        ({"hostname": "-web"}, "hostname"),
        ({"hostname": "web", "cores": 0}, "cores"),
        ({"hostname": "web", "memory": 15}, "memory"),
        ({"hostname": "web", "vmid": 99}, "vmid"),
        ({"hostname": "web", "tags": ["a b"]}, "tags.0"),
        ({"hostname": "web", "ssh_keys": ["ssh-rsa A\nB"]}, "ssh_keys.0"),
        ({"hostname": "web", "features": "nesting"}, "features"),
        (
            {"hostname": "web", "storage": "local:8"},
            "storage: 'local:8' is not the name of a storage",
        ),
        ({"hostname": "web", "bridge": "vmbr0", "net0": "name=eth0"}, "net0: give bridge or net0"),
        ({"hostname": "web", "privileged": True}, "privileged: Extra inputs"),
    ],
)
def test_faults(fields: dict[str, Any], fault: str) -> None:
    """What Proxmox VE would refuse is refused at the door, by name."""
    with pytest.raises(RequestError, match=f"cannot be made like this: .*{fault}"):
        ContainerRequest.parse(fields)


def test_all_faults() -> None:
    """Every fault is told at once."""
    with pytest.raises(RequestError, match=r"hostname: .*; cores: "):
        ContainerRequest.parse({"hostname": "", "cores": "many"})


@pytest.mark.parametrize(
    ("runtime", "entrypoint", "env"),
    [
        ({}, "", ""),
        ({"Cmd": ["/sbin/init"]}, "", ""),
        ({"Entrypoint": ["/bin/app"], "Cmd": ["--name", "a b"]}, "/bin/app --name 'a b'", ""),
        ({"Entrypoint": None, "Cmd": ["/bin/sh"], "Env": None}, "/bin/sh", ""),
        ({"Env": ["PATH=/bin", "TEXT=a b=c"]}, "", "PATH=/bin\0TEXT=a b=c"),
    ],
)
def test_startup(tmp_path: Path, runtime: dict[str, Any], entrypoint: str, env: str) -> None:
    """Entrypoint and Cmd are one command line, variables are parted by NUL."""
    assert Startup.of(image_with(tmp_path, runtime)) == Startup(entrypoint, env)


def test_no_form(tmp_path: Path) -> None:
    """What Proxmox VE has no form for is left out, and said."""
    runtime = {"Cmd": ["/bin/sh", "-c", "a\nb"], "Env": ["A=1\n2", "B=3", "A-B=4"]}
    startup = Startup.of(image_with(tmp_path, runtime))
    assert (startup.entrypoint, startup.env) == ("", "B=3")
    assert len(startup.warnings) == 3
    assert "'A'" in startup.warnings[1]
