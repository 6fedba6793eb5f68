"""``tutti serve``: a Ray Serve application on this machine, until Ctrl-C."""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
import yaml

from serve.settings import ServeSettings
from tutti import config, telemetry
from tutti.errors import PlaceError, RecipeError
from tutti.storage import Folder
from tutti.telemetry import Reporter
from tutti.units import format_seconds

if TYPE_CHECKING:
    from tutti.registry.model_version import ModelVersion

APPLICATION = "tutti"
LOOK_EVERY_S = 5.0
READY_WITHIN_S = 30.0
EVERY_INTERFACE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


@click.command(name="serve")
@click.option(
    "--model",
    metavar="MODEL",
    help="Registered model: NAME, NAME@ALIAS or NAME/3. Without it, the only one that is registered.",
)
@click.option(
    "--port", metavar="PORT", type=click.IntRange(1, 65535), default=8000, show_default=True, help="TCP port."
)
@click.option("--host", metavar="HOST", default="127.0.0.1", show_default=True, help="0.0.0.0: every interface.")
@click.option("--replicas", type=click.IntRange(1, 1000), default=1, show_default=True, help="Model replicas.")
@click.option("--root", metavar="FOLDER", default="results", show_default=True, help="Results.")
@click.option(
    "--tracking-uri",
    metavar="URL",
    envvar="MLFLOW_TRACKING_URI",
    show_envvar=True,
    help="An MLflow server; without it, the SQLite file below --root.",
)
@click.option(
    "--set",
    "overrides",
    metavar="KEY=VALUE",
    multiple=True,
    help="A setting of serve/settings.py, such as max_batch=16.",
)
def command(
    model: str | None,
    port: int,
    host: str,
    replicas: int,
    root: str,
    tracking_uri: str | None,
    overrides: tuple[str, ...],
) -> None:
    """Serve a registered model over HTTP until Ctrl-C.

    POST /v1/generate answers with note events, MIDI, FLAC or WAV, as Accept asks, or tells of notes as they are made;
    GET /v1/models, /healthz, /readyz and /openapi.json tell about the service.

    \b
    Example:
        tutti serve --model bach@production --port 8000
        curl -s http://127.0.0.1:8000/v1/generate -H 'Content-Type: application/json' \\
             -H 'Accept: audio/flac' -d '{"length": "20s", "key": "D minor"}' -o take.flac
    """
    check_port(host, port)
    from tutti.registry.versions import Registry  # MLflow takes two seconds to import: --help does without

    registry = Registry.embedded(Folder(root), tracking_uri=tracking_uri)
    reference = model or registry.only_model()
    version = registry.resolve(reference)
    tree = {
        "model": reference,
        "root": str(Folder(root).local_path) if Folder(root).is_local else root,
        "tracking_uri": tracking_uri,
        "host": host,
        "port": port,
        "composer_replicas": replicas,
    }
    settings = config.parse(ServeSettings, yaml.safe_dump(tree), overrides=overrides, origin="serve settings")
    run(settings, version=version, reporter=telemetry.reporter())


def run(settings: ServeSettings, *, version: ModelVersion, reporter: Reporter) -> None:
    """Start Ray and the application, say where it is, and stay until SIGINT or SIGTERM.

    Args:
        settings: of the service.
        version: what ``settings.model`` means now; it is loaded before the service is ready.
        reporter: where the steps of the start go.

    Raises:
        PlaceError: Ray or the application does not start, or dies.
        RecipeError: more replicas than the machine has cores for.
    """
    from cluster.embedded import start_embedded_ray

    started_s = time.monotonic()
    reporter.line(f"starting {version}")
    start_embedded_ray()
    import ray

    _check_vacant()
    # Ray's own handler would end the process and leave its servers to find out.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _check_cores(settings, cores=ray.cluster_resources().get("CPU", 0.0))
        with _deployed(settings, version=version):
            took = format_seconds(time.monotonic() - started_s)
            click.echo(_welcome(settings, version=version, took=took, logs=_logs()))
            _stay(reporter)
    finally:
        _shut_down()


