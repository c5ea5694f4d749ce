"""Stacks of layers, extracted from syncd's template by GNU tar and unpacked by umoci.

The two must make the same file system.  umoci 0.4.7 extracts layer upon layer, so that the kernel
decides much of it: a second opinion on all but what it is known to do otherwise:

| what | umoci 0.4.7 | here |
|---|---|---|
| the time of a directory that no layer describes | the time of unpacking | the epoch, always |
| the time of a directory in which such a one is made | the time of unpacking | its layer's |
| markers behind members, or through symlinks | see what their own layer made | come first |
| a hard link to its own name | fails | changes nothing |
| a sparse file of GNU's own type | fails | is read |
"""

from __future__ import annotations

import random
from copy import deepcopy
from pathlib import Path

import pytest

from tests.archives import directory, file, hardlink, member, opaque, symlink, whiteout
from tests.convert.test_overlay_model import Change, Model, RefusedError, parts
from tests.convert.test_pipeline_model import archived
from tests.e2e.command import run
from tests.e2e.image import Layout
from tests.e2e.tree import differences, scan
from tests.images import Layer, image, layer, write_layout
from tests.tar.test_reader import SPARSE_FORMS
from tests.templates import convert_layout

SEED = 1_709_164_800
STACKS = 80
ROOT = directory("./")
CAPABILITY = b"\1\0\0\2\0\4" + bytes(14)


def compare(layers: list[Layer], folder: Path) -> None:
    """Compare what both make of the layers."""
    layout = write_layout(folder / "layout", {"latest": image(*layers)})
    theirs = Layout(layout).unpack(folder / "bundle")
    convert_layout(layout, folder)
    ours = folder / "ours"
    ours.mkdir()
    keep = ["--numeric-owner", "--same-owner", "--xattrs", "--xattrs-include=*"]
    run("tar", "xpf", folder / "out" / "template.tar.zst", "--zstd", *keep, "-C", ours)
    assert differences(scan(ours), scan(theirs)) == []


CASES = {
    "times": [[file("a", mtime=-1_500_000_000), file("b", mtime=1_600_000_000_123_456_789)]],
    "owners": [[file("a", uid=4_000_000_000, gid=123_456)]],
    "modes": [[file("a", mode=0o6755, uid=5), directory("d", mode=0o3777)]],
    "capabilities": [[file("a", mode=0o755, xattrs={"security.capability": CAPABILITY})]],
    "attributes replaced": [
        [directory("a", xattrs={"user.a": b"1"})],
        [directory("a", xattrs={"user.b": b"1"})],
    ],
    "names": [[file(b"caf\xe9"), file("n" * 250), file(b"\xff" * 200)]],
    "absolute names": [[file("/a", b"1"), directory("//d"), file("./d/./e")]],
    "nodes": [
        [
            member("c", b"3", device=(1, 3)),
            member("b", b"4", device=(8, 0)),
            member("p", b"6"),
            hardlink("again", "c"),
        ]
    ],
    "sparse, PAX 0.1": [[SPARSE_FORMS["PAX 0.1"]]],
    "sparse, PAX 1.0": [[SPARSE_FORMS["PAX 1.0"]]],
    "a folder's time after a change in it": [
        [directory("a", mode=0o700, mtime=5 * 10**9), file("a/x")],
        [file("a/y")],
        [whiteout("a/x")],
    ],
    "a folder behind its children": [[file("a/b"), directory("a", mode=0o700, mtime=5 * 10**9)]],
    "opaque, children before and after": [
        [directory("d"), file("d/a", b"1")],
        [directory("d"), file("d/a", b"2"), opaque("d"), file("d/b")],
    ],
    "opaque, in a folder that replaces a symlink": [
        [directory("run"), file("run/pid"), directory("var"), symlink("var/run", "/run")],
        [directory("var"), directory("var/run"), opaque("var/run"), file("var/run/app", b"2")],
    ],
    "hidden in a folder that replaces a symlink": [
        [directory("run"), file("run/pid"), symlink("a", "run")],
        [directory("a"), whiteout("a/pid"), file("a/app", b"2")],
    ],
    "hidden and brought again, before and after": [
        [file("a", b"1"), file("b", b"1")],
        [file("a", b"2"), whiteout("a"), whiteout("b"), file("b", b"2")],
    ],
    "hard link to a symlink": [[file("t"), symlink("s", "t"), hardlink("l", "s")]],
    "hard link outlives": [[file("a", b"1"), hardlink("b", "a")], [whiteout("a")]],
    "absolute hard link": [[directory("d"), file("d/a", b"1"), hardlink("b", "/d/a")]],
}


@pytest.mark.parametrize("case", CASES)
def test_case(case: str, tmp_path: Path) -> None:
    """Both keep what a file system has, in each of these cases."""
    compare([layer(ROOT, *members) for members in CASES[case]], tmp_path)


ACTS = ["directory", "directory", "file", "file", "symlink", "hardlink", "whiteout", "opaque"]
MARKERS = ("whiteout", "opaque")
TARGETS = ["a", "b/a", "../a", "/b", "/a/../b", ".", "..", "../../dev/b", "dev"]


def path(draw: random.Random) -> str:
    """Draw a path of one to three short names."""
    return "/".join(draw.choice(["a", "b", "dev"]) for _ in range(draw.randint(1, 3)))


def replaces_its_target(model: Model, change: Change) -> bool:
    """Tell whether a hard link takes its target's name, or that of a folder above it."""
    if change.act != "hardlink":
        return False
    places = []
    for name in (change.path, change.target):
        *above, last = parts(name)
        places.append((*(model.folder(above, make=False) or ()), last))
    return places[1][: len(places[0])] == places[0]


def drawn(draw: random.Random) -> list[Layer]:
    """Return a stack that no rule refuses, and on which umoci should agree."""
    model = Model()
    label = 1
    stack = [[(label, Change("directory", "./"))]]
    model.apply(stack[0])
    while len(stack) < 5:
        changes: list[tuple[int, Change]] = []
        for _ in range(draw.randrange(20)):
            label += 1
            act = draw.choice(ACTS)
            target = path(draw) if act == "hardlink" else draw.choice(TARGETS)
            change = Change(act, path(draw), target)
            if act in MARKERS:
                together = [(label, change), *changes]
            else:
                together = [*changes, (label, change)]
            if agreed(model, changes, together, change):
                changes = together
        model.apply(changes)
        stack.append(changes)
    return [layer(*(archived(made, change) for made, change in changes)) for changes in stack]


def agreed(
    model: Model,
    before: list[tuple[int, Change]],
    after: list[tuple[int, Change]],
    change: Change,
) -> bool:
    """Tell whether a layer is right, and umoci does not differ on it, once it has this change."""
    grown, tried = deepcopy(model), deepcopy(model)
    grown.apply(before)
    try:
        tried.apply(after)
        if not all(node.label for node in tried.table.values()):
            return False
        if change.act in MARKERS:
            above = parts(change.path)[: -1 if change.act == "whiteout" else None]
            return model.folder(above, make=False) == tuple(above)
    except RefusedError:
        return False
    return not replaces_its_target(grown, change)


@pytest.mark.parametrize("number", range(STACKS))
def test_drawn(number: int, tmp_path: Path) -> None:
    """Both make the same file system of a drawn stack, symlinked parents and all."""
    compare(drawn(random.Random(f"{SEED} {number}")), tmp_path)
