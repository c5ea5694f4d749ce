"""What no implementation goes below: the processor time of the libraries alone.

Digest and decompress every layer, digest what comes out, compress it: each on whole buffers in
memory (the last four bytes of a gzip member are its plain size, RFC 1952), nothing read, parsed or
written in between.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import zstandard
from isal import isal_zlib

from syncd.oci.image import read_image
from syncd.oci.layout import Layout
from syncd.oci.reference import Platform


def seconds(layout: Path, tag: str) -> float:
    """Return the processor seconds that gunzip, sha256 of both sides and zstd -3 take."""
    source = Layout(layout)
    image = read_image(source, source.find(tag), Platform("linux", "amd64"))
    spent = 0.0
    for layer in image.layers:
        digest = layer.descriptor.digest
        stored = (layout / "blobs" / digest.algorithm / digest.encoded).read_bytes()
        began = time.process_time()
        hashlib.sha256(stored).digest()
        plain = isal_zlib.decompress(stored, 31, int.from_bytes(stored[-4:], "little"))
        hashlib.sha256(plain).digest()
        zstandard.ZstdCompressor(level=3).compress(plain)
        spent += time.process_time() - began
    return spent
