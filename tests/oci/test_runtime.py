"""What `oci.runtime` promises: how an image is run is of the right types, bounded, and one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from syncd.errors import ImageError
from syncd.oci import runtime
from syncd.oci.image import read_image
from syncd.oci.layout import Layout
from syncd.oci.reference import Platform
from syncd.oci.runtime import checked_runtime
from tests.archives import file
from tests.images import image, layer, write_layout

FIELDS: dict[str, Any] = {
    "User": lambda text: text,
    "ExposedPorts": lambda text: {"80": {}, text: {}},
    "Env": lambda text: ["PATH=/bin", text],
    "Entrypoint": lambda text: ["/bin/app", text],
    "Cmd": lambda text: [text],
    "Volumes": lambda text: {text: {}},
    "WorkingDir": lambda text: text,
    "Labels": lambda text: {text: "value"},
    "StopSignal": lambda text: text,
}
"""For each field, a value with a text in it."""


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("character", "\0\n\r\x0b\x1b\x7f\x80\x85\x9f\ud800")
def test_control_characters(field: str, character: str) -> None:
    """A control character in any field is refused by the field's name, one line for people."""
    value = FIELDS[field](f"A=b{character}lxc.mount.entry: /")
    with pytest.raises(ImageError, match=rf"c\.{field} has a control character") as refused:
        checked_runtime({field: value}, "c")
    assert character not in str(refused.value)


@pytest.mark.parametrize("field", FIELDS)
def test_text(field: str) -> None:
    """Text of any script is kept as it is."""
    value = FIELDS[field]("A=\u00e9 \u4e2d\u200d\U0001f600\u00a0\u2028'\"\\")
    assert checked_runtime({field: value}, "c") == {field: value}


@pytest.mark.parametrize("field", FIELDS)
def test_tab(field: str) -> None:
    """A tab is kept where Proxmox VE's patterns allow it, and refused elsewhere."""
    value = FIELDS[field]("A=b\tc")
    if field in ("Env", "Entrypoint", "Cmd"):
        assert checked_runtime({field: value}, "c") == {field: value}
    else:
        with pytest.raises(ImageError, match=field):
            checked_runtime({field: value}, "c")


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("value", [1, True, [1], [["a"]], [None], {"a"}, "text"])
def test_types(field: str, value: object) -> None:
    """A field that is not of its type is refused by its name."""
    if isinstance(value, str) and isinstance(FIELDS[field]("a"), str):
        value = {"a": {}}
    with pytest.raises(ImageError, match=rf"c\.{field} (is|has an element that is) not a JSON"):
        checked_runtime({field: value}, "c")


def test_left_out() -> None:
    """Fields that say nothing or are not OCI's, what entries hold, and labels of lines go."""
    config: dict[str, Any] = {
        "Env": None, "Cmd": [], "User": "", "Hostname": "a\nb",
        "Volumes": {"/data": {"a": "\n"}},
        "Labels": {"lines": "one\ntwo", "line": "one"},
    }  # fmt: skip
    assert checked_runtime(config, "c") == {"Volumes": {"/data": {}}, "Labels": {"line": "one"}}


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"Env": ["A=" + "x" * runtime.LONGEST]}, "Env"),
        ({"Cmd": ["x" * 1000] * (runtime.LARGEST // 1000 + 1)}, "Cmd"),
        ({"Env": ["x" * 100_000], "Volumes": {"x" * 100_000: {}, "y" * 100_000: {}}}, "Volumes"),
        ({"ExposedPorts": {str(port): {} for port in range(runtime.MOST + 1)}}, "ExposedPorts"),
        ({"Labels": {1: "a"}}, "Labels"),
        ({"Labels": {"a": 1}}, "Labels"),
        ({"Labels": dict.fromkeys(map(str, range(runtime.MOST + 1)), "")}, "Labels"),
    ],
)
def test_bounds(config: dict[str, Any], field: str) -> None:
    """Texts that are too long or too many, in one field or together, are refused by name."""
    with pytest.raises(ImageError, match=field):
        checked_runtime(config, "c")


def test_before_layers(tmp_path: Path) -> None:
    """The documents of an image are enough to refuse it: no layer needs to be there."""
    content = image(layer(file("a")), runtime={"Env": ["A=1\nlxc.hook.start: /bin/x"]})
    layout = write_layout(tmp_path, {"": content})
    for described in content.document["layers"]:
        (layout / "blobs" / described["digest"].replace(":", "/")).unlink()
    source = Layout(layout)
    with pytest.raises(ImageError, match=r"config sha256:.*\.config\.Env has a control character"):
        read_image(source, source.find(), Platform("linux", "amd64"))
