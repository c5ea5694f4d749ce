"""`cosign sign --yes REPOSITORY@DIGEST`: notes what would be signed, if the registry has it.

A signature itself needs GitHub's identity and Sigstore's services; how syncd checks one is tested
in `tests/e2e/test_signatures.py`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.e2e.runner.docker import inspect


def main() -> int:
    """Note the reference; exit status 1 when the registry does not have it."""
    match sys.argv[1:]:
        case ["sign", "--yes", reference] if "@sha256:" in reference:
            status = inspect(reference)
            if status == 0:
                with Path(os.environ["STANDIN_SIGNED"]).open("a", encoding="utf-8") as file:
                    file.write(f"{reference}\n")
            return status
    sys.stderr.write(f"stand-in for cosign: does not know {sys.argv[1:]}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main())
