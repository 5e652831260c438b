"""A strict stand-in for login.microsoftonline.com and Microsoft Graph: it refuses what they refuse.

Written from the documents; nobody has compared it with a real tenant.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from cryptography import x509

TENANT = "11111111-2222-3333-4444-555555555555"
TOKEN = "eyJ-administrator"
CLI = "14d82eec-204b-4c2f-b7e8-296a70dab67e"
GRAPH_SP = "99999999-0000-0000-0000-000000000001"
ROLES = {"Application Mail.Send": "role-send", "Application Mail.Read": "role-read"}
USERS = {"relay@example.com": "user-1", "invoice@example.com": "user-2"}
NAMES = {"displayName", "signInAudience", "tags", "keyCredentials"}


def _id_token(tenant: str) -> str:
    claims = {"tid": tenant, "preferred_username": "admin@example.com"}
    parts = [base64.urlsafe_b64encode(json.dumps(one).encode()).decode().rstrip("=") for one in ({}, claims)]
    return ".".join([*parts, "c2ln"])


@dataclass
class Microsoft:
    """``refuse``: by "METHOD path-prefix" the answer instead, and how often; ``lose``: no answer, but it is done."""

    pending: list[str] = field(default_factory=lambda: ["authorization_pending"])
    refuse: dict[str, tuple[int, str, str, int]] = field(default_factory=dict)
    lose: set[str] = field(default_factory=set)
    unsure: set[str] = field(default_factory=set)  # it is done, and a server in between says 504
    login_error: tuple[str, str] | None = None
    filters: bool = True
    lasts: int = 900  # seconds of a code
    applications: dict[str, dict[str, Any]] = field(default_factory=dict)
    principals: dict[str, str] = field(default_factory=dict)  # id by client id
    rbac: dict[str, dict[str, Any]] = field(default_factory=dict)
    wide: list[dict[str, Any]] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    scopes: list[str] = field(default_factory=list)
    challenge: str = ""
    made: int = 0
    url: str = ""

    def number(self, what: str) -> str:
        self.made += 1
        return f"{self.made:08}-0000-4000-8000-{what.encode().hex()[:12]:0>12}"

    # -- sign-in

    def login(self, path: str, form: dict[str, str]) -> tuple[int, Any]:
        tenant, _, what = path.strip("/").partition("/oauth2/v2.0/")
        assert tenant == "organizations", path
        assert form["client_id"] == CLI
        if what == "devicecode":
            self.scopes = form["scope"].split()
            assert "offline_access" not in self.scopes
            return 200, {"device_code": "dc", "user_code": "ABC", "verification_uri": "https://microsoft.com/devicelogin",
                         "expires_in": self.lasts, "interval": 1, "message": "Open the page and enter ABC"}  # fmt: skip
        assert what == "token"
        if form["grant_type"] == "authorization_code":
            assert form["code"] == "thecode"
            assert re.fullmatch(r"http://localhost:\d+/", form["redirect_uri"])
            digest = hashlib.sha256(form["code_verifier"].encode()).digest()
            assert base64.urlsafe_b64encode(digest).decode().rstrip("=") == self.challenge
        else:
            assert form["grant_type"] == "urn:ietf:params:oauth:grant-type:device_code"
            assert form["device_code"] == "dc"
            if self.pending:
                return 400, {"error": self.pending.pop(0), "error_description": "AADSTS70016: wait"}
        if self.login_error:
            return 400, {"error": self.login_error[0], "error_description": self.login_error[1]}
        return 200, {"access_token": TOKEN, "token_type": "Bearer", "expires_in": 3599, "id_token": _id_token(TENANT)}

    # -- Graph

    def graph(self, method: str, target: str, body: Any) -> tuple[int, Any]:
        parts = urlsplit(target)
        path, query = unquote(parts.path), {key: one[0] for key, one in parse_qs(parts.query).items()}
        call = f"{method} {path}"
        self.calls.append(call)
        for key, (status, code, words, times) in list(self.refuse.items()):
            if call.startswith(key) and times:
                self.refuse[key] = (status, code, words, times - 1)
                return status, {"error": {"code": code, "message": words}}
        for pattern, does in (
            (r"GET /v1.0/users/(.+)", self._user),
            (r"GET /v1.0/applications", self._find),
            (r"GET /v1.0/applications/(.+)", self._application),
            (r"POST /v1.0/applications", self._make),
            (r"DELETE /v1.0/applications/(.+)", self._delete),
            (r"GET /v1.0/servicePrincipals", self._principals),
            (r"POST /v1.0/servicePrincipals", self._principal),
            (r"POST /v1.0/servicePrincipals/(.+)/appRoleAssignments", self._grant),
            (r"GET /beta/roleManagement/exchange/roleDefinitions", self._roles),
            (r"GET /beta/roleManagement/exchange/roleAssignments", self._assignments),
            (r"POST /beta/roleManagement/exchange/roleAssignments", self._assign),
            (r"DELETE /beta/roleManagement/exchange/roleAssignments/(.+)", self._unassign),
        ):
            if match := re.fullmatch(pattern, call):
                return does(*match.groups(), query=query, body=body)
        raise AssertionError(f"no such call: {call}")

    def _user(self, address: str, **_: Any) -> tuple[int, Any]:
        if address not in USERS:
            return 404, {
                "error": {"code": "Request_ResourceNotFound", "message": f"Resource '{address}' does not exist"}
            }
        return 200, {"id": USERS[address], "mail": address}

    def _find(self, query: dict[str, str], **_: Any) -> tuple[int, Any]:
        wanted = re.fullmatch("displayName eq '(.*)'", query["$filter"])
        assert wanted
        keys = set(query["$select"].split(",")) - {"keyCredentials"}  # never in a list
        rows = [one for one in self.applications.values() if one["displayName"] == wanted[1].replace("''", "'")]
        return 200, {"value": [{key: row[key] for key in keys} for row in rows]}

    def _application(self, one: str, query: dict[str, str], **_: Any) -> tuple[int, Any]:
        if one not in self.applications:
            return 404, {"error": {"code": "Request_ResourceNotFound", "message": "gone"}}
        return 200, {key: self.applications[one].get(key) for key in query["$select"].split(",")}

    def _make(self, body: Any, **_: Any) -> tuple[int, Any]:
        assert set(body) == NAMES, body  # no requiredResourceAccess: it would invite a wider grant
        assert body["signInAudience"] == "AzureADMyOrg"
        (key,) = body["keyCredentials"]
        assert (key["type"], key["usage"]) == ("AsymmetricX509Cert", "Verify")
        assert "keyId" not in key
        found = x509.load_der_x509_certificate(base64.b64decode(key["key"], validate=True))
        if key["endDateTime"] > f"{found.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}":
            return 400, {
                "error": {"code": "KeyCredentialsInvalidEndDate", "message": "Key credential end date is invalid."}
            }
        made = {**body, "id": self.number("object"), "appId": self.number("client")}
        made["keyCredentials"] = [{**key, "keyId": self.number("key")}]
        self.applications[made["id"]] = made
        return 201, made

    def _delete(self, one: str, **_: Any) -> tuple[int, Any]:
        gone = self.applications.pop(one, None)
        self.principals.pop(str(gone and gone["appId"]), None)
        return (204, None) if gone else (404, {"error": {"code": "Request_ResourceNotFound", "message": "gone"}})

    def _principals(self, query: dict[str, str], **_: Any) -> tuple[int, Any]:
        wanted = query["$filter"].removeprefix("appId eq '").removesuffix("'")
        known = {"00000003-0000-0000-c000-000000000000": GRAPH_SP, **self.principals}
        return 200, {"value": [{"id": known[wanted]}] if wanted in known else []}

    def _principal(self, body: Any, **_: Any) -> tuple[int, Any]:
        assert set(body) == {"appId"}
        if body["appId"] not in {one["appId"] for one in self.applications.values()}:
            return 400, {
                "error": {"code": "Request_BadRequest", "message": "does not reference a valid application object"}
            }
        if body["appId"] in self.principals:
            return 409, {"error": {"code": "Request_MultipleObjectsWithSameKeyValue", "message": "already in use"}}
        self.principals[body["appId"]] = self.number("principal")
        return 201, {"id": self.principals[body["appId"]]}

    def _grant(self, one: str, body: Any, **_: Any) -> tuple[int, Any]:
        assert one in self.principals.values()
        assert body == {"principalId": one, "resourceId": GRAPH_SP, "appRoleId": "b633e1c5-b582-4048-a93e-9f11b44c7e96"}
        if body in self.wide:
            return 400, {"error": {"code": "Request_BadRequest", "message": "Permission being assigned already exists"}}
        self.wide.append(body)
        return 201, {"id": "wide-1"}

    def _roles(self, query: dict[str, str], **_: Any) -> tuple[int, Any]:
        if query and not self.filters:
            return 400, {"error": {"code": "BadRequest", "message": "the filter is not supported"}}
        rows = [{"id": one, "displayName": name} for name, one in ROLES.items()]
        return 200, {"value": [row for row in rows if not query or f"'{row['displayName']}'" in query["$filter"]]}

    def _assignments(self, query: dict[str, str], **_: Any) -> tuple[int, Any]:
        rows = list(self.rbac.values())  # two pages
        if query or len(rows) < 2:
            return 200, {"value": rows[1:] if query else rows}
        link = f"{self.url}/beta/roleManagement/exchange/roleAssignments?$skiptoken=2"
        return 200, {"value": rows[:1], "@odata.nextLink": link}

    def _assign(self, body: Any, **_: Any) -> tuple[int, Any]:
        assert set(body) == {"principalId", "roleDefinitionId", "directoryScopeId", "appScopeId"}
        kind, _, principal = body["principalId"].strip("/").partition("/")
        assert (kind, body["roleDefinitionId"], body["appScopeId"]) == ("ServicePrincipals", "role-send", None)
        assert principal in self.principals.values()
        assert body["directoryScopeId"] in {f"/Users/{one}" for one in USERS.values()}
        if any(all(row[key] == one for key, one in body.items()) for row in self.rbac.values()):
            return 409, {"error": {"code": "Conflict", "message": "it exists"}}
        one = self.number("assignment")
        self.rbac[one] = {"id": one, **body}
        return 201, self.rbac[one]

    def _unassign(self, one: str, **_: Any) -> tuple[int, Any]:
        gone = self.rbac.pop(one, None)
        return (204, None) if gone else (404, {"error": {"code": "NotFound", "message": "gone"}})

    @contextmanager
    def running(self) -> Iterator[Microsoft]:
        fake = self

        class Endpoint(BaseHTTPRequestHandler):
            def answer(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                raw = self.rfile.read(length)
                if "/oauth2/v2.0/" in self.path:
                    form = {key: one[0] for key, one in parse_qs(raw.decode(), strict_parsing=True).items()}
                    status, body = fake.login(self.path, form)
                else:
                    assert self.headers["authorization"] == f"Bearer {TOKEN}"
                    status, body = fake.graph(self.command, self.path, json.loads(raw) if raw else None)
                call = f"{self.command} {urlsplit(self.path).path}"
                if call in fake.lose:
                    fake.lose.remove(call)
                    self.close_connection = True
                    self.connection.close()
                    return
                if call in fake.unsure:
                    fake.unsure.remove(call)
                    status, body = 504, {"error": {"code": "UnknownError", "message": ""}}
                content = b"" if body is None else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_DELETE = answer  # noqa: N815 - the names of http.server

            def log_message(self, *_: object) -> None: ...

        with ThreadingHTTPServer(("127.0.0.1", 0), Endpoint) as server:
            self.url = f"http://127.0.0.1:{server.server_address[1]}"
            thread = threading.Thread(target=server.serve_forever, args=(0.01,))
            thread.start()
            try:
                yield self
            finally:
                server.shutdown()
                thread.join()
