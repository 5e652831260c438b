"""Imports flow one way: each floor sees those below it, and each third-party package has one room."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "gateway"
FLOORS = [
    {
        "__init__",
        "checks",
        "model",
        "actor",
        "address",
        "clock",
        "systemd",
        "ratelimit",
        "files",
        "lastuse",
        "likeness",
        "pools",
        "names",
        "networks",
        "pem",
        "ports",
        "proxies",
        "proxyprotocol",
        "quota",
        "refusals",
        "returned",
        "rewritten",
        "runtime",
        "strangers",
        "telling",
        "trust",
        "url",
        "visible",
    },
    {"config", "events", "message"},
    {"reports"},
    {"routing", "policy", "auth", "bounce", "answer", "calling", "fetch", "quotas"},
    {"spool", "backends"},
    {"postgresql"},
    {"copies", "whom"},
    {"how", "intake", "remedies", "transaction", "drop", "delivery"},
    {"checkup", "lifeline", "health", "doctor", "alerts", "learn", "migrate", "setup"},
    {"smtp", "http"},
    {"readiness"},
    {"app", "building", "doors", "instance", "sealed", "service", "sharing"},
    {"cli"},
]
APART = [{"spool", "backends"}, {"smtp", "http"}]
ROOMS = {
    "jwt": {"auth"},
    "cryptography": {"auth", "smtp", "spool", "backends", "doctor", "setup"},
    "google": {"backends"},
    "msal": {"backends"},
    "httpx": {"calling"},
    "httpx_aiohttp": {"calling"},
    "aiohttp": {"calling"},
    "aiohappyeyeballs": {"names"},
    "certifi": {"trust"},
    "aiosmtplib": {"backends"},
    "aiosmtpd": {"smtp"},
    "sqlmodel": {"spool"},
    "sqlalchemy": {"spool", "postgresql"},
    "alembic": {"spool", "postgresql"},
    "psycopg": {"postgresql"},
    "aiosqlite": {"spool"},
    "structlog": {"events"},
    "prometheus_client": {"events"},
    "dns": {"doctor"},
    "jinja2": {"http"},
    "markupsafe": {"http"},
    "starlette": {"http"},
    "uvicorn": {"http"},
    "uvloop": {"runtime"},
    "click": {"cli"},
    "rich": {"cli"},
    "pydantic": {"config", "backends", "http"},
    "pydantic_core": {"config"},
    "pydantic_settings": {"config"},
    "yaml": {"config"},
}
LONGEST = 350  # lines
FILES = sorted(path for path in ROOT.rglob("*.py"))


def module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")


def room(name: str) -> str:
    return [*name.split("."), "__init__"][1]


def imports(path: Path) -> set[str]:
    """All modules a file names in import statements, also inside functions and under TYPE_CHECKING."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def floor(name: str) -> int:
    return next(level for level, rooms in enumerate(FLOORS) if name in rooms)


@pytest.mark.parametrize("path", FILES, ids=module)
def test_floors(path: Path) -> None:
    """No import goes up, rooms of the two divided floors do not meet, packages stay in their rooms."""
    own = room(module(path))
    assert any(own in rooms for rooms in FLOORS), f"{own} has no floor yet"
    for name in imports(path):
        package = name.partition(".")[0]
        if package == "gateway":
            other = room(name) if any(room(name) in rooms for rooms in FLOORS) else "__init__"
            assert floor(other) <= floor(own), f"{own} imports {name} from above"
            assert other == own or not any({own, other} <= apart for apart in APART), f"{own} meets {name}"
        elif package not in sys.stdlib_module_names:
            assert own in ROOMS.get(package, set()), f"{package} is not for {own}"


SEAMS = {"smtp": {"microsoft.over_smtp", "google.over_smtp"}}  # what a provider's room shows to another's


@pytest.mark.parametrize("own", ["google", "json", "microsoft", "smtp"])
def test_providers_see_nothing_of_each_other(own: str) -> None:
    """But for what is meant to be shared: the login over SMTP, and never an API."""
    others = {"google", "json", "microsoft", "smtp"} - {own}
    for path in (ROOT / "backends" / own).glob("*.py"):
        for name in imports(path):
            parts = name.removeprefix("gateway.backends.").split(".")
            if name.startswith("gateway.backends.") and parts[0] in others:
                assert ".".join(parts[:2]) in SEAMS.get(own, ()), f"{module(path)} imports {name}"


def test_no_import_cycles() -> None:
    """Modules can be put in an order in which each imports only earlier ones, those for types alone included."""
    known = {module(path): path for path in FILES}
    graph = {}
    for name, path in known.items():
        targets = {target if target in known else target.rpartition(".")[0] for target in imports(path)}
        graph[name] = (targets & set(known)) - {name}
    while free := {name for name, needs in graph.items() if not needs & set(graph)}:
        for name in free:
            del graph[name]
    assert graph == {}


def hands_on(node: ast.stmt) -> bool:
    """A docstring, an import, the version or __all__."""
    if isinstance(node, ast.Assign):
        return [ast.unparse(target) for target in node.targets] in (["__all__"], ["__version__"])
    return isinstance(node, ast.Import | ast.ImportFrom) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    )


@pytest.mark.parametrize("path", [path for path in FILES if path.name == "__init__.py"], ids=module)
def test_packages_hand_names_on(path: Path) -> None:
    """An __init__ holds no code: what is looked for stands in a file with a name. The registry of backends excepted."""
    body = [] if module(path) == "gateway.backends" else ast.parse(path.read_text()).body
    assert [ast.unparse(node) for node in body if not hands_on(node)] == []


@pytest.mark.parametrize("path", FILES, ids=module)
def test_sources_can_be_found(path: Path) -> None:
    """A document that a comment or docstring names is in this repository."""
    for name in re.findall(r"[\w./-]+\.md\b", path.read_text()):
        assert any((ROOT.parent / folder / name).is_file() for folder in ("", "docs")), name


def test_files_are_small() -> None:
    """What outgrows a screenful of screens is two things; its second half gets a file of its own."""
    assert [path.name for path in FILES if len(path.read_text().splitlines()) > LONGEST] == []
