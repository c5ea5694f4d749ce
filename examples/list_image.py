"""List the files of a container image, as `tar -tv` does, without extracting anything.

    python examples/list_image.py oci:LAYOUT:latest

All layers are laid over each other first: what is listed is what a container would see.
"""

import stat
import sys
from datetime import UTC, datetime, timedelta

import syncd
from syncd.convert import list_members
from syncd.tar import Member

# The type flags of POSIX pax(1), "ustar Interchange Format", as the kinds of stat(2).
KINDS = {
    b"0": stat.S_IFREG,
    b"1": stat.S_IFREG,  # a hard link to a name that was listed before
    b"2": stat.S_IFLNK,
    b"3": stat.S_IFCHR,
    b"4": stat.S_IFBLK,
    b"5": stat.S_IFDIR,
    b"6": stat.S_IFIFO,
}
LINKS = {b"1": b" link to ", b"2": b" -> "}


def line(member: Member) -> str:
    """Return one line: mode, owner, size in bytes or device, time in UTC, name, link target."""
    mode = stat.filemode(KINDS[member.kind] | member.mode)
    owner = f"{member.uid}/{member.gid}"
    device = "{},{}".format(*member.device)
    size = device if member.kind in (b"3", b"4") else str(member.size)
    name = printable(member.name + LINKS.get(member.kind, b"") + member.target)
    return f"{mode} {owner:>11} {size:>10} {when(member.mtime // 10**9)} {name}"


def when(seconds: int) -> str:
    """Return a time in UTC; one that no calendar has is written as seconds since the epoch."""
    try:
        return f"{datetime.fromtimestamp(0, UTC) + timedelta(seconds=seconds):%Y-%m-%d %H:%M}"
    except OverflowError:
        return f"{'@' + str(seconds):>16}"


def printable(name: bytes) -> str:
    """Return a name of any bytes as text that is harmless to a terminal."""
    text = name.decode(errors="backslashreplace")
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def main(source: str) -> None:
    """Print every name in the order of a template."""
    for member in list_members(syncd.open_image(source)):
        print(line(member))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        main(sys.argv[1])
    except syncd.SyncdError as exc:
        sys.exit(f"error: {exc}")
