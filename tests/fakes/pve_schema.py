"""The contract: holds requests against the official description of the Proxmox VE API.

It is here because the test double would take many a request that the real API refuses.  A request
fits when its path and method are described, it names every required parameter and no unknown one,
and each value follows its type, format, pattern, enumeration and bounds as PVE::JSONSchema (of
pve-common: `check_prop`, `check_object`, `parse_property_string`) would have it.

The official descriptions lie in the folder that `SYNCD_PVE_API` names, or in shared/pve-api beside
the checkout.  `pve-api/` in this folder holds what of them concerns the calls that the double
serves, without prose, so that the contract is checked wherever the tests run;
`python -m tests.fakes.pve_schema` writes it anew.  The calls about snapshots are not in the
descriptions at hand; `pve-api/snapshots.json` has them, and names its source.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fakes.pve import CALLS, UPLOAD, Pve, path_pattern
from tests.fakes.pve_cluster import Request
from tests.fakes.pve_format import FORMATS

REDUCED = Path(__file__).with_name("pve-api")
VERSIONS = ("9.2.3", "8.4.5")
KEPT = ("type", "optional", "enum", "format", "pattern", "minimum", "maximum", "min_length",
        "max_length", "default_key")  # fmt: skip
INTEGER = re.compile(r"[+-]?\d+")
NUMBER = re.compile(r"[+-]?(\d+\.\d+|\d+\.|\.\d+|\d+)([eE][+-]?\d+)?")

Schema = Mapping[str, Any]


@dataclass(frozen=True)
class Method:
    """One described call: its path's pattern, its parameters' schemas by name."""

    verb: str
    template: str
    pattern: re.Pattern[str]
    parameters: Mapping[str, Schema]

    def schema(self, name: str) -> Schema | None:
        """Return the schema of a parameter; `net0` is found under `net[n]`."""
        indexed = re.sub(r"(?<=[a-z])(0|[1-9]\d*)$", "[n]", name)
        return self.parameters.get(name) or self.parameters.get(indexed)


@dataclass(frozen=True)
class Description:
    """The methods that one version of the API has."""

    version: str
    methods: tuple[Method, ...]

    @classmethod
    def load(cls, version: str, folder: Path = REDUCED) -> Description:
        """Read pve-VERSION.json, official or reduced: the two have one form."""
        described = (folder / f"pve-{version}.json", REDUCED / "snapshots.json")
        methods = [
            Method(
                method["verb"],
                path["path"],
                path_pattern(path["path"]),
                {entry["name"]: entry["definition"] for entry in method["parameters"]},
            )
            for file in described
            for path in json.loads(file.read_text())["paths"]
            for method in path["methods"]
        ]
        return cls(version, tuple(methods))


def official() -> Path | None:
    """Return the folder of the official descriptions, or None where it is not at hand.

    Raises:
        FileNotFoundError: when `SYNCD_PVE_API` names a folder that holds none.
    """
    named = os.environ.get("SYNCD_PVE_API")
    folder = Path(named) if named else Path(__file__).parents[3] / "shared" / "pve-api"
    if all((folder / f"pve-{version}.json").is_file() for version in VERSIONS):
        return folder
    if named:
        raise FileNotFoundError(f"SYNCD_PVE_API={named} holds no API description")
    return None


def validate(requests: Iterable[Request], description: Description) -> list[str]:
    """Say in words what the API of this version would not take; nothing, if it takes all."""
    return [
        f"PVE {description.version}: {request.method} {request.path}: {fault}"
        for request in requests
        for fault in _faults_of(request, description)
    ]


def assert_contract(pve: Pve) -> None:
    """Fail unless the API of the double's own major version takes every request it has got."""
    major = pve.cluster.version.partition(".")[0]
    version = next(each for each in VERSIONS if each.startswith(f"{major}."))
    faults = validate(pve.requests, Description.load(version))
    assert not faults, "\n".join(faults)


def _faults_of(request: Request, description: Description) -> list[str]:
    # A template without a variable at some place is more exact than one with: /status/current
    # is not a path of {vmid}.
    methods = [
        (method, match)
        for method in description.methods
        if (match := method.pattern.fullmatch(request.path))
    ]
    if not methods:
        return ["no such path"]
    fitting = [(method, match) for method, match in methods if method.verb == request.method]
    if not fitting:
        return [f"no such method; there is {', '.join(sorted(m.verb for m, _ in methods))}"]
    method, match = min(fitting, key=lambda each: each[0].template.count("{"))
    values = {**request.params, **match.groupdict()}
    faults = []
    for name, schema in method.parameters.items():
        if request.whole and not schema.get("optional") and name not in values:
            faults.append(f"{name}: missing, and not optional")
    for name, value in values.items():
        found = method.schema(name)
        if found is None:
            faults.append(f"{name}: not a parameter of this method")
            continue
        faults += [f"{name}: {fault}" for fault in check(value, found)]
        requires = found.get("extra", {}).get("requires")
        if requires and requires not in values:
            faults.append(f"{name}: requires {requires}")
    return faults