def check_port(host: str, port: int) -> None:
    """Raise unless this machine can listen there.

    Raises:
        PlaceError: the port is in use or reserved, or the host is no address of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise PlaceError(
            f"host {host!r} has no address ({error.strerror})", remedy="give another with --host"
        ) from None
    with socket.socket(family, kind, protocol) as listener:
        # A connection that closed a minute ago must not count as a listener.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            listener.listen(1)
        except PermissionError:
            raise PlaceError(f"port {port} on {host} is reserved", remedy="choose one above 1023 with --port") from None
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PlaceError(f"port {port} on {host} is in use", remedy="choose another with --port") from None
            raise PlaceError(f"cannot listen on {host} ({error.strerror})", remedy="give another --host") from None


@contextmanager
def _deployed(settings: ServeSettings, *, version: ModelVersion) -> Iterator[None]:
    import httpx
    from ray import serve as ray_serve

    from serve.app import application

    # Everything that it says lies in the session's log files as well.
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    try:
        ray_serve.start(
            proxy_location="HeadOnly",
            http_options={
                "host": settings.host,
                "port": settings.port,
                # The application answers a timeout itself, as a problem; this one is for an application that hangs.
                "request_timeout_s": settings.timeout_s + 15,
            },
        )
        ray_serve.run(application(settings, first=str(version)), name=APPLICATION, route_prefix="/")
        deadline_s = time.monotonic() + READY_WITHIN_S
        while httpx.get(f"{_address(settings)}/readyz", timeout=READY_WITHIN_S).status_code != httpx.codes.OK:
            if time.monotonic() > deadline_s:
                raise PlaceError("the service does not get ready", remedy=f"the logs in {_logs()} say why")
            time.sleep(0.2)
        yield
    except (RuntimeError, TimeoutError, httpx.HTTPError) as error:
        reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise PlaceError(f"the service does not run ({reason[0]})", remedy=f"the logs in {_logs()} say more") from error


def _shut_down() -> None:
    import ray
    from ray import serve as ray_serve

    # The controller ends itself, and Ray's thread for errors prints to stdout that its last task failed by that.
    with contextlib.redirect_stdout(io.StringIO()):
        ray_serve.shutdown()
        ray.shutdown()


def _stay(reporter: Reporter) -> None:
    """Return at SIGINT or SIGTERM; say meanwhile when the application's state changes."""
    from ray import serve as ray_serve

    known = "RUNNING"
    try:
        while True:
            time.sleep(LOOK_EVERY_S)
            state = str(ray_serve.status().applications[APPLICATION].status.value)
            if state != known:
                reporter.line(f"the service is {state.lower()}")
                known = state
    except KeyboardInterrupt:
        reporter.line("stopping")


def _check_vacant() -> None:
    from ray import serve as ray_serve

    if ray_serve.status().applications:
        raise PlaceError("this Ray cluster serves an application already", remedy="stop it with `serve shutdown`")


def _check_cores(settings: ServeSettings, *, cores: float) -> None:
    needed = settings.composer_replicas * settings.composer_cpus + settings.renderer_replicas * settings.renderer_cpus
    if needed > cores:
        raise RecipeError(
            f"{settings.composer_replicas} model replicas need {needed:g} cores, Ray has {cores:g}",
            remedy="lower --replicas, or --set composer_cpus",
        )


def _logs() -> Path:
    import ray

    return Path(ray._private.worker._global_node.get_session_dir_path()) / "logs" / "serve"


def _address(settings: ServeSettings) -> str:
    host = EVERY_INTERFACE.get(settings.host, settings.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"


def _welcome(settings: ServeSettings, *, version: ModelVersion, took: str, logs: Path) -> str:
    address = _address(settings)
    return f"""try it:

  curl -s {address}/v1/generate -H 'Content-Type: application/json' -H 'Accept: audio/midi' \\
       -d '{{"length": "20s", "key": "D minor", "tempo": 90}}' -o take.mid
  curl -N {address}/v1/generate -H 'Content-Type: application/json' -H 'Accept: text/event-stream' \
       -d '{{"length": "20s", "key": "D minor", "tempo": 90}}'

ready in {took}; logs in {logs}; Ctrl-C stops it
serving {version} at {address}"""
