"""The entry point: runs the command line, and ends with one sentence when something fails."""

from __future__ import annotations

import sys

from syncd.errors import ConfigError, InvalidReferenceError, SyncdError


def main() -> None:
    """Run `syncd`; exit 0 when done, 1 when failed, 2 on bad usage or configuration."""
    from syncd import cli, console

    try:
        cli.app()
    except SyncdError as exc:
        console.err.print(f"syncd: {exc}", markup=False)
        sys.exit(2 if isinstance(exc, ConfigError | InvalidReferenceError) else 1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
