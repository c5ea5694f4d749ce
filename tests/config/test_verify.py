"""What `[image.verify]` may say, and what each fault of it is told as."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncd.config.load import load_config
from syncd.config.settings import Config
from syncd.errors import ConfigError
from syncd.oci.reference import Reference
from syncd.trust import Policy, Wanted

IMAGE = '[[image]]\nrepository = "ghcr.io/org/image"\n'
TARGET = '\n[[target]]\nname = "local"\ntype = "directory"\npath = "/srv"\n'
KEYLESS = 'identity = "https://ci.example.org/build"\nissuer = "https://example.org"\n'


def read(folder: Path, text: str) -> Config:
    """Load a configuration of this text, with a target."""
    path = folder / "syncd.toml"
    path.write_text(text + TARGET)
    return load_config(path)


def test_one(tmp_path: Path) -> None:
    """One table is a policy of one signer."""
    config = read(tmp_path, f"{IMAGE}[image.verify]\n{KEYLESS}")
    wanted = Wanted("https://ci.example.org/build", "https://example.org")
    assert config.image[0].policy == Policy((wanted,))


def test_several(tmp_path: Path) -> None:
    """Several tables are a policy of which any signer is enough, or all of them are wanted."""
    tables = f'[[image.verify]]\n{KEYLESS}[[image.verify]]\nkey_file = "/etc/key.pub"\n'
    (image,) = read(tmp_path, IMAGE + tables).image
    assert image.policy is not None
    assert [wanted.key_file for wanted in image.policy.wanted] == [None, Path("/etc/key.pub")]
    assert not image.policy.require_all
    (image,) = read(tmp_path, f'{IMAGE}require = "all"\n{tables}').image
    assert image.policy is not None
    assert image.policy.require_all


def test_none(tmp_path: Path) -> None:
    """Without a table nobody has to sign."""
    assert read(tmp_path, IMAGE).image[0].policy is None


def test_unwatched_tag(tmp_path: Path) -> None:
    """A tag that is not watched needs the same signatures as the repository's watched ones."""
    config = read(tmp_path, f'{IMAGE}tags = ["main"]\n[image.verify]\n{KEYLESS}')
    for name in ("ghcr.io/org/image:other", f"ghcr.io/org/image@sha256:{'0' * 64}"):
        assert config.image_for(Reference.parse(name)).policy == config.image[0].policy
    assert config.image_for(Reference.parse("ghcr.io/org/another:main")).policy is None


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("[image.verify]\n", "toml:3: image[0].verify[0]: give identity and issuer, or key_file"),
        (f'[image.verify]\n{KEYLESS}key_file = "k"\n', "give identity and issuer, or key_file"),
        ('[image.verify]\nidentity = "i"\n', "identity and issuer go together"),
        ('[image.verify]\nidentity = "re:("\nissuer = "i"\n', "not a regular expression"),
        ('[image.verify]\nkey_file = "k"\ntrust_root = "t"\n', "a key has no trust root"),
        ("verify = []\n", "the list is empty: write at least one"),
        (
            f"[image.verify]\n{KEYLESS}isuer = 1\n",
            "toml:6: image[0].verify[0].isuer: there is no such key; did you mean issuer?",
        ),
        ('require = "some"\n', "write 'any' or 'all'"),
    ],
)
def test_faults(tmp_path: Path, table: str, said: str) -> None:
    """A policy that could not be meant so is refused with what to write."""
    with pytest.raises(ConfigError) as refusal:
        read(tmp_path, IMAGE + table)
    assert said in str(refusal.value)
