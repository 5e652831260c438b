"""What is done at one mailbox: send MIME, send by way of a draft, find out whether something was sent."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from urllib.parse import quote

from gateway.address import comparable
from gateway.backends.microsoft.api import IMMUTABLE, Api, unsent
from gateway.backends.shared.base import NoAnswer
from gateway.fetch import Answer
from gateway.model import Outcome, Scope, Verdict
from gateway.strangers import lenient_json

_TOO_LARGE = 3_000_000  # bytes of a request that Graph has been seen to answer with 200, and to forget
_MOVING = 5.0  # seconds for a message to get from Drafts to Sent Items
_CLEANING = 10.0  # seconds for the removal of a draft
_WHO = "isDraft,toRecipients,ccRecipients,bccRecipients"


@dataclass(frozen=True, slots=True)
class Found:
    """Whom an earlier attempt has reached (comparable addresses), and what there is to say about it."""

    addresses: frozenset[str] = frozenset()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Mailbox:
    """A mailbox. ``path`` is where it stands in the API: /me or /users/..."""

    api: Api
    path: str

    async def send_mime(self, body: bytes, request_id: str) -> Outcome:
        """``body`` in base64. Graph gives no id, so the outcome carries the one that the request had."""
        headers = {"content-type": "text/plain", "client-request-id": request_id}
        try:
            answer = await self.api.call("POST", f"{self.path}/sendMail", content=body, headers=headers)
        except NoAnswer as error:
            if error.outcome.verdict is not Verdict.IN_DOUBT:
                raise  # it never came so far
            outcome = error.outcome
        else:
            if answer.status == 202:
                return Outcome(
                    Verdict.SENT, 202, "2.0.0", f"client-request-id {request_id}", request_id, said_by="http"
                )
            outcome = self.api.judge(answer)
            if outcome.verdict is Verdict.IN_DOUBT and answer.status < 300 and len(body) > _TOO_LARGE:
                outcome = replace(outcome, verdict=Verdict.REJECTED, enhanced="5.3.4")  # graph-docs issue 13979
        return replace(outcome, detail=f"{outcome.detail}; client-request-id {request_id}")

    async def send_by_draft(
        self, content: bytes, content_type: str, fill: Callable[[str], Awaitable[None]] | None = None
    ) -> Outcome:
        """Create a draft, let ``fill`` add to it, send it. It is removed again when it was certainly not sent.

        Raises NoAnswer.
        """
        draft = await self._create(content, content_type)
        try:
            if fill:
                await fill(self._message(draft))
        except BaseException:
            await self._discard(draft)
            raise
        # Once the sending has begun it is only removed when it is surely a draft still, and not the copy that was sent.
        outcome = await self._send_draft(draft)
        if outcome.verdict not in (Verdict.SENT, Verdict.IN_DOUBT):
            await self._discard(draft)
        return outcome

    async def _create(self, content: bytes, content_type: str) -> str:
        headers = {"content-type": content_type, **IMMUTABLE}
        with unsent("draft"):
            answer = await self.api.call("POST", f"{self.path}/messages", content=content, headers=headers)
            draft = lenient_json(answer.body).get("id")
            if answer.status != 201 or not isinstance(draft, str) or not draft or not draft.isascii():
                raise NoAnswer(self.api.judge(answer))
        return draft

    async def _send_draft(self, draft: str) -> Outcome:
        """Where the answer is lost the draft itself tells what happened: it has an id that stays."""
        outcome = Outcome(Verdict.IN_DOUBT)
        for _ in range(2):
            try:
                answer = await self.api.call("POST", f"{self._message(draft)}/send", content=b"", headers=IMMUTABLE)
                if answer.status == 202:
                    return Outcome(Verdict.SENT, 202, "2.0.0", "sent from a draft", draft, said_by="http")
                outcome = self.api.judge(answer)
                sure = answer.status < 500 and answer.status != 404
            except NoAnswer as error:
                outcome, sure = error.outcome, True
            sure = sure and outcome.verdict is not Verdict.IN_DOUBT
            state = "draft" if sure else await self._state(draft)
            if state == "sent":
                detail = "sent from a draft; its answer was lost"
                return Outcome(Verdict.SENT, enhanced="2.0.0", detail=detail, remote_id=draft)
            if state == "draft" and outcome.verdict is not Verdict.IN_DOUBT:
                return outcome
            if state != "draft":
                break
        doubt = replace(outcome, verdict=Verdict.IN_DOUBT, enhanced="4.4.2", remote_id=draft, fix="")
        return replace(doubt, scope=Scope.MESSAGE)

    async def _state(self, draft: str) -> str:
        """draft, sent, or "" where that is not known."""
        with contextlib.suppress(NoAnswer):
            for _ in range(2):
                # It may just be on its way from one folder to the other: 404.
                await self.api.context.clock.sleep(_MOVING)
                answer = await self.api.call("GET", f"{self._message(draft)}?$select=isDraft", headers=IMMUTABLE)
                if answer.status == 200:
                    is_draft = lenient_json(answer.body).get("isDraft")
                    return {True: "draft", False: "sent"}.get(is_draft, "") if isinstance(is_draft, bool) else ""
                if answer.status != 404:
                    break
        return ""

    async def _discard(self, draft: str) -> None:
        with contextlib.suppress(TimeoutError, NoAnswer):
            async with asyncio.timeout(_CLEANING):
                await self.api.call("DELETE", self._message(draft), headers=IMMUTABLE)

    async def look(self, message_id: str, doubt_id: str, *, drafts: bool) -> Found:
        """Whom an attempt in doubt has reached. Raises NoAnswer where that cannot be said: then nothing may be sent.

        With ``drafts`` what a killed attempt left in Drafts is removed.
        """
        with unsent("look-up after a lost answer"):
            if doubt_id:
                answer = await self.api.call("GET", f"{self._message(doubt_id)}?$select={_WHO}", headers=IMMUTABLE)
                if answer.status == 200 and lenient_json(answer.body).get("isDraft") is True:
                    await self._discard(doubt_id)
                    return Found()
                if answer.status not in (400, 404):  # unless it is no id of this mailbox
                    return self._found(answer)
            if not message_id:
                return Found(note="; not looked up, there is no Message-ID")
            wanted = quote(f"internetMessageId eq '{message_id.replace(chr(39), chr(39) * 2)}'", safe="")
            query = f"/messages?$filter={wanted}&$select={_WHO}&$top=1000"
            # Only there: a copy in the Inbox may have come by another way, for others than those who stand in it.
            found = self._found(await self.api.call("GET", f"{self.path}/mailFolders/sentitems{query}"))
            if drafts:
                await self._clean(f"{self.path}/mailFolders/drafts{query}")
            return found

    async def _clean(self, url: str) -> None:
        with contextlib.suppress(NoAnswer):
            answer = await self.api.call("GET", url, headers=IMMUTABLE)
            values = lenient_json(answer.body).get("value") if answer.status == 200 else []
            for one in values if isinstance(values, list) else []:
                if isinstance(one, dict) and one.get("isDraft") is True and isinstance(one.get("id"), str):
                    await self._discard(one["id"])

    def _found(self, answer: Answer) -> Found:
        if answer.status == 403:
            return Found(note="; not looked up after a lost answer, that needs Mail.Read or Mail.ReadBasic")
        if answer.status == 400:
            return Found(note="; not looked up after a lost answer, Graph refuses to search for its Message-ID")
        if answer.status != 200:
            outcome = self.api.judge(answer)
            if outcome.verdict is Verdict.REJECTED:  # the look-up was, not the mail
                outcome = replace(outcome, verdict=Verdict.DEFERRED, enhanced="4.3.0")
            raise NoAnswer(outcome)
        body = lenient_json(answer.body)
        try:
            sent = [one for one in body.get("value", [body]) if not one["isDraft"]]
            people = [person["emailAddress"] for one in sent for name in _WHO.split(",")[1:] for person in one[name]]
            addresses = frozenset(comparable(str(person["address"])) for person in people if person.get("address"))
        except (KeyError, TypeError, AttributeError):
            raise NoAnswer(Outcome(Verdict.DEFERRED, 200, "4.3.0", "unintelligible answer", said_by="http")) from None
        return Found(addresses, "; found in Sent Items" if sent else "")

    def _message(self, identifier: str) -> str:
        return f"{self.path}/messages/{quote(identifier, safe='')}"
