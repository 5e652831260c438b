"""Reports as Exchange Online, Gmail, Postfix and Exim write them, made after their documents and public examples."""

from __future__ import annotations

import textwrap

ORIGINAL_ID = "<0S5T2K9X7QABC@relay.corp.example>"


def mail(text: str) -> bytes:
    return textwrap.dedent(text).lstrip("\n").replace("\n", "\r\n").encode()


# Words that a person reads, by the language of the tenant: they decide nothing.
_LANGUAGES = {
    "en": ("Undeliverable: Invoice 12", "Your message to b@x.example couldn't be delivered."),
    "de": (
        "=?utf-8?B?VW56dXN0ZWxsYmFyOiBSZWNobnVuZw==?=",
        "Ihre Nachricht an b@x.example konnte nicht zugestellt werden.",
    ),
    "nl": ("Onbestelbaar: Factuur 12", "Uw bericht aan b@x.example kan niet worden bezorgd."),
    "fr": ("=?utf-8?Q?Non_remis_=3A_Facture?=", "Votre message =C3=A0 b@x.example n'a pas pu =C3=AAtre remis."),
    "ja": ("=?utf-8?B?6YWN5L+h5LiN6IO9?=", "=E9=85=8D=E4=BF=A1=E4=B8=8D=E8=83=BD"),
}


def exchange(
    language: str = "en", *, whom: str = "b@x.example", ident: str = ORIGINAL_ID, status: str = "5.1.10",
    said: str = "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup",
    action: str = "failed",
) -> bytes:  # fmt: skip
    subject, words = _LANGUAGES[language]
    return mail(f"""
        Received: from AM0PR01.eurprd01.prod.exchangelabs.com by AM0PR01; Fri, 20 Nov 2026 12:00:09 +0000
        From: <postmaster@contoso.example>
        To: <noreply@corp.example>
        Date: Fri, 20 Nov 2026 12:00:09 +0000
        Content-Type: multipart/report; report-type=delivery-status;
        \tboundary="15fa2d7e-5c0b-4cf7-8d46"
        X-MS-Exchange-Message-Is-Ndr:
        Content-Language: {language}
        Message-ID: <9d8c1b7e-ndr@AM0PR01.eurprd01.prod.exchangelabs.com>
        In-Reply-To: {ident}
        References: {ident}
        Subject: {subject}
        Auto-Submitted: auto-replied

        --15fa2d7e-5c0b-4cf7-8d46
        Content-Type: multipart/alternative; differences=Content-Type;
        \tboundary="4c6b0f0a-inner"

        --4c6b0f0a-inner
        Content-Type: text/plain; charset="utf-8"
        Content-Transfer-Encoding: quoted-printable

        {words}

        --4c6b0f0a-inner
        Content-Type: text/html; charset="utf-8"
        Content-Transfer-Encoding: quoted-printable

        <html><body><p>{words}</p></body></html>

        --4c6b0f0a-inner--

        --15fa2d7e-5c0b-4cf7-8d46
        Content-Type: message/delivery-status

        Reporting-MTA: dns;AM0PR01.eurprd01.prod.exchangelabs.com
        Received-From-MTA: dns;relay.corp.example
        Arrival-Date: Fri, 20 Nov 2026 12:00:07 +0000

        Final-Recipient: rfc822;{whom}
        Action: {action}
        Status: {status}
        Diagnostic-Code: smtp;{said}
        X-Display-Name: B

        --15fa2d7e-5c0b-4cf7-8d46
        Content-Type: message/rfc822

        From: noreply@corp.example
        To: {whom}
        Subject: Invoice 12
        Message-ID: {ident}
        Content-Type: text/plain

        --15fa2d7e-5c0b-4cf7-8d46--
        """)


