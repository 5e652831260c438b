"""Every call that the set-up at Microsoft would make, for ``--dry-run``."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.setup.application import ROLE, TAG, Wish
from gateway.setup.state import State

_RBAC = "/beta/roleManagement/exchange"


def calls(state: State, wish: Wish, *, remove: bool = False) -> list[str]:
    """In their order, as method and path; {..} is what an earlier answer says."""
    return list(_undo(state) if remove else _do(state, wish))


def _do(state: State, wish: Wish) -> Iterator[str]:
    yield "sign in, for: " + " ".join(wish.scopes)
    if not wish.wide:
        yield from (f"GET /v1.0/users/{one}?$select=id,mail,userPrincipalName" for one in wish.mailboxes)
    if not state.object_id:
        yield f"GET /v1.0/applications?$filter=displayName eq '{state.display_name}'"
        yield f"POST /v1.0/applications displayName={state.display_name} tags={TAG} keyCredentials={{the certificate}}"
    if not state.principal_id:
        yield f"POST /v1.0/servicePrincipals appId={state.client_id or '{client id}'}"
    principal = state.principal_id or "{service principal}"
    if wish.wide:
        yield "GET /v1.0/servicePrincipals?$filter=appId eq '00000003-0000-0000-c000-000000000000'"
        yield f"POST /v1.0/servicePrincipals/{principal}/appRoleAssignments appRole=Mail.Send"
        return
    yield f"GET {_RBAC}/roleDefinitions?$filter=displayName eq '{ROLE}'"
    yield f"GET {_RBAC}/roleAssignments"
    for one in wish.mailboxes:
        if one not in state.assignments:
            yield f"POST {_RBAC}/roleAssignments principal={principal} role={ROLE} scope=/Users/{{id of {one}}}"


def _undo(state: State) -> Iterator[str]:
    yield from (f"DELETE {_RBAC}/roleAssignments/{one}" for mailbox, one in state.assignments.items() if mailbox)
    if state.object_id:
        yield f"GET /v1.0/applications/{state.object_id}"
        yield f"DELETE /v1.0/applications/{state.object_id}"
