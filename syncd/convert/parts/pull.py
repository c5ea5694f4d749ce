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
    LimitError,
    LostFrameError,
    RegistryError,
    RegistryUnavailableError,
    StoppedError,
)
from syncd.limits import Budget, Hold
from syncd.oci import Descriptor, Layer, OpenedImage, Range
from syncd.progress import Advance, Progress

_TOLD = 3  # layers whose tables are said to be wrong


class _Held:
    """Memory that a layer's tables take, and that is given back."""

    def __init__(self, hold: Hold) -> None:
        self._hold = hold
        self._amount = 0

    def hold(self, amount: int) -> None:
        """Hold so many bytes more; raise what the hold of all raises."""
        self._hold(amount)
        self._amount += amount

    def free(self) -> None:
        """Give back all of it."""
        self._hold(-self._amount)
        self._amount = 0


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

    Safe to use from several threads.
    """

    def __init__(
        self,
        opened: OpenedImage,
        resources: UnpackResources,
        share: Share,
        progress: Progress,
    ) -> None:
        self._doubts: list[str] = []
        self._opened = opened
        self._resources = resources
        self._index = PartIndex(resources.scratch, resources.frames, share.hold)
        self._share = share
        self._progress = progress
        self._is_away = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._index.close()

    @property
    def doubts(self) -> tuple[str, ...]:
        """Sentences on what is wrong with the image's tables, of the first layers, and how many."""
        more = len(self._doubts) - _TOLD
        return (
            *self._doubts[:_TOLD],
            *([f"{more} more layers were pulled whole"] if more > 0 else ()),
        )

    @contextmanager
    def look(self, layer: Layer) -> Iterator[Prospect | None]:
        """Fetch what a layer says of its parts; None where it says nothing that can be used.

        What that takes of the memory is given back at the end.
        """
        held = _Held(self._share.hold)
        try:
            yield self._look(layer, held)
        finally:
            held.free()

    def _look(self, layer: Layer, held: _Held) -> Prospect | None:
        blob = layer.descriptor
        if self._opened.open_ranges is None or not self._resources.frames.remembered:
            return None
        if self._is_away:
            return None
        with self._doubting(layer):
            positions = Positions.of(blob)
            if positions is None or not may_pay(positions.described, blob.size):
                return None
            with self._share.working():
                wanted = [positions.table]
                if not self._index.is_empty():
                    wanted.append(positions.tar_split)
            places = [Range(place.offset, place.size) for place in wanted]
            table, *rest = self._fetch(blob, places, held)
            with self._share.working():
                parsed = parse(table, positions, held.hold)
            return Prospect(layer, positions, parsed, b"".join(rest))
        held.free()
        return None

    def pull(self, prospect: Prospect, until_over: Callable[[Advance], Advance]) -> Unpacked | None:
        """Return the layer, put together from parts; None where it has to be pulled whole.

        What is done is told through what `until_over` makes of the way to tell it.
        """
        if not prospect.tar_split:
            return None
        held = _Held(self._share.hold)
        try:
            with self._doubting(prospect.layer):
                return self._pull(prospect, until_over, held)
        finally:
            held.free()
        return None

    def _pull(
        self, prospect: Prospect, until_over: Callable[[Advance], Advance], held: _Held
    ) -> Unpacked | None:
        layer, blob = prospect.layer, prospect.layer.descriptor
        with self._share.working():
            plan = plan_of(prospect.table, self._index, held.hold)
            ranges = ranges_of(plan.missing)
        if not pays(ranges, blob.size) or any(map(_is_large, plan.missing)):
            return None
        own = self._resources.budget.share()
        with _refunded(own):
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

    def _fetch(self, blob: Descriptor, places: Sequence[Range], held: _Held) -> list[bytes]:
        """Return what lies in these places of a blob."""
        held.hold(2 * sum(place.size for place in places))
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
        except LimitError:
            return  # the image is perhaps within its bounds without its tables
        except ImageError as exc:
            self._doubts.append(
                f"layer {layer.descriptor.digest} was pulled whole, since what it says of its "
                f"parts is not right: {exc.what}"
            )
        except StoppedError:
            raise
        except RegistryUnavailableError:
            self._is_away = True  # perhaps for ranges alone: what is read whole asks it once more
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