def gmail(*, whom: str = "b@x.example", ident: str = ORIGINAL_ID, late: bool = False, was: str = "") -> bytes:
    """With ``was`` Gmail has put its own Message-ID in the place of that one."""
    action, status = ("delayed", "4.4.1") if late else ("failed", "5.1.1")
    replaced = f"\n        X-Google-Original-Message-ID: {was}" if was else ""
    return mail(f"""
        From: Mail Delivery Subsystem <mailer-daemon@googlemail.com>
        To: noreply@corp.example
        Auto-Submitted: auto-replied
        Subject: Delivery Status Notification ({"Delay" if late else "Failure"})
        References: {ident}
        In-Reply-To: {ident}
        X-Failed-Recipients: {whom}
        Message-ID: <65f0c3a1.050a0220.1a2b3@mx.google.com>
        Content-Type: multipart/report; boundary="000000000000f1"; report-type=delivery-status

        --000000000000f1
        Content-Type: multipart/related; boundary="000000000000f2"

        --000000000000f2
        Content-Type: text/plain; charset="UTF-8"

        ** Address not found **

        --000000000000f2--
        --000000000000f1
        Content-Type: message/delivery-status

        Reporting-MTA: dns; googlemail.com
        Received-From-MTA: dns; noreply@corp.example
        Arrival-Date: Fri, 20 Nov 2026 04:00:07 -0800 (PST)
        X-Original-Message-ID: {ident}

        Final-Recipient: rfc822; {whom}
        Action: {action}
        Status: {status}
        Remote-MTA: dns; mx.x.example. (192.0.2.25, the server for the domain x.example.)
        Diagnostic-Code: smtp; 550-5.1.1 The email account that you tried to reach does not exist.
         550 5.1.1 https://support.google.com/mail/?p=NoSuchUser
        Last-Attempt-Date: Fri, 20 Nov 2026 04:00:08 -0800 (PST)

        --000000000000f1
        Content-Type: message/rfc822

        From: noreply@corp.example
        To: {whom}
        Subject: Invoice 12
        Message-ID: {ident}{replaced}

        hello

        --000000000000f1--
        """)


def postfix(*groups: str, ident: str = ORIGINAL_ID, part: str = "text/rfc822-headers") -> bytes:
    """With neither In-Reply-To nor References, as by default. ``groups`` are of recipients."""
    told = "\n\n".join(groups or (postfix_group("b@x.example"),))
    head = mail("""
        Date: Fri, 20 Nov 2026 12:00:09 +0000 (UTC)
        From: MAILER-DAEMON@mx.y.example (Mail Delivery System)
        Subject: Undelivered Mail Returned to Sender
        To: noreply@corp.example
        Auto-Submitted: auto-replied
        MIME-Version: 1.0
        Content-Type: multipart/report; report-type=delivery-status;
        \tboundary="3C1A.1700000000/mx.y.example"
        Message-Id: <20261120120009.AAAA@mx.y.example>

        This is a MIME-encapsulated message.

        --3C1A.1700000000/mx.y.example
        Content-Description: Notification
        Content-Type: text/plain; charset=us-ascii

        I'm sorry to have to inform you that your message could not
        be delivered to one or more recipients.

        --3C1A.1700000000/mx.y.example
        Content-Description: Delivery report
        Content-Type: message/delivery-status

        Reporting-MTA: dns; mx.y.example
        X-Postfix-Queue-ID: 3C1A
        X-Postfix-Sender: rfc822; noreply@corp.example
        Arrival-Date: Fri, 20 Nov 2026 12:00:07 +0000 (UTC)

        """)
    tail = mail(f"""

        --3C1A.1700000000/mx.y.example
        Content-Description: Undelivered Message Headers
        Content-Type: {part}

        Return-Path: <noreply@corp.example>
        From: noreply@corp.example
        Subject: Invoice 12
        Message-Id: {ident}

        --3C1A.1700000000/mx.y.example--
        """)
    return head + told.replace("\n", "\r\n").encode() + b"\r\n\r\n" + tail


def postfix_group(
    whom: str, *, action: str = "failed", status: str = "5.1.1", was: str = "", kind: str = "rfc822"
) -> str:
    lines = [f"Final-Recipient: {kind}; {whom}", *([f"Original-Recipient: rfc822;{was}"] if was else [])]
    said = f"smtp; 550 {status} <{whom}>: Recipient address rejected:"
    lines += [f"Action: {action}", f"Status: {status}", "Remote-MTA: dns; mx.x.example", f"Diagnostic-Code: {said}"]
    return "\n".join([*lines, "    User unknown in virtual mailbox table"])


def ordinary(kind: str, *, head: str = "", body: str = "x") -> bytes:
    """Mail that is no report of a failure, though it may look so."""
    return (
        mail(f"""
        From: postmaster@x.example
        To: noreply@corp.example
        Subject: Undeliverable: Out of office
        In-Reply-To: {ORIGINAL_ID}
        References: {ORIGINAL_ID}
        {head or "X-Nothing: at all"}
        Content-Type: {kind}

        """)
        + body.replace("\n", "\r\n").encode()
    )
