"""What `convert.overlay` promises: the rules by which layers become one tree, a row each."""

from __future__ import annotations

import tracemalloc

import pytest

from syncd.convert.overlay import Tree
from syncd.errors import ImageError, LimitError
from syncd.limits import Limits
from syncd.tar.member import DIRECTORY, HARD_LINK, SYMLINK, Member
from tests.archives import (
    MTIME,
    directory,
    file,
    hardlink,
    member,
    opaque,
    symlink,
    tar,
    whiteout,
)
from tests.templates import members

Layers = list[list[bytes]]
Lines = dict[str, str]


def grown(layers: Layers, limits: Limits | None = None) -> Tree:
    """Return the tree of these layers, oldest first."""
    tree = Tree(limits or Limits())
    for layer in layers:
        tree.apply(members(tar(*layer)))
    return tree


def survivors(layers: Layers) -> Lines:
    """Return what the layers mean, in order, but for the root: a line that says what each name is.

    A file is its content, a directory empty, `-> x` a symlink and `= ./x` a hard link.
    """
    lines = {}
    for found, layer in grown(layers).plan():
        place = tar(*layers[layer]) if layers else b""
        line = "".join(place[at : at + length].decode() for _, length, at in found.extents)
        if found.kind == SYMLINK:
            line = f"-> {found.target.decode()}"
        elif found.kind == HARD_LINK:
            line = f"= {found.target.decode()}"
        lines[found.name.decode()] = line
    assert next(iter(lines)) == "./"
    del lines["./"]
    return lines


def described(name: bytes, *layers: list[bytes]) -> Member:
    """Return what the plan says of one name."""
    (found,) = (one.member for one in grown([*layers]).plan() if one.member.name == name)
    return found


def check(table: dict[str, tuple[Layers, Lines]], case: str) -> None:
    """Compare one row, order and all."""
    layers, expected = table[case]
    assert list(survivors(layers).items()) == list(expected.items())


NAMES: dict[str, tuple[Layers, Lines]] = {
    "no layers": ([], {}),
    "an empty layer": ([[]], {}),
    "an empty layer on top": ([[file("a", b"1")], []], {"./a": "1"}),
    "a name means the image's root, however it is written": (
        [[file("/a", b"1"), file("./b", b"2"), file("//c/./d", b"3"), directory("./e//")]],
        {"./a": "1", "./b": "2", "./c/": "", "./c/d": "3", "./e/": ""},
    ),
    "the last of two equal names in a layer wins": (
        [[file("a", b"1"), file("./a", b"2")]],
        {"./a": "2"},
    ),
    "a missing parent is implied": (
        [[file("a/b/c", b"1")]],
        {"./a/": "", "./a/b/": "", "./a/b/c": "1"},
    ),
    "a folder may come after its children": (
        [[file("a/b", b"1"), directory("a")]],
        {"./a/": "", "./a/b": "1"},
    ),
    "the root may be named, and is written once": (
        [[directory("./"), file("a", b"1")], [directory("/")]],
        {"./a": "1"},
    ),
    "names are sorted as bytes within each folder, not over whole paths": (
        [[file("a.b", b"1"), file("a/z", b"2"), file("B", b"3"), file("a-b", b"4"), file("é")]],
        {"./B": "3", "./a/": "", "./a/z": "2", "./a-b": "4", "./a.b": "1", "./é": ""},
    ),
    "./dev comes last, other folders of that name do not": (
        [[file("dev/null", b"1"), file("usr/dev/x", b"2"), file("zz", b"3"), file("dev2", b"4")]],
        {
            "./dev2": "4",
            "./usr/": "",
            "./usr/dev/": "",
            "./usr/dev/x": "2",
            "./zz": "3",
            "./dev/": "",
            "./dev/null": "1",
        },
    ),
    "a ./dev that is no folder comes last, too": (
        [[file("dev", b"1"), file("e", b"2")]],
        {"./e": "2", "./dev": "1"},
    ),
}


