"""``gateway setup``: from answers to settings that work, with a test mail."""

from __future__ import annotations

from typing import Any

import click

from gateway.cli.common import config_option, example
from gateway.cli.setup_options import end_options, microsoft_options, way_options, who_options


@click.command(
    epilog=example(
        "gateway setup --config config.yaml",
        "gateway setup microsoft --mailbox noreply@example.com",
        "gateway setup google --sender noreply@example.com",
        "gateway setup --provider smtp2go --secret-file key.txt --sender noreply@example.com --yes",
        "gateway setup --provider smtp --host smtp.example.net --sender noreply@example.com --dry-run",
    ),
)  # fmt: skip
@click.argument("how", required=False, type=click.Choice(("microsoft", "google")), metavar="[microsoft|google]")
@way_options
@microsoft_options
@who_options
@end_options
@config_option
def setup(how: str | None, **given: Any) -> None:
    """Ask what there is, and make settings of the answers: a new file, or what is missing in the old one.

    Every answer is also an option. Secrets go into files of their own (0600), never into the settings, and the old
    settings are kept beside the new ones. Then the settings are judged, the provider is asked, and with --test-to a
    test mail is sent by them.

    "gateway setup microsoft" also makes the application, its certificate and its rights in your Microsoft 365, after an
    administrator has signed in; it was not tried against a real tenant. "gateway setup google" says which of Google's
    ways fits, and each step of it.
    """
    from gateway.cli.setup_flow import carry_out
    from gateway.cli.setup_given import Given

    found = Given.of(given)
    if how is None and (odd := found.only_microsoft()):
        raise click.UsageError(f"{odd} belongs to: gateway setup microsoft")
    if how == "microsoft":
        from gateway.cli.setup_microsoft import microsoft

        return microsoft(found)
    if how == "google":
        from gateway.cli.setup_google import google

        return google(found)
    return carry_out(found)
