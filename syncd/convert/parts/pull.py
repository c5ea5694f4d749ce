"""Layers pulled by parts, where that pays; and the tables by which later ones are.

What is wrong with a table, with tar-split data, or with a registry that serves no ranges never
fails a conversion: the layer is pulled whole then, as any other, and a sentence says why where the
image is to blame.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Self

from syncd.convert.capacity import Share
from syncd.convert.parts import rows
from syncd.convert.parts.assembly import assembled
from syncd.convert.parts.fetched import PART_MAX, FetchedParts
from syncd.convert.parts.held import Held
from syncd.convert.parts.index import PARTS_MAX, PartIndex
from syncd.convert.parts.local import LocalParts
from syncd.convert.parts.passing_table import PassingTable
from syncd.convert.parts.plan import Plan, plan_of
from syncd.convert.parts.positions import Positions, Stretch
from syncd.convert.parts.ranges import may_pay, pays, ranges_of
from syncd.convert.parts.table import Part, Table, parse
from syncd.convert.parts.tar_split import segments
from syncd.convert.unpack import SayParts, Unpacked, UnpackResources, unpack, unpack_plain
from syncd.errors import (
    CrowdedError,
    ImageError,
    LimitError,
    LostFrameError,
    RegistryError,
    RegistryUnavailableError,
    StoppedError,
    VerificationError,
)
from syncd.limits import Budget
from syncd.oci import Descriptor, Layer, OpenedImage, Range, Reader
from syncd.progress import Advance, Progress
from syncd.tar import Member

_TOLD = 3  # layers whose tables are said to be wrong
_AGAIN = 4  # times that a layer is put together without the layers that lied before
_FEW = 64 << 20  # bytes that are decompressed without a second thought
_COPIES = 4  # of rows, while they are joined
_DECOMPRESSED = 4  # times the bytes that are taken from frames may be decompressed for them


@dataclass(frozen=True, slots=True)
class Prospect:
    """A layer that may be pulled by parts, now or when it is built again.

    `table` and `tar_split`, as it lies in the blob, are None where they were not fetched: there is
    nothing here to put the layer together from.
    """

    layer: Layer
    positions: Positions
    table: Table | None = None
    tar_split: bytes | None = None


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
        self._doubted: set[Layer] = set()
        self._opened = opened
        self._resources = resources
        self._index = PartIndex(resources.scratch, resources.frames, share.hold)
        self._share = share
        self._progress = progress
        self._is_away = False
        self._anew: set[Layer] = set()
        # Of two tars that one descriptor is to hold, one may be right and the other wrong.
        self._tars_of = Counter(layer.descriptor for layer in set(opened.image.layers))
        self._was_wrong: dict[Layer, str] = {}  # what was wrong, as the first ones gave it

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
        with Held(self._share.hold) as held:
            yield self._look(layer, held)

    def _look(self, layer: Layer, held: Held) -> Prospect | None:
        blob = layer.descriptor
        if self._opened.open_ranges is None or not self._resources.frames.remembered:
            return None
        with self._doubting(layer, given=True):
            try:
                positions = Positions.of(blob)
            except ImageError as exc:
                self._doubt(layer, exc)
                return None
            if positions is None or not may_pay(positions.described, blob.size):
                return None
            prospect = Prospect(layer, positions)
            with self._share.working():
                if self._index.is_empty():
                    return prospect
            found: list[bytes] = []
            if not self._is_away:
                with self._doubting(layer, given=True):
                    found = self._fetch(blob, (positions.table, positions.tar_split), held)
            if not found:
                held.free()
                return prospect
            with self._share.working():
                table = parse(found[0], positions, held.hold)
            return replace(prospect, table=table, tar_split=found[1])
        held.free()
        return None

    def pull(self, prospect: Prospect, until_over: Callable[[Advance], Advance]) -> Unpacked | None:
        """Return the layer, put together from parts; None where it has to be pulled whole.

        Where other layers' rows made it another tar, these are forgotten, and it is put together
        again.  What is done is told through what `until_over` makes of the way to tell it.
        """
        table, tar_split = prospect.table, prospect.tar_split
        if table is None or tar_split is None:
            return None
        with self._doubting(prospect.layer, given=True):
            for _ in range(_AGAIN):
                forgotten = self._index.forgotten
                try:
                    with Held(self._share.hold) as held:
                        pulled = self._pull(prospect, table, tar_split, until_over, held)
                    if pulled:
                        self._opened.vouch(prospect.layer.descriptor)
                    return pulled
                except VerificationError:
                    self._forget_liars(table)
                    if self._index.forgotten == forgotten:
                        raise  # no layer was forgotten meanwhile, for this one or another
        return None

    def _pull(
        self,
        prospect: Prospect,
        table: Table,
        tar_split: bytes,
        until_over: Callable[[Advance], Advance],
        held: Held,
    ) -> Unpacked | None:
        layer, blob = prospect.layer, prospect.layer.descriptor
        with self._share.working():
            plan = plan_of(table, self._index, held.hold)
            ranges = ranges_of(plan.missing)
        if not pays(ranges, blob.size) or not self._is_light(plan):
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
            with ExitStack() as stack:
                found = self._opened.ranges(blob, ranges) if ranges else io.BytesIO()
                stream = stack.enter_context(closing(found))
                stack.enter_context(self._share.working())
                fetched = FetchedParts(stream, ranges, self._resources.waiting, advance)
                place = prospect.positions.tar_split
                parts = stack.enter_context(
                    closing(segments(tar_split, place, table.tar_split, own.hold))
                )
                local = LocalParts(self._index)
                chunks = assembled(
                    table, plan, parts, local=local, fetched=fetched, advance=advance
                )
                return unpack_plain(
                    chunks, layer, self._resources, own, lambda members: self._rows(table, members)
                )

    def is_anew(self, layer: Layer) -> bool:
        """Tell, once, that a layer is to be looked at anew: others are asked for its bytes now."""
        is_anew = layer in self._anew
        self._anew.discard(layer)
        return is_anew

    def unpack(
        self, blob: Reader, layer: Layer, prospect: Prospect | None, advance: Advance
    ) -> Unpacked:
        """Return the layer, pulled whole; what its table says is kept with it for the next one.

        Nothing is kept of a table that was found to be wrong.  Raise what
        `syncd.convert.unpack.unpack` raises.
        """
        if layer in self._was_wrong and layer not in self._doubted:
            self._tell(layer, self._was_wrong[layer])
        if prospect is None or layer in self._doubted:
            return unpack(blob, layer, self._resources, advance)
        say: SayParts | None = None
        with Held(self._share.hold) as held:
            if prospect.table is not None:
                say = partial(self._rows, prospect.table)
            else:
                with self._doubting(layer):
                    held.hold(2 * prospect.positions.table.size)
                    blob = passing = PassingTable(blob, prospect.positions.table)
                    say = partial(self._say, prospect, passing, held)
            return unpack(blob, layer, self._resources, advance, say)

    def _say(
        self, prospect: Prospect, passing: PassingTable, held: Held, members: Sequence[Member]
    ) -> bytes:
        """Return the rows of a layer whose table went by; none where the table is wrong."""
        with self._doubting(prospect.layer):
            table = parse(bytes(passing.content), prospect.positions, held.hold)
            return self._rows(table, members)
        return b""

    def _rows(self, table: Table, members: Sequence[Member]) -> bytes:
        """Return the rows of a layer; none for more than an index takes, or without the memory."""
        if len(table.sizes) <= PARTS_MAX:
            with Held(self._share.hold) as held, suppress(LimitError, CrowdedError):
                held.hold(_COPIES * rows.ROW * len(table.sizes))
                return rows.encoded(table, members, self._resources.frames.sizes)
        return b""

    def _forget_liars(self, table: Table) -> None:
        """Forget the layers that do not have the parts that their tables name."""
        with self._share.working():
            self._index.forget_liars(table, LocalParts(self._index).content)

    def _is_light(self, plan: Plan) -> bool:
        """Tell whether it takes neither much memory nor much work to follow a plan."""
        bound = _DECOMPRESSED * plan.framed + _FEW
        return plan.decompressed <= bound and not any(map(_is_large, plan.missing))

    def _fetch(self, blob: Descriptor, places: Sequence[Stretch], held: Held) -> list[bytes]:
        """Return what lies in these places of a blob."""
        held.hold(2 * sum(place.size for place in places))
        found = []
        ranges = [Range(place.offset, place.size) for place in places]
        with closing(self._opened.ranges(blob, ranges)) as stream:
            for place in places:
                content = bytearray()
                while len(content) < place.size:
                    data = stream.read(place.size - len(content))
                    if not data:
                        raise ImageError("its annotations name bytes that do not come")
                    content += data
                found.append(bytes(content))
        return found

    def _doubt(self, layer: Layer, exc: ImageError) -> None:
        self._doubted.add(layer)
        self._tell(layer, exc.what)

    def _tell(self, layer: Layer, what: str) -> None:
        self._doubts.append(
            f"layer {layer.descriptor.digest} was pulled whole, since its parts, or what "
            f"it says of them, are not right: {what}"
        )

    @contextmanager
    def _doubting(self, layer: Layer, *, given: bool = False) -> Iterator[None]:
        """End the block early where the layer has to be pulled whole, and note why.

        Where it reads what was `given` as parts of the blob, which nobody verified as a whole, a
        mirror may be to blame, and others are asked first.
        """
        try:
            yield
        except LimitError:
            return  # the image is perhaps within its bounds without its tables
        except ImageError as exc:
            has_one_tar = self._tars_of[layer.descriptor] == 1
            if given and has_one_tar and self._opened.mistrust(layer.descriptor):
                self._was_wrong[layer] = exc.what
                self._anew.add(layer)
            else:
                self._doubt(layer, exc)
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