@pytest.mark.parametrize("case", NAMES)
def test_names_and_order(case: str) -> None:
    """Every name is written once, each folder followed at once by its whole subtree."""
    check(NAMES, case)


REPLACEMENTS: dict[str, tuple[Layers, Lines]] = {
    "a file by a file": ([[file("a", b"1")], [file("a", b"2")]], {"./a": "2"}),
    "a file by a folder": (
        [[file("a", b"1")], [directory("a"), file("a/b", b"2")]],
        {"./a/": "", "./a/b": "2"},
    ),
    "a folder by a file, subtree and all": (
        [[file("a/b/c", b"1")], [file("a", b"2")]],
        {"./a": "2"},
    ),
    "a folder by a file and by a folder again": (
        [[file("a/b", b"1")], [file("a", b"2")], [directory("a"), file("a/c", b"3")]],
        {"./a/": "", "./a/c": "3"},
    ),
    "a folder by a file and back within one layer": (
        [[file("a/b", b"1"), file("a", b"2"), file("c", b"3"), directory("a"), file("a/d", b"4")]],
        {"./a/": "", "./a/d": "4", "./c": "3"},
    ),
    "a folder by a folder keeps its children": (
        [[directory("a"), file("a/b", b"1")], [directory("a")]],
        {"./a/": "", "./a/b": "1"},
    ),
    "a folder by a symlink": (
        [[file("a/b", b"1"), directory("c")], [symlink("a", "c")]],
        {"./a": "-> c", "./c/": ""},
    ),
    "a symlink to a folder by a folder; what it led to stays": (
        [[file("c/b", b"1"), symlink("a", "c")], [directory("a"), file("a/d", b"2")]],
        {"./a/": "", "./a/d": "2", "./c/": "", "./c/b": "1"},
    ),
    "a symlink by a file": (
        [[file("c", b"1"), symlink("a", "c")], [file("a", b"2")]],
        {"./a": "2", "./c": "1"},
    ),
    "a file by a device": (
        [[file("a", b"1")], [member("a", b"3", device=(1, 3))]],
        {"./a": ""},
    ),
}


@pytest.mark.parametrize("case", REPLACEMENTS)
def test_replacements(case: str) -> None:
    """A folder over a folder keeps its children; anything else is created anew."""
    check(REPLACEMENTS, case)


