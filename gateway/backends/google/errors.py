"""What Google's token endpoint says when it gives no token, and what to do about it."""

from __future__ import annotations

from gateway.backends.shared.table import ANY, Row
from gateway.model import Verdict

SIGN_IN = "sign in again: gateway auth google --backend {name}"


def _row(text: str, fix: str) -> Row:
    """``text`` is searched from the top in "error: subtype: description"."""
    return Row(ANY, Verdict.MISCONFIGURED, "4.7.0", text=text, fix=fix)


_CLOCK = _row(
    r"short-lived token|reasonable timeframe",
    "the clock of this machine is wrong, it says {now}: set it (timedatectl set-ntp true), then try again",
)
NO_USER = _row(
    r"not a valid email|invalid email or user",
    "{mailbox} is no user of this Workspace: correct backends.{name}.mailbox (a user's own address, not a group)",
)
_BOTH = (
    _row(
        r"admin_policy_enforced|access_denied|org_internal|restricted_client",
        "the Workspace does not allow this app: admin.google.com > Security > Access and data control > API controls > "
        "Manage app access > trust the client {client_id}; for org_internal make the app External",
    ),
    _row(
        r"^invalid_scope",
        "the scope was not accepted: in domain-wide delegation it must be exactly {scope}, several separated by commas",
    ),
)
_ELSEWHERE = _row(
    r"^HTTP \d",
    "check backends.{name}.token_url, and what stands between (a proxy, a firewall): Google's token endpoint does not "
    "answer like this",
)
# https://developers.google.com/identity/protocols/oauth2/service-account#error-codes and .../oauth2/web-server
USER = (
    _CLOCK,
    NO_USER,
    _row(
        r"rapt",
        "the Workspace ends sign-ins after some hours: admin.google.com > Security > Access and data control > Google "
        "Cloud session control > exempt trusted apps, or use a service account; then " + SIGN_IN,
    ),
    _row(
        r"^invalid_grant",
        "the sign-in has ended (withdrawn, password changed, unused for 6 months, or 7 days old while the app is in "
        "testing: publish it at console.cloud.google.com > Google Auth Platform > Audience); " + SIGN_IN,
    ),
    _row(
        r"^(unauthorized_client|invalid_client|deleted_client|disabled_client)",
        "the OAuth client {client_id} is gone or not the one of this sign-in: console.cloud.google.com > Google Auth "
        "Platform > Clients > Create client > Desktop app, download it, then: gateway auth google --client-file FILE "
        "--out {file}",
    ),
    *_BOTH,
    _ELSEWHERE,
    _row("", SIGN_IN),
)
SERVICE = (
    _CLOCK,
    _row(
        r"invalid jwt signature|no valid verifier|invalid_jwt",
        "the key in {file} was deleted or disabled: console.cloud.google.com > IAM & Admin > Service Accounts > "
        "{identity} > Keys > Add key > JSON, and put that file in its place",
    ),
    NO_USER,
    _row(
        r"^unauthorized_client|access_denied",
        "admin.google.com > Security > Access and data control > API controls > Manage domain-wide delegation > Add "
        "new: client id {client_id}, scope {scope}; it may take 24 h. If it is there already: {mailbox} must be a user "
        "of that Workspace",
    ),
    _row(
        r"^(invalid_client|deleted_client|disabled_client|invalid_grant)",
        "the service account {identity} or its key is gone or disabled: console.cloud.google.com > IAM & Admin > "
        "Service Accounts",
    ),
    *_BOTH,
    _row(
        r"iam\.|iamcredentials|permission.denied|SERVICE_DISABLED",
        "let the workload act as {identity}: enable the IAM Service Account Credentials API in its project, and grant "
        "the workload Service Account Token Creator on it",
    ),
    _ELSEWHERE,
    _row("", "check {file} and the service account {identity}"),
)
