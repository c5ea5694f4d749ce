"""What `images/recompress.py` refuses; what it does is seen in `tests/e2e/test_workflow.py`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from images import recompress
from images.recompress import ATTESTED, INDEX, MANIFEST, Layout

EMPTY = {"schemaVersion": 2, "manifests": []}


def built(folder: Path, index: dict[str, Any]) -> None:
    """Write a layout whose index has this content."""
    layout = Layout(folder)
    layout.name(layout.write(index, INDEX))


def refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Recompress a layout in vain; return what was said."""
    assert recompress.main([str(folder), str(folder.with_name("new"))]) == 1
    assert not (folder.with_name("new") / "index.json").exists()
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("::error::")
    return err


def test_no_layout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder that buildx did not write is told."""
    assert "is not what buildx writes" in refused(tmp_path / "built", capsys)


def test_no_index(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An image without an index around it is told: it would be signed without attestations."""
    built(tmp_path / "built", {"mediaType": MANIFEST, **EMPTY})
    assert "build with provenance or sbom" in refused(tmp_path / "built", capsys)


def test_lost_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A manifest that the layout lacks is told."""
    lost = {"mediaType": MANIFEST, "digest": f"sha256:{'0' * 64}", "size": 2}
    built(tmp_path / "built", {"mediaType": INDEX, **EMPTY, "manifests": [lost]})
    assert "lacks a document" in refused(tmp_path / "built", capsys)


def test_attestations_of_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Attestations of an image that is not there are told, and not passed on."""
    other = {"digest": f"sha256:{'1' * 64}", "annotations": {ATTESTED: f"sha256:{'2' * 64}"}}
    built(tmp_path / "built", {"mediaType": INDEX, **EMPTY, "manifests": [other]})
    assert "which the index lacks" in refused(tmp_path / "built", capsys)


def test_documents_are_named_by_content(tmp_path: Path) -> None:
    """A document is kept under the digest of its bytes, with its size."""
    layout = Layout(tmp_path)
    entry = layout.write({"mediaType": INDEX}, INDEX, platform={"os": "linux"})
    assert layout.path(entry["digest"]).stat().st_size == entry["size"]
    assert json.loads(layout.path(entry["digest"]).read_bytes()) == {"mediaType": INDEX}
    assert entry["platform"] == {"os": "linux"}