WHITEOUTS: dict[str, tuple[Layers, Lines]] = {
    "a file": ([[file("a", b"1"), file("b", b"2")], [whiteout("a")]], {"./b": "2"}),
    "a folder with all in it": (
        [[file("a/b/c", b"1"), file("d", b"2")], [whiteout("a")]],
        {"./d": "2"},
    ),
    "nothing, when there is nothing": ([[file("b", b"1")], [whiteout("a")]], {"./b": "1"}),
    "nothing below a missing folder, which it does not make": (
        [[file("b", b"1")], [whiteout("x/y/a")]],
        {"./b": "1"},
    ),
    "nothing below a file": ([[file("b", b"1")], [whiteout("b/a")]], {"./b": "1"}),
    "never a member of its own layer, before it": (
        [[file("a", b"1")], [file("a", b"2"), whiteout("a")]],
        {"./a": "2"},
    ),
    "never a member of its own layer, after it": (
        [[file("a", b"1")], [whiteout("a"), file("a", b"2")]],
        {"./a": "2"},
    ),
    "a lower folder, though its own layer brings one again": (
        [[file("a/b", b"1")], [file("a/c", b"2"), whiteout("a")]],
        {"./a/": "", "./a/c": "2"},
    ),
    "a symlink, not what it leads to": (
        [[file("c/b", b"1"), symlink("a", "c")], [whiteout("a")]],
        {"./c/": "", "./c/b": "1"},
    ),
    "a dangling symlink": ([[symlink("a", "nowhere")], [whiteout("a")]], {}),
    "through a symlinked parent": (
        [[file("c/b", b"1"), symlink("a", "c")], [whiteout("a/b")]],
        {"./a": "-> c", "./c/": ""},
    ),
    "not through a symlink that a folder of its own layer replaces": (
        [
            [file("c/b", b"1"), symlink("a", "c")],
            [whiteout("a/b"), directory("a"), file("a/b", b"2")],
        ],
        {"./a/": "", "./a/b": "2", "./c/": "", "./c/b": "1"},
    ),
    "not below such a folder either": (
        [
            [file("c/d/b", b"1"), symlink("a", "c")],
            [directory("a"), directory("a/d"), whiteout("a/d/b")],
        ],
        {"./a/": "", "./a/d/": "", "./c/": "", "./c/d/": "", "./c/d/b": "1"},
    ),
    "through a symlink above a folder that is there": (
        [
            [file("c/d/b", b"1"), symlink("a", "c")],
            [directory("a/d"), whiteout("a/d/b")],
        ],
        {"./a": "-> c", "./c/": "", "./c/d/": ""},
    ),
    "through a symlink that the same layer hides": (
        [[file("c/b", b"1"), symlink("a", "c")], [whiteout("a"), whiteout("a/b")]],
        {"./c/": ""},
    ),
    "of a folder, and of what is in it": (
        [[file("a/b", b"1"), file("c", b"2")], [whiteout("a"), whiteout("a/b")]],
        {"./c": "2"},
    ),
    "what an even lower layer brought": (
        [[file("a", b"1")], [file("b", b"2")], [whiteout("a")]],
        {"./b": "2"},
    ),
    "only until the name comes back": (
        [[file("a", b"1")], [whiteout("a")], [file("a", b"3")]],
        {"./a": "3"},
    ),
    "in the lowest layer, nothing": ([[whiteout("a"), file("a", b"1")]], {"./a": "1"}),
    "whatever type the marker is": (
        [[file("a", b"1"), file("b", b"1")], [directory(".wh.a"), symlink(".wh.b", "x")]],
        {},
    ),
    "names with dots": (
        [
            [file("...", b"1"), file("..a", b"2"), file(".b", b"3")],
            [whiteout("..."), whiteout("..a")],
        ],
        {"./.b": "3"},
    ),
}


@pytest.mark.parametrize("case", WHITEOUTS)
def test_whiteouts(case: str) -> None:
    """A whiteout hides what lower layers brought, wherever it stands in its archive."""
    check(WHITEOUTS, case)


OPAQUE: dict[str, tuple[Layers, Lines]] = {
    "hides all children": (
        [[file("a/b", b"1"), file("a/c/d", b"2"), file("e", b"3")], [opaque("a")]],
        {"./a/": "", "./e": "3"},
    ),
    "keeps its own layer's children, before and after it": (
        [[file("a/b", b"1")], [file("a/c", b"2"), opaque("a"), file("a/d", b"3")]],
        {"./a/": "", "./a/c": "2", "./a/d": "3"},
    ),
    "keeps a child of the same name from its own layer": (
        [[file("a/b", b"1")], [file("a/b", b"2"), opaque("a")]],
        {"./a/": "", "./a/b": "2"},
    ),
    "of the root": (
        [[file("a/b", b"1"), file("c", b"2")], [file("d", b"3"), opaque("")]],
        {"./d": "3"},
    ),
    "leaves alone what a symlink led to that its own folder replaces": (
        [
            [file("run/pid", b"1"), directory("var"), symlink("var/run", "/run")],
            [directory("var/run"), opaque("var/run"), file("var/run/app", b"2")],
        ],
        {"./run/": "", "./run/pid": "1", "./var/": "", "./var/run/": "", "./var/run/app": "2"},
    ),
    "of a folder that replaces a symlink to itself": (
        [[symlink("a", "a")], [opaque("a"), directory("a"), file("a/b", b"1")]],
        {"./a/": "", "./a/b": "1"},
    ),
    "of a missing folder does nothing": ([[file("a", b"1")], [opaque("b")]], {"./a": "1"}),
    "through a symlink": (
        [[file("c/b", b"1"), symlink("a", "c")], [opaque("a")]],
        {"./a": "-> c", "./c/": ""},
    ),
    "beside a whiteout in it": (
        [[file("a/b", b"1"), file("a/c", b"2")], [opaque("a"), whiteout("a/b")]],
        {"./a/": ""},
    ),
    "spares hard links elsewhere": (
        [[file("a/b", b"1"), hardlink("z", "a/b")], [opaque("a")]],
        {"./a/": "", "./z": "1"},
    ),
}


