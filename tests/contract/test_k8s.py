"""What is in ``k8s/`` is what Kubernetes, KubeRay's operator and Tutti will take, as far as it shows without a cluster.

Rendered objects are held against KubeRay's own CRD schemas and against the schemas of Kubernetes, both closed: a real
cluster drops an unknown field without a word, so a misspelt limit would simply not be there.
"""

from __future__ import annotations

import copy
import importlib
import json
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import jsonschema
import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from jobs.cli import VERBS
from jobs.recipe import Recipe
from serve.settings import ServeSettings
from tutti import config

Manifest: TypeAlias = dict[str, Any]

HERE = Path(__file__).resolve()
REPOSITORY = HERE.parents[2]
K8S = REPOSITORY / "k8s"
CRD_FOLDER = REPOSITORY.parent / "shared" / "schemas" / "kuberay"
KUSTOMIZATIONS = [K8S / "base", *sorted(path.parent for path in (K8S / "overlays").glob("*/kustomization.yaml"))]
KUBERNETES_VERSION = "1.33"
# libyaml reads KubeRay's megabytes ten times faster than Python does.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

OLDEST_KUBECTL = (1, 24)  # Debian 12 packages 1.20, whose kustomize knows neither `labels` nor options of one generator


def _why_not_render() -> str:
    """What keeps this machine from rendering; nothing where it can."""
    if shutil.which("kubectl") is None:
        return "kubectl is not installed"
    done = subprocess.run(["kubectl", "version", "--client", "-o", "json"], capture_output=True, text=True, timeout=60)
    client = json.loads(done.stdout)["clientVersion"]
    found = (int(client["major"]), int(client["minor"].rstrip("+")))
    return "" if found >= OLDEST_KUBECTL else f"kubectl {client['gitVersion']} is older than 1.24"


WHY_NOT_RENDER = _why_not_render()
needs_kubectl = pytest.mark.skipif(bool(WHY_NOT_RENDER), reason=WHY_NOT_RENDER)
needs_crds = pytest.mark.skipif(
    not CRD_FOLDER.is_dir(), reason="KubeRay's schemas (../shared/schemas/kuberay) are absent"
)
every_kustomization = pytest.mark.parametrize("folder", KUSTOMIZATIONS, ids=lambda folder: folder.name)

# Ray Serve's own defaults for these hurt; each must stand in the file.
SERVE_FIGURES = {
    "composer_replicas", "max_composer_replicas", "upscale_delay_s", "downscale_delay_s", "max_batch", "max_queued",
    "retry_after_s", "timeout_s", "drain_s",
}  # fmt: skip


@cache
def _render(folder: Path) -> str:
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr.lower(), done.stderr
    return done.stdout


def rendered(folder: Path) -> list[Manifest]:
    return [manifest for manifest in yaml.safe_load_all(_render(folder)) if manifest]


def sources() -> list[Manifest]:
    """Objects of the base as they are written: what can be checked without kubectl."""
    files = _kustomization(K8S / "base")["resources"]
    return [item for name in files for item in yaml.safe_load_all((K8S / "base" / name).read_text()) if item]


def _kustomization(folder: Path) -> Manifest:
    tree: Manifest = yaml.safe_load((folder / "kustomization.yaml").read_text())
    return tree


@cache
def _crd_schema(kind: str) -> Manifest:
    crd = yaml.load((CRD_FOLDER / f"ray.io_{kind.lower()}s.yaml").read_text(), Loader=LOADER)
    (version,) = [version for version in crd["spec"]["versions"] if version["name"] == "v1"]
    schema: Manifest = version["schema"]["openAPIV3Schema"]
    # A CRD leaves `metadata` to Kubernetes, which takes these names alone.
    schema["properties"]["metadata"] = {
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": {"type": "string", "pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$", "maxLength": 47},
            "namespace": {"type": "string"},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
        },
    }
    closed: Manifest = _closed(schema)
    return closed


def _closed(node: Any) -> Any:
    """The schema with unknown fields refused, and with OpenAPI's own words said in JSON Schema's."""
    if isinstance(node, list):
        return [_closed(item) for item in node]
    if not isinstance(node, dict):
        return node
    closed = {key: _closed(value) for key, value in node.items()}
    if closed.get("x-kubernetes-int-or-string"):
        closed.pop("type", None)
        closed["type"] = ["integer", "string"]
    if isinstance(closed.get("properties"), dict) and not closed.get("x-kubernetes-preserve-unknown-fields"):
        closed.setdefault("additionalProperties", False)
    return closed


