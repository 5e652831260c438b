"""Where a service hears commands, found without judging all its settings.

What every command needs, so it costs little: of third-party packages only yaml. The rules are those of ``loading``,
which takes them from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from gateway.config.document import ConfigError, Document, hint

SYSTEM_FILE = Path("/etc/gateway/config.yaml")
STATE_DIRECTORY = Path("/var/lib/gateway")
_FOLDERS = Path("/etc"), Path("/var/lib")  # ConfigurationDirectory and StateDirectory of one name (systemd.exec(5))
_UNITS = tuple(map(Path, ("/etc/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system")))
SOCKET = Path("admin.sock")  # http.socket where nothing else is said
SECTIONS = (  # the keys of models.Settings
    "hostname", "default_domain", "local_domains", "recipient_delimiter", "aliases", "state_dir", "spool", "listeners",
    "auth", "clients", "backends", "routes", "tenants", "pickup", "retry", "bounces", "alerts", "retention", "limits",
    "http", "log", "event_loop",
)  # fmt: skip


def find_file(explicit: Path | None, environ: Mapping[str, str]) -> Path | None:
    """--config, else $GATEWAY_CONFIG, else /etc/gateway/config.yaml if there is one, else None: built-in default."""
    if explicit or environ.get("GATEWAY_CONFIG"):
        return explicit or Path(environ["GATEWAY_CONFIG"])
    try:
        return SYSTEM_FILE if SYSTEM_FILE.exists() else None
    except PermissionError:
        return SYSTEM_FILE  # reading it says what is the matter


def read(path: Path | None, environ: Mapping[str, str]) -> tuple[Document, list[str]]:
    """The file and over it the environment, and warnings about what looks like a setting. Raises ConfigError."""
    document = Document(str(path or "settings"))
    if path:
        document.read_file(path)
    return document, document.read_environment(environ, SECTIONS)


def unit(path: Path | None) -> str:
    """The systemd service that runs with the settings in ``path`` (None: of this machine), "" where none is seen."""
    name = SYSTEM_FILE.parent.name if path is None else _named_below_etc(path)
    return name if name and any((folder / f"{name}.service").is_file() for folder in _UNITS) else ""


def _named_below_etc(path: Path) -> str:
    """NAME of /etc/NAME/config.yaml, else ""."""
    path = path.absolute()
    return path.parent.name if (path.parent.parent, path.name) == (_FOLDERS[0], SYSTEM_FILE.name) else ""


def machine_state_dir(path: Path | None) -> Path | None:
    """Where a service of this machine has its state: that of /etc/NAME/config.yaml in /var/lib/NAME, whoever asks.

    None: these settings are somebody's own. Without a file a service is installed if it left anything here.
    """
    if path is not None:
        name = _named_below_etc(path)
        return _FOLDERS[1] / name if name else None
    try:
        return STATE_DIRECTORY if unit(None) or STATE_DIRECTORY.is_dir() else None
    except PermissionError:
        return STATE_DIRECTORY


def default_state_dir(path: Path | None, environ: Mapping[str, str]) -> str:
    """systemd's, that of the machine's service, else the user's own (XDG Base Directory Specification)."""
    machine = machine_state_dir(path)
    xdg, home = environ.get("XDG_STATE_HOME", ""), environ.get("HOME", "")
    systemd = environ.get("STATE_DIRECTORY", "").split(":")[0]
    given = (systemd, str(machine or ""), xdg and f"{xdg}/gateway", home and f"{home}/.local/state/gateway")
    return next((path for path in given if path.startswith("/")), str(STATE_DIRECTORY))


def absolute(path: Path) -> Path:
    """Raises ValueError for a relative path."""
    if not path.is_absolute():
        raise ValueError(f'"{path}" must be an absolute path such as /var/lib/gateway')
    return path


def is_missing(data: Mapping[str, Any], key: str) -> bool:
    """Not given, or given with nothing in it: the default applies."""
    return data.get(key) in (None, {})


def state_dirs(path: Path | None, environ: Mapping[str, str]) -> list[Path]:
    """Where a service of this file (None: of the built-in default) may have its state, as far as it is seen from here.

    Other users often may not read the file, and the environment of a service is its own.
    """
    with suppress(ConfigError, OSError):
        given = read(path, environ)[0].data.get("state_dir")
        if isinstance(given, str) and Path(given).is_absolute():
            return [Path(given)]
    return [STATE_DIRECTORY, Path(default_state_dir(path, environ))]


def state_dir(path: Path | None, environ: Mapping[str, str]) -> Path:
    """The state directory of the service of this file; None: of the built-in default. Raises as ``admin_socket``."""
    return _places(path, environ)[0]


def in_database(path: Path | None, environ: Mapping[str, str]) -> bool:
    """Whether the queue of the service of this file is in a database, as far as that is seen from here."""
    with suppress(ConfigError, OSError):
        spool = read(path, environ)[0].data.get("spool")
        return isinstance(spool, dict) and bool(spool.get("url"))
    return False


def admin_socket(path: Path | None, environ: Mapping[str, str]) -> Path:
    """The absolute path of the socket of the service of this file; None: of the built-in default.

    Raises ConfigError where the file cannot be read or leaves a doubt which service is meant: a slip in the key
    "state_dir" must not lead to the service of another file.
    """
    state, socket = _places(path, environ)
    return state / socket


def _places(path: Path | None, environ: Mapping[str, str]) -> tuple[Path, Path]:
    document, _ = read(path, environ)
    data = document.data
    state = default_state_dir(path, environ) if is_missing(data, "state_dir") else data["state_dir"]
    http = {} if is_missing(data, "http") else data["http"]
    socket = http.get("socket") if isinstance(http, dict) else http
    for key in data:
        if key not in SECTIONS:
            document.fail((key,), f"unknown key{hint(key, SECTIONS)}")
    if not isinstance(state, str) or not Path(state).is_absolute():
        document.fail(("state_dir",), "must be an absolute path such as /var/lib/gateway")
    if not isinstance(http, dict) or not isinstance(socket, str | None):
        document.fail(("http", "socket"), "must be text")
    if error := document.error():
        raise error
    return Path(state), Path(socket or SOCKET)