@pytest.mark.parametrize("case", OPAQUE)
def test_opaque(case: str) -> None:
    """An opaque marker hides what lower layers have in its folder, and nothing else."""
    check(OPAQUE, case)


HARD_LINKS: dict[str, tuple[Layers, Lines]] = {
    "the first name in order carries the content": (
        [[file("z", b"1"), hardlink("a", "z")]],
        {"./a": "1", "./z": "= ./a"},
    ),
    "outlives its whited-out target": (
        [[file("a", b"1"), hardlink("b", "a")], [whiteout("a")]],
        {"./b": "1"},
    ),
    "outlives its replaced target": (
        [[file("a", b"1"), hardlink("b", "a")], [file("a", b"2")]],
        {"./a": "2", "./b": "1"},
    ),
    "outlives its target replaced in the same layer": (
        [[file("a", b"1"), hardlink("b", "a"), file("a", b"2")]],
        {"./a": "2", "./b": "1"},
    ),
    "outlives the folder of its target": (
        [[file("a/b", b"1"), hardlink("c", "a/b")], [file("a", b"2")]],
        {"./a": "2", "./c": "1"},
    ),
    "to a file of a lower layer": (
        [[file("a", b"1")], [hardlink("b", "a")]],
        {"./a": "1", "./b": "= ./a"},
    ),
    "to the file as it is when the link comes": (
        [[file("a", b"1")], [file("a", b"2"), hardlink("b", "a"), file("a", b"3")]],
        {"./a": "3", "./b": "2"},
    ),
    "a chain is one inode": (
        [[file("a", b"1"), hardlink("b", "a"), hardlink("c", "b")], [whiteout("a")]],
        {"./b": "1", "./c": "= ./b"},
    ),
    "to a symlink is to the symlink": (
        [[file("t", b"1"), symlink("s", "t"), hardlink("l", "s")]],
        {"./l": "-> t", "./s": "= ./l", "./t": "1"},
    ),
    "to itself changes nothing": ([[file("a", b"1"), hardlink("a", "a")]], {"./a": "1"}),
    "over another name of the same inode changes nothing": (
        [[file("a", b"1"), hardlink("b", "a"), hardlink("a", "b")]],
        {"./a": "1", "./b": "= ./a"},
    ),
    "replaces a file": (
        [[file("a", b"1"), file("b", b"2")], [hardlink("b", "a")]],
        {"./a": "1", "./b": "= ./a"},
    ),
    "replaces a folder": (
        [[file("a", b"1"), file("b/c", b"2")], [hardlink("b", "a")]],
        {"./a": "1", "./b": "= ./a"},
    ),
    "its target may be absolute or have ./": (
        [[file("d/a", b"1"), hardlink("b", "/d/a"), hardlink("c", "./d/./a")]],
        {"./b": "1", "./c": "= ./b", "./d/": "", "./d/a": "= ./b"},
    ),
    "its target's parents resolve through symlinks": (
        [[file("d/a", b"1"), symlink("s", "d"), hardlink("b", "s/a")]],
        {"./b": "1", "./d/": "", "./d/a": "= ./b", "./s": "-> d"},
    ),
    "its parents are implied": (
        [[file("a", b"1"), hardlink("x/y", "a")]],
        {"./a": "1", "./x/": "", "./x/y": "= ./a"},
    ),
    "content stands outside ./dev": (
        [[file("dev/a", b"1"), hardlink("z", "dev/a")]],
        {"./z": "1", "./dev/": "", "./dev/a": "= ./z"},
    ),
    "a device has hard links, too": (
        [[member("a", b"3", device=(1, 3)), hardlink("b", "a")]],
        {"./a": "", "./b": "= ./a"},
    ),
    "with a last name left is a plain file": (
        [[file("a", b"1"), hardlink("b", "a"), hardlink("c", "a")], [whiteout("a"), whiteout("b")]],
        {"./c": "1"},
    ),
}