def crd_faults(manifest: Manifest) -> list[str]:
    validator = jsonschema.Draft202012Validator(_crd_schema(manifest["kind"]))
    return [f"{'/'.join(map(str, fault.path))}: {fault.message}" for fault in validator.iter_errors(manifest)]


def is_ray(manifest: Manifest) -> bool:
    return str(manifest["apiVersion"]).startswith("ray.io/")


def named(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    (found,) = [item for item in manifests if item["kind"] == kind and item["metadata"]["name"] == name]
    return found


def ray_cluster_specs(manifests: list[Manifest]) -> Iterator[tuple[Manifest, Manifest]]:
    for manifest in manifests:
        spec = manifest.get("spec", {})
        if is_ray(manifest):
            yield (
                manifest,
                {"RayCluster": spec, "RayJob": spec.get("rayClusterSpec")}.get(
                    manifest["kind"], spec.get("rayClusterConfig")
                ),
            )


def pod_specs(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    for manifest in manifests:
        name = f"{manifest['kind']}/{manifest['metadata']['name']}"
        if manifest["kind"] == "Deployment":
            yield name, manifest["spec"]["template"]["spec"]
        if manifest["kind"] == "RayJob":
            yield f"{name} submitter", manifest["spec"]["submitterPodTemplate"]["spec"]
    for manifest, cluster in ray_cluster_specs(manifests):
        name = f"{manifest['kind']}/{manifest['metadata']['name']}"
        yield f"{name} head", cluster["headGroupSpec"]["template"]["spec"]
        for group in cluster["workerGroupSpecs"]:
            yield f"{name} {group['groupName']}", group["template"]["spec"]


def containers(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    for name, pod in pod_specs(manifests):
        for container in pod["containers"]:
            yield f"{name} {container['name']}", container


def strings_below(node: Any, key: str) -> Iterator[Any]:
    """Values of ``key`` wherever it stands below ``node``."""
    if isinstance(node, dict):
        if key in node:
            yield node[key]
        for value in node.values():
            yield from strings_below(value, key)
    elif isinstance(node, list):
        for value in node:
            yield from strings_below(value, key)


# Files


@every_kustomization
def test_every_file_is_yaml_and_is_used(folder: Path) -> None:
    tree = _kustomization(folder)
    listed = {"kustomization.yaml", *tree.get("resources", []), *tree.get("configurations", [])}
    listed |= {patch["path"] for patch in tree.get("patches", [])}
    listed |= {name for generator in tree.get("configMapGenerator", []) for name in generator.get("files", [])}
    present = {str(path.relative_to(folder)) for path in folder.rglob("*.yaml")}
    assert present == {name for name in listed if not name.startswith("..")}
    for name in present:
        assert list(yaml.safe_load_all((folder / name).read_text())), f"{name} is empty"


def test_no_secret_is_in_the_repository() -> None:
    for path in K8S.rglob("*.yaml"):
        text = path.read_text()
        assert not re.search(r"^kind:\s*Secret$", text, re.MULTILINE), path
        assert "secretGenerator" not in text, path
        assert not re.search(r"(SECRET_ACCESS_KEY|AUTH_TOKEN)\s*[=:]\s*\S*[A-Za-z0-9]{12,}", text), path


# Schemas


@needs_crds
def test_base_as_written_is_what_kuberay_takes() -> None:
    ray_objects = [item for item in sources() if is_ray(item)]
    assert sorted(item["kind"] for item in ray_objects) == ["RayCluster", "RayJob", "RayService"]
    for manifest in ray_objects:
        assert crd_faults(manifest) == []


@needs_kubectl
@needs_crds
@every_kustomization
def test_rendered_ray_objects_are_what_kuberay_takes(folder: Path) -> None:
    ray_objects = [item for item in rendered(folder) if is_ray(item)]
    assert sorted(item["kind"] for item in ray_objects) == ["RayCluster", "RayJob", "RayService"]
    for manifest in ray_objects:
        assert crd_faults(manifest) == []


@needs_crds
@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda spec: spec.update(rayVerson="2.60.0"), "rayVerson"),
        (lambda spec: spec["authOptions"].update(mode="Token"), "not one of"),
        (lambda spec: spec["headGroupSpec"]["template"]["spec"]["containers"][0].update(memory="4Gi"), "memory"),
        (lambda spec: spec["workerGroupSpecs"][0].update(replicas="one"), "not of type 'integer'"),
        (lambda spec: spec["workerGroupSpecs"][0].pop("groupName"), "required property"),
        (lambda spec: spec.update(headGroupSpec={}), "required property"),
    ],
)
def test_the_schema_check_can_fail(change: Any, complaint: str) -> None:
    manifest = copy.deepcopy(named(sources(), "RayCluster", "tutti"))
    change(manifest["spec"])
    assert any(complaint in fault for fault in crd_faults(manifest))


