"""The Ray Serve application: ingress -> composer -> renderer.

Import path ``serve.app:build`` with the fields of :class:`~serve.settings.ServeSettings` as arguments, for a Serve
configuration file and for KubeRay's RayService. Host and port are the proxies' own and are set where Serve is started.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from ray import serve as ray_serve

from serve.composer import Composer
from serve.ingress import api
from serve.renderer import Renderer
from serve.settings import ServeSettings
from serve.stages import RayStages
from tutti import config
from tutti.registry.versions import Registry
from tutti.storage import Folder

HEALTH_PERIOD_S, HEALTH_TIMEOUT_S = 10.0, 30.0
CONSTRUCTOR_ATTEMPTS = 3
RENDERS_AT_ONCE = 2
SPARE_REQUESTS = 64
# Replicas look this often whether they are idle, while they shut down; Ray's own 2 s would be most of a stop.
DRAIN_LOOK_S = 0.2


class Ingress:
    """One process that speaks HTTP."""

    def __init__(self, settings: ServeSettings, composer: Any, renderer: Any) -> None:
        self._settings = settings
        self._stages = RayStages(settings, composer=composer, renderer=renderer)

    def __serve_build_asgi_app__(self) -> FastAPI:
        return api(self._stages, self._settings)


def build(args: dict[str, Any] | ServeSettings) -> Any:
    """The application from the fields of :class:`~serve.settings.ServeSettings`.

    Raises:
        RecipeError: an unknown or broken setting.
        MissingError: the model is not registered.
    """
    settings = args if isinstance(args, ServeSettings) else config.build(ServeSettings, args, origin="serve settings")
    registry = Registry.embedded(Folder(settings.root), tracking_uri=settings.tracking_uri)
    return application(settings, first=str(registry.resolve(settings.model)))


def application(settings: ServeSettings, *, first: str) -> Any:
    """The application with the version ``first`` loaded before it is ready."""
    composer = _composer(settings).bind(settings, first)
    renderer = _deployment(
        Renderer,
        settings,
        num_replicas=settings.renderer_replicas,
        ray_actor_options={"num_cpus": settings.renderer_cpus},
        max_ongoing_requests=RENDERS_AT_ONCE,
        # A piece that was composed is never sent away for want of a renderer.
        max_queued_requests=_most_held(settings),
    ).bind()
    return _ingress(settings).bind(settings, composer, renderer)


def _composer(settings: ServeSettings) -> Any:
    # As many wait at hand as step, so that one joins as soon as another leaves.
    ongoing = 2 * settings.max_batch
    if settings.max_composer_replicas is None:
        scale: dict[str, Any] = {"num_replicas": settings.composer_replicas}
    else:
        scale = {
            "autoscaling_config": {
                "min_replicas": settings.composer_replicas,
                "max_replicas": settings.max_composer_replicas,
                "target_ongoing_requests": settings.max_batch,
                "upscale_delay_s": settings.upscale_delay_s,
                "downscale_delay_s": settings.downscale_delay_s,
                "metrics_interval_s": 2.0,
                "look_back_period_s": 10.0,
            }
        }
    return _deployment(
        Composer,
        settings,
        ray_actor_options={"num_cpus": settings.composer_cpus, "num_gpus": settings.composer_gpus},
        max_ongoing_requests=ongoing,
        max_queued_requests=settings.max_queued,
        **scale,
    )


def _ingress(settings: ServeSettings) -> Any:
    # As many as composers and their queues hold, and room beyond: it is the ingress that sends clients away, with a
    # problem for a body, and answers for its health under full load. What the proxy refuses, it refuses in plain text.
    # Its queue counts even those that are just being handed over, so it must take a burst.
    most = _most_held(settings)
    return _deployment(
        ray_serve.ingress()(Ingress),
        settings,
        name="Ingress",
        num_replicas=settings.ingress_replicas,
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=most,
        max_queued_requests=most,
        backpressure_config={"status_code": 503, "retry_after_s": settings.retry_after_s},
    )


def _most_held(settings: ServeSettings) -> int:
    replicas = settings.max_composer_replicas or settings.composer_replicas
    return 2 * (2 * settings.max_batch * replicas + settings.max_queued) + SPARE_REQUESTS


def _deployment(kind: Any, settings: ServeSettings, **options: Any) -> Any:
    return ray_serve.deployment(
        graceful_shutdown_timeout_s=settings.drain_s,
        graceful_shutdown_wait_loop_s=DRAIN_LOOK_S,
        health_check_period_s=HEALTH_PERIOD_S,
        health_check_timeout_s=HEALTH_TIMEOUT_S,
        max_constructor_retry_count=CONSTRUCTOR_ATTEMPTS,
        # New replicas answer before the old ones of a rolling update stop.
        max_surge_percent=100,
        **options,
    )(kind)
