"""Why Entra ID gives no token, by its codes, and what to do.

https://learn.microsoft.com/entra/identity-platform/reference-error-codes
"""

from __future__ import annotations

from collections.abc import Iterable

from gateway.backends.shared.table import ANY, Row
from gateway.model import Verdict

SIGN_IN = "sign in again: gateway auth microsoft --backend {name}"
_SECRET = "make a new client secret (Certificates & secrets) and put its Value, not its Secret ID, into client_secret"  # noqa: S105
_FEDERATED = (
    "give the application a federated credential ({part}) as in the token of federated_token_file, to the byte: "
    "Certificates & secrets > Federated credentials; a new one counts after some minutes"
)
_CONSENT = "grant the application its permissions with admin consent, or by RBAC for Applications in Exchange"
_CLOCK = "set the clock of this machine (timedatectl shows it): Entra sees another time"


def _row(codes: str, fix: str) -> Row:
    """For an AADSTS code, or else for the error; "" for all that are left."""
    return Row(ANY, Verdict.MISCONFIGURED, "4.7.0", code=tuple(codes.split()) or "", fix=fix)


ROWS = (
    _row("7000215", _SECRET),
    _row("7000222", f"the client secret has expired: {_SECRET}"),
    _row(
        "1000502",
        "the certificate has ended, or is not good yet: make a new one and upload it (Certificates & secrets)",
    ),
    _row("700027", "upload the certificate of certificate_file to the application (Certificates & secrets)"),
    _row("700024", _CLOCK),
    _row("700016", "check client_id, and that tenant is the one where the application is registered"),
    _row("7000218", "allow public client flows: Authentication, Settings, in the application's registration"),
    _row("90002", "there is no such tenant: check tenant and cloud"),
    _row("53003", "a Conditional Access policy forbids it: exclude this application or sign-in"),
    _row("invalid_client", "check client_id and client_secret or certificate_file"),
    _row("unauthorized_client", "check client_id and tenant, and the kinds of accounts that the application allows"),
    _row("invalid_grant interaction_required consent_required", _CONSENT),
    _row("invalid_scope invalid_resource", "check cloud: it chooses whom the permission is asked of"),
)
_ISSUER_KEYS = (
    "see that the issuer of the token in federated_token_file shows its keys to the world: ISSUER/.well-known/"
    "openid-configuration, by HTTPS, RS256"
)
# learn.microsoft.com/entra/workload-id/workload-identity-federation-considerations
_OF_FEDERATED = (
    _row("70021", _FEDERATED.format(part="issuer, subject, audience")),
    _row("700211", _FEDERATED.format(part="its issuer, with the slash at the end or without")),
    _row("700212", _FEDERATED.format(part="its audience, usually api://AzureADTokenExchange")),
    _row("700213", _FEDERATED.format(part="its subject, such as system:serviceaccount:mail:gateway")),
    _row("700024", f"see who renews federated_token_file, for the token in it is outside its time; or {_CLOCK}"),
    _row("50013", _ISSUER_KEYS),
    _row("invalid_client", "check client_id, and the federated credential of the application"),
)
_OTHERWISE = _row("", "check tenant, client_id and the credential of backends.{name}")
_BY_KIND = {
    "": ROWS,
    # A person has a way of his own out of most of them, and a managed identity one for all.
    "login": (_row("invalid_grant interaction_required consent_required", SIGN_IN), *ROWS),
    "federated": (*_OF_FEDERATED, *ROWS),
    "managed": (_row("", "give this machine a managed identity in Azure, and client_id if it has several"),),
}


def first(kind: str, codes: Iterable[str]) -> Row:
    """The row of the first code that is known. ``kind`` of right: login, federated, managed, "" for any other."""
    found = (row for code in codes for row in _BY_KIND[kind] if row.fits(0, code, ""))
    return next(found, _OTHERWISE)
