"""Webhook deliveries as GitHub sends them: its own examples, cut down, and signed.

The examples in `data/github` come from
https://docs.github.com/en/webhooks/webhook-events-and-payloads#package
"""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

SECRET = "a secret between GitHub and syncd"
_EXAMPLES = Path(__file__).parent / "data" / "github"


def example(name: str) -> dict[str, Any]:
    """Return one of GitHub's examples, by the name of its file."""
    payload: dict[str, Any] = json.loads((_EXAMPLES / f"{name}.json").read_text())
    return payload


def pushed(repository: str) -> dict[str, Any]:
    """Return the event of a push to a repository, wherever its registry is."""
    payload = example("package.published.container")
    payload["package"]["package_version"]["package_url"] = f"{repository}:latest"
    return payload


def signed(
    body: bytes, event: str = "package", delivery: str = "1", secret: str = SECRET
) -> dict[str, str]:
    """Return the headers of a delivery."""
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return {
        "Content-Type": "application/json",
        "X-GitHub-Event": event,
        "X-GitHub-Delivery": delivery,
        "X-Hub-Signature-256": f"sha256={signature}",
    }
