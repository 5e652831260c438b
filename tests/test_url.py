"""Rule: a password or mail leaves this machine only by https; what is not surely this machine is another one."""

from __future__ import annotations

import pytest

from gateway.url import check_url, is_loopback


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.9.9", "::1", "[::1]"])
def test_this_machine(host: str) -> None:
    """localhost and the loopback networks (RFC 1122 section 3.2.1.3, RFC 4291 section 2.5.3)."""
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    [
        "localhost.example",
        "localhost.",
        "LOCALHOST",
        "10.0.0.1",
        "",
        "0.0.0.0",
        "::",
        "127.1",
        "0127.0.0.1",
        "2130706433",
        "::ffff:127.0.0.1",  # from Python 3.13 on ipaddress says that this is loopback
        "::1%eth0",
        "[[::1]]",
        "]::1[",
        "127.0.0.1]",
    ],
)
def test_every_other_spelling_is_another_machine(host: str) -> None:
    """The same answer on every version of Python, and no guess about what a resolver would make of it."""
    assert not is_loopback(host)


@pytest.mark.parametrize("url", ["https://api.example.com/v3/", "http://localhost:8080", "http://[::1]:1/x"])
def test_good_urls_lose_only_the_slash_at_their_end(url: str) -> None:
    """What is put behind them begins with one."""
    assert check_url(url) == url.rstrip("/")


@pytest.mark.parametrize("url", ["https://api.example.com:https/", "https://api.example.com:65536"])
def test_a_port_that_is_none_is_refused(url: str) -> None:
    """In the settings, where it can be corrected, and not at each message."""
    with pytest.raises(ValueError, match="Port"):
        check_url(url)


@pytest.mark.parametrize("url", ["http://169.254.169.254/token", "http://metadata.google.internal/x"])
def test_the_services_of_clouds(url: str) -> None:
    """Plain http to them only where somebody says that this is meant."""
    assert check_url(url, metadata=True) == url
    with pytest.raises(ValueError, match="not encrypted"):
        check_url(url)


@pytest.mark.parametrize("url", ["https://exa mple.com", "https://exa\nmple.com", "https://."])
def test_what_no_request_can_be_sent_to(url: str) -> None:
    """In the settings, where it can be corrected, and not at each message."""
    with pytest.raises(ValueError, match=r"has a space|is not a URL"):
        check_url(url)
