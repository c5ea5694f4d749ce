"""Whether a secret was shown or signed with, compared in a time that tells nothing of it.

A header may hold any bytes; they come as surrogates (PEP 383) and are compared as they are.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac


def is_same(given: str, secret: str) -> bool:
    """Tell whether `given` is the secret."""
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), secret.encode())


def is_signature(given: str, body: bytes, secret: str) -> bool:
    """Tell whether `given` is the HMAC-SHA256 of the raw body, in lower-case hex."""
    return is_same(given, hmac.new(secret.encode(), body, hashlib.sha256).hexdigest())


def is_authorization(header: str, secret: str) -> bool:
    """Tell whether an `Authorization` header shows the secret.

    The header may be the secret itself, `Bearer` and the secret, or `Basic` with the secret as the
    password of any user (RFC 6750, RFC 7617): products differ in what can be entered.
    """
    scheme, _, credentials = header.partition(" ")
    shown = {"bearer": credentials, "basic": _password(credentials)}.get(scheme.lower(), header)
    return is_same(shown, secret) or is_same(header, secret)


def _password(credentials: str) -> str:
    """Return the password of `base64(USER:PASSWORD)`, empty where there is none."""
    try:
        decoded = base64.b64decode(credentials, validate=True).decode()
    except (binascii.Error, ValueError):
        return ""
    return decoded.partition(":")[2]
