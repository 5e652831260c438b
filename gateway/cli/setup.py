"""``gateway setup``: from answers to settings that work, with a test mail."""

from __future__ import annotations

from typing import Any

import click

from gateway.cli.common import config_option, example
from gateway.cli.setup_options import end_options, way_options, who_options


@click.command(
    epilog=example(
        "gateway setup --config config.yaml",
        "gateway setup --provider smtp2go --secret-file key.txt --sender noreply@example.com --yes",
        "gateway setup --provider smtp --host smtp.example.net --sender noreply@example.com --dry-run",
    ),
)  # fmt: skip
@way_options
@who_options
@end_options
@config_option
def setup(**given: Any) -> None:
    """Ask what there is, and make settings of the answers: a new file, or what is missing in the old one.

    Every answer is also an option. Secrets go into files of their own (0600), never into the settings, and the old
    settings are kept beside the new ones. Then the settings are judged, the provider is asked, and with --test-to a
    test mail is sent by them.
    """
    from gateway.cli.setup_flow import carry_out
    from gateway.cli.setup_given import Given

    carry_out(Given.of(given))
