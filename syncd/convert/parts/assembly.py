"""A layer's tar, put together from what is here and from what was fetched.

The tar-split data say what it consists of, the table which parts a file has.  A part that was
fetched has to have its digest; a part that is here is what some layer said it is.  Whether the tar
is the right one, its diff_id decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from syncd.convert.decompress import Chunk
from syncd.convert.parts.fetched import FetchedParts
from syncd.convert.parts.local import LocalParts
from syncd.convert.parts.plan import Plan, Source
from syncd.convert.parts.table import Part, Table
from syncd.errors import ImageError

_CHUNK = 256 << 10  # bytes of the tar that are given out at a time, about
_LARGE = 64 << 10  # bytes that are given out as they are, without a copy
_ZEROS = memoryview(bytes(_CHUNK))


def assembled(
    table: Table,
    plan: Plan,
    segments: Iterator[bytes | int],
    *,
    local: LocalParts,
    fetched: FetchedParts,
    advance: Callable[[int], None],
) -> Iterator[Chunk]:
    """Yield the tar.

    `advance` is called with each chunk, so that it can end the work where nothing is fetched.
    Raise ImageError where the table and the tar-split data contradict each other, LostFrameError
    where what was here is gone, and whatever fetching raises.
    """
    held = bytearray()
    nth = file = 0
    files = len(table.file_sizes)
    for segment in segments:
        if isinstance(segment, bytes):
            held += segment
            continue
        if file == files or table.file_sizes[file] != segment:
            raise ImageError("its table and its tar-split data name other files")
        for source in plan.sources[nth : plan.ends[file]]:
            for content in _contents(source, local, fetched):
                if len(content) < _LARGE:
                    held += content
                    continue
                if held:
                    yield held
                    held = bytearray()
                advance(0)
                yield content
                del content  # a frame, which is in nobody's way when the next one comes
        nth = plan.ends[file]
        file += 1
        if len(held) >= _CHUNK:
            advance(0)
            yield held
            held = bytearray()
    if file < files:
        raise ImageError("its tar-split data lack files of its table")
    yield held


def _contents(source: Source, local: LocalParts, fetched: FetchedParts) -> Iterator[Chunk]:
    if isinstance(source, int):
        return (_ZEROS[: source - begin] for begin in range(0, source, _CHUNK))
    if isinstance(source, Part):
        return iter((fetched.plain(source),))
    return iter((local.content(source),))
