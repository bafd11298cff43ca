"""Two processes of the service on one database, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from interfaces.host.embedded_postgres import EmbeddedPostgres
from tests.acceptance.serving import cloned
from tests.crash.victims import Service
from tests.lin.run import SETTINGS, services, surprises


@pytest.fixture(scope="module")
def running(
    cluster: EmbeddedPostgres, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Service]]:
    """Both serve at the start of a module's tests, and neither may end but by their hand."""
    directory = tmp_path_factory.mktemp("services")
    with cloned(cluster, template) as url:
        with services(url, directory, SETTINGS) as processes:
            yield processes
        assert surprises(processes) == []


@pytest.fixture(scope="module")
def urls(running: Sequence[Service]) -> list[str]:
    """Where both are reached."""
    return [service.url for service in running]
