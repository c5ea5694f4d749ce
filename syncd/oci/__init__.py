"""Images as the Open Container Initiative specifies them: names, documents, and where blobs lie.

References, digests, manifests and configs are parsed once, checked, and never guessed.  Layouts,
archives and the blob cache are sources of images; so is a registry, whose own package `registry`
is loaded only where one is asked.
"""

from syncd.oci.access import AnonymousAccess, RegistryAccess, Repository
from syncd.oci.blob_cache import BlobCache
from syncd.oci.blob_reader import BlobReader
from syncd.oci.caller import CallerAccess, CallerLogin
from syncd.oci.document import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, parse_array, parse_json
from syncd.oci.image import read_image
from syncd.oci.layout import blob_name
from syncd.oci.manifest import Descriptor, Image, Layer, Reader
from syncd.oci.mirror import MirrorLocation
from syncd.oci.range_reader import RANGE_COST, Range, RangeReader
from syncd.oci.reference import (
    GITHUBS_REGISTRY,
    PORT_PATTERN,
    Digest,
    Platform,
    Reference,
    is_attachment,
    is_tag,
)
from syncd.oci.runtime import is_init
from syncd.oci.source import OpenedImage, OpenRanges, open_image

__all__ = [
    "GITHUBS_REGISTRY",
    "OCI_CONFIG",
    "OCI_INDEX",
    "OCI_MANIFEST",
    "PORT_PATTERN",
    "RANGE_COST",
    "AnonymousAccess",
    "BlobCache",
    "BlobReader",
    "CallerAccess",
    "CallerLogin",
    "Descriptor",
    "Digest",
    "Image",
    "Layer",
    "MirrorLocation",
    "OpenRanges",
    "OpenedImage",
    "Platform",
    "Range",
    "RangeReader",
    "Reader",
    "Reference",
    "RegistryAccess",
    "Repository",
    "blob_name",
    "is_attachment",
    "is_init",
    "is_tag",
    "open_image",
    "parse_array",
    "parse_json",
    "read_image",
]
