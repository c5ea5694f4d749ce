"""What the project says of itself is so: its documents, and the workflow that checks it."""

from __future__ import annotations

import ast
import re
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text()
TARGETS = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
FOR_ENGINEERS = ["CONTRIBUTING.md", "docs/architecture.md", "docs/glossary.md"]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links(document: Path) -> None:
    """Every relative link leads to a file or folder, and every anchor to a heading."""
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", document.read_text()):
        path, _, anchor = link.partition("#")
        place = document.parent / path if path else document
        assert place.exists(), link
        if anchor:
            headings = re.findall("^#+ (.+)", place.read_text(), re.MULTILINE)
            anchors = [re.sub(r"[^\w -]", "", one).lower().replace(" ", "-") for one in headings]
            assert anchor in anchors, link


@pytest.mark.parametrize("name", FOR_ENGINEERS)
def test_names(name: str) -> None:
    """Every module, and every name of a face, that a document mentions is there."""
    mentioned = set(re.findall(r"`(syncd(?:\.\w+)+)`", (ROOT / name).read_text()))
    assert mentioned
    for one in sorted(mentioned):
        path = ROOT / one.replace(".", "/")
        if not (path.is_dir() or path.with_suffix(".py").is_file()):
            face = import_module(one.rpartition(".")[0])
            assert one.rpartition(".")[2] in face.__all__, one


SOURCES = sorted((ROOT / "syncd").rglob("*.py"))


@pytest.mark.parametrize(
    "face",
    [path for path in SOURCES if path.name == "__init__.py"][1:],
    ids=lambda f: f.parent.name,
)
def test_faces(face: Path) -> None:
    """The face of a package is a docstring, imports of its names, and the list of these."""
    docstring, *rest = ast.parse(face.read_text()).body
    assert isinstance(docstring, ast.Expr)
    *imports, names = rest
    assert all(isinstance(line, ast.ImportFrom) for line in imports)
    assert isinstance(names, ast.Assign)
    assert ast.unparse(names.targets[0]) == "__all__"
    listed = ast.literal_eval(names.value)
    assert sorted(listed) == sorted(
        name.asname or name.name
        for line in imports
        if isinstance(line, ast.ImportFrom)
        for name in line.names
    )


@pytest.mark.parametrize("module", SOURCES[1:], ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_that_contracts_cannot_see(module: Path) -> None:
    """No module imports by a string, or takes more than the version from the library's face."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "syncd":
            assert [name.name for name in node.names] == ["__version__"]
        if isinstance(node, ast.Name | ast.Attribute):
            name = node.id if isinstance(node, ast.Name) else node.attr
            assert name not in ("import_module", "__import__")


def test_picture() -> None:
    """The picture of the packages shows the layers that the import contract has."""
    contract = PROJECT["tool"]["importlinter"]["contracts"][0]
    layers = set(re.findall(r"\w+", " ".join(contract["layers"])))
    (picture,) = re.findall("flowchart TB\n(.+?)```", ARCHITECTURE, re.DOTALL)
    shown = set(re.findall(r'\["([a-z, ]+)', picture))
    assert set(", ".join(shown).split(", ")) == layers - {"__main__", "_version"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands(document: Path) -> None:
    """Every `make` command that a document names is a target of the Makefile."""
    text = document.read_text()
    typed = "".join(re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    named = re.findall(r"^make ([a-z][\w-]+)", typed, re.MULTILINE)
    assert {*named, *re.findall(r"`make ([a-z][\w-]+)", text)} <= TARGETS


def test_workflow() -> None:
    """Each Python from the oldest that is supported on runs the whole check, with its floor."""
    workflow = yaml.safe_load((ROOT / ".github/workflows/check.yml").read_text())
    assert workflow["permissions"] == {"contents": "read"}
    job = workflow["jobs"]["check"]
    pythons = [tuple(map(int, one.split("."))) for one in job["strategy"]["matrix"]["python"]]
    assert PROJECT["project"]["requires-python"] == ">={}.{}".format(*pythons[0])
    assert pythons == [(3, minor) for minor in range(pythons[0][1], pythons[-1][1] + 1)]
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    commands = [step["run"] for step in steps if "run" in step]
    assert commands[0] == "make check PYTEST_OPTIONS=--cov"
    assert {command.split()[1] for command in commands} <= TARGETS
    for step in steps:
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"] == {"fetch-depth": 0, "persist-credentials": False}
    assert PROJECT["tool"]["coverage"]["report"]["fail_under"] >= 90
    assert PROJECT["tool"]["coverage"]["run"]["branch"]


def test_dependabot() -> None:
    """Dependabot looks after everything that is pinned: packages, actions, and base images."""
    settings = yaml.safe_load((ROOT / ".github/dependabot.yml").read_text())
    kinds = {update["package-ecosystem"] for update in settings["updates"]}
    assert (settings["version"], kinds) == (2, {"pip", "github-actions", "docker"})
