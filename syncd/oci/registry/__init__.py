"""A container registry over HTTP, as a source of images; the only importer of oras.

`Registry` answers what a tag means now, serves documents verified, and blobs that go on where a
connection broke.  It never waits without a bound, and sends credentials to nobody but the registry.
"""

from syncd.oci.registry.auth import Logins
from syncd.oci.registry.client import Registry
from syncd.oci.registry.github_token import token_expiry
from syncd.oci.registry.mirrored import IMPATIENT, LeftAlone, Mirror, MirroredRepository
from syncd.oci.registry.session import Timeouts

__all__ = [
    "IMPATIENT",
    "LeftAlone",
    "Logins",
    "Mirror",
    "MirroredRepository",
    "Registry",
    "Timeouts",
    "token_expiry",
]
