"""Whose signature an image needs: `[image.verify]`, or several such tables."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from syncd.trust import PATTERN, Policy, Wanted


def _identity(value: str) -> str:
    """Check an identity, or `re:` and a regular expression."""
    if value.startswith(PATTERN):
        try:
            re.compile(value.removeprefix(PATTERN))
        except re.error as exc:
            raise ValueError(f"not a regular expression: {exc}") from exc
    return value


def _tables(value: object) -> object:
    """Read one table as a list of one."""
    return [value] if isinstance(value, dict) else value


class VerifySettings(BaseModel):
    """A signer whose word an image needs: an identity, or a key."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    identity: Annotated[str, Field(min_length=1), AfterValidator(_identity)] | None = None
    issuer: Annotated[str, Field(min_length=1)] | None = None
    key_file: Path | None = None
    annotations: dict[str, str] = {}
    attestation: Annotated[str, Field(min_length=1)] | None = None
    trust_root: Path | None = None

    @model_validator(mode="after")
    def _one_signer(self) -> VerifySettings:
        if (self.identity is None) != (self.issuer is None):
            raise ValueError("identity and issuer go together")
        if (self.identity is None) == (self.key_file is None):
            raise ValueError("give identity and issuer, or key_file")
        if self.trust_root is not None and self.key_file is not None:
            raise ValueError("a key has no trust root: leave trust_root out")
        return self

    @property
    def wanted(self) -> Wanted:
        """What the table says, as the judge takes it."""
        return Wanted(
            self.identity or "",
            self.issuer or "",
            self.key_file,
            tuple(sorted(self.annotations.items())),
            self.attestation or "",
            self.trust_root,
        )


Verify = Annotated[tuple[VerifySettings, ...], Field(min_length=1), BeforeValidator(_tables)]
"""One table or several."""


def policy_of(tables: Sequence[VerifySettings], *, require_all: bool) -> Policy | None:
    """Return the policy of an image, or None where nobody has to vouch for it."""
    if not tables:
        return None
    return Policy(tuple(table.wanted for table in tables), require_all)
