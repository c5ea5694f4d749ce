"""What `syncd verify REF` and `syncd status` say to a person of an image's signatures.

It is made from what the API tells, so that it is the same with and without a daemon.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from syncd.sync import ExaminedView, VoucherView


def voucher_text(voucher: VoucherView) -> str:
    """Return a voucher in words, as `syncd.trust.Voucher` has them."""
    by = f"{voucher['identity']} (issuer {voucher['issuer']})"
    if voucher["key"]:
        by = f"the key {voucher['key']}"
    index, moment = voucher["log_index"], voucher["time"]
    logged = f", entry {index} of the log" if index is not None else ""
    at = datetime.fromisoformat(moment).astimezone(UTC) if moment else None
    return f"{voucher['what']} by {by}{logged}{f', {at:%Y-%m-%d %H:%M:%S} UTC' if at else ''}"


def examined_lines(examined: ExaminedView) -> Iterator[str]:
    """Yield the lines: what is wanted, whether it is there, and every signature."""
    yield f"{examined['reference']} is {examined['digest'] or 'not to be read'}"
    if examined["wanted"] is None:
        yield "  nobody has to sign it: there is no [image.verify]"
    else:
        yield f"  wanted: {examined['wanted']}"
    for passed in examined["vouchers"]:
        yield f"  {typer.style('trusted', fg='green')} for {voucher_text(passed)}"
    if examined["fault"]:
        mark = "NOT trusted" if examined["wanted"] else "not known"
        yield f"  {typer.style(mark, fg='red')}: {examined['fault']}"
    elif not examined["signatures"]:
        yield "  no signature at all"
    for one in examined["signatures"]:
        if (voucher := one["voucher"]) is not None:
            yield f"  valid    {voucher_text(voucher)}"
            yield f"           of {voucher['digest']}, {voucher['form']}, {one['place']}"
        else:
            yield f"  no good  {' '.join(filter(None, (one['place'], one['fault'])))}"
