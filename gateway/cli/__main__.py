"""The ``gateway`` command, also as ``python -m gateway.cli``."""

from gateway.cli.root import cli


def main() -> None:
    """Run the command line of this process."""
    cli(prog_name="gateway")


if __name__ == "__main__":
    main()
