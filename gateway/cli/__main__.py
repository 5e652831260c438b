"""The ``gateway`` command, also as ``python -m gateway.cli``."""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress

import click

from gateway.cli.root import cli

_EX_IOERR = 74


def main(arguments: Sequence[str] | None = None) -> None:
    """Run these, by default the command line of this process.

    A disk that is full or a closed stream is an error, a closed pipe none.
    """
    sys.stdin = sys.stdin or os.fdopen(os.open(os.devnull, os.O_WRONLY))  # which cannot be read, nor this written
    sys.stdout = sys.stdout or os.fdopen(os.open(os.devnull, os.O_RDONLY), "w")
    try:
        cli(arguments, prog_name="gateway")
    except OSError as error:
        with suppress(OSError):
            click.echo(f"Error: {error.filename or 'input or output'}: {error.strerror or error}", err=True)
        raise SystemExit(_EX_IOERR) from None
    finally:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left in its buffer was tried before


if __name__ == "__main__":
    main()
