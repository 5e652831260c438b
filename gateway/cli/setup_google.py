"""``gateway setup google``: which of Google's ways fits, each step of it, and the settings, checked by a token."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import click

from gateway.cli.auth_google import sign_in_anew
from gateway.cli.plain import say
from gateway.cli.setup_ask import Asker, file_there
from gateway.cli.setup_flow import carry_out
from gateway.cli.setup_given import Given, target

_WAYS = """
Google has three ways in:
  workspace   a service account sends for mailboxes of your Google Workspace; you are its administrator
  gmail       one mailbox, personal or Workspace: its owner signs in once in a browser
  smtp        an app password or the SMTP relay of a Workspace: as any other server, without tokens
"""
_SCOPE = "https://www.googleapis.com/auth/gmail.send"
_PROJECT = "console.cloud.google.com: choose or make a project; APIs & Services > Library > Gmail API > Enable"
_STEPS = {
    "workspace": (
        _PROJECT,
        "IAM & Admin > Service Accounts > Create service account; it needs no role",
        "that account > Keys > Add key > Create new key > JSON: bring this file here, it is --service-account-file",
        "admin.google.com > Security > Access and data control > API controls > Domain-wide delegation > Add new: "
        f"client ID is the number in client_id of that file, scope is exactly {_SCOPE}; it may take up to 24 hours",
    ),
    "gmail": (
        _PROJECT,
        "Google Auth Platform > Get started: any name, audience External (or Internal within a Workspace)",
        "Google Auth Platform > Audience > Publish app, or the sign-in ends after 7 days",
        "Google Auth Platform > Clients > Create client > Desktop app, and download its JSON: it is --client-file",
    ),
    "smtp": (
        "an app password: myaccount.google.com/apppasswords (2-Step Verification must be on); host smtp.gmail.com, "
        "user name is the whole address",
        "the SMTP relay: admin.google.com > Apps > Google Workspace > Gmail > Routing > SMTP relay service; host "
        "smtp-relay.gmail.com",
    ),
}


def google(given: Given) -> None:
    """Raises Failed, UsageError, Abort."""
    asker = Asker(sys.stdin.isatty())
    told = {
        "workspace": "service_account_file" in given.answers,
        "gmail": "authorized_user_file" in given.answers or given.client_file,
    }
    kind = given.kind or next((one for one, is_told in told.items() if is_told), None)
    say(_WAYS if kind is None else "", err=True)
    kind = asker.take("--provider", kind, "Which way", str, choices=tuple(_STEPS))
    say("\n".join(f"{number}. {text}" for number, text in enumerate(_STEPS[kind], 1)) + "\n", err=True)
    if kind == "gmail" and "authorized_user_file" not in given.answers:
        given = replace(given, answers={**given.answers, "authorized_user_file": _signed_in(given, asker)})
    carry_out(replace(given, kind=kind))


def _signed_in(given: Given, asker: Asker) -> str:
    """A sign-in, stored beside the settings; its file."""
    if given.dry_run:
        raise click.UsageError("a sign-in cannot be tried dry: give --authorized-user-file")
    client = asker.take("--client-file", given.client_file, "The Desktop client (JSON file)", file_there)
    out = target().parent / "gmail-sign-in.json"
    sign_in_anew(Path(client), out)
    return str(out)
