"""The settings as types: what may stand in the configuration file, with every default."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from gateway.config import aliases, values
from gateway.config.database import this_machine
from gateway.config.finding import Examined
from gateway.config.locate import SOCKET
from gateway.config.quotas import QuotaSettings
from gateway.config.section import Section

Tolerance = Literal["long_lines", "bare_newlines", "missing_headers", "missing_helo"]
Algorithm = Literal[
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]


class LearnSettings(Section):
    """Learn mode of a listener. Mail from the networks ``hear_out`` is heard to its end though it is refused."""

    hear_out: tuple[values.NetworkText, ...] = ()


def _learn(given: object) -> object:
    switch: dict[object, object] = {True: {}, "true": {}, False: None, "false": None}
    return switch[given] if isinstance(given, bool | str) and given in switch else given


class ListenerSettings(Section):
    """One listener: where it listens, TLS, whether a login is needed, whether what comes there is noted (``learn``).

    ``proxy_protocol_from`` are the load balancers that say whose each connection is, and must.
    """

    bind: values.Bind
    tls: Literal["none", "starttls", "implicit"] = "none"
    auth: Literal["off", "optional", "required"] = "optional"
    certificate: Path | None = None
    private_key: Path | None = None
    min_tls: Literal["1.0", "1.1", "1.2", "1.3"] = "1.2"
    tolerate: tuple[Tolerance, ...] = ("long_lines",)
    proxy_protocol_from: tuple[values.NetworkText, ...] = ()
    learn: Annotated[LearnSettings | None, BeforeValidator(_learn, bool | LearnSettings | None)] = None


class KeySettings(Section):
    """A key that may sign tokens. Exactly one of secret, public_key_file, private_key_file, jwks_url.

    ``ca_file``: authorities to trust beside the system's when ``jwks_url`` is asked.
    """

    algorithm: Algorithm
    secret: SecretStr | None = None
    public_key_file: Path | None = None
    private_key_file: Path | None = None
    jwks_url: values.UrlAsWritten | None = None
    ca_file: Path | None = None
    issuer: str | None = None
    audience: str | None = None
    expiry: Literal["required", "optional"] = "required"


class AuthSettings(Section):
    keys: dict[values.Name, KeySettings] = Field(default_factory=dict)


_OneOrMore = BeforeValidator(lambda given: (given,) if isinstance(given, str) else given, str | tuple[str, ...])
Copies = Annotated[tuple[values.PlainAddress, ...], _OneOrMore]


class RewriteSettings(Section):
    to: values.Address
    when: Literal["not_allowed", "always"] = "not_allowed"


class ClientSettings(Section):
    """What a client may do, and how it is known: by network, token subject, password, or the provider's own token.

    ``login`` names a backend that is asked whether a token is good, and sends with it. ``user`` is the user name beside
    the password, by default the client's name; capitals do not count. ``redirect_to`` gets all its mail instead of
    those who were asked for, ``copy_to`` gets it as well.
    """

    networks: tuple[values.NetworkText, ...] = ()
    token: str | None = None
    key: str | None = None
    user: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    password_hash: SecretStr | None = None
    login: str | None = None
    senders: values.Choices = ("*",)
    recipients: values.Choices = ("*",)
    rewrite_sender: RewriteSettings | None = None
    default_domain: values.Hostname | None = None
    redirect_to: values.PlainAddress | None = None
    copy_to: Copies = ()
    backend: str | None = None
    rate: values.RateLimit | None = None
    quota: QuotaSettings | None = None
    connections: Annotated[int, Field(ge=1)] | None = None
    max_size: Annotated[values.Size, Field(ge=1)] | None = None
    max_recipients: Annotated[int, Field(ge=1)] | None = None
    open_relay: bool = False

    @property
    def logs_in(self) -> bool:
        return self.token is not None or self.password_hash is not None or self.login is not None


def users(clients: Mapping[str, ClientSettings]) -> Iterator[tuple[str, str]]:
    """User name in the form in which it is compared, and name, of each client with a password."""
    for name, client in clients.items():
        if client.password_hash is not None:
            yield (client.user or name).casefold(), name


# A backend's mailbox or region where that is a word of the settings.
_SHOWN = {"mailbox sender": "each sender's mailbox", "mailbox me": "the mailbox that signed in"}
_SHOWN |= {f"region {one}": f"region {one}" for one in ("us", "eu", "au")} | {"region global": "the nearest region"}


class BackendSettings(Section):
    """What every backend has; each type adds its own (gateway.backends).

    ``label`` is what people call its provider.
    """

    label: ClassVar[str] = ""
    type: str
    concurrency: Annotated[int, Field(ge=1, le=1000)] = 10
    timeout: values.LongDuration = timedelta(seconds=60)
    rate: values.RateLimit | None = None
    in_doubt: Literal["retry", "hold"] = "retry"
    max_size: Annotated[values.Size, Field(ge=1)] | None = None

    @property
    def known_as(self) -> Mapping[str, str]:
        """As whom or where it sends, by the name of that: mailbox, host, region, url, directory. No secrets."""
        return {}

    @property
    def title(self) -> str:
        """In words: Microsoft 365, noreply@example.com."""
        shown = [_SHOWN.get(f"{name} {value}", value) for name, value in self.known_as.items()]
        return ", ".join((self.label or self.type, *shown))

    def filled_by(self, key: str) -> str:
        """What gives this setting its default, where that is more than its type: shown with the settings in force."""
        return ""

    @property
    def oauth(self) -> bool:
        """Whether it asks for access tokens."""
        return False

    @property
    def calls(self) -> bool:
        """Whether it asks anybody by HTTPS."""
        return self.oauth

    @property
    def verifies(self) -> bool:
        """Whether clients log in with a token of this backend's provider."""
        return False

    def examine(self, name: str, state_dir: Path) -> Examined:
        """What is wrong with the files that these settings of backend ``name`` name, and until when they are good.

        Reads them; asks nobody. Keys are those within the backend.
        """
        yield from ()