@pytest.mark.parametrize("case", HARD_LINKS)
def test_hard_links(case: str) -> None:
    """A hard link shares its target's inode, whatever becomes of the target's name."""
    check(HARD_LINKS, case)


SYMLINKS: dict[str, tuple[Layers, Lines]] = {
    "a member goes where its parent leads": (
        [[directory("c"), symlink("a", "c"), file("a/b", b"1")]],
        {"./a": "-> c", "./c/": "", "./c/b": "1"},
    ),
    "a parent of a lower layer leads, too": (
        [[directory("usr/lib"), symlink("lib", "usr/lib")], [file("lib/x", b"1")]],
        {"./lib": "-> usr/lib", "./usr/": "", "./usr/lib/": "", "./usr/lib/x": "1"},
    ),
    "an absolute target starts at the image's root": (
        [[directory("x/c"), symlink("x/a", "/x/c"), file("x/a/b", b"1")]],
        {"./x/": "", "./x/a": "-> /x/c", "./x/c/": "", "./x/c/b": "1"},
    ),
    "a climbing target is clamped at the image's root": (
        [[symlink("x/a", "../../../c"), file("x/a/b", b"1")]],
        {"./c/": "", "./c/b": "1", "./x/": "", "./x/a": "-> ../../../c"},
    ),
    "a target climbs within the image": (
        [[directory("x/c"), symlink("x/y/a", "../c"), file("x/y/a/b", b"1")]],
        {"./x/": "", "./x/c/": "", "./x/c/b": "1", "./x/y/": "", "./x/y/a": "-> ../c"},
    ),
    "'..' climbs from where a symlink led, as chroot does": (
        [
            [
                directory("p/q"),
                symlink("s", "p/q"),
                symlink("t", "s/../r"),
                file("t/b", b"1"),
            ]
        ],
        {
            "./p/": "",
            "./p/q/": "",
            "./p/r/": "",
            "./p/r/b": "1",
            "./s": "-> p/q",
            "./t": "-> s/../r",
        },
    ),
    "a chain leads on": (
        [[directory("c"), symlink("a", "b"), symlink("b", "/c"), file("a/d", b"1")]],
        {"./a": "-> b", "./b": "-> /c", "./c/": "", "./c/d": "1"},
    ),
    "a dangling parent is made": (
        [[symlink("a", "x/y"), file("a/b", b"1")]],
        {"./a": "-> x/y", "./x/": "", "./x/y/": "", "./x/y/b": "1"},
    ),
    "the last component is never followed": (
        [[file("c", b"1"), symlink("a", "c"), file("a", b"2")]],
        {"./a": "2", "./c": "1"},
    ),
    "a symlink with a trailing slash is a symlink": (
        [[directory("c"), symlink("a/", "c")]],
        {"./a": "-> c", "./c/": ""},
    ),
    "targets are data and stay as they are": (
        [[symlink("a", "../../../etc/passwd"), symlink("b", "/x//y/./"), symlink("c", ".wh.x")]],
        {"./a": "-> ../../../etc/passwd", "./b": "-> /x//y/./", "./c": "-> .wh.x"},
    ),
    "a parent replaced midway leads elsewhere from then on": (
        [
            [
                directory("c"),
                directory("d"),
                symlink("a", "c"),
                file("a/1", b"1"),
                symlink("a", "d"),
                file("a/2", b"2"),
            ]
        ],
        {"./a": "-> d", "./c/": "", "./c/1": "1", "./d/": "", "./d/2": "2"},
    ),
    "a parent replaced by a hard link to a symlink leads there": (
        [
            [
                directory("c"),
                symlink("s", "c"),
                file("a/1", b"1"),
                hardlink("a", "s"),
                file("a/2", b"2"),
            ]
        ],
        {"./a": "-> c", "./c/": "", "./c/2": "2", "./s": "= ./a"},
    ),
    "forty are followed": (
        [[*(symlink(f"{i:02}", f"{i + 1:02}") for i in range(40)), file("00/a", b"1")]],
        {**{f"./{i:02}": f"-> {i + 1:02}" for i in range(40)}, "./40/": "", "./40/a": "1"},
    ),
}


