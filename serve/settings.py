"""What one service is started with; also the arguments of the application in a Ray Serve or RayService file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from tutti.config import Settings
from tutti.generation.request import MOST_CANDIDATES
from tutti.units import MAX_LENGTH_S, MIN_LENGTH_S


class ServeSettings(Settings):
    """Model, places and limits of one service."""

    model: str = Field(
        min_length=1, description="registered model that answers where a request names none: NAME, NAME@ALIAS or NAME/3"
    )
    root: str = Field(default="results", description="results root that holds the registry: a folder or s3:// address")
    tracking_uri: str | None = Field(default=None, description="MLflow server; without it the registry below the root")

    host: str = Field(default="127.0.0.1", min_length=1, description="address to listen on; 0.0.0.0: every interface")
    port: int = Field(default=8000, ge=1, le=65535, description="TCP port to listen on")

    ingress_replicas: int = Field(default=1, ge=1, le=100, description="number of processes that speak HTTP")
    composer_replicas: int = Field(default=1, ge=1, le=1000, description="smallest number of model replicas")
    max_composer_replicas: int | None = Field(
        default=None, ge=1, le=1000, description="largest number of model replicas; without it their number is fixed"
    )
    renderer_replicas: int = Field(default=1, ge=1, le=1000, description="number of rendering processes")
    composer_cpus: float = Field(default=1.0, gt=0, le=256, description="cores for each model replica")
    composer_gpus: float = Field(default=0.0, ge=0, le=8, description="GPUs for each model replica; 0: on the cores")
    renderer_cpus: float = Field(
        default=0.0, ge=0, le=256, description="cores kept for each rendering process; 0: it takes what is idle"
    )
    upscale_delay_s: float = Field(default=5.0, ge=0, description="load must last this long to add replicas, seconds")
    downscale_delay_s: float = Field(
        default=120.0, ge=0, description="idleness must last this long to remove replicas, seconds"
    )

    max_batch: int = Field(default=8, ge=1, le=256, description="most requests that step together in a model replica")
    cache_bytes: int = Field(
        default=1 << 30,
        ge=1 << 20,
        description="memory of each loaded model for what requests have read so far, bytes; how many of them step "
        "together follows from it",
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="bits of each model's products; auto: bfloat16 where the processor multiplies it, else float32; "
        "one gives other notes than the other, so replicas on unlike machines want one that is named",
    )
    models_per_replica: int = Field(
        default=2, ge=1, le=64, description="most models that a replica keeps loaded; the least used gives way"
    )
    model_refresh_s: float = Field(
        default=5.0, ge=0, description="how soon a promoted version answers: age of a looked-up alias, seconds"
    )

    max_length_s: float = Field(
        default=300.0, ge=MIN_LENGTH_S, le=MAX_LENGTH_S, description="longest piece that may be asked, seconds"
    )
    max_bars: int = Field(default=256, ge=1, le=512, description="longest piece that may be asked, bars")
    max_best_of: int = Field(
        default=16, ge=1, le=MOST_CANDIDATES, description="most pieces that one request may have made to choose from"
    )
    max_body_bytes: int = Field(default=2 << 20, ge=1024, le=64 << 20, description="largest request body, bytes")
    max_material_notes: int = Field(default=20_000, ge=1, description="most notes of a MIDI file to continue")
    max_queued: int = Field(
        default=32, ge=1, le=10_000, description="most requests that wait for a model replica; more are sent away"
    )
    retry_after_s: int = Field(
        default=5, ge=1, le=3600, description="when a client that was sent away may return, seconds"
    )
    timeout_s: float = Field(default=120.0, gt=0, le=3600, description="longest time for one answer, seconds")
    drain_s: float = Field(
        default=10.0, ge=0, le=3600, description="how long a stopping replica may finish what it holds, seconds"
    )

    @model_validator(mode="after")
    def _replicas_in_order(self) -> ServeSettings:
        most, least = self.max_composer_replicas, self.composer_replicas
        if most is not None and most < least:
            raise ValueError(f"max_composer_replicas {most} is below composer_replicas {least}")
        return self