def check(value: str, schema: Schema) -> list[str]:
    """Say what is wrong with one value as sent."""
    kind = schema.get("type")
    if kind == "boolean" and value not in ("0", "1"):
        return [f"{value!r} is not a boolean, which is 0 or 1"]
    if kind == "integer" and not INTEGER.fullmatch(value):
        return [f"{value!r} is not an integer"]
    if kind == "number" and not NUMBER.fullmatch(value):
        return [f"{value!r} is not a number"]
    faults = _check_format(value, schema.get("format"))
    if faults:
        return faults
    pattern = schema.get("pattern")
    if pattern and not re.fullmatch(python_pattern(pattern), value):
        faults.append(f"{value!r} does not match {pattern}")
    if len(value) > schema.get("max_length", len(value)):
        faults.append(f"longer than {schema['max_length']} characters")
    if len(value) < schema.get("min_length", 0):
        faults.append(f"shorter than {schema['min_length']} characters")
    if NUMBER.fullmatch(value):
        if float(value) > schema.get("maximum", float(value)):
            faults.append(f"{value} is above {schema['maximum']}")
        if float(value) < schema.get("minimum", float(value)):
            faults.append(f"{value} is below {schema['minimum']}")
    if schema.get("enum") and value not in schema["enum"]:
        faults.append(f"{value!r} is none of {', '.join(schema['enum'])}")
    return faults


def python_pattern(pattern: str) -> str:
    """Turn Perl's way to print a compiled pattern, `(?^:...)`, into what Python reads."""
    return pattern.replace("(?^:", "(?:")


def _check_format(value: str, form: str | Mapping[str, Schema] | None) -> list[str]:
    if form is None:
        return []
    if not isinstance(form, str):
        return _check_property_string(value, form)
    single = form.removesuffix("-list")
    if single not in FORMATS:
        return [f"the format {form} is not known to this check"]
    items = re.split(r"[,;\0\s]+", value.strip()) if form != single else [value]
    return [f"{item!r} is no {single}" for item in items if not FORMATS[single](item)]


def _check_property_string(value: str, properties: Mapping[str, Schema]) -> list[str]:
    """Check `key=value,key=value`, where the default key may go unnamed."""
    default = next((key for key, schema in properties.items() if schema.get("default_key")), None)
    found: dict[str, str] = {}
    faults = []
    for part in filter(str.strip, value.split(",")):
        key, equals, text = part.partition("=")
        if not equals:
            key, text = default or "", part
        if key not in properties:
            faults.append(f"{part!r} has no key that is known here")
        elif key in found:
            faults.append(f"{key} is given twice")
        else:
            found[key] = text
    for key, schema in properties.items():
        if key in found:
            text = found[key]
            if schema.get("type") == "boolean":  # parse_boolean comes before the type check
                words = {"yes": "1", "on": "1", "true": "1", "no": "0", "off": "0", "false": "0"}
                text = words.get(text.lower(), text)
            faults += [f"{key}: {fault}" for fault in check(text, schema)]
        elif not schema.get("optional"):
            faults.append(f"{key}: missing, and not optional")
    return faults


def reduce(document: Mapping[str, Any]) -> dict[str, Any]:
    """Keep of an official description what the double's calls are checked by."""
    served = {*CALLS, ("POST", UPLOAD)}
    paths = []
    for path in document["paths"]:
        methods = [
            {
                "verb": method["verb"],
                "parameters": [
                    {"name": entry["name"], "definition": _reduce_schema(entry["definition"])}
                    for entry in method["parameters"]
                ],
            }
            for method in path["methods"]
            if (method["verb"], path["path"]) in served
        ]
        if methods:
            paths.append({"path": path["path"], "methods": methods})
    return {"source_version": document["source_version"], "paths": paths}


def _reduce_schema(schema: Schema) -> dict[str, Any]:
    kept = {key: schema[key] for key in KEPT if schema.get(key) not in (None, [])}
    if isinstance(schema.get("format"), Mapping):
        kept["format"] = {key: _reduce_schema(each) for key, each in schema["format"].items()}
    requires = schema.get("extra", {}).get("requires")
    return kept | ({"extra": {"requires": requires}} if requires else {})


if __name__ == "__main__":
    source = official()
    if source is None:
        raise SystemExit("no official description: name its folder in SYNCD_PVE_API")
    REDUCED.mkdir(exist_ok=True)
    for each in VERSIONS:
        reduced = reduce(json.loads((source / f"pve-{each}.json").read_text()))
        text = json.dumps(reduced, indent=1, sort_keys=True)
        (REDUCED / f"pve-{each}.json").write_text(text + "\n")