@pytest.mark.parametrize("case", SYMLINKS)
def test_symlinks(case: str) -> None:
    """Parents resolve through symlinks inside the root; the last component and targets do not."""
    check(SYMLINKS, case)


@pytest.mark.parametrize(
    "name",
    [".wh.a", "d/.wh..wh..opq", ".wh..wh.aufs", ".wh..wh.plnk/1.2", ".wh..wh.orph/x", ".wh.d/a/b"],
)
def test_markers_are_never_written(name: str) -> None:
    """No name that begins with `.wh.` is written, nor anything below one."""
    assert survivors([[file("keep", b"1")], [file(name, b"2")]]) == {"./keep": "1"}


def test_other_conventions_mean_nothing() -> None:
    """What overlayfs writes on disk is an ordinary member in a layer."""
    layers = [
        [file("a/b", b"1"), file("c", b"2")],
        [
            directory("a", xattrs={"trusted.overlay.opaque": b"y", "user.overlay.opaque": b"y"}),
            member("c", b"3", device=(0, 0)),
        ],
    ]
    assert survivors(layers) == {"./a/": "", "./a/b": "1", "./c": ""}


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([[file("../a")]], "climbs out"),
        ([[file("a/../b")]], "climbs out"),
        ([[file("a/..")]], "climbs out"),
        ([[file("/..")]], "climbs out"),
        ([[whiteout("../a")]], "climbs out"),
        ([[file("a"), hardlink("b", "../a")]], "climbs out"),
        ([[file("a"), hardlink("b", "x/../a")]], "climbs out"),
        ([[file(".wh.")]], "names nothing"),
        ([[file("d/.wh..")]], "names nothing"),
        ([[file(".wh...")]], "names nothing"),
        ([[hardlink("a", "b")]], "has no target"),
        ([[hardlink("a", "b"), file("b")]], "has no target"),
        ([[hardlink("a", "a")]], "has no target"),
        ([[hardlink("a", "no/b")]], "has no target"),
        ([[file("f"), hardlink("a", "f/b")]], "has no target"),
        ([[file("b")], [whiteout("b"), hardlink("a", "b")]], "has no target"),
        ([[directory("d"), hardlink("a", "d")]], "directory"),
        ([[file("f")], [file("f/a")]], "not a directory"),
        ([[file("f"), symlink("s", "f"), file("s/a")]], "not a directory"),
        ([[symlink("s", "s"), file("s/a")]], "too many symlinks"),
        ([[symlink("s", "t"), symlink("t", "s")], [whiteout("s/a")]], "too many symlinks"),
        ([[*(symlink(f"{i}", f"{i + 1}") for i in range(41)), file("0/a")]], "too many symlinks"),
        ([[file("/")]], "root"),
        ([[file("a"), hardlink("./", "a")]], "root"),
        ([[symlink(".", "a")]], "root"),
        ([[file("n" * 256)]], "longer than 255"),
        ([[file("n" * 256 + "/a")]], "longer than 255"),
        ([[symlink("s", "n" * 256), file("s/a")]], "longer than 255"),
    ],
)
def test_refused(layers: Layers, message: str) -> None:
    """What no file system could hold, or leads out of the image, is refused with its reason."""
    with pytest.raises(ImageError, match=message):
        grown(layers)


