"""The example of the configuration, read key by key; and the page that docs/ makes of it.

    python -m tests.configuration      writes docs/configure.md anew

The keys come from the model, their sentences from the comments of config/syncd.toml.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from syncd.config.example import ExampleKey, example_keys, example_text
from syncd.config.sender_settings import SenderSettings
from syncd.config.settings import (
    Config,
    ImageSettings,
    ProfileSettings,
    RegistrySettings,
)
from syncd.config.target_settings import DirectoryTargetSettings, ProxmoxTargetSettings
from syncd.config.verify import VerifySettings

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "config/syncd.toml"
PAGE = ROOT / "docs/configure.md"

_SEVERAL: dict[str, tuple[type[BaseModel], ...]] = {
    "sender": (SenderSettings,),
    "registry": (RegistrySettings,),
    "image": (ImageSettings,),
    "profile": (ProfileSettings,),
    "target": (ProxmoxTargetSettings, DirectoryTargetSettings),
}
_NUMBERED = {"net1": "networks", "mp0": "mounts"}
"""The fields of a profile by the numbered keys that the example shows of them."""
_RANGES = {"networks": "net0` to `net31", "mounts": "mp0` to `mp255"}

_NONE: tuple[object, ...] = (None, (), {})

_HEAD = """\
# Configuration: every key

One TOML file: `syncd --config FILE`, else `$SYNCD_CONFIG`, else `/etc/syncd/syncd.toml`, else an
embedded default (a directory target below the current folder, no credentials). The file is checked
whole, and every fault is told with its line. `systemctl reload syncd` puts a changed file in force
while syncd runs; `state.directory` and `server.listen` need a restart. A secret is never in the
file: a key names the secret's own file, or systemd hands the secret over as a credential.

Spans of time are written like `90s`, `5m`, `1h30m` or `30d`, sizes like `20GiB`. `make docs` writes
this page from the model of the configuration and the comments of `config/syncd.toml`.
"""


def lines() -> Iterator[str]:
    """Return the example's lines with every commented-out key live, and without its sentences."""
    for line in example_text().splitlines():
        if re.match(r"\[|[a-z_0-9]+ = ", line.removeprefix("#")):
            yield line.removeprefix("#")


def tables() -> dict[str, Any]:
    """Return the example as it is with every key live."""
    return tomllib.loads("\n".join(lines()).replace('"AB:CD:..."', '""'))


def models() -> Iterator[tuple[str, type[BaseModel], dict[str, Any]]]:
    """Return each table of the configuration: name, model, and what the example says of it."""
    shown = tables()
    for name, field in Config.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield name, field.annotation, shown[name]
    for name, several in _SEVERAL.items():
        for model, example in zip(several, shown[name], strict=True):
            yield name, model, {_NUMBERED.get(key, key): text for key, text in example.items()}
            if name == "image":
                yield "image.verify", VerifySettings, example["verify"]


def page() -> str:
    """Return docs/configure.md."""
    parts = [_HEAD]
    for (name, model, _), sentences in zip(models(), _sentences(), strict=True):
        heading = f"[[{name}]]" if name in _SEVERAL else f"[{name}]"
        verify = ExampleKey("[image.verify]", "who has to have signed; see below")
        sentences.setdefault("verify", verify)
        parts.append(f"\n## `{heading}`: {_first_sentence(model)}\n")
        parts.append("| key | default | what it is |\n|---|---|---|")
        for key, field in model.model_fields.items():
            value, sentence = sentences[key]
            parts.append(f"| `{_RANGES.get(key, key)}` | {_value(field)}`{value}` | {sentence} |")
    return "\n".join(parts) + "\n"


def _value(field: FieldInfo) -> str:
    """Return what stands before the value that the example shows: nothing before a default."""
    if field.is_required():
        return "needed, such as "
    return "none; such as " if field.get_default(call_default_factory=True) in _NONE else ""


def _first_sentence(model: type[BaseModel]) -> str:
    sentence = re.split(r"[.;]", model.__doc__ or "")[0]
    return sentence[0].lower() + sentence[1:]


def _sentences() -> list[dict[str, ExampleKey]]:
    """Return, for each table in the order of `models`, each field's value and sentence."""
    order = list(dict.fromkeys(name for name, _, _ in models()))
    return [
        {_NUMBERED.get(key, key): shown for key, shown in keys.items()}
        for _, keys in sorted(example_keys(), key=lambda table: order.index(table[0]))
    ]


if __name__ == "__main__":
    PAGE.write_text(page())
