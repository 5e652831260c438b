"""What the OpenAPI document says, tried against a real service by schemathesis: it asks for what may be and may not be.

The service is thrown away afterwards: whatever is ordered of it is really done.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import one_of
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from gateway.http.openapi import document
from gateway.http.routes import ROUTES
from tests.flow.kit import Gateway

CHECKS = [
    not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance,
    negative_data_rejection,
]  # fmt: skip
WHOLE = document(ROUTES)
SCHEMA = schemathesis.openapi.from_dict(WHOLE)
LONG = {"/api/v1/doctor"}  # POST waits for a whole run: once is enough
OPERATIONS = [one.ok() for one in SCHEMA.get_all_operations()]
FEW, MANY = 2, 100
CONFIG = """
limits: {spool_free: 0}
routes: [{backend: box}]
backends: {box: {type: capture, directory: captured}, spare: {type: capture, directory: spared}}
"""


@pytest.fixture(scope="module")
def token_and_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """A service with mail of every kind in it, and the token of an admin."""
    folder = tmp_path_factory.mktemp("schema")
    with Gateway(folder, CONFIG) as one:
        token = one.run("token", "mint", "--sub", "ops", "--admin").stdout.strip()
        one.run("send-test", "--to", "a@example.net")
        yield token, f"http://127.0.0.1:{one.http_port}"


def test_the_document_is_openapi() -> None:
    """By the meta-schema of OpenAPI 3.1."""
    SCHEMA.validate()


def run(operation: schemathesis.APIOperation, access: tuple[str, str], examples: int) -> None:  # type: ignore[type-arg]
    token, url = access
    takes = bool(operation.body) or bool(operation.query)  # else nothing can be wrong
    modes = [GenerationMode.POSITIVE, *[GenerationMode.NEGATIVE] * takes]

    @seed(20261130)
    @settings(
        max_examples=1 if operation.path in LONG else examples, deadline=None, database=None,
        phases=[Phase.generate], suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=one_of(*(operation.as_strategy(generation_mode=mode) for mode in modes)))
    def ask(case: schemathesis.Case) -> None:
        headers = {"Authorization": f"Bearer {token}"}
        case.call_and_validate(base_url=url, headers=headers, checks=CHECKS, timeout=60)

    ask()


def test_a_few(token_and_url: tuple[str, str]) -> None:
    """No fault of ours, nothing but what is declared, and what is wrong is refused; one test, for one service."""
    for operation in OPERATIONS:
        run(operation, token_and_url, FEW)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: one.label)
def test_many(operation: schemathesis.APIOperation, token_and_url: tuple[str, str]) -> None:  # type: ignore[type-arg]
    """The same, for long."""
    run(operation, token_and_url, int(os.environ.get("GATEWAY_EXAMPLES", MANY)))
