"""What a person types: the commands of `syncd`, work without a daemon, and terminal output.

Exit codes: 0 done, 1 failed, 2 usage or configuration.
"""

from syncd.cli.entry import main

__all__ = [
    "main",
]
