"""What every answer tells a browser: run nothing, guess nothing, frame nothing, keep nothing.

Sources: https://www.w3.org/TR/CSP3/, https://fetch.spec.whatwg.org/#x-content-type-options-header,
RFC 9111 (Cache-Control), RFC 7034 (X-Frame-Options, for browsers without CSP's frame-ancestors).
"""

from __future__ import annotations

import base64
import hashlib
import re

from aiohttp import web

_NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

PROTECTION = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": _NOTHING,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""The headers of every answer, where it has none of its own."""


async def protect(_: web.Request, response: web.StreamResponse) -> None:
    """Give an answer the headers that it lacks (a signal, `on_response_prepare`)."""
    for name, value in PROTECTION.items():
        response.headers.setdefault(name, value)
    response.headers["Server"] = "syncd"  # not which library, of which version


def page_policy(page: str) -> str:
    """Return the Content-Security-Policy of an HTML page: its own style and script, nothing else.

    Both are named by their hashes, so that none that a text of the page brings would count.  The
    script may ask this server, and turns text into markup in one place, which it names `syncd`
    (https://www.w3.org/TR/trusted-types/).
    """
    return "; ".join(
        (
            _NOTHING.replace("form-action 'none'", "form-action 'self'"),
            f"style-src {_hashes('style', page)}",
            f"script-src {_hashes('script', page)}",
            "connect-src 'self'",
            "require-trusted-types-for 'script'",
            "trusted-types syncd",
        )
    )


def _hashes(tag: str, page: str) -> str:
    """Return the sources that name the contents of a page's elements."""
    contents = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()) for text in contents]
    return " ".join(f"'sha256-{digest.decode()}'" for digest in digests)
