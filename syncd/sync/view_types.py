"""The values that several views have: volume ids, moments, digests."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

VolumeId = Annotated[str, Field(description="A volume id, STORAGE:vztmpl/NAME.")]
Moment = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
DigestText = Annotated[str, Field(pattern=r"^sha(256:[0-9a-f]{64}|512:[0-9a-f]{128})$")]
EXACT = ConfigDict(extra="forbid")
"""A view has the fields that it names, and no other."""
