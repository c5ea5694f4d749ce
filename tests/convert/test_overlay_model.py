"""The overlay against a naive model of it, on stacks of layers that Hypothesis draws.

The model keeps a flat table of paths, looks everything up from the root and copies the table for
each layer: nothing of it is fast, and nothing is shared with `syncd.convert.overlay`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from syncd.convert.overlay import Tree
from syncd.errors import ImageError
from syncd.limits import Limits
from syncd.tar.member import DIRECTORY, FILE, HARD_LINK, SYMLINK
from tests import archives
from tests.templates import members

Path = tuple[str, ...]


@dataclass(frozen=True)
class Change:
    """One member of a drawn layer."""

    act: str
    path: str
    target: str = ""

    def archived(self, label: int) -> bytes:
        """Return the member; its time of change is the label, by which it is known again."""
        own: dict[str, Any] = {"mtime": label * 10**9, "uid": label}
        match self.act:
            case "file":
                return archives.file(self.path, b"%d\n" % label, **own)
            case "directory":
                return archives.directory(self.path, mode=0o1700 + label % 64, **own)
            case "symlink":
                return archives.symlink(self.path, self.target, **own)
            case "hardlink":
                return archives.hardlink(self.path, self.target, **own)
            case "whiteout":
                return archives.whiteout(self.path)
            case _:
                return archives.opaque(self.path)


@dataclass(eq=False)
class Node:
    """An inode of the model: what it is, who made it, and a symlink's target."""

    kind: bytes
    label: int = 0
    target: str = ""


class RefusedError(Exception):
    """The model does not take a layer."""


class Model:
    """The file system as a table of all its paths."""

    def __init__(self) -> None:
        self.table: dict[Path, Node] = {(): Node(DIRECTORY)}

    def apply(self, layer: list[tuple[int, Change]]) -> None:
        """Lay one layer over it: markers first, and by what stood there before any of them."""
        hidden: list[Path] = []
        made = [parts(change.path) for _, change in layer if change.act == "directory"]
        for _, change in layer:
            if change.act in ("whiteout", "opaque") and self.replaced(change, made):
                continue
            if change.act == "whiteout":
                *parent, name = parts(change.path)
                folder = self.folder(parent, make=False)
                if folder is not None:
                    hidden.append((*folder, name))
            elif change.act == "opaque":
                folder = self.folder(parts(change.path), make=False)
                if folder is not None:
                    hidden += [path for path in self.table if path[:-1] == folder and path]
        for path in hidden:
            self.remove(path)
        for label, change in layer:
            if change.act not in ("whiteout", "opaque"):
                self.add(label, change)

    def replaced(self, change: Change, made: list[list[str]]) -> bool:
        """Tell whether a marker lies in a directory that replaces a symlink in this very layer."""
        inside = parts(change.path)[: -1 if change.act == "whiteout" else None]
        for depth in range(1, len(inside) + 1):
            if inside[:depth] in made:
                folder = self.folder(inside[: depth - 1], make=False)
                there = self.table.get((*folder, inside[depth - 1])) if folder is not None else None
                if there is not None and there.kind == SYMLINK:
                    return True
        return False

    def add(self, label: int, change: Change) -> None:
        """Put one member where it belongs, over what stands there."""
        if not parts(change.path):
            if change.act != "directory":
                raise RefusedError
            self.table[()].label = label
            return
        *parent, name = parts(change.path)
        folder = self.folder(parent, make=True)
        if folder is None:
            raise RefusedError
        path = (*folder, name)
        there = self.table.get(path)
        if change.act == "hardlink":
            node = self.linked(change.target)
        else:
            kinds = {"file": FILE, "directory": DIRECTORY, "symlink": SYMLINK}
            node = Node(kinds[change.act], label, change.target)
        if there is not None and there.kind == node.kind == DIRECTORY:
            there.label = label
            return
        if node is not there:
            self.remove(path)
            self.table[path] = node

    def linked(self, target: str) -> Node:
        """Return the node that a hard link to `target` shares."""
        if not parts(target):
            raise RefusedError
        *parent, name = parts(target)
        folder = self.folder(parent, make=False)
        node = None if folder is None else self.table.get((*folder, name))
        if node is None or node.kind == DIRECTORY:
            raise RefusedError
        return node

    def remove(self, path: Path) -> None:
        """Remove a path and all below it."""
        self.table = {p: node for p, node in self.table.items() if p[: len(path)] != path}

    def folder(self, names: list[str], *, make: bool) -> Path | None:
        """Walk to a directory, through symlinks, never above the root."""
        here: Path = ()
        left, followed = list(names), 0
        while left:
            name, left = left[0], left[1:]
            if name == "..":
                here = here[:-1]
                continue
            node = self.table.get((*here, name))
            if node is None and not make:
                return None
            if node is None:
                node = self.table[*here, name] = Node(DIRECTORY)
            if node.kind == DIRECTORY:
                here = (*here, name)
            elif node.kind == SYMLINK:
                followed += 1
                if followed > 40:
                    raise RefusedError
                here = () if node.target.startswith("/") else here
                left = parts(node.target) + left
            else:
                return None
        return here

    def lines(self) -> list[tuple[str, bytes, int, str]]:
        """Return what the template must hold: path, kind, label and target, in order."""
        found = []
        first: dict[int, str] = {}
        for path in sorted(self.table, key=lambda path: (path[:1] == ("dev",), path)):
            node = self.table[path]
            text = "/".join((".", *path))
            if id(node) in first:
                found.append((text, HARD_LINK, node.label, first[id(node)]))
                continue
            first[id(node)] = text
            text += "/" if node.kind == DIRECTORY else ""
            found.append((text, node.kind, node.label, node.target))
        return found


