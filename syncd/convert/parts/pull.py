"""Layers pulled by parts, where that pays; and the tables by which later ones are.

What is wrong with a table, with tar-split data, or with a registry that serves no ranges never
fails a conversion: the layer is pulled whole then, as any other, and a sentence says why where the
image is to blame.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import Self

from syncd.convert.capacity import Share
from syncd.convert.content_log import ContentLog
from syncd.convert.parts.assembly import PART_MAX, FetchedParts, assembled, plan_of
from syncd.convert.parts.index import PartIndex
from syncd.convert.parts.log import PartLog
from syncd.convert.parts.positions import Positions
from syncd.convert.parts.ranges import may_pay, pays, ranges_of
from syncd.convert.parts.table import Part, Table, parse
from syncd.convert.parts.tar_split import segments
from syncd.convert.unpack import Unpacked, UnpackResources, unpack_plain
from syncd.errors import (
    ImageError,
    LostFrameError,
    RegistryError,
    RegistryUnavailableError,
    StoppedError,
)
from syncd.limits import Budget
from syncd.oci import Descriptor, Layer, OpenedImage, Range
from syncd.progress import Advance, Progress


@dataclass(frozen=True, slots=True)
class Prospect:
    """A layer whose table is known.  `tar_split` is as it lies in the blob, or empty."""

    layer: Layer
    positions: Positions
    table: Table
    tar_split: bytes

    def new_log(self) -> ContentLog:
        """Return what finds the parts in a layer that is pulled whole."""
        return PartLog(self.table, digesting=True)


class PartialPulls:
    """Pulls layers of one image by parts, in one attempt to convert it.

    `doubts` are sentences on what is wrong with the image's tables.  Safe to use from several
    threads.
    """

    def __init__(
        self,
        opened: OpenedImage,
        resources: UnpackResources,
        share: Share,
        progress: Progress,
    ) -> None:
        self.doubts: list[str] = []
        self._opened = opened
        self._resources = resources
        self._index = PartIndex(resources.scratch, resources.frames, share.hold)
        self._share = share
        self._progress = progress

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._index.close()

    def look(self, layer: Layer) -> Prospect | None:
        """Fetch what a layer says of its parts; None where it says nothing that can be used."""
        blob = layer.descriptor
        if self._opened.open_ranges is None or not self._resources.frames.remembered:
            return None
        with self._doubting(layer):
            positions = Positions.of(blob)
            if positions is None or not may_pay(positions.described, blob.size):
                return None
            with self._share.working():
                wanted = [positions.table]
                if not self._index.is_empty():
                    wanted.append(positions.tar_split)
            table, *rest = self._fetch(blob, [Range(place.offset, place.size) for place in wanted])
            with self._share.working():
                parsed = parse(table, positions, self._share.hold)
            return Prospect(layer, positions, parsed, b"".join(rest))
        return None

    def pull(self, prospect: Prospect, until_over: Callable[[Advance], Advance]) -> Unpacked | None:
        """Return the layer, put together from parts; None where it has to be pulled whole.

        What is done is told through what `until_over` makes of the way to tell it.
        """
        if not prospect.tar_split:
            return None
        layer, blob = prospect.layer, prospect.layer.descriptor
        with self._share.working():
            plan = plan_of(prospect.table, self._index, self._share.hold)
            ranges = ranges_of(plan.missing)
        if not pays(ranges, blob.size) or any(map(_is_large, plan.missing)):
            return None
        own = self._resources.budget.share()
        with self._doubting(layer), _refunded(own):
            amount = sum(size for _, size in ranges)
            described = prospect.positions.described
            advance = until_over(
                self._progress.begin("parts", str(blob.digest), described + amount)
            )
            advance(described)
            own.hold(3 * max((_weight(part) for part in plan.missing), default=0))
            log = PartLog(prospect.table, digesting=False)
            with ExitStack() as stack:
                found = self._opened.ranges(blob, ranges) if ranges else io.BytesIO()
                stream = stack.enter_context(closing(found))
                stack.enter_context(self._share.working())
                fetched = FetchedParts(stream, ranges, self._resources.waiting, advance)
                place, digest = prospect.positions.tar_split, prospect.table.tar_split
                parts = stack.enter_context(
                    closing(segments(prospect.tar_split, place, digest, own.hold))
                )
                chunks = assembled(
                    prospect.table, plan, parts, index=self._index, fetched=fetched, log=log
                )
                return unpack_plain(chunks, layer, self._resources, own, log)
        return None

    def _fetch(self, blob: Descriptor, places: Sequence[Range]) -> list[bytes]:
        """Return what lies in these places of a blob."""
        self._share.hold(2 * sum(place.size for place in places))
        found = []
        with closing(self._opened.ranges(blob, places)) as stream:
            for place in places:
                content = bytearray()
                while len(content) < place.size:
                    data = stream.read(place.size - len(content))
                    if not data:
                        raise ImageError("its annotations name bytes that do not come")
                    content += data
                found.append(bytes(content))
        return found

    @contextmanager
    def _doubting(self, layer: Layer) -> Iterator[None]:
        """End the block early where the layer has to be pulled whole, and note why."""
        try:
            yield
        except ImageError as exc:
            self.doubts.append(
                f"layer {layer.descriptor.digest} was pulled whole, since what it says of its "
                f"parts is not right: {exc.what}"
            )
        except (StoppedError, RegistryUnavailableError):
            raise
        except (RegistryError, LostFrameError):
            return  # the registry serves no ranges, or what was here is gone


@contextmanager
def _refunded(own: Budget) -> Iterator[None]:
    """Give back what a layer used up of its image's budget, if it is not unpacked after all."""
    hold, held = own.hold, 0

    def counted(amount: int) -> None:
        nonlocal held
        hold(amount)
        held += amount

    own.hold = counted
    try:
        yield
    except BaseException:
        own.unpacked.take(-own.unpacked.used)
        own.metadata.take(-own.metadata.used)
        hold(-held)
        raise


def _weight(part: Part) -> int:
    return part.size + part.end - part.offset


def _is_large(part: Part) -> bool:
    return max(part.size, part.end - part.offset) > PART_MAX
