"""What a conversion wrote, as its process tells it, and as the daemon hears and checks it."""

from __future__ import annotations

from syncd.convert.channel import Message, NonsenseError, flag, number, text
from syncd.convert.written_template import WrittenTemplate
from syncd.errors import InvalidReferenceError
from syncd.oci import Digest

_WARNINGS = 100


def message_of(written: WrittenTemplate) -> Message:
    """Return what the process says was written."""
    return {
        "size": written.size,
        "plain_size": written.plain_size,
        "digest": str(written.digest),
        "diff_id": str(written.diff_id) if written.diff_id else None,
        "warnings": written.warnings,
        "is_suitable": written.is_suitable,
    }


def written_of(message: Message) -> WrittenTemplate:
    """Return what a process says was written; raise NonsenseError."""
    warnings, diff_id = message.get("warnings"), message.get("diff_id")
    if not isinstance(warnings, list) or len(warnings) > _WARNINGS:
        raise NonsenseError("no result")
    try:
        return WrittenTemplate(
            number(message, "size"),
            number(message, "plain_size"),
            Digest.parse(text(message, "digest")),
            None if diff_id is None else Digest.parse(text(message, "diff_id")),
            warnings=tuple(text({"warning": warning}, "warning") for warning in warnings),
            is_suitable=flag(message, "is_suitable"),
        )
    except InvalidReferenceError as exc:
        raise NonsenseError("a digest that is none") from exc
