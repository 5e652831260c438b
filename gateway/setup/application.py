"""The application at Microsoft: made step by step, each kept before the next, and taken away again."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from gateway.setup.certificate import credential
from gateway.setup.graph import Graph, Refused
from gateway.setup.state import State

TAG = "smtp-gateway"  # on what we have made; nothing else is ever touched
ROLE = "Application Mail.Send"
_GRAPH = "00000003-0000-0000-c000-000000000000"  # Microsoft Graph's own application id
_MAIL_SEND = "b633e1c5-b582-4048-a93e-9f11b44c7e96"  # its application permission Mail.Send
_RBAC = "/beta/roleManagement/exchange"
_LATE = ("does not reference a valid application", "does not exist", "principal", "couldn't find", "not found")
_POLICY = (
    "a policy of your tenant for applications forbids it (Entra > Enterprise applications > Application policies): "
    "ask for an exception, or bring a certificate of your own authority with --certificate-file"
)

SCOPES = ("Application.ReadWrite.All", "User.ReadBasic.All")
RBAC_SCOPES = ("RoleManagement.ReadWrite.Exchange",)
WIDE_SCOPES = ("AppRoleAssignment.ReadWrite.All",)


@dataclass(frozen=True, slots=True)
class Wish:
    """``mailboxes`` that it may send as; ``wide``: as every one of the tenant."""

    mailboxes: tuple[str, ...]
    wide: bool = False

    @property
    def scopes(self) -> tuple[str, ...]:
        return tuple(
            f"https://graph.microsoft.com/{one}" for one in (*SCOPES, *(WIDE_SCOPES if self.wide else RBAC_SCOPES))
        )


class Stopped(Exception):
    """A step was refused; ``fix`` says what to do, and ``by_hand`` are lines for PowerShell that do it."""

    def __init__(self, error: Refused, fix: str, by_hand: Iterable[str] = ()) -> None:
        super().__init__(str(error))
        self.fix = fix
        self.by_hand = tuple(by_hand)


@dataclass(slots=True)
class Maker:
    """``keep`` stores the state; ``tell`` says what was done."""

    graph: Graph
    state: State
    certificate: bytes
    keep: Callable[[State], None]
    tell: Callable[[str], None]

    async def make(self, wish: Wish) -> State:
        """All that is still missing. Raises Stopped; what was made so far is kept."""
        people = {} if wish.wide else {one: await self._mailbox(one) for one in wish.mailboxes}
        await self._application()
        await self._principal()
        if wish.wide:
            await self._everywhere()
        elif missing := [one for one in people if one not in self.state.assignments]:
            await self._in_exchange(missing, people)
        return self.state

    async def remove(self) -> None:
        """The rights first, then the application and its service principal. What is gone already is no trouble."""
        for mailbox, assignment in list(self.state.assignments.items()):
            path = f"{_RBAC}/roleAssignments/{quote(assignment, safe='')}"
            if mailbox:  # those in Entra go with the service principal
                await self._gone(path, f"the right to send as {mailbox}")
            self._put(
                replace(self.state, assignments={k: v for k, v in self.state.assignments.items() if k != mailbox})
            )
        if self.state.object_id:
            found = await self._own(self.state.object_id)
            if found:
                await self._gone(f"/v1.0/applications/{self.state.object_id}", f"application {self.state.display_name}")
            self._put(replace(self.state, object_id="", client_id="", key_id="", principal_id=""))

    async def _gone(self, path: str, what: str) -> None:
        try:
            await self.graph.call("DELETE", path)
            self.tell(f"removed: {what}")
        except Refused as error:
            if error.status != 404:
                raise Stopped(error, _fix(error), ()) from None
            self.tell(f"was gone already: {what}")

    async def _own(self, object_id: str) -> dict[str, Any] | None:
        """The application, if it is there and ours. Raises Stopped."""
        try:
            found = await self.graph.get(
                f"/v1.0/applications/{object_id}", **{"$select": "id,appId,tags,keyCredentials"}
            )
        except Refused as error:
            if error.status == 404:
                return None
            raise Stopped(error, _fix(error)) from None
        if TAG not in found.get("tags", ()):
            wrong = Refused(f"application {object_id}", 0, "", f"it does not carry our tag {TAG}, so it is left alone")
            raise Stopped(wrong, "see in Entra > App registrations who made it")
        return found

    async def _mailbox(self, address: str) -> str:
        try:
            found = await self.graph.get(
                f"/v1.0/users/{quote(address, safe='@')}", **{"$select": "id,mail,userPrincipalName"}
            )
        except Refused as error:
            fix = f"there is no user or shared mailbox {address}; a group or a distribution list will not do"
            raise Stopped(error, fix if error.status == 404 else _fix(error)) from None
        return str(found["id"])

    async def _application(self) -> None:
        if self.state.object_id and await self._own(self.state.object_id):
            return
        name = self.state.display_name
        found = await self._find(name)
        if found is None:
            body = {
                "displayName": name, "signInAudience": "AzureADMyOrg", "tags": [TAG],
                "keyCredentials": [credential(self.certificate)],
            }  # fmt: skip
            try:
                found = await self.graph.call("POST", "/v1.0/applications", body)
            except Refused as error:
                if error.status or (found := await self._find(name)) is None:  # else only the answer was lost
                    raise Stopped(error, _POLICY if error.status == 400 else _fix(error)) from None
        keys = found.get("keyCredentials") or [{}]
        self._put(replace(self.state, object_id=str(found["id"]), client_id=str(found["appId"]),
                          key_id=str(keys[0].get("keyId") or ""), principal_id="", assignments={}))  # fmt: skip
        self.tell(f"application {name}: client id {self.state.client_id}")

    async def _find(self, name: str) -> dict[str, Any] | None:
        """One of ours with this name and this very certificate. Another's of the same name is left alone."""
        text = name.replace("'", "''")
        query = {"$filter": f"displayName eq '{text}'", "$select": "id,appId,tags,displayName"}
        try:
            rows = await self.graph.every("/v1.0/applications", **query)
        except Refused as error:
            raise Stopped(error, _fix(error)) from None
        mine = credential(self.certificate)["key"]
        for row in rows:
            if TAG in row.get("tags", ()):
                whole = await self._own(str(row["id"]))  # key bytes come only with one object, and when asked for
                if whole and any(one.get("key") == mine for one in whole.get("keyCredentials", ())):
                    return whole
        return None

    async def _principal(self) -> None:
        if self.state.principal_id:
            return
        body = {"appId": self.state.client_id}
        try:
            found = await self.graph.lagging("POST", "/v1.0/servicePrincipals", body, _LATE)
        except Refused as error:
            query = {"$filter": f"appId eq '{self.state.client_id}'", "$select": "id"}
            there = [] if error.status == 403 else await self.graph.every("/v1.0/servicePrincipals", **query)
            if not there:
                raise Stopped(error, _fix(error)) from None
            found = there[0]
        self._put(replace(self.state, principal_id=str(found["id"])))
        self.tell(f"service principal: {self.state.principal_id}")

    async def _everywhere(self) -> None:
        if "" in self.state.assignments:
            return
        query = {"$filter": f"appId eq '{_GRAPH}'", "$select": "id"}
        path = f"/v1.0/servicePrincipals/{self.state.principal_id}/appRoleAssignments"
        try:
            resource = (await self.graph.every("/v1.0/servicePrincipals", **query))[0]["id"]
            body = {"principalId": self.state.principal_id, "resourceId": resource, "appRoleId": _MAIL_SEND}
            found = await self.graph.lagging("POST", path, body, _LATE)
        except Refused as error:
            if error.status != 400 or "already exist" not in error.words.lower():
                fix = "it takes a Privileged Role Administrator or Global Administrator"
                raise Stopped(error, fix if error.status == 403 else _fix(error)) from None
            found = {"id": "there already"}
        self._put(self.state.granted("", str(found.get("id"))))
        self.tell("it may send as every mailbox of the tenant (Mail.Send in Entra)")

    async def _in_exchange(self, missing: list[str], people: dict[str, str]) -> None:
        principal = f"/ServicePrincipals/{self.state.principal_id}"
        try:
            role = await self._role()
            there = await self.graph.every(f"{_RBAC}/roleAssignments")
        except Refused as error:
            raise Stopped(error, _exchange_fix(error), by_hand(self.state, missing)) from None
        for address in missing:
            scope = f"/Users/{people[address]}"
            body = {"principalId": principal, "roleDefinitionId": role, "directoryScopeId": scope, "appScopeId": None}
            try:
                made = _same(there, body) or await self._assign(body)
            except Refused as error:
                left = [one for one in missing if one not in self.state.assignments]
                raise Stopped(error, _exchange_fix(error), by_hand(self.state, left)) from None
            self._put(self.state.granted(address, str(made["id"])))
            self.tell(f"it may send as {address} ({ROLE} in Exchange)")

    async def _assign(self, body: dict[str, Any]) -> dict[str, Any]:
        """It may be there by now, or the answer was lost. Raises Refused."""
        path = f"{_RBAC}/roleAssignments"
        try:
            return await self.graph.lagging("POST", path, body, _LATE)
        except Refused as error:
            there = _same(await self.graph.every(path), body) if error.status in (0, 409) else None
            if there is None:
                raise
            return there

    async def _role(self) -> str:
        """Its id. Raises Refused."""
        path = f"{_RBAC}/roleDefinitions"
        try:
            rows = await self.graph.every(path, **{"$filter": f"displayName eq '{ROLE}'"})
        except Refused as error:
            if error.status != 400:
                raise
            rows = await self.graph.every(path)  # the filter is refused
        for row in rows:
            if row.get("displayName") == ROLE:
                return str(row["id"])
        raise Refused(f"GET {path}", 0, "", f"there is no role {ROLE}")

    def _put(self, state: State) -> None:
        self.keep(state)
        self.state = state


