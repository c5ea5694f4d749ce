"""Layers laid over each other: the tree of inodes that an image means.

Pure: members go in, layer by layer and oldest first; an ordered plan of what to write comes out.
Nothing is ever extracted, so no name in a layer can lead anywhere but into this tree.  A hard
link shares its target's inode, so content outlives a removed or replaced first name.

Rules: https://github.com/opencontainers/image-spec/blob/main/layer.md, and for the plan's order
what GNU tar does on extraction (a directory must be followed at once by its whole subtree, or it
loses its times; a hard link must come after the member that carries the content).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from syncd.convert.member_path import WHITEOUT, check_length, is_below_whiteout, split
from syncd.errors import ImageError, LimitError
from syncd.limits import Hold, Limits, unbounded
from syncd.tar import DIRECTORY, HARD_LINK, SYMLINK, Member, quote

_OPAQUE = b".wh..wh..opq"
_SYMLINKS_FOLLOWED = 40  # as many as Linux follows: MAXSYMLINKS, linux/namei.h
_STEPS_AN_ENTRY = 64  # parts of paths walked, on average: bounds the time, as memory is bounded
# Bytes of memory, measured with tracemalloc: a directory with one child, a path, a whiteout.
_DIRECTORY, _PATH, _WHITEOUT_COST = 320, 200, 700
_AT_A_TIME = 16 << 10  # bytes of memory that are counted at a time


class Inode:
    """What a name stands for; `layer` is the index of the layer whose tar holds its content."""

    __slots__ = ("layer", "member", "names")

    def __init__(self, member: Member, layer: int) -> None:
        self.member = member
        self.layer = layer
        self.names = 1


class Directory(Inode):
    """An inode that has children."""

    __slots__ = ("children",)

    def __init__(self, member: Member, layer: int) -> None:
        super().__init__(member, layer)
        self.children: dict[bytes, Inode] = {}


class Entry(NamedTuple):
    """One line of the plan: what to write, and the index of the layer that holds its content."""

    member: Member
    layer: int


class Tree:
    """The file system of an image, growing layer by layer.

    `hold` is told how much memory the tree takes beside that of its members.
    """

    def __init__(self, limits: Limits, hold: Hold = unbounded) -> None:
        self._limits = limits
        self._hold = hold
        self._held = 0
        self._root = _implied_directory()
        self._layers = 0
        self._entries = 0
        self._steps = 0
        self._parents: dict[bytes, Directory] = {}

    def apply(self, members: Sequence[Member]) -> None:
        """Lay the next layer over the tree; raise ImageError where the layer is not possible.

        Whiteouts hide what lower layers brought, never their own layer's members, wherever
        they stand in the archive: so they all go first.  For the same reason none reaches through
        a symlink that a directory of its own layer takes the place of.
        """
        places = (split(member.name) for member in members if WHITEOUT in member.name)
        whiteouts = [place for place in places if place[1].startswith(WHITEOUT)]
        if whiteouts:
            self._hold_more(_WHITEOUT_COST * len(whiteouts))
            made = self._directories(members)
            self._hide(
                [
                    (parent, name)
                    for parent, name in whiteouts
                    if not self._replaces_link(parent, made)
                ]
            )
        for member in members:
            self._count()
            parent, name = split(member.name)
            if not (name.startswith(WHITEOUT) or is_below_whiteout(parent)):
                self._add(parent, name, member)
        self._settle()
        self._layers += 1

    def plan(self) -> Iterator[Entry]:
        """Yield every name once, in the order of writing, with its path from `./` on.

        Depth first, names sorted bytewise, except that `./dev` comes last: PVE excludes what
        is below it, so the content of a hard link has to stand elsewhere when it can.
        """
        root = self._root
        longest = self._limits.path.maximum
        yield Entry(_renamed(root.member, b"./"), root.layer)
        # Paths are kept per folder, never per name: symlinked parents make them longer than
        # what the layers hold, and a folder may have a million names.
        written: dict[int, tuple[bytes, bytes]] = {}
        counted = b""
        unfinished = [(b"./", root, iter(_in_order(root, last=b"dev")))]
        while unfinished:
            path, folder, names = unfinished[-1]
            name = next(names, None)
            if name is None:
                unfinished.pop()
                continue
            inode = folder.children[name]
            if len(path) + len(name) - 2 > longest:
                self._limits.path.check(len(path) + len(name) - 2, quote(path + name))
            if id(inode) in written:
                target = b"".join(written[id(inode)])
                yield Entry(_link(inode.member, path + name, target), inode.layer)
            elif isinstance(inode, Directory):
                inside = path + name + b"/"
                yield Entry(_renamed(inode.member, inside), inode.layer)
                unfinished.append((inside, inode, iter(_in_order(inode))))
            else:
                if inode.names > 1:
                    self._hold_more(_PATH + (len(path) if path is not counted else 0))
                    counted = path
                    written[id(inode)] = path, name
                yield Entry(_renamed(inode.member, path + name), inode.layer)

    def find(self, path: bytes) -> Entry | None:
        """Return what stands at a path, which leads through symlinks but does not end in one."""
        parent, name = split(path)
        folder = self._directory(parent, create=False)
        inode = folder.children.get(name) if folder else None
        return Entry(inode.member, inode.layer) if inode else None

    def size(self) -> int:
        """Return the bytes of all files' contents, each once."""
        size = 0
        unseen = [self._root]
        seen: set[int] = set()
        while unseen:
            for inode in unseen.pop().children.values():
                if isinstance(inode, Directory):
                    unseen.append(inode)
                elif id(inode) not in seen:
                    size += inode.member.size
                    if inode.names > 1:
                        seen.add(id(inode))
        return size

    def _directories(self, members: Sequence[Member]) -> set[bytes]:
        """Return the normal paths of a layer's directories, for its whiteouts."""
        made = set()
        for member in members:
            parent, name = split(member.name) if member.kind == DIRECTORY else (WHITEOUT, b"")
            if not is_below_whiteout(parent):
                self._hold_more(_PATH + len(member.name))
                made.add(parent + b"/" + name if parent else name)
        return made

    def _hold_more(self, amount: int) -> None:
        """Count memory that is about to be taken; many such amounts are told at a time."""
        self._held += amount
        if self._held >= _AT_A_TIME:
            self._settle()

    def _settle(self) -> None:
        self._hold(self._held)
        self._held = 0

    def _count(self) -> None:
        """Bound what the tree may hold: members, and directories that they imply."""
        self._entries += 1
        self._limits.entries.check(self._entries, "the number of members in all layers")

    def _replaces_link(self, path: bytes, made: set[bytes]) -> bool:
        """Tell whether one of the directories `made` replaces a symlink on the way of a path."""
        above = here = b""
        for name in filter(None, path.split(b"/")):
            self._steps += 1
            above, here = here, here + b"/" + name if here else name
            if here in made:
                folder = self._directory(above, create=False)
                inode = folder.children.get(name) if folder else None
                if inode is not None and inode.member.kind == SYMLINK:
                    return True
        return False

    def _hide(self, whiteouts: list[tuple[bytes, bytes]]) -> None:
        """Remove what the whiteouts name; all are resolved before the first takes effect."""
        victims: list[tuple[dict[bytes, Inode], bytes | None]] = []
        for parent, name in whiteouts:
            hidden = name.removeprefix(WHITEOUT)
            if hidden in (b"", b".", b".."):
                raise ImageError(f"the whiteout {quote(parent + b'/' + name)} names nothing")
            folder = self._directory(parent, create=False)
            if folder is not None:
                victims.append((folder.children, None if name == _OPAQUE else hidden))
        for children, victim in victims:
            if victim is None:
                children.clear()
            else:
                children.pop(victim, None)
        self._parents.clear()

    def _add(self, parent: bytes, name: bytes, member: Member) -> None:
        if not name:
            if member.kind != DIRECTORY:
                raise ImageError(f"the root of the image is not a directory: {quote(member.name)}")
            self._root.member = member
            self._root.layer = self._layers
            return
        siblings = self._parent(parent).children
        present = siblings.get(name)
        if member.kind == DIRECTORY and isinstance(present, Directory):
            present.member = member
            present.layer = self._layers
            return
        if member.kind == HARD_LINK:
            inode = self._target(member)
            if inode is not present:
                inode.names += 1
        elif member.kind == DIRECTORY:
            self._hold_more(_DIRECTORY)
            inode = Directory(member, self._layers)
        else:
            inode = Inode(member, self._layers)
        self._hold_more(len(name))
        siblings[name] = inode
        if present is not None and present.member.kind in (DIRECTORY, SYMLINK):
            self._parents.clear()

    def _target(self, link: Member) -> Inode:
        """Return the inode that a hard link shares."""
        parent, name = split(link.target)
        folder = self._directory(parent, create=False)
        inode = folder.children.get(name) if folder else None
        if inode is None:
            raise ImageError(
                f"the hard link {quote(link.name)} to {quote(link.target)} has no target"
            )
        if isinstance(inode, Directory):
            raise ImageError(f"the hard link {quote(link.name)} leads to a directory")
        return inode

    def _parent(self, path: bytes) -> Directory:
        """Return a member's parent directory, making it where it is missing."""
        folder = self._parents.get(path)
        if folder is None:
            folder = self._directory(path, create=True)
            if folder is None:
                raise ImageError(f"{quote(path)} is the parent of a member but not a directory")
            self._hold_more(_PATH + len(path))
            self._parents[path] = folder
        return folder

    def _directory(self, path: bytes, *, create: bool) -> Directory | None:
        """Resolve a path as chroot would, symlinks and all; return None where it leads nowhere.

        With `create`, missing directories are made, behind a dangling symlink too.
        """
        trail = [self._root]
        todo = path.split(b"/")[::-1]
        followed = 0
        while todo:
            name = todo.pop()
            if name in (b"", b"."):
                continue
            self._steps += 1
            if name == b"..":
                if len(trail) > 1:
                    trail.pop()
                continue
            inode = trail[-1].children.get(name)
            if inode is None:
                if not create:
                    return None
                self._count()
                check_length(name, path)
                self._hold_more(_DIRECTORY + len(name))
                inode = trail[-1].children[name] = _implied_directory()
            if isinstance(inode, Directory):
                trail.append(inode)
            elif inode.member.kind == SYMLINK:
                followed += 1
                if followed > _SYMLINKS_FOLLOWED:
                    raise ImageError(f"{quote(path)} leads through too many symlinks")
                if inode.member.target.startswith(b"/"):
                    del trail[1:]
                todo += inode.member.target.split(b"/")[::-1]
            else:
                return None
        if self._steps > _STEPS_AN_ENTRY * self._limits.entries.maximum:
            raise LimitError(
                "the paths of the image lead through more symlinks and folders than any real one's",
                "if the image is meant to be so, raise limits.entries in the configuration",
            )
        return trail[-1]


def _in_order(folder: Directory, last: bytes = b"") -> list[bytes]:
    """Return a directory's names in the order of writing: bytewise, but `last` is last."""
    names = sorted(folder.children)
    if last in folder.children:
        names.remove(last)
        names.append(last)
    return names


def _implied_directory() -> Directory:
    """Return a directory that no layer describes."""
    return Directory(_IMPLIED, 0)


_IMPLIED = Member(b"", DIRECTORY, 0o755, 0, 0, 0)


def _renamed(member: Member, path: bytes) -> Member:
    if member.name == path:
        return member
    return Member(
        path,
        member.kind,
        member.mode,
        member.uid,
        member.gid,
        member.mtime,
        member.size,
        member.target,
        member.device,
        member.xattrs,
        member.extents,
        member.frames,
        member.access_acl,
        member.default_acl,
    )


def _link(member: Member, path: bytes, target: bytes) -> Member:
    return Member(path, HARD_LINK, member.mode, member.uid, member.gid, member.mtime, target=target)
