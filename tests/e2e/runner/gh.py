"""`gh` for the two things that the workflows ask of GitHub: the runs of a workflow, and a release.

The runs are those in the file STANDIN_RUNS, newest first, in the API's own words
(https://docs.github.com/en/rest/actions/workflow-runs#list-workflow-runs-for-a-workflow); `--jq` is
answered by jq.  A release is a folder below STANDIN_RELEASES.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path

from tests.e2e.command import run


def main() -> int:
    """Answer one call; exit status 1 where GitHub would refuse or does not answer."""
    if not os.environ.get("GH_TOKEN"):
        sys.stderr.write("gh: set GH_TOKEN\n")
        return 4
    parser = argparse.ArgumentParser(allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    api = commands.add_parser("api", allow_abbrev=False)
    api.add_argument("--method", choices=["GET"], required=True)
    api.add_argument("path")
    api.add_argument("-f", action="append", default=[], dest="fields")
    api.add_argument("--jq", required=True)
    release = commands.add_parser("release", allow_abbrev=False)
    release.add_argument("action", choices=["create"])
    release.add_argument("tag")
    release.add_argument("--verify-tag", action="store_true", required=True)
    release.add_argument("--title", required=True)
    release.add_argument("--notes-file", type=Path, required=True)
    release.add_argument("files", nargs="+", type=Path)
    given = parser.parse_args()
    return _runs(given) if given.command == "api" else _release(given)


def _runs(given: argparse.Namespace) -> int:
    workflow = "actions/workflows/build-images.yml/runs"
    runs = Path(os.environ["STANDIN_RUNS"])
    if given.path != f"repos/{os.environ['GITHUB_REPOSITORY']}/{workflow}" or not runs.exists():
        sys.stderr.write("gh: Server Error (HTTP 502)\n")
        return 1
    wanted = dict(field.split("=", 1) for field in given.fields)
    limit = int(wanted.pop("per_page"))
    names = {"branch": "head_branch", "event": "event", "status": "conclusion"}
    found = [
        one
        for one in json.loads(runs.read_text())
        if all(one[names[key]] == value for key, value in wanted.items())
    ]
    answer = json.dumps({"total_count": len(found), "workflow_runs": found[:limit]})
    sys.stdout.write(run("jq", "-n", "--raw-output", f"{answer} | {given.jq}"))
    return 0


def _release(given: argparse.Namespace) -> int:
    run("git", "ls-remote", "--exit-code", "origin", f"refs/tags/{given.tag}")
    folder = Path(os.environ["STANDIN_RELEASES"]) / given.tag
    if folder.exists():
        sys.stderr.write(f"gh: a release with the tag {given.tag} already exists\n")
        return 1
    folder.mkdir(parents=True)
    (folder / "title").write_text(given.title)
    shutil.copy(given.notes_file, folder / "notes")
    (folder / "files").mkdir()
    for file in given.files:
        shutil.copy(file, folder / "files")
    return 0


if __name__ == "__main__":
    sys.exit(main())