def parts(path: str) -> list[str]:
    """Return a path's components."""
    return [part for part in path.split("/") if part not in ("", ".")]


def planned(layers: list[list[tuple[int, Change]]]) -> list[tuple[str, bytes, int, str]]:
    """Return what syncd makes of the layers."""
    tree = Tree(Limits())
    for layer in layers:
        archive = archives.tar(*(change.archived(label) for label, change in layer))
        tree.apply(members(archive))
    return [
        (one.name.decode(), one.kind, one.mtime // 10**9, one.target.decode())
        for one, _ in tree.plan()
    ]


NAMES = st.sampled_from(["a", "b", "dev"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
TARGETS = st.one_of(
    PATHS,
    PATHS.map("/{}".format),
    st.sampled_from(["..", "../a", "/", ".", "a/../b", "../../dev/b"]),
)
CHANGES = st.one_of(
    st.builds(Change, st.sampled_from(["directory", "directory", "whiteout", "whiteout"]), PATHS),
    st.builds(Change, st.sampled_from(["file", "directory", "directory"]), PATHS),
    st.builds(Change, st.just("opaque"), st.one_of(st.just(""), PATHS)),
    st.builds(Change, st.just("symlink"), PATHS, TARGETS),
    st.builds(Change, st.just("hardlink"), PATHS, PATHS),
    st.just(Change("directory", "./")),
)
STACKS = st.lists(st.lists(CHANGES, max_size=7), max_size=4)


@settings(max_examples=600, deadline=None)
@given(STACKS)
@example([[Change("file", "a/b"), Change("hardlink", "a", "a/b")]])
@example([[Change("symlink", "a", "b"), Change("file", "a/a")], [Change("whiteout", "a/a")]])
@example([[Change("file", "dev/a"), Change("hardlink", "b", "dev/a")], [Change("opaque", "")]])
def test_model(stack: list[list[Change]]) -> None:
    """Syncd and the model take the same layers, and make the same trees of them."""
    model = Model()
    labels = iter(range(1, 1000))
    layers = [[(next(labels), change) for change in layer] for layer in stack]
    for number, layer in enumerate(layers):
        before = model.lines()
        try:
            model.apply(layer)
        except RefusedError:
            assert planned(layers[:number]) == before
            with pytest.raises(ImageError):
                planned(layers[: number + 1])
            return
    assert planned(layers) == model.lines()
