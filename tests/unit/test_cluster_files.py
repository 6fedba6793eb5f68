"""The files beside cluster/'s code: image, compose and launcher agree with the code and with each other."""

from __future__ import annotations

import ast
import copy
import importlib
import re
import shlex
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

REPOSITORY = Path(__file__).resolve().parents[2]
CLUSTER = REPOSITORY / "cluster"
IMAGE = "tutti:0.1.0"


def _tree(name: str) -> dict[str, Any]:
    tree: dict[str, Any] = yaml.safe_load((CLUSTER / name).read_text())
    return tree


def _instructions() -> list[str]:
    text = re.sub(r"\\\n", " ", (CLUSTER / "Dockerfile").read_text())
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_the_image_copies_what_is_there_and_what_the_wheel_holds() -> None:
    copied = {
        source
        for line in _instructions()
        if line.startswith("COPY ") and "--from" not in line
        for source in shlex.split(line)[1:-1]
    }
    ignored = (CLUSTER / "Dockerfile.dockerignore").read_text().split()
    assert ignored[0] == "*", "all is left out but what is named"
    for source in copied:
        assert (REPOSITORY / source).exists(), source
        assert any(fnmatch(source, rule.removeprefix("!")) for rule in ignored if rule.startswith("!")), source
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert {package.partition("/")[0] for package in packages} <= copied
    assert {project["project"]["readme"], *project["project"]["license-files"], "constraints.txt"} <= copied


def test_the_image_runs_as_a_numbered_user_with_the_tools_of_kubernetes() -> None:
    lines = _instructions()
    (user,) = [line for line in lines if line.startswith("USER ")]
    assert user == "USER 1000:1000", "a name would not pass runAsNonRoot"
    assert lines.index(user) > max(index for index, line in enumerate(lines) if line.startswith("RUN "))
    assert 'ENTRYPOINT ["tutti"]' in lines
    assert any("apt-get install" in line and "wget" in line for line in lines), "KubeRay probes with wget"
    assert any("/etc/profile.d/" in line and "/opt/tutti/bin" in line for line in lines), "login shells reset PATH"


def test_one_version_names_the_image_everywhere() -> None:
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
    assert f"tutti:{version}" == IMAGE
    images = {service["image"] for service in _tree("compose.yaml")["services"].values()}
    assert images == {f"${{TUTTI_IMAGE:-{IMAGE}}}"}
    assert _tree("aws.yaml")["docker"]["image"] == IMAGE


def test_compose_opens_the_loopback_address_alone_and_holds_no_keys() -> None:
    services = _tree("compose.yaml")["services"]
    assert set(services) == {"s3", "mlflow", "ray-head", "ray-worker"}
    for name, service in services.items():
        for port in service.get("ports", []):
            assert re.fullmatch(r"127\.0\.0\.1:(\d+):\1", port), f"{name} {port}"
        for variable, value in service["environment"].items():
            if re.search("SECRET|TOKEN|KEY", variable):
                assert re.search(r"\$\{\w+:\?", value), f"{name} {variable} has a value of its own"


def test_compose_parts_meet_at_their_ports() -> None:
    services = _tree("compose.yaml")["services"]
    client = services["ray-worker"]["environment"]
    assert client == services["ray-head"]["environment"]
    assert client["RAY_AUTH_MODE"] == "token"
    assert client["AWS_ENDPOINT_URL"] == "http://s3:9000"
    assert "--addr :9000" in services["s3"]["command"][0]
    assert client["MLFLOW_TRACKING_URI"] == "http://mlflow:5000"
    assert "--port=5000" in services["mlflow"]["command"]
    assert "mlflow:5000" in services["mlflow"]["environment"]["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    assert "--port=6379" in services["ray-head"]["command"]
    assert "--address=ray-head:6379" in services["ray-worker"]["command"]


@pytest.mark.parametrize("service", ["s3", "mlflow", "ray-head"])
def test_compose_health_checks_are_code_that_can_run(service: str) -> None:
    form, program, flag, code = _tree("compose.yaml")["services"][service]["healthcheck"]["test"]
    assert (form, program, flag) == ("CMD", "python", "-c")
    imports = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.ImportFrom)]
    assert imports
    for node in imports:
        module = importlib.import_module(str(node.module))
        assert all(callable(getattr(module, alias.name)) for alias in node.names)


def test_the_launcher_file_is_what_ray_takes() -> None:
    prepared = prepare_config(_tree("aws.yaml"))
    validate_config(prepared)
    # What is left out, Ray fills with a command that installs another Ray.
    for name in ("setup_commands", "head_setup_commands", "worker_setup_commands"):
        assert prepared[name] == [], name
    starts = prepared["head_start_ray_commands"] + prepared["worker_start_ray_commands"]
    assert not any("0.0.0.0" in command for command in starts)
    assert "--env RAY_AUTH_MODE=token" in prepared["docker"]["run_options"]
    assert "~/.ray/auth_token" in prepared["file_mounts"]


@pytest.mark.parametrize(
    "change",
    [
        {"max_worker": 8},
        {"idle_timeout_minutes": "ten"},
        {"docker": {"container_name": "tutti", "image": 1}},
        {"head_node_type": "chief"},
    ],
)
def test_the_launcher_check_can_fail(change: dict[str, Any]) -> None:
    config = copy.deepcopy(_tree("aws.yaml")) | change
    with pytest.raises((jsonschema.ValidationError, ValueError)):
        validate_config(prepare_config(config))
