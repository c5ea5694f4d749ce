"""The options of a container held against the official description of the Proxmox VE API."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncd.targets import property_string as lines
from syncd.targets.options import ContainerOptions
from tests.fakes import pve_schema
from tests.fakes.pve_schema import Description

(CREATION,) = (
    method
    for method in Description.load("9.2.3").methods
    if (method.verb, method.template) == ("POST", "/nodes/{node}/lxc")
)
NAMES = {"storage": "storage", "tags": "tags", "bridge": "net0"}
PATTERNS = {
    "net0": lines.NETWORK,
    "mp0": lines.MOUNT,
    "features": lines.FEATURES,
    "startup": lines.STARTUP,
    "nameserver": lines.NAMESERVERS,
    "searchdomain": lines.DOMAINS,
}


def fields(name: str) -> dict[str, Any]:
    """Return the JSON schema of an option, without null."""
    schema: dict[str, Any] = ContainerOptions.model_json_schema()["properties"][name]
    return next(iter(schema.get("anyOf", [schema])))


@pytest.mark.parametrize(
    "name", ["entrypoint", "timezone", "hookscript", "pool", "node", "storage", *PATTERNS]
)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_accepted(name: str, data: st.DataObject) -> None:
    """Whatever the pattern of an option matches, Proxmox VE accepts."""
    pattern = PATTERNS.get(name) or fields(name)["pattern"]
    text = data.draw(st.from_regex(re.compile(pattern.removesuffix("$") + r"\Z", re.ASCII)))
    schema = CREATION.schema(name)
    assert schema is not None
    assert pve_schema.check(text, schema) == []


@pytest.mark.parametrize(
    ("name", "taken", "refused"),
    [
        ("net0",
         ["name=eth0", "name=a,bridge=b,firewall=1,gw=10.0.0.1,gw6=fe80::1,host-managed=1",
          "name=a,hwaddr=BC:24:11:00:00:0a,ip=10.0.0.1/8,ip6=fd00::/64,link_down=0,mtu=1500",
          "name=a,rate=1.5,tag=4094,trunks=1;2;3,type=veth"],
         ["", "eth0", "name=a,ip=10.0.0.1", "name=a,ip=10.0.0.1/33", "name=a,ip6=fd00::/129",
          "name=a,gw=10.0.0.256", "name=a,mtu=63", "name=a,mtu=65536", "name=a,tag=0",
          "name=a,tag=4095", "name=a,hwaddr=01:00:00:00:00:00", "name=a,type=tap", "name=a,x=1",
          "name=a,firewall=2", "name=a,ip=dhcp,ip=dhcp", "name=a,"]),
        ("mp0",
         ["local-zfs:8,mp=/srv", "ab:0.5,mp=/a/b,ro=1,backup=0", "/srv/a,mp=/b,shared=1",
          "ab:1,mp=/a,mountoptions=noatime;nodev,quota=1,acl=1,replicate=0,keepattrs=1",
          "ab:1,mp=/a,idmap=u:0:0:1;g:0:0:1", "ab:1,mp=/a,idmap=passthrough"],
         ["", "ab:8", "ab:vm-1-disk-0,mp=/a", "ab:8,mp=a", "ab:8,mp=/", "ab:8,mp=/a/..",
          "ab:8,mp=/./a", "/a/../b,mp=/a", "ab:8,mp=/a,ro=2", "ab:8,mp=/a,mountoptions=suid",
          "ab:8,mp=/a,size=8G", "ab:8,mp=/a b", "ab:8,mp=/a,ro=1,ro=0"]),
        ("startup", ["1", "order=1", "order=1,up=2,down=3", "up=5", "down=5", "up=1,down=2"],
         ["", "a", "order=", "order=1,", "down=1,up=2", "order=-1"]),
        ("nameserver", ["10.0.0.1", "10.0.0.1 fd00::1", "fe80::1%eth0"],
         ["", "dns", "10.0.0.1,10.0.0.2", "10.0.0.1 "]),
        ("searchdomain", ["lan", "a.b c.d"], ["", "a_b", "a,b", "-a"]),
    ],
)  # fmt: skip
def test_lines(name: str, taken: list[str], refused: list[str]) -> None:
    """What a line may say is what the description has, in one way of writing it."""
    schema = CREATION.schema(name)
    assert schema is not None
    pattern = re.compile(PATTERNS[name].removesuffix("$") + r"\Z")
    for text in taken:
        assert pattern.match(text), text
        assert pve_schema.check(text, schema) == [], text
    for text in refused:
        assert not pattern.match(text), text


@pytest.mark.parametrize("name", ["cores", "memory", "swap", "cpulimit"])
def test_bounds(name: str) -> None:
    """A number has the bounds of the description."""
    schema, own = CREATION.schema(name), fields(name)
    assert schema is not None
    assert own.get("minimum") == schema.get("minimum")
    assert own.get("maximum") == schema.get("maximum")
    assert own["type"] == schema["type"]


@pytest.mark.parametrize("name", ["ostype", "cmode"])
def test_words(name: str) -> None:
    """An option of a few words has the words of the description."""
    schema = CREATION.schema(name)
    assert schema is not None
    assert set(fields(name)["enum"]) == set(schema["enum"])


@pytest.mark.parametrize(
    ("name", "options"),
    [("net0", lines._NETWORK), ("mp0", lines._MOUNT), ("features", lines._FEATURES)],
)
def test_options(name: str, options: dict[str, str]) -> None:
    """Every option of a line that the description has can be given, and no other."""
    schema = CREATION.schema(name)
    assert schema is not None
    apart = {"net0": {"name"}, "mp0": {"volume", "mp", "size"}, "features": set[str]()}
    assert set(options) == set(schema["format"]) - apart[name]


def test_all_in_the_api() -> None:
    """Every option is a parameter of the API, or of those that syncd itself turns into some."""
    own = {"node", "size", "bridge", "ssh_keys"}
    properties = ContainerOptions.model_json_schema()["properties"]
    assert [name for name in properties if name not in own and CREATION.schema(name) is None] == []
