"""The real `skopeo`, for which ghcr.io is the registry of the tests where something is pushed.

`registries.conf` tells other places for reading only.  Everything else is passed on as it is.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

GHCR = "docker://ghcr.io/"


def main() -> None:
    """Become skopeo."""
    words = sys.argv[1:]
    if words[:1] == ["copy"] and words[-1].startswith(GHCR):
        address = os.environ["STANDIN_REGISTRY"]
        login = f"--dest-authfile={os.environ['RUNNER_TEMP']}/auth.json"
        target = f"docker://{address}/{words[-1].removeprefix(GHCR)}"
        words = ["copy", "--dest-tls-verify=false", login, *words[1:-1], target]
    programs = os.environ["STANDIN_PROGRAMS"]
    path = [each for each in os.environ["PATH"].split(":") if Path(each) != Path(programs)]
    skopeo = shutil.which("skopeo", path=":".join(path))
    assert skopeo is not None
    os.execv(skopeo, ["skopeo", *words])


if __name__ == "__main__":
    main()
