"""Signed images in a real registry: a live Fulcio and Rekor, and the daemon in between.

The registry is Debian's, which cannot list referrers, so that bundles are found by the tag of
distribution-spec's "Referrers Tag Schema".
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.daemon import Syncd
from tests.e2e.registry import Registry
from tests.images import Content, image, index, layer
from tests.sigstore import (
    IDENTITY,
    ISSUER,
    Request,
    Signed,
    attach_referrer,
    attach_tag,
    sign,
    simple,
    statement,
)

POLICY = '[image.verify]\nidentity = "{}"\nissuer = "{}"\ntrust_root = "{}"\n'


def signed_now(folder: Path, content: Content) -> dict[str, Signed]:
    """Sign an image in every form; write the trust root that the signatures are good for."""
    requests = {
        "simple": Request(simple(content.digest)),
        "bundle": Request(statement(content.digest)),
        "stranger": Request(statement(content.digest), identity="https://example.org/stranger"),
    }
    answer: dict[str, Any] = sign(requests)
    (folder / "root.json").write_text(json.dumps(answer["trustedRoot"]))
    return {
        name: Signed(request.payload, answer["signatures"][name])
        for name, request in requests.items()
    }


@pytest.mark.parametrize("form", ["simple", "bundle"])
def test_signed(form: str, registry: Registry, tmp_path: Path) -> None:
    """Nothing of an image is fetched until the wanted signature lies beside it."""
    signed = image(layer(compression=""), runtime={"User": form})
    content = index(signed)
    made = signed_now(tmp_path, content)
    repository = f"signed/{form}"
    reference = f"{registry.address}/{repository}:latest"
    daemon = Syncd(tmp_path / "syncd", [reference])
    with daemon.config.open("a") as config:
        config.write(POLICY.format(IDENTITY, ISSUER, tmp_path / "root.json"))
    registry.push(repository, "latest", content)
    attach_referrer(registry, repository, content, made["stranger"].bundle)
    mark = registry.mark()
    with daemon:
        job = daemon.sync(reference)
        assert (job["outcome"], daemon.templates) == ("failed", [])
        assert "is by https://example.org/stranger" in str(job["message"])
        layers = {one["digest"] for one in signed.document["layers"]}
        assert not layers & set(registry.blobs(mark))
        shown = daemon.run("verify", reference)
        assert (shown.returncode, "NOT trusted" in shown.stdout) == (1, True)
        if form == "simple":
            attach_tag(registry, repository, content.digest, made["simple"].layer)
        else:
            both = made["stranger"].bundle, made["bundle"].bundle
            attach_referrer(registry, repository, content, *both)
        job = daemon.sync(reference)
        assert job["outcome"] == "published", job["message"]
        shown = daemon.run("verify", reference)
        assert (shown.returncode, f"trusted for a signature by {IDENTITY}" in shown.stdout) == (
            0,
            True,
        )
        status = json.loads(daemon.run("status", "--json").stdout)
        (template,) = status["templates"]
        (voucher,) = template["vouchers"]
        assert voucher["log_index"] == made[form].entry["logIndex"]
