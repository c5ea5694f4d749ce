"""When a conversion is begun anew, since others may have the right bytes of a blob."""

from __future__ import annotations

import io
from contextlib import closing, nullcontext
from typing import cast

import pytest

from syncd.convert import WrittenTemplate
from syncd.errors import ImageError, LimitError, VerificationError
from syncd.oci import BlobReader, Descriptor, Digest, Repository
from syncd.oci.blob_reader import Keeper
from syncd.sync.mirror_trust import MirrorTrust

CONTENTS = {Digest.of(content): content for content in (b"the content", b"more of it")}
BLOBS = [
    Descriptor("application/octet-stream", digest, len(content))
    for digest, content in CONTENTS.items()
]
WRONG = BLOBS[0]
SETTLED = ("settled", WRONG, False)
MISTRUSTED = ("mistrust", WRONG, True)
VOUCHED = [("vouch", blob, True) for blob in BLOBS]
WRITTEN = WrittenTemplate(1, 1, Digest.of(b""))


class Kept:
    """What was kept of a blob: other bytes."""

    size = 5

    def read(self, size: int, offset: int) -> bytes:
        """Return bytes."""
        return b"other"[offset : offset + size]

    def append(self, content: bytes) -> None:
        """Take no more."""

    complete = discard = close = lambda self: None


class Mirrors:
    """A repository: its mirrors give one blob wrong, and so does the registry if it `is_wrong`.

    What is `kept` of that blob, how many times, is wrong, too.
    """

    def __init__(self, liars: int, *, is_wrong: bool = False, kept: int = 0) -> None:
        self._liars = liars
        self._is_wrong = is_wrong
        self._kept = kept
        self.heard: list[tuple[str, Descriptor, bool]] = []

    def open(self, blob: Descriptor) -> BlobReader:
        """Open a blob."""
        is_wrong = blob is WRONG and (self._liars or self._is_wrong)
        stream = io.BytesIO(b"other bytes" if is_wrong else CONTENTS[blob.digest])
        if blob is WRONG and self._kept:
            self._kept -= 1
            return BlobReader(blob, stream, keeper=cast(Keeper, Kept()))
        return BlobReader(blob, stream)

    def mistrust(self, blob: Descriptor, *, whole: bool = False) -> bool:
        """Ask the next one from now on, if there is one."""
        self.heard.append(("mistrust", blob, whole))
        others = self._liars > 0
        self._liars -= others
        return others

    def vouch(self, blob: Descriptor, *, whole: bool = False) -> None:
        """Note it."""
        self.heard.append(("vouch", blob, whole))

    def settle(self) -> None:
        """Note it."""
        self.heard.append(SETTLED)

    def converted(self, fault: ImageError | None = None) -> WrittenTemplate:
        """Convert what reads both blobs, and has a fault then."""
        trust = MirrorTrust(cast(Repository, self))

        def convert() -> WrittenTemplate:
            for blob in BLOBS:
                with closing(trust.watched(blob, self.open(blob))) as reader:
                    while reader.read(4):
                        pass
            if fault is not None:
                raise fault
            return WRITTEN

        return trust.converted(convert)


@pytest.mark.parametrize("liars", [0, 1, 2])
def test_others_are_right(liars: int) -> None:
    """It is begun anew until the bytes are right, and whoever gave them is vouched for."""
    mirrors = Mirrors(liars)
    assert mirrors.converted() is WRITTEN
    assert mirrors.heard == [MISTRUSTED] * liars + [*VOUCHED, SETTLED]


@pytest.mark.parametrize("liars", [0, 1, 2])
def test_nobody_is_right(liars: int) -> None:
    """Where nobody else can be asked, the fault is that of the job, and nobody is vouched for."""
    mirrors = Mirrors(liars, is_wrong=True)
    with pytest.raises(VerificationError):
        mirrors.converted()
    assert mirrors.heard == [MISTRUSTED] * (liars + 1) + [SETTLED]


def test_kept_wrong() -> None:
    """What was kept wrong is read anew, also where there is nobody else to be asked."""
    mirrors = Mirrors(0, kept=1)
    assert mirrors.converted() is WRITTEN
    assert mirrors.heard == [MISTRUSTED, *VOUCHED, SETTLED]


def test_kept_wrong_for_ever() -> None:
    """What was kept wrong is read anew once only."""
    mirrors = Mirrors(0, kept=9)
    with pytest.raises(VerificationError):
        mirrors.converted()
    assert mirrors.heard == [MISTRUSTED, MISTRUSTED, SETTLED]


def test_right_at_last() -> None:
    """A blob that came right when one conversion began anew is nobody's fault."""
    mirrors = Mirrors(0, kept=1)
    trust = MirrorTrust(cast(Repository, mirrors))

    def convert() -> WrittenTemplate:
        for wrong in (pytest.raises(VerificationError), nullcontext()):
            with wrong, closing(trust.watched(WRONG, mirrors.open(WRONG))) as reader:
                while reader.read(4):
                    pass
        raise LimitError("the image is too large")

    with pytest.raises(LimitError):
        trust.converted(convert)
    assert mirrors.heard == [VOUCHED[0], SETTLED]


def test_fault_behind_a_lie() -> None:
    """What is wrong with the image once the blobs are right is nobody else's fault."""
    mirrors = Mirrors(1)
    with pytest.raises(LimitError):
        mirrors.converted(LimitError("the image is too large"))
    assert mirrors.heard == [MISTRUSTED, *VOUCHED, SETTLED]


@pytest.mark.parametrize("fault", [LimitError, VerificationError, ImageError])
def test_other_faults(fault: type[ImageError]) -> None:
    """A fault of the image, while the blobs are what they should be, is nobody else's."""
    mirrors, attempts = Mirrors(1), list[str]()

    def convert() -> WrittenTemplate:
        attempts.append("attempt")
        raise fault("something is wrong with the image")

    with pytest.raises(fault):
        MirrorTrust(cast(Repository, mirrors)).converted(convert)
    assert (len(attempts), mirrors.heard) == (1, [SETTLED])
