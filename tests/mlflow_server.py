"""A real MLflow server over records of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster import processes, services

STARTS_WITHIN_S = 90.0


@contextmanager
def serving(home: Path, *, port: int) -> Iterator[str]:
    """The address of a server until the block ends; its records are ``mlflow.db`` below ``home``.

    What clients send lies in ``sent`` below ``home``.
    """
    server = services.mlflow_server(port=port, database=home / "mlflow.db", artifacts=str(home / "sent"))
    log = home / "log.txt"
    process = processes.start(server.command, log=log, environment={**os.environ, **server.environment})
    try:
        assert processes.wait_for_answer(server.ready_url, process=process, timeout_s=STARTS_WITHIN_S), log.read_text()
        yield server.address
    finally:
        processes.stop(process, grace_s=server.grace_s)
