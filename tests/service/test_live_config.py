"""What `service.live_config` promises: a reload takes over all that can change, or nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncd.config.load import load_config
from syncd.config.settings import Config
from syncd.errors import ConfigError
from syncd.service.live_config import LiveConfig

TEXT = """\
[server]
listen = "127.0.0.1:8750"
[state]
directory = "{0}/state"
cache_max = "1GiB"
[worker]
jobs = 2
[[target]]
name = "local"
type = "directory"
path = "{0}/storage"
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a configuration's file."""
    file = tmp_path / "syncd.toml"
    file.write_text(TEXT.format(tmp_path))
    return file


def replace(path: Path, old: str, new: str) -> None:
    """Edit the file."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_reload(path: Path) -> None:
    """What changed is in force, and told to those who listen; targets are made anew."""
    live = LiveConfig(load_config(path), path)
    heard: list[Config] = []
    live.on_change(heard.append)
    replace(path, "jobs = 2", "jobs = 7")
    replace(path, "1GiB", "2GiB")
    replace(path, 'name = "local"', 'name = "other"')
    live.reload()
    assert live.config.worker.jobs == 7
    assert live.config.state.cache_max == 2 << 30
    assert list(live.targets) == ["other"]
    assert heard == [live.config]


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("/state", "/elsewhere", "state.directory cannot change"),
        (":8750", ":8751", "server.listen cannot change"),
    ],
)
def test_fixed(path: Path, old: str, new: str, named: str) -> None:
    """A key that cannot change while syncd runs is refused by name, and nothing else changes."""
    live = LiveConfig(load_config(path), path)
    before, targets = live.config, live.targets
    live.on_change(lambda _: pytest.fail("nothing changed"))
    replace(path, old, new)
    replace(path, "jobs = 2", "jobs = 7")
    with pytest.raises(ConfigError, match=rf"{named}.*restart syncd"):
        live.reload()
    assert live.config is before
    assert live.targets is targets


def test_both_fixed(path: Path) -> None:
    """Every such key is named at once."""
    live = LiveConfig(load_config(path), path)
    replace(path, "/state", "/elsewhere")
    replace(path, ":8750", ":8751")
    with pytest.raises(ConfigError, match=r"state\.directory and server\.listen"):
        live.reload()


def test_bad_file(path: Path) -> None:
    """A file with faults leaves the running configuration as it is."""
    live = LiveConfig(load_config(path), path)
    before = live.config
    replace(path, "jobs = 2", "jobs = 0")
    with pytest.raises(ConfigError, match="faults"):
        live.reload()
    assert live.config is before
