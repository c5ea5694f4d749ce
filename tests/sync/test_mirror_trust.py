"""When a conversion is begun anew, since others may have the right bytes of a blob."""

from __future__ import annotations

import io
from contextlib import closing
from typing import cast

import pytest

from syncd.convert import WrittenTemplate
from syncd.errors import ImageError, LimitError, VerificationError
from syncd.oci import Descriptor, Digest, Reader, Repository
from syncd.oci.blob_reader import BlobReader
from syncd.sync.mirror_trust import MirrorTrust

CONTENTS = {Digest.of(content): content for content in (b"the content", b"more of it")}
BLOBS = [
    Descriptor("application/octet-stream", digest, len(content))
    for digest, content in CONTENTS.items()
]
WRONG = BLOBS[0]
WRITTEN = WrittenTemplate(1, 1, Digest.of(b""))


class Mirrors:
    """A repository: its mirrors give one blob wrong, and so does the registry if it `is_wrong`."""

    def __init__(self, liars: int, *, is_wrong: bool = False) -> None:
        self._liars = liars
        self._is_wrong = is_wrong
        self.heard: list[tuple[str, Descriptor, bool]] = []

    def open(self, blob: Descriptor) -> Reader:
        """Open a blob."""
        is_wrong = blob is WRONG and (self._liars or self._is_wrong)
        return BlobReader(blob, io.BytesIO(b"other bytes" if is_wrong else CONTENTS[blob.digest]))

    def mistrust(self, blob: Descriptor, *, whole: bool = False) -> bool:
        """Ask the next one from now on, if there is one."""
        self.heard.append(("mistrust", blob, whole))
        others = self._liars > 0
        self._liars -= others
        return others

    def vouch(self, blob: Descriptor, *, whole: bool = False) -> None:
        """Note it."""
        self.heard.append(("vouch", blob, whole))

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
    """It is begun anew until the bytes are right, and then who gave them is vouched for."""
    mirrors = Mirrors(liars)
    assert mirrors.converted() is WRITTEN
    assert mirrors.heard == [("mistrust", WRONG, True)] * liars + [("vouch", WRONG, True)] * (
        liars > 0
    )


@pytest.mark.parametrize("liars", [0, 1, 2])
def test_nobody_is_right(liars: int) -> None:
    """Where nobody else can be asked, the fault is that of the job, and nobody is vouched for."""
    mirrors = Mirrors(liars, is_wrong=True)
    with pytest.raises(VerificationError):
        mirrors.converted()
    assert mirrors.heard == [("mistrust", WRONG, True)] * (liars + 1)


def test_fault_behind_a_lie() -> None:
    """What is wrong with the image once the blobs are right is nobody else's fault."""
    mirrors = Mirrors(1)
    with pytest.raises(LimitError):
        mirrors.converted(LimitError("the image is too large"))
    assert mirrors.heard == [("mistrust", WRONG, True)]


@pytest.mark.parametrize("fault", [LimitError, VerificationError, ImageError])
def test_other_faults(fault: type[ImageError]) -> None:
    """A fault of the image, while the blobs are what they should be, is nobody else's."""
    mirrors, attempts = Mirrors(1), list[str]()

    def convert() -> WrittenTemplate:
        attempts.append("attempt")
        raise fault("something is wrong with the image")

    with pytest.raises(fault):
        MirrorTrust(cast(Repository, mirrors)).converted(convert)
    assert (len(attempts), mirrors.heard) == (1, [])
