"""Runs the command line: `python -m syncd`."""

from syncd.cli import main

main()
