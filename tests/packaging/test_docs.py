"""The documentation agrees with the code: links, metrics, refusals."""

from __future__ import annotations

import ast
import re
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from gateway.events import REASONS
from gateway.events.metrics import Family, Metrics
from gateway.health.problem import KINDS
from gateway.refusals import FAULTS
from tests.packaging.kit import PAGES, ROOT, blocks, program, rows

DOCS = ROOT / "docs"
REPLIES = DOCS / "replies.md"
promtool = program("promtool")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as the usual forges make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def metrics() -> dict[str, tuple[str, set[str]]]:
    """Every metric of ours by its documented name: type and labels."""
    made = Metrics(CollectorRegistry())
    for family in vars(made).values():
        for count in (3, 2, 1) if isinstance(family, Family) else ():
            with suppress(ValueError):  # so many labels it has not; without a sample it tells none
                family(*"abc"[:count])
    found = {}
    for metric in made.registry.collect():
        if metric.name.startswith("gateway_"):
            name = metric.name + ("_total" if metric.type == "counter" else "")
            found[name] = (metric.type, set(metric.samples[0].labels) - {"le"})
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """A relative link names a file of the repository, its fragment a heading there."""
    broken = []
    for link in LINK.findall(page.read_text()):
        if link.startswith(("https://", "http://", "mailto:")):
            continue
        path, _, fragment = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (fragment and fragment not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_every_page_can_be_reached_from_the_readme() -> None:
    """A page nobody links to is a page nobody reads."""
    seen, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page in seen:
            continue
        seen.add(page)
        links = (link.partition("#")[0] for link in LINK.findall(page.read_text()) if "://" not in link)
        todo += [(page.parent / link).resolve() for link in links if link.endswith(".md")]
    assert {page.name for page in PAGES} <= {page.name for page in seen}


def test_documented_metrics_are_exactly_those_of_the_code() -> None:
    """docs/metrics.md lists each metric with its type and labels, and none that does not exist."""
    documented = {}
    for name, kind, labels, meaning in rows(DOCS / "metrics.md", "metric", "type", "labels", "meaning"):
        assert meaning, name
        documented[name.strip("`")] = (kind, set(re.findall(r"\w+", labels)))
    assert documented == metrics()


def test_metrics_in_alerts_and_prose_exist() -> None:
    """An alert on a metric that is never exported never fires."""
    known = set(metrics())
    series = known | {f"{name}_{part}" for name in known for part in ("bucket", "sum", "count")}
    for page in PAGES:
        used = set(re.findall(r"\bgateway_[a-z_]+[a-z]\b", page.read_text()))
        assert used <= series, page.name


@pytest.mark.skipif(not promtool, reason="promtool is not installed (Debian package prometheus)")
def test_alerts_are_valid_rules(tmp_path: Path) -> None:
    """Prometheus itself accepts the rules that the runbook offers."""
    assert promtool
    [rules] = [block.text for block in blocks(DOCS / "operations.md", "yaml") if block.text.startswith("groups:")]
    path = tmp_path / "rules.yaml"
    path.write_text(rules)
    result = subprocess.run([promtool, "check", "rules", str(path)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_kind_of_problem_is_explained() -> None:
    """Who reads a kind in an alert finds what it means and what to do, and no kind that there is not."""
    explained = rows(DOCS / "operations.md", "kind", "it means", "do")
    assert [cells[0].strip("`") for cells in explained] == list(KINDS)
    assert all(all(cells) for cells in explained)


def test_every_reason_of_a_refusal_is_explained() -> None:
    """docs/replies.md explains each reason that can stand in a log line or metric, and no other."""
    cells = [cells[1] for cells in rows(REPLIES, "reply", "reason")]
    cells += [cells[0] for cells in rows(REPLIES, "reason of 535")]
    syntax = REPLIES.read_text().partition("## Syntax")[2]
    explained = set(re.findall(r"`([a-z]\w*)`", " ".join([*cells, syntax])))
    assert explained == REASONS - {"other"}


def refusals() -> set[tuple[str, str]]:
    """(code and enhanced code, reason) of every refusal an SMTP client can get: of FAULTS, and read from the source."""
    found = {(f"{code} {enhanced}", reason) for code, enhanced, reason in FAULTS.values()}
    for path in (ROOT / "gateway").rglob("*.py"):
        if "backends" in path.relative_to(ROOT).parts:  # theirs are outcomes of a delivery, never replies
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            terms: list[ast.expr] = []
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("Refusal", "Reply"):
                terms = node.args
            elif isinstance(node, ast.Tuple):
                terms = node.elts
            values = [term.value if isinstance(term, ast.Constant) else None for term in terms][:4]
            if len(values) == 4 and isinstance(values[0], int) and isinstance(values[1], str) and values[3] in REASONS:
                found.add((f"{values[0]} {values[1]}", str(values[3])))
    return found


def test_every_reply_is_explained_with_its_reason() -> None:
    """Who searches the page for the reply in front of him finds the row of its reason."""
    syntax = REPLIES.read_text().partition("## Syntax")[2]
    missing = []
    for reply, reason in sorted(refusals()):
        found = [cells[0] for cells in rows(REPLIES, "reply", "reason") if f"`{reason}`" in cells[1]]
        in_table = any(f"`{reply}`" in cell for cell in found)
        in_prose = f"`{reason}`" in syntax and f"`{reply[:3]}`" in syntax
        if not (in_table or in_prose):
            missing.append((reply, reason))
    assert missing == []
    assert len(refusals()) > 40