class RouteSettings(Section):
    """One line of the routing table: all given patterns must match. ``copy_to`` gets what goes by it, too."""

    backend: Annotated[tuple[str, ...], _OneOrMore, Field(min_length=1)]
    clients: tuple[str, ...] = ()
    senders: tuple[values.SenderPattern, ...] = ()
    recipients: tuple[values.Pattern, ...] = ()
    copy_to: Copies = ()


class SpoolSettings(Section):
    """Where the queue is. Without ``url``: in a file in state_dir, of one instance alone.

    ``instance`` is this one's name among those that share the database, ``failover`` after how long another takes over
    from one of which nothing is heard.
    """

    url: values.Database | None = None
    password: SecretStr | None = None
    instance: values.InstanceName = Field(default_factory=this_machine)
    failover: values.Failover = timedelta(seconds=10)


class PickupSettings(Section):
    """A folder into which programs put mail as files."""

    directory: values.Directory


class RetrySettings(Section):
    delays: tuple[values.LongDuration, ...] = Field(
        default=tuple(timedelta(minutes=m) for m in (1, 5, 15, 30, 60)), min_length=1
    )
    jitter: Annotated[float, Field(ge=0, le=0.5)] = 0.2
    lifetime: values.LongDuration = timedelta(days=5)
    delay_notice: values.Duration = timedelta(hours=4)


class BounceSettings(Section):
    mode: Literal["auto", "dsn", "notice", "digest", "off"] = "auto"
    digest_every: values.LongDuration = timedelta(hours=1)
    sender: values.Address | None = Field(default=None, alias="from")
    backend: str | None = None
    copy_to: values.Address | None = None
    later: bool = True  # also of mail that came back after a provider had taken it


class WebhookSettings(Section):
    """Alerts as JSON by POST, signed with ``secret``. Who knows the ``url`` may post there at many services."""

    url: values.SecretUrl
    secret: SecretStr
    ca_file: Path | None = None


class AlertSettings(Section):
    """Whom to tell what needs somebody. Without ``to``, ``webhook`` and ``command`` nobody is told."""

    to: tuple[values.Address, ...] = ()
    sender: values.Address | None = Field(default=None, alias="from")
    webhook: WebhookSettings | None = None
    command: values.CommandLine = Field(default=(), repr=False)
    stopped_for: values.Duration = timedelta(minutes=15)
    per_hour: Annotated[int, Field(ge=1)] = 10
    daily: values.TimeOfDay | None = None