def test_directory_attributes() -> None:
    """A directory over a directory replaces its attributes, xattrs too."""
    layers = [
        [directory("d", mode=0o700, uid=1, xattrs={"user.a": b"1"}), file("d/a")],
        [directory("d", mode=0o3777, uid=2, mtime=5 * 10**9, xattrs={"user.b": b"2"})],
    ]
    found = described(b"./d/", *layers)
    assert (found.mode, found.uid, found.mtime) == (0o3777, 2, 5 * 10**9)
    assert found.xattrs == {b"user.b": b"2"}


@pytest.mark.parametrize("upper", [[file("d/b")], [whiteout("d/a")], [opaque("d")]])
def test_unnamed_directory_keeps_its_metadata(upper: list[bytes]) -> None:
    """A directory that the upper layer does not name keeps its lower metadata."""
    lower = [directory("d", mode=0o1770, uid=7, gid=8, xattrs={"user.a": b"1"}), file("d/a")]
    found = described(b"./d/", lower, upper)
    assert (found.mode, found.uid, found.gid, found.mtime) == (0o1770, 7, 8, MTIME)
    assert found.xattrs == {b"user.a": b"1"}


def test_implied_directory() -> None:
    """A directory that no layer describes is root's, 0755, at the epoch."""
    (found,) = (
        one.member for one in grown([[file("d/b", uid=5)]]).plan() if one.member.name == b"./d/"
    )
    assert (found.kind, found.mode, found.uid, found.gid, found.mtime) == (
        DIRECTORY,
        0o755,
        0,
        0,
        0,
    )


@pytest.mark.parametrize(
    ("layers", "limits", "bound"),
    [
        ([[file("a"), file("b")], [file("c"), whiteout("a")]], Limits(entries=3), "entries"),
        ([[file("a/" * 50 + "f")]], Limits(entries=20), "entries"),
        ([[symlink("s", "a/" * 50), file("s/f")]], Limits(entries=20), "entries"),
        ([[symlink("s", "d/" * 30), file("s/" + "f" * 60)]], Limits(path=100), "path"),
    ],
)
def test_limits(layers: Layers, limits: Limits, bound: str) -> None:
    """The members of all layers are bounded, and so are the paths that symlinks make longer."""
    with pytest.raises(LimitError, match=f"limits.{bound}"):
        list(grown(layers, limits).plan())


def test_many_names_below_a_long_path_take_little_memory() -> None:
    """The plan holds one path a folder, not one a name: 20,000 names cost no 80 MB."""
    folder = "/".join("d" * 250 for _ in range(15))
    tree = grown([[symlink("s", folder), *(file(f"s/{i}") for i in range(20_000))]])
    tracemalloc.start()
    count = sum(1 for _ in tree.plan())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 20_017
    assert peak < 8 << 20


def test_long_ways_are_bounded() -> None:
    """Names that each lead through many symlinks of many parts do not take for ever."""
    deep = "/".join("d" * 200)
    winding = [symlink("l0", deep), *(symlink(f"l{n}", f"/l{n - 1}/..") for n in range(1, 30))]
    names = [file(f"l29/{n}/f") for n in range(350)]
    with pytest.raises(LimitError, match="lead through"):
        grown([[*winding, *names]], Limits(entries=1000))
    assert grown([[*winding, *names[:100]]], Limits(entries=1000))


def test_find() -> None:
    """A path is found through symlinks and in any form, and not beyond what is there."""
    tree = grown([[symlink("a", "b"), directory("b"), file("b/c", b"1"), symlink("b/d", "c")]])
    for path in (b"a/c", b"/b/./c", b"b//c"):
        found = tree.find(path)
        assert found is not None
        assert found.member.name == b"b/c"
    link = tree.find(b"a/d")
    assert link is not None
    assert link.member.kind == SYMLINK
    assert [tree.find(path) for path in (b"x/c", b"b/x", b"b/c/x")] == [None] * 3
    assert grown([]).find(b"a") is None
