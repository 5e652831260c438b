"""APIs with a key that can be asked what became of a mail."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import quote

from gateway.backends.json.parts import BLANKS, UNTRIED, WHERE, PartsBackend, PartsSettings
from gateway.backends.shared.base import Context, NoAnswer, safe
from gateway.backends.shared.calls import Call
from gateway.backends.shared.http import BUSY_403
from gateway.backends.shared.table import Row
from gateway.checks import Check, good, reached, wrong
from gateway.config.values import ApiKey
from gateway.fetch import Answer
from gateway.model import DeliveryEvent, Outcome, SpooledMessage, Verdict
from gateway.strangers import lenient_json

ACCEPTED = (200, 201, 202)
_NOT_YET = Row((404,), Verdict.DEFERRED, "4.3.0")  # a mail of which the API has not heard yet


def key_rows(permission: str = "") -> tuple[Row, ...]:
    """For tables of APIs with a key: what is wrong with that, and with the way there."""
    fix = f"put a valid key into api_key of backends.{{name}}{permission}"
    wrong_key = Row((401, 403), Verdict.MISCONFIGURED, "4.7.0", fix=fix)
    return BUSY_403, wrong_key, Row((404,), Verdict.MISCONFIGURED, "4.3.5", fix=WHERE)


class KeySettings(PartsSettings):
    """An API with a key."""

    api_key: ApiKey


class TrackedBackend(PartsBackend):
    """One POST for each call, to an API that can be asked for the state of a mail.

    It takes a key, and tells a wrong key from an unknown id.
    """

    path: ClassVar[str]
    key_field: ClassVar[tuple[str, str]] = ("authorization", "Bearer ")  # the key's header field, and what precedes it
    status_path: ClassVar[str]  # in front of the id
    unknown: ClassVar[str]  # an id that nobody has
    states: ClassVar[Mapping[str, str]]  # of DeliveryEvent, by the provider's own word in lower case; others are queued

    def __init__(
        self,
        name: str,
        settings: KeySettings,
        context: Context,
        *,
        secrets: Sequence[str] = (),
        carries: Collection[str] = (),
    ) -> None:
        key, (field, scheme) = settings.api_key.get_secret_value(), self.key_field
        headers, carries = {field: scheme + key}, ("both_bodies", *BLANKS, *carries)
        super().__init__(name, settings, context, headers=headers, secrets=(key, *secrets), carries=carries)

    def state(self, body: Mapping[str, Any]) -> tuple[str, str]:
        """The provider's word for the state, "" if there is none, and what went wrong."""
        return str(body.get("status") or ""), str(body.get("error") or "")

    def taken(self, answer: Answer, body: Mapping[str, Any]) -> str | None:
        """What the provider calls the mail it took; None if it did not take it."""
        remote_id = body.get("id")
        return remote_id if answer.status in ACCEPTED and isinstance(remote_id, str) and remote_id else None

    async def _call(self, message: SpooledMessage, call: Call) -> dict[str, Outcome]:
        answer = await self._request("POST", self.path, call.content())
        return dict.fromkeys(call.addresses, self._judged(answer))

    def _judged(self, answer: Answer) -> Outcome:
        remote_id = self.taken(answer, lenient_json(answer.body))
        if remote_id is None:
            return self._refused(answer, self.rows)
        detail = safe(f"HTTP {answer.status} {remote_id}".rstrip(), *self._secrets)
        return Outcome(Verdict.SENT, answer.status, "2.0.0", detail, safe(remote_id, *self._secrets), said_by="http")

    async def status(self, remote_id: str) -> DeliveryEvent | Outcome:
        try:
            answer = await self._request("GET", self.status_path + quote(remote_id, safe=""))
        except NoAnswer as error:
            return error.outcome
        word, detail = self.state(lenient_json(answer.body)) if answer.status == 200 else ("", "")
        if not word:
            return self._refused(answer, (_NOT_YET,))
        state = self.states.get(word.lower(), "queued")
        return DeliveryEvent(remote_id, state, safe(f"{word} {detail}", *self._secrets))

    async def check(self) -> Check:
        """Asks for a mail that does not exist."""
        try:
            answer = await self._request("GET", self.status_path + quote(self.unknown, safe=""))
        except NoAnswer as error:
            return self._unreachable(error)
        facts = {"url": self._url}
        if answer.status in (200, 400, 404, 422) and lenient_json(answer.body):
            steps = (reached(self._url), good("The key is accepted."), UNTRIED)
            return Check(True, "the key is accepted", facts=facts, steps=steps)
        outcome = self._refused(answer, self.rows)
        later = outcome.verdict in (Verdict.THROTTLED, Verdict.DEFERRED)
        fix = outcome.fix or ("try again later" if later else WHERE.format(name=self.name))
        wrongly = "It cannot say now whether the key is good." if later else "The key is not accepted."
        steps = (reached(self._url), wrong(wrongly, outcome.detail), UNTRIED)
        return Check(False, outcome.detail, fix, facts, steps)
