"""What is known of a local stack: its servers, ports and variables, in ``stack.json`` below its folder.

The record holds the key of the stack's S3 server, so only its owner can read it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from pydantic import Field, ValidationError

from cluster.processes import Detached, is_running
from cluster.services import Ports
from tutti.config import Settings
from tutti.errors import PlaceError

RECORD = "stack.json"


class Service(Settings):
    """One server that was started."""

    name: str = Field(description="s3, mlflow or ray")
    address: str = Field(description="what a user types or opens")
    process: Detached
    log: Path = Field(description="file that takes what the server says")
    grace_s: float = Field(description="seconds that it may take to end in order")


class Stack(Settings):
    """A local stack."""

    home: Path = Field(description="its folder, <results root>/stack")
    ports: Ports
    services: tuple[Service, ...] = Field(description="in the order in which they were started")
    environment: dict[str, str] = Field(
        description="variables that make a shell, and every verb started in it, use the stack; they hold its S3 key"
    )
    ray_temp_dir: Path = Field(description="where Ray keeps its sockets, logs and spilled objects")

    @property
    def is_running(self) -> bool:
        """Whether every server of the stack is alive."""
        return bool(self.services) and all(is_running(service.process) for service in self.services)

    def with_services(self, services: Iterable[Service]) -> Stack:
        """The same stack with these servers."""
        return self.model_copy(update={"services": tuple(services)})

    def write(self) -> None:
        """Put the record in its place, whole or not at all."""
        write_private(self.home / RECORD, self.model_dump_json(indent=2) + "\n")


def read_stack(home: Path) -> Stack | None:
    """The stack that is recorded in ``home``, or None.

    Raises:
        PlaceError: the record cannot be read.
    """
    path = home / RECORD
    try:
        return Stack.model_validate_json(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        reason = "it is not a record" if isinstance(error, ValidationError) else error.strerror
        raise PlaceError(
            f"cannot read the record of the local stack, {path} ({reason})",
            remedy="stop its servers by hand and delete the file",
        ) from error


def write_private(path: Path, text: str) -> None:
    """Put ``text``, readable for its owner alone, whole or not at all."""
    staged = path.with_name(f".{path.name}.part")
    staged.unlink(missing_ok=True)
    with os.fdopen(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    staged.replace(path)