@needs_kubectl
@every_kustomization
def test_rendered_core_objects_are_what_kubernetes_takes(folder: Path) -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    core = [item for item in rendered(folder) if not is_ray(item)]
    assert {item["kind"] for item in core} >= {"Namespace", "ServiceAccount", "ConfigMap", "Service", "Deployment"}
    for manifest in core:
        validate.validate(manifest, KUBERNETES_VERSION, strict=True)
    broken = copy.deepcopy(named(core, "Deployment", "mlflow"))
    broken["spec"]["template"]["spec"]["containers"][0]["resource"] = {}
    with pytest.raises(validate.ValidationError, match="resource"):
        validate.validate(broken, KUBERNETES_VERSION, strict=True)


# Agreement between objects


@needs_kubectl
@every_kustomization
def test_what_is_named_is_there(folder: Path) -> None:
    manifests = rendered(folder)
    present: dict[str, set[str]] = {}
    for manifest in manifests:
        present.setdefault(manifest["kind"], set()).add(manifest["metadata"]["name"])
        assert manifest["kind"] == "Namespace" or manifest["metadata"]["namespace"] == "tutti"
    for name, pod in pod_specs(manifests):
        assert pod["serviceAccountName"] in present["ServiceAccount"], name
        for volume in pod.get("volumes", []):
            if "configMap" in volume:
                assert volume["configMap"]["name"] in present["ConfigMap"], name
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in present["PersistentVolumeClaim"], name
        volumes = {volume["name"] for volume in pod.get("volumes", [])}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container.get("volumeMounts", [])} <= volumes, name
            for source in container.get("envFrom", []):
                if "configMapRef" in source:
                    assert source["configMapRef"]["name"] in present["ConfigMap"], name
    assert {ref["name"] for ref in strings_below(manifests, "secretRef")} == {"tutti-s3"}
    assert {ref["name"] for ref in strings_below(manifests, "secretKeyRef")} <= {"tutti-s3"}


@needs_kubectl
@every_kustomization
def test_one_image_runs_everything(folder: Path) -> None:
    images = {container["image"] for _, container in containers(rendered(folder))}
    assert len(images) == 1
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
    assert images.pop() in {f"tutti:{version}", "tutti:dev"}


@needs_kubectl
@every_kustomization
def test_services_reach_the_ports_of_their_pods(folder: Path) -> None:
    manifests = rendered(folder)
    addresses = set()
    for service in [item for item in manifests if item["kind"] == "Service"]:
        (pod,) = [
            item["spec"]["template"]["spec"]
            for item in manifests
            if item["kind"] == "Deployment"
            and service["spec"]["selector"].items() <= item["spec"]["template"]["metadata"]["labels"].items()
        ]
        numbers = {port["name"]: port["containerPort"] for port in pod["containers"][0]["ports"]}
        command = " ".join([*pod["containers"][0]["command"], *pod["containers"][0]["args"]])
        for port in service["spec"]["ports"]:
            assert numbers[port["targetPort"]] == port["port"]
            assert f":{port['port']}" in command or f"--port={port['port']}" in command
            addresses.add(f"http://{service['metadata']['name']}:{port['port']}")
    settings = next(item for item in manifests if item["metadata"]["name"].startswith("tutti-settings-"))["data"]
    assert settings["MLFLOW_TRACKING_URI"] in addresses
    assert settings.get("AWS_ENDPOINT_URL", "http://mlflow:5000") in addresses
    mlflow = named(manifests, "Deployment", "mlflow")["spec"]["template"]["spec"]["containers"][0]
    (hosts,) = [item["value"] for item in mlflow["env"] if item["name"] == "MLFLOW_SERVER_ALLOWED_HOSTS"]
    assert settings["MLFLOW_TRACKING_URI"].removeprefix("http://") in hosts.split(",")


@needs_kubectl
@every_kustomization
def test_each_part_can_be_applied_by_its_label(folder: Path) -> None:
    parts = {item["metadata"]["labels"].get("app.kubernetes.io/component") for item in rendered(folder)}
    assert parts == {"platform", "cluster", "training", "serving"}


# Agreement with Ray and with Tutti


def all_sources() -> list[Any]:
    return [pytest.param(sources, id="as written")] + [
        pytest.param(lambda folder=folder: rendered(folder), id=folder.name, marks=needs_kubectl)
        for folder in KUSTOMIZATIONS
    ]


manifests_of = pytest.mark.parametrize("manifests_of", all_sources())


