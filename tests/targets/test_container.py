"""What may be asked for when a container is made, and how an image wants to be run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from syncd.errors import RequestError
from syncd.oci.image import read_image
from syncd.oci.layout import Layout
from syncd.oci.manifest import Image
from syncd.oci.reference import Platform
from syncd.targets.container import ContainerRequest, ContainerSpec, Startup
from syncd.targets.options import ContainerOptions
from tests.archives import file
from tests.images import image, layer, write_layout


def image_with(folder: Path, runtime: dict[str, Any]) -> Image:
    content = image(layer(file("a")), runtime=runtime)
    source = Layout(write_layout(folder, {"": content}))
    return read_image(source, source.find(), Platform("linux", "amd64"))


def test_defaults() -> None:
    """A host name is enough."""
    request = ContainerSpec.parse({"hostname": "web.example.org"})
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
        ({"hostname": "web", "bridge": "vmbr0", "net0": "name=eth0"}, "net: give bridge or net0"),
        ({"hostname": "web", "privileged": True}, "privileged: Extra inputs"),
        ({"hostname": "web", "cores": "2"}, "cores: Input should be a valid integer"),
        ({"hostname": "web", "cores": True}, "cores: Input should be a valid integer"),
        ({"hostname": "web", "cores": 1.5}, "cores: Input should be a valid integer"),
        ({"hostname": "web", "cores": None}, "cores: Input should be a valid integer"),
        ({"hostname": "web", "start": 1}, "start: Input should be a valid boolean"),
        ({"hostname": "web", "tags": "a"}, "tags: Input should be a list"),
        ({"hostname": "web", "net0": "name=eth0\x00"}, "net0: .* is not like name=eth0,bridge"),
        ({"hostname": "web", "net32": "name=a"}, "net32: Extra inputs"),
        ({"hostname": "web", "mp256": "ab:1,mp=/a"}, "mp256: Extra inputs"),
        ({"hostname": "web", "net01": "name=a"}, "net01: Extra inputs"),
        ({"hostname": "web", "net[n]": {"net0": "name=a"}}, r"write net\[n\] with a number"),
        ({"hostname": "web", "net7": "name=a,ip=dhcp,ip=dhcp"}, "net7: .* is not like name=eth0"),
        (
            {"hostname": "web", "mp0": "local:vm-100-disk-1,mp=/a"},
            "mp0: .* is not like local",
        ),
        ({"hostname": "web", "mp0": "/srv/../etc,mp=/a"}, "mp0: "),
        ({"hostname": "web", "env": {"A-B": "c"}}, "env.A-B: 'A-B' is not a variable"),
        ({"hostname": "web", "env": {"A": "b\nc"}}, "env.A: "),
        ({"hostname": "web", "entrypoint": "/bin/a\nb"}, "entrypoint: .* is not a command"),
        ({"hostname": "web", "description": "a\x1b"}, "description: .* is not text"),
        ({"hostname": "web", "cpulimit": float("nan")}, "cpulimit: "),
        ({"hostname": "web", "ostype": "windows"}, "ostype: Input should be 'debian'"),
        ({"hostname": "web", "features": "nesting=\u00a0"}, "features: .* is not like nesting=1"),
    ],
)
def test_faults(fields: dict[str, Any], fault: str) -> None:
    """What Proxmox VE would refuse is refused before Proxmox VE is asked, with its key."""
    with pytest.raises(RequestError, match=f"cannot be made like this: .*{fault}"):
        ContainerSpec.parse(fields)


def test_whole_numbers() -> None:
    """A number without a fraction is an integer, as it is in a JSON schema."""
    spec = ContainerSpec.parse({"hostname": "web", "vmid": 200.0, "memory": 1e3})
    assert (spec.vmid, spec.memory) == (200, 1000)
    assert isinstance(spec.memory, int)


@pytest.mark.parametrize("password", ["four", "sec\nret", "secret\0", "s" * 1025, 12345])
def test_password(password: object) -> None:
    """A password is shown nowhere, whether it is taken or refused."""
    spec = ContainerSpec.parse({"hostname": "web", "password": "correct horse"})
    assert spec.password is not None
    assert spec.password.get_secret_value() == "correct horse"
    assert "correct" not in repr(spec) + str(spec) + spec.model_dump_json()
    with pytest.raises(RequestError, match="password: write text of 5 to 1024") as refusal:
        ContainerSpec.parse({"hostname": "web", "password": password})
    assert str(password) not in str(refusal.value)
    assert str(password) not in str(refusal.value.__cause__)


def options(**fields: Any) -> ContainerOptions:
    return ContainerOptions.parse(fields)


@pytest.mark.parametrize(
    ("own", "profile", "found"),
    [
        (
            {},
            {"cores": 4, "start": True, "tags": ["a"]},
            {"cores": 4, "start": True, "tags": ("a",)},
        ),
        ({"cores": 1}, {"cores": 4}, {"cores": 1}),
        ({"start": False}, {"start": True}, {"start": False}),
        ({"pool": None}, {"pool": "web"}, {"pool": "web"}),
        ({"tags": ["b"]}, {"tags": ["a"]}, {"tags": ("b",)}),
        ({"env": {"A": "1"}}, {"env": {"A": "2", "B": "3"}}, {"env": {"A": "1", "B": "3"}}),
        (
            {"net1": "name=b"},
            {"net0": "name=a"},
            {"networks": {"net0": "name=a", "net1": "name=b"}},
        ),
        ({"mp0": "ab:1,mp=/a"}, {"mp0": "ab:2,mp=/b"}, {"mounts": {"mp0": "ab:1,mp=/a"}}),
        ({"bridge": "b"}, {"net0": "name=a"}, {"bridge": "b", "networks": {}}),
        ({"net0": "name=a"}, {"bridge": "b"}, {"bridge": None, "networks": {"net0": "name=a"}}),
    ],
)  # fmt: skip
def test_profile(own: dict[str, Any], profile: dict[str, Any], found: dict[str, Any]) -> None:
    """A profile counts where the request says nothing; variables and lines count one by one."""
    request = ContainerSpec.parse({"hostname": "web"} | own).over(options(**profile))
    assert {name: getattr(request, name) for name in found} == found
    assert request.hostname == "web"


def test_default_tag() -> None:
    """A request for an image without tag and digest means the tag latest."""
    request = ContainerRequest.parse({"hostname": "web", "ref": "ghcr.io/owner/image"})
    assert str(request.ref) == "ghcr.io/owner/image:latest"


def test_all_faults() -> None:
    """Every fault is told at once."""
    with pytest.raises(RequestError, match=r"cores: .*; hostname: "):
        ContainerSpec.parse({"hostname": "", "cores": "many"})


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
    """Entrypoint and Cmd are one command line, and NUL separates the variables."""
    assert Startup.of(image_with(tmp_path, runtime)) == Startup(entrypoint, env)


def test_no_form(tmp_path: Path) -> None:
    """A variable that Proxmox VE has no form for is left out, and a warning names it."""
    runtime = {"Cmd": ["/bin/sh", "-c", "a\tb"], "Env": ["A-B=1\t2", "B=3\t", "C", "=4"]}
    startup = Startup.of(image_with(tmp_path, runtime))
    assert (startup.entrypoint, startup.env) == ("/bin/sh -c 'a\tb'", "B=3\t")
    assert len(startup.warnings) == 3
    assert "'A-B'" in startup.warnings[0]
