"""ESMTP parameters: values kept, syntax checked, nothing unknown taken (RFC 1870, 3461, 4954, 6152, 6531)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model import Envelope, Refusal
from gateway.smtp.params import mail_parameters, rcpt_parameters


@pytest.mark.parametrize(
    ("raw", "size", "asked"),
    [
        (b"", 0, {}),
        (b"SIZE=0", 0, {}),
        (b"size=1000  body=8bitmime", 1000, {"eightbit": True}),
        (b"BODY=7BIT SMTPUTF8", 0, {"smtputf8": True}),
        (b"AUTH=<>", 0, {}),
        (b"AUTH=e+3Dmc2@example.com", 0, {}),
        (b"RET=hdrs ENVID=QQ314159+2BaB", 0, {"ret": "HDRS", "envid": "QQ314159+2BaB"}),
        (b"ENVID=" + b"x" * 100, 0, {"envid": "x" * 100}),
        (b"ENVID=" + b"=" * 33, 0, {"envid": "+3D" * 33}),
        (b"ENVID=a=b+2bc", 0, {"envid": "a+3Db+2Bc"}),
    ],
)
def test_mail(raw: bytes, size: int, asked: dict[str, Any]) -> None:
    """What clients write a little off RFC 3461 is put right, for the next hop may be strict."""
    assert mail_parameters(raw, "a@x") == (size, Envelope("a@x", (), **asked))


@pytest.mark.parametrize(
    ("raw", "utf8", "expected"),
    [
        (b"", False, ("", "")),
        (b"NOTIFY=never", False, ("NEVER", "")),
        (b"NOTIFY=SUCCESS,Delay ORCPT=rfc822;Bob+2B@Ex.org", False, ("SUCCESS,DELAY", "rfc822;Bob+2B@Ex.org")),
        (b"NOTIFY=DELAY,FAILURE,success,DELAY", False, ("DELAY,FAILURE,SUCCESS", "")),
        (b"ORCPT=rfc822;bob+2btag@x", False, ("", "rfc822;bob+2Btag@x")),
        (b"ORCPT=rfc822;a=b@x", False, ("", "rfc822;a+3Db@x")),
        (b"ORCPT=rfc822; NOTIFY=SUCCESS,", False, ("SUCCESS", "")),
        ("ORCPT=utf-8;ü@b".encode(), True, ("", "utf-8;ü@b")),
    ],
)  # fmt: skip
def test_rcpt(raw: bytes, utf8: bool, expected: tuple[str, str]) -> None:
    assert rcpt_parameters(raw, utf8=utf8) == expected


@pytest.mark.parametrize(
    ("code", "raws"),
    [
        (501, [b"SIZE", b"SIZE=", b"SIZE=-1", b"SIZE=1x", "SIZE=\u0661".encode(), b"SIZE=" + b"9" * 21]),
        (501, [b"SIZE=1 size=2", b"BODY=9BIT", b"SMTPUTF8=yes", b"SMTPUTF8=", b"RET=ALL", b"AUTH="]),
        (501, [b"ENVID=a+0D+0Ab", b"ENVID=a+ZZ", b"ENVID=" + b"x" * 101, b"ENVID=" + b"=" * 34]),
        (504, [b"BODY=BINARYMIME"]),
        (555, [b"HOLDFOR=9", b"NOTIFY=NEVER", b"XYZ", b"<a@b>", b"=", b"\xff=1"]),
    ],
)
def test_bad_mail(code: int, raws: list[bytes]) -> None:
    for raw in raws:
        with pytest.raises(Refusal) as refused:
            mail_parameters(raw, "")
        assert (refused.value.code, refused.value.enhanced) == (code, "5.5.4"), raw


@pytest.mark.parametrize(
    "raw",
    [
        b"NOTIFY=", b"NOTIFY=NEVER,SUCCESS", b"NOTIFY=SOMETIMES", b"NOTIFY=,SUCCESS", b"ORCPT=a@b", b"ORCPT=;a@b",
        b"ORCPT=rfc822;a@b+0A", b"ORCPT=rfc822;" + b"x" * 500, b"ORCPT=rfc822;\xc3\xbc@b", b"ORCPT=utf-8;\xc3\xbc@b",
        b"ORCPT=utf-8;\xff", b"SIZE=1",
    ],
)  # fmt: skip
def test_bad_rcpt(raw: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        rcpt_parameters(raw, utf8=False)
    assert refused.value.enhanced == "5.5.4"


@given(st.binary(max_size=200), st.booleans())
def test_fuzz(raw: bytes, utf8: bool) -> None:
    """Any octets: parameters or a Refusal; nothing that could break a line gets through."""
    for parse in (lambda text: mail_parameters(text, ""), lambda text: rcpt_parameters(text, utf8=utf8)):
        try:
            found = repr(parse(raw))
        except Refusal:
            continue
        assert found.isprintable()