@manifests_of
def test_ray_clusters_ask_for_the_token_and_the_ray_that_is_pinned(manifests_of: Any) -> None:
    pinned = re.search(r"^ray==(\S+)", (REPOSITORY / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    seen = 0
    for manifest, cluster in ray_cluster_specs(manifests_of()):
        seen += 1
        assert cluster["authOptions"] == {"mode": "token"}, manifest["metadata"]["name"]
        assert cluster["rayVersion"] == pinned[1]
        for group in cluster["workerGroupSpecs"]:
            assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        if cluster.get("enableInTreeAutoscaling"):
            # KubeRay refuses another restart policy with this autoscaler, and gives its role to the head's account.
            pods = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
            assert all("restartPolicy" not in group["template"]["spec"] for group in pods)
            assert cluster["headGroupSpec"]["template"]["spec"]["serviceAccountName"] == "tutti-head"
    assert seen == 3


@manifests_of
def test_pods_keep_to_the_restricted_standard_and_their_limits(manifests_of: Any) -> None:
    manifests = manifests_of()
    for name, pod in pod_specs(manifests):
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True, name
        assert context["runAsUser"] == 1000, name
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, name
    autoscalers = [
        (manifest["metadata"]["name"], cluster["autoscalerOptions"])
        for manifest, cluster in ray_cluster_specs(manifests)
        if "autoscalerOptions" in cluster
    ]
    for name, container in [*containers(manifests), *autoscalers]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False, name
        assert context["capabilities"] == {"drop": ["ALL"]}, name
        for part in ("requests", "limits"):
            assert {"cpu", "memory"} <= set(container["resources"][part]), name


@manifests_of
def test_deployments_are_probed(manifests_of: Any) -> None:
    for manifest in manifests_of():
        if manifest["kind"] == "Deployment":
            (container,) = manifest["spec"]["template"]["spec"]["containers"]
            assert {"readinessProbe", "livenessProbe"} <= set(container), manifest["metadata"]["name"]


@manifests_of
def test_the_job_runs_a_verb_on_a_recipe_that_is_mounted(manifests_of: Any) -> None:
    job = named(manifests_of(), "RayJob", "tutti-train")["spec"]
    program, verb, recipe, flag, root = shlex.split(job["entrypoint"])
    assert program == "tutti"
    assert verb in VERBS
    command = importlib.import_module(VERBS[verb].target.partition(":")[0]).command
    assert any(flag in parameter.opts for parameter in command.params)
    assert root.startswith("s3://")
    head = job["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    (mount,) = head["containers"][0]["volumeMounts"]
    assert Path(recipe).parent == Path(mount["mountPath"])


@pytest.mark.parametrize("path", sorted(K8S.rglob("recipes/*.yaml")), ids=lambda path: str(path.relative_to(K8S)))
def test_recipes_are_recipes_and_fit_their_cluster(path: Path) -> None:
    recipe = config.parse(Recipe, path.read_text(), origin=path.name)
    assert path.name == "train.yaml"
    if WHY_NOT_RENDER:
        pytest.skip(WHY_NOT_RENDER)
    groups = named(rendered(path.parents[1]), "RayJob", "tutti-train")["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    cores = sum(
        group["maxReplicas"] * int(group["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"])
        for group in groups
    )
    assert recipe.training.workers.max * recipe.training.threads_per_worker <= cores


@manifests_of
def test_the_service_is_an_application_with_its_figures_said(manifests_of: Any) -> None:
    manifests = manifests_of()
    service = named(manifests, "RayService", "tutti-serve")["spec"]
    schema = ServeDeploySchema.model_validate(yaml.safe_load(service["serveConfigV2"]))
    (application,) = schema.applications
    module, _, attribute = application.import_path.partition(":")
    assert callable(getattr(importlib.import_module(module), attribute))
    assert set(application.args) >= SERVE_FIGURES
    settings = config.build(ServeSettings, application.args, origin="serveConfigV2")
    job = named(manifests, "RayJob", "tutti-train")["spec"]
    assert job["entrypoint"].endswith(f"--root {settings.root}")
    assert settings.tracking_uri == "http://mlflow:5000"
    assert schema.http_options.request_timeout_s > settings.timeout_s
    cluster = service["rayClusterConfig"]
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        ports = {port["name"]: port["containerPort"] for port in group["template"]["spec"]["containers"][0]["ports"]}
        assert ports["serve"] == schema.http_options.port
    for group in cluster["workerGroupSpecs"]:
        assert group["template"]["spec"]["terminationGracePeriodSeconds"] > settings.drain_s
    assert service["rayClusterDeletionDelaySeconds"] > settings.timeout_s
