"""The ids and the secret of an Entra application as they are copied from its pages: what is taken for what, in words.

Learn, "Register an application": Overview shows Application (client) ID and Directory (tenant) ID; Certificates &
secrets shows a secret's Value, once, and its Secret ID, which is a GUID as well.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, SecretStr, ValidationInfo

_GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_DOMAIN = re.compile(r"(?=.{1,253}$)[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63})+", re.IGNORECASE)
_WORD = re.compile(r"[\w-]{1,63}")
_ANYBODY = ("common", "organizations", "consumers")
_OVERVIEW = 'the app\'s Overview page in Entra shows it as "{}"'
_VALUE = re.compile(r"[\w.~-]{3,8}~[\w.~-]{20,}")  # what a client secret looks like


def _taken_for_secret(text: str) -> str:
    return "this looks like the value of a secret, and " if _VALUE.fullmatch(text) else ""


def _tenant(text: str, info: ValidationInfo) -> str:
    if not text or text.lower() in _ANYBODY or _GUID.fullmatch(text) or _DOMAIN.fullmatch(text):
        return text
    asked = info.data.get("authority") or "login.microsoftonline.com"
    if "microsoftonline." not in asked and _WORD.fullmatch(text):
        return text  # whoever is asked instead of Microsoft names tenants as he likes
    seen = _taken_for_secret(text) or ("this holds more than that: " if re.search(r"[:/@]", text) else "")
    wanted = "a tenant is a GUID, or a domain that is verified there such as example.onmicrosoft.com"
    raise ValueError(f"{seen}{wanted}; {_OVERVIEW.format('Directory (tenant) ID')}")


def _client_id(text: str) -> str:
    if not text or _GUID.fullmatch(text):
        return text
    seen = _taken_for_secret(text) or "this looks like a name, and "
    raise ValueError(f"{seen}a client_id is a GUID; {_OVERVIEW.format('Application (client) ID')}")


def _guid(text: str) -> str:
    if not text or _GUID.fullmatch(text):
        return text
    raise ValueError("this is no GUID, as Entra shows it: 8-4-4-4-12 characters, 0 to 9 and a to f")


def _client_secret(secret: SecretStr) -> SecretStr:
    if _GUID.fullmatch(secret.get_secret_value().strip()):
        where = 'what is wanted is its "Value", which Entra shows only when a secret is made, so make a new one'
        raise ValueError(f"is a GUID, as the id of a secret or of the app is; {where}")
    return secret


Tenant = Annotated[str, AfterValidator(_tenant)]
Guid = Annotated[str, AfterValidator(_guid)]
ClientId = Annotated[str, AfterValidator(_client_id)]
ClientSecret = Annotated[SecretStr, AfterValidator(_client_secret)]
