"""The record of a local stack, and what `up` and `down` say where they cannot do their work."""

from __future__ import annotations

import os
import socket
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest

from cluster import local
from cluster.processes import Detached, free_port
from cluster.services import Ports, client_environment
from cluster.stack import RECORD, Service, Stack, read_stack
from tutti.errors import PlaceError, RecipeError


def _free_ports() -> Ports:
    return Ports(**{name: free_port() for name in asdict(Ports())})


def _stack(home: Path) -> Stack:
    ports = Ports()
    myself = Detached(os.getpid(), psutil.Process().create_time())
    return Stack(
        home=home,
        ports=ports,
        services=(Service(name="s3", address="s3://tutti", process=myself, log=home / "s3.log", grace_s=10),),
        environment=client_environment(ports, ray_token_file=home / "ray-token", s3_key_id="id", s3_key="secret"),
        ray_temp_dir=home / "ray",
    )


def test_a_record_comes_back_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    stack = _stack(tmp_path)
    stack.write()
    assert read_stack(tmp_path) == stack
    assert (tmp_path / RECORD).stat().st_mode & 0o777 == 0o600
    assert stack.is_running
    assert not stack.with_services([]).is_running


def test_no_record_is_no_stack(tmp_path: Path) -> None:
    assert read_stack(tmp_path) is None
    assert local.running_stack(tmp_path) is None
    assert local.down(tmp_path) == ()
    assert list(tmp_path.iterdir()) == [], "asking makes no folders"


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"home": "/"', '{"format": 99}'])
def test_a_record_that_cannot_be_read_is_said_in_one_line(tmp_path: Path, text: str) -> None:
    home = tmp_path / "stack"
    home.mkdir()
    (home / RECORD).write_text(text)
    for ask in (local.up, local.down, local.running_stack):
        with pytest.raises(
            PlaceError, match=r"stack\.json \(it is not a record\): stop its servers by hand and delete"
        ):
            ask(tmp_path)


def test_a_port_in_use_is_named_with_its_remedy_and_nothing_is_started(tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        taken = listener.getsockname()[1]
        ports = Ports(**{**asdict(_free_ports()), "mlflow": taken})
        line = (
            rf"port {taken} \(mlflow\) in use on this machine: stop the program that listens there, or choose another"
        )
        with pytest.raises(PlaceError, match=line):
            local.up(tmp_path, ports=ports)
    assert local.running_stack(tmp_path) is None
    assert not (tmp_path / "stack" / RECORD).exists()


@pytest.mark.parametrize(
    ("ports", "complaint"),
    [
        ({"mlflow": 80}, "port 80 for mlflow is outside 1024 to 65535"),
        ({"s3": 70000}, "port 70000 for s3 is outside 1024 to 65535"),
        ({"s3": 5000}, "port 5000 is given to mlflow and to s3"),
    ],
)
def test_ports_that_cannot_be_are_refused(ports: dict[str, int], complaint: str) -> None:
    with pytest.raises(RecipeError, match=complaint):
        Ports(**ports)


def test_no_cores_are_too_few(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="0 cores for Ray are too few"):
        local.up(tmp_path, num_cpus=0)


def test_a_root_that_is_a_file_is_said_in_one_line(tmp_path: Path) -> None:
    root = tmp_path / "results"
    root.write_text("")
    with pytest.raises(PlaceError, match=r"cannot make the folder .*results/stack \(Not a directory\): choose another"):
        local.up(root)


def test_a_stack_points_every_client_at_the_loopback_address(tmp_path: Path) -> None:
    environment = _stack(tmp_path).environment
    assert environment["RAY_AUTH_MODE"] == "token"
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "MLFLOW_TRACKING_URI", "AWS_ENDPOINT_URL"):
        assert environment[name].removeprefix("http://").startswith("127.0.0.1:"), name
