"""Layers that are made of parts of which many are here already: zstd:chunked, pulled by parts.

A layer of this form says where each part of its files lies in the blob, and what its tar consists
of beside them.  So only the parts that no earlier template has are fetched, and the layer's tar is
put together from these and from what is here.  Nothing of that is trusted: each part has the digest
that the table names, and the tar as a whole has to have the image's diff_id.

Source: https://github.com/containers/storage/tree/main/pkg/chunked
"""

from syncd.convert.parts.pull import PartialPulls

__all__ = ["PartialPulls"]
