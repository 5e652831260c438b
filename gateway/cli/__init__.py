"""The commands. Nothing heavy is imported here: gateway-sendmail shares this package and must start quickly."""


def main() -> None:
    """The ``gateway`` command."""
    from gateway.cli.root import cli

    cli(prog_name="gateway")
