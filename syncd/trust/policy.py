"""Whose word an image needs before it is fetched: what `[image.verify]` says, as values.

Nothing here looks at a signature.  Whoever configures a policy fulfils it with `Wanted`; a policy
has a fingerprint, so that what was vouched for under one policy is not taken for vouched for under
another one.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

from syncd.errors import TrustError

PATTERN = "re:"
"""What an identity begins with that is a regular expression."""
LARGEST_FILE = 4 << 20
"""Bytes that a key or a trust root may have."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One signer, and what the signature has to say.

    Either `identity` and `issuer` are given, or `key_file` is.  An identity that begins with `re:`
    is a regular expression that has to match the whole identity.  `attestation` is the type of the
    in-toto predicate that is wanted in place of a plain signature.  `trust_root` is a file that
    stands in for the public Sigstore's.
    """

    identity: str = ""
    issuer: str = ""
    key_file: Path | None = None
    annotations: tuple[tuple[str, str], ...] = ()
    attestation: str = ""
    trust_root: Path | None = None

    def __str__(self) -> str:
        what = f"an attestation of type {self.attestation}" if self.attestation else "a signature"
        by = f"{self.identity} (issuer {self.issuer})"
        if self.key_file is not None:
            by = f"the key in {self.key_file}"
        notes = ", ".join(f"{key}={value}" for key, value in self.annotations)
        return f"{what} by {by}{' with the annotations ' * bool(notes)}{notes}"

    def matches(self, identity: str) -> bool:
        """Tell whether an identity of a certificate is the wanted one."""
        if self.identity.startswith(PATTERN):
            return re.fullmatch(self.identity.removeprefix(PATTERN), identity) is not None
        return identity == self.identity

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that say whom to trust."""
        return tuple(file for file in (self.key_file, self.trust_root) if file is not None)


@dataclass(frozen=True, slots=True)
class Policy:
    """The wanted signers of an image: any one of them is enough, or `require_all` of them."""

    wanted: tuple[Wanted, ...]
    require_all: bool = False

    def __str__(self) -> str:
        return (" and " if self.require_all else " or ").join(map(str, self.wanted))

    def fingerprint(self) -> str:
        """Return what tells this policy, and the content of its files, from any other one.

        Raise TrustError when one of the files cannot be read.
        """
        rules = [
            [
                one.identity,
                one.issuer,
                sorted(one.annotations),
                one.attestation,
                [hashlib.sha256(read_file(file)).hexdigest() for file in one.files],
                one.key_file is not None,
            ]
            for one in self.wanted
        ]
        text = json.dumps([self.require_all, rules])
        return hashlib.sha256(text.encode()).hexdigest()


def read_file(path: Path) -> bytes:
    """Return a file of a policy; raise TrustError when it cannot be read or is too large."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except OSError as exc:
        raise TrustError(
            f"{path}, which [image.verify] names, cannot be read: {exc.strerror or exc}",
            "nothing is published until it is there; check its path and its permissions",
        ) from exc
    if len(content) > LARGEST_FILE:
        raise TrustError(f"{path} has more than {LARGEST_FILE} bytes: no key and no trust root")
    return content
