"""The answers to requests that are not answered as they were meant: JSON with one key, error."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

from syncd.web.answers import ErrorAnswer


def refusal(status: int, message: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return the answer that tells why, with further headers."""
    return web.json_response(ErrorAnswer(error=message), status=status, headers=headers)


def busy(message: str, seconds: int, status: int = 503) -> web.Response:
    """Return the answer that tells when to try again (RFC 9110, 10.2.3)."""
    return refusal(status, message, {"Retry-After": str(seconds)})


def http_refusal(request: web.Request, exc: web.HTTPError) -> web.Response:
    """Return the answer to a request that aiohttp or a handler refuses by an error of HTTP."""
    if isinstance(exc, web.HTTPNotFound):
        return refusal(404, "there is no such path")
    if isinstance(exc, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(exc.allowed_methods))
        message = f"{request.method} is not allowed here; allowed are {allowed}"
        return refusal(405, message, {"Allow": allowed})
    if isinstance(exc, web.HTTPRequestEntityTooLarge):
        return refusal(413, f"the body has more than {request.client_max_size} bytes")
    again = {key: exc.headers[key] for key in ("Retry-After",) if key in exc.headers}
    return refusal(exc.status, exc.reason, again)
