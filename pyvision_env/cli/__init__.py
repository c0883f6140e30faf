"""The command line ``pyvision-env``: demo, doctor, sandbox, run, view and replay."""

from __future__ import annotations


def main() -> None:
    """Run the command line and exit with its code."""
    from pyvision_env.cli.app import app

    app(prog_name="pyvision-env")
