"""What `files.space` promises of what a folder takes."""

from __future__ import annotations

from pathlib import Path

from syncd.files.space import folder_size


def test_folder_size(tmp_path: Path) -> None:
    """All files count, however deep, and no link is followed; what is not there takes nothing."""
    assert folder_size(tmp_path / "missing") == 0
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "one").write_bytes(b"x" * 1000)
    (tmp_path / "a" / "b" / ".two").write_bytes(b"x" * 500)
    (tmp_path / "elsewhere").symlink_to("/usr")
    assert folder_size(tmp_path) == 1500