class RetentionSettings(Section):
    sent_body: values.Duration = timedelta(0)
    failed_body: values.Duration = timedelta(days=30)
    history: values.Duration = timedelta(days=90)
    refusals: values.Duration = timedelta(days=30)


class LimitSettings(Section):
    max_size: Annotated[values.Size, Field(ge=1000)] = 35_000_000
    max_recipients: Annotated[int, Field(ge=1)] = 1000
    connections: Annotated[int, Field(ge=1)] = 1000
    connections_per_ip: Annotated[int, Field(ge=1)] = 50
    idle: values.LongDuration = timedelta(minutes=5)
    memory: values.Size = 256_000_000
    spool_free: values.FreeSpace = 0.1
    spool_size: Annotated[values.Size, Field(ge=20_000_000)] | None = None


class HttpSettings(Section):
    """``ui_hosts`` are the names by which a proxy that speaks TLS offers the pages, ``trusted_proxies`` its addresses.

    ``user_header`` is the header in which it says who signed in there, and ``roles`` what each of them may.
    """

    bind: values.BindOrNone = "127.0.0.1:8026"
    socket: Path = SOCKET
    socket_group: Annotated[str, Field(min_length=1)] | None = None
    ui_hosts: tuple[values.Hostname, ...] = ()
    trusted_proxies: tuple[values.NetworkText, ...] = ()
    user_header: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9-]{0,63}$")] | None = None
    roles: dict[str, Literal["read", "operate", "admin"]] = Field(default_factory=dict)


class LogSettings(Section):
    format: Literal["auto", "json", "console"] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"


class TenantBounces(Section):
    sender: values.Address | None = Field(default=None, alias="from")


class TenantSettings(Section):
    """Whose clients and backends these are: who logs in for a tenant sees its mail, and nothing of anybody else's.

    ``users`` are those whom a proxy before the pages names (http.user_header). ``bounces.from`` stands in From of what
    its senders are told.
    """

    clients: tuple[str, ...] = ()
    backends: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    bounces: TenantBounces = Field(default_factory=TenantBounces)


AliasName = Annotated[str, AfterValidator(aliases.parse_name)]
AliasTargets = Annotated[
    tuple[Annotated[str, AfterValidator(aliases.parse_target)], ...],
    BeforeValidator(aliases.parse_targets, str | tuple[str, ...]),
    Field(min_length=1),
]


class Settings(Section):
    """The whole configuration, validated. ``backends`` holds the settings class of each type.

    ``default_domain`` is of names without a domain; ``aliases`` say whom names stand for that have none, or one of this
    machine or of ``local_domains``.
    """

    hostname: values.Hostname
    default_domain: values.Hostname | None = None
    local_domains: tuple[values.LocalDomain, ...] = ()
    recipient_delimiter: Annotated[str, Field(pattern=r"^[-+._=#~]{0,5}$")] = ""
    aliases: dict[AliasName, AliasTargets] = Field(default_factory=dict)
    state_dir: values.Directory
    spool: SpoolSettings = Field(default_factory=SpoolSettings)
    listeners: dict[values.Name, ListenerSettings]
    auth: AuthSettings
    clients: dict[values.Name, ClientSettings]
    backends: dict[values.Name, Any]
    routes: tuple[RouteSettings, ...]
    tenants: dict[values.Name, TenantSettings] = Field(default_factory=dict)
    pickup: dict[values.Name, PickupSettings] = Field(default_factory=dict)
    retry: RetrySettings = Field(default_factory=RetrySettings)
    bounces: BounceSettings = Field(default_factory=BounceSettings)
    alerts: AlertSettings = Field(default_factory=AlertSettings)
    retention: RetentionSettings = Field(default_factory=RetentionSettings)
    limits: LimitSettings = Field(default_factory=LimitSettings)
    http: HttpSettings = Field(default_factory=HttpSettings)
    log: LogSettings = Field(default_factory=LogSettings)
    event_loop: Literal["asyncio", "uvloop"] = "asyncio"
