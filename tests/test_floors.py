"""Imports flow one way: each floor sees those below it, and each third-party package has one room (design.md 3)."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "gateway"
FLOORS = [
    {"__init__", "model", "address", "clock", "systemd", "ratelimit", "files", "pools", "names", "pem", "url"},
    {"config", "events", "message"},
    {"routing", "policy", "auth", "bounce", "fetch"},
    {"spool", "backends"},
    {"intake", "delivery"},
    {"smtp", "http"},
    {"readiness"},
    {"app", "service"},
    {"cli"},
]
APART = [{"spool", "backends"}, {"smtp", "http"}]
ROOMS = {
    "jwt": {"auth"},
    "cryptography": {"auth", "smtp", "spool", "backends"},
    "google": {"backends"},
    "msal": {"backends"},
    "httpx": {"fetch"},
    "httpx_aiohttp": {"fetch"},
    "aiohttp": {"fetch"},
    "aiosmtplib": {"backends"},
    "aiosmtpd": {"smtp"},
    "sqlmodel": {"spool"},
    "sqlalchemy": {"spool"},
    "alembic": {"spool"},
    "aiosqlite": {"spool"},
    "structlog": {"events"},
    "prometheus_client": {"events"},
    "starlette": {"http"},
    "uvicorn": {"http"},
    "click": {"cli"},
    "rich": {"cli"},
    "pydantic": {"config", "backends"},
    "pydantic_core": {"config"},
    "pydantic_settings": {"config"},
    "yaml": {"config"},
}
FILES = sorted(path for path in ROOT.rglob("*.py"))


def module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")


def room(name: str) -> str:
    return [*name.split("."), "__init__"][1]


def imports(path: Path, *, for_types: bool = True) -> set[str]:
    """All modules a file names in import statements, also inside functions; ``for_types`` counts TYPE_CHECKING too."""
    found: set[str] = set()
    nodes: list[ast.AST] = [ast.parse(path.read_text())]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not for_types:
            nodes.extend(node.orelse)
            continue
        nodes.extend(ast.iter_child_nodes(node))
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


def test_no_import_cycles() -> None:
    """Modules can be put in an order in which each imports only earlier ones."""
    known = {module(path): path for path in FILES}
    graph = {}
    for name, path in known.items():
        targets = {
            target if target in known else target.rpartition(".")[0] for target in imports(path, for_types=False)
        }
        graph[name] = (targets & set(known)) - {name}
    while free := {name for name, needs in graph.items() if not needs & set(graph)}:
        for name in free:
            del graph[name]
    assert graph == {}