def _same(rows: list[dict[str, Any]], body: dict[str, Any]) -> dict[str, Any] | None:
    """An assignment that is this very one; how an id is spelled varies."""

    def last(text: Any) -> str:
        return str(text or "").rpartition("/")[2].lower()

    keys = ("principalId", "roleDefinitionId", "directoryScopeId")
    return next((row for row in rows if all(last(row.get(key)) == last(body[key]) for key in keys)), None)


def by_hand(state: State, mailboxes: Iterable[str]) -> list[str]:
    """What an Exchange Administrator types, with the ids filled in. Single quotes are doubled (about_Quoting_Rules)."""
    quoted = ["'" + re.sub("(['\u2018\u2019\u201a\u201b])", r"\1\1", one) + "'" for one in mailboxes]
    app = state.client_id
    inner = " -or ".join(f"PrimarySmtpAddress -eq {one}" for one in quoted)
    return [
        "Connect-ExchangeOnline",
        f"New-ServicePrincipal -AppId {state.client_id} -ObjectId {state.principal_id} -DisplayName gateway",
        f'New-ManagementScope -Name gateway-{state.client_id[:8]} -RecipientRestrictionFilter "{inner}"',
        f'New-ManagementRoleAssignment -App {app} -Role "{ROLE}" -CustomResourceScope gateway-{app[:8]}',
        *(
            f"Test-ServicePrincipalAuthorization -Identity {state.client_id} -Resource {one} | Format-Table"
            for one in quoted
        ),
    ]


def _fix(error: Refused) -> str:
    if error.status == 403:
        return "your role is too small: it takes an Application Administrator; then run it with --resume"
    if error.status == 401:
        return "the sign-in has ended: run it again with --resume"
    return "run it again with --resume; if it stays so, docs/microsoft365.md has the steps by hand"


def _exchange_fix(error: Refused) -> str:
    if error.status == 403:
        return (
            "it takes an Exchange Administrator, and the consent of a Global Administrator to "
            "RoleManagement.ReadWrite.Exchange; run it with --resume as one of them, or type in PowerShell:"
        )
    return "this part of Microsoft Graph is beta and was refused; an Exchange Administrator can type it in PowerShell:"
