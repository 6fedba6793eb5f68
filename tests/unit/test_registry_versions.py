import pickle
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch

from tutti.errors import InputError, IntegrityError, MissingError, PlaceError
from tutti.models.bundle import CARD, MODEL, WEIGHTS, Bundle
from tutti.registry import files
from tutti.registry.mlmodel import MLMODEL
from tutti.registry.model_version import ModelVersion, Reference, is_name, missing, parse_reference
from tutti.registry.versions import Registry
from tutti.storage import Folder

BUNDLE = Bundle(
    family="decoder", flavour="tiny", configuration={"width": 2}, weights={"w": torch.arange(4.0)},
    vocabulary=("Pad", "Key_any", "Key_C major"), collections=("bach",), facts={"parameters": 4},
)  # fmt: skip
FILES = [
    "MLmodel", "card.md", "input_example.json", "model.json", "model.safetensors", "requirements.txt",
    "vocabulary.json",
]  # fmt: skip
VERSION = ModelVersion(
    name="bach", version="3", digest="d", aliases=("production",), run_id=None,
    created=datetime(2026, 1, 1, tzinfo=UTC),
    facts={"parameters": 4, "measures": {"valid_nll_nats_per_token": 0.5, "note": "text", "missing": None}},
    source="file:///nowhere", checksums={},
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("bach", Reference("bach")),
        (" bach@production ", Reference("bach", alias="production")),
        ("bach/3", Reference("bach", version="3")),
        ("models:/bach@production", Reference("bach", alias="production")),
        ("models:/bach/3", Reference("bach", version="3")),
    ],
)
def test_references(text: str, reference: Reference) -> None:
    assert parse_reference(text) == reference


@pytest.mark.parametrize("text", ["", "@production", "bach/", "bach@", "bach/3@x", "a/b/c"])
def test_no_references(text: str) -> None:
    with pytest.raises(InputError, match="NAME@production"):
        parse_reference(text)


def test_names() -> None:
    assert is_name("bach-chorales_2.1")
    assert not any(is_name(name) for name in ("", "-bach", "a/b", "a b", "it's", "x" * 101))


def test_an_unknown_name_gets_the_nearest_and_all() -> None:
    assert str(missing("model", "bahc", known=["bach", "folk"])) == (
        "no model is called 'bahc': did you mean 'bach'? known are bach, folk"
    )
    assert "there is none yet; train one" in str(missing("model", "x", known=[], remedy="train one"))
    assert str(missing("model", "x", known=[str(i) for i in range(30)])).endswith(", …")


def test_figures_are_the_numbers_among_the_facts() -> None:
    assert VERSION.figures == {"valid_nll_nats_per_token": 0.5, "parameters": 4.0}
    assert str(VERSION) == "bach/3"
    assert replace(VERSION, facts={}).figures == {}


def test_a_registry_travels(tmp_path: Path) -> None:
    registry = Registry.embedded(Folder(str(tmp_path)))
    copy = pickle.loads(pickle.dumps(registry))
    assert (copy.backend, copy.cache) == (registry.backend, tmp_path / "mlflow" / "cache")


def test_listing_brings_no_torch() -> None:
    script = "import sys, jobs.models, tutti.registry.versions; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], timeout=120).returncode == 0


def test_looking_makes_nothing(tmp_path: Path) -> None:
    registry = Registry.embedded(Folder(str(tmp_path / "results")))
    assert registry.versions() == []
    with pytest.raises(MissingError, match="no model is called 'bach': there is none yet"):
        registry.resolve("bach@production")
    assert not (tmp_path / "results").exists()


def test_a_model_needs_a_usable_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="model name 'a/b' is not usable"):
        Registry.embedded(Folder(str(tmp_path))).register(tmp_path, name="a/b")


def _stored(folder: Path) -> files.Staged:
    BUNDLE.save(folder / "source")
    staged = files.stage(folder / "source")
    staged.write(folder / "stored")
    return staged


def test_a_staged_bundle_has_its_digest_and_a_card(tmp_path: Path) -> None:
    staged = _stored(tmp_path)
    assert staged.digest == BUNDLE.digest()
    assert sorted(staged.files) == FILES
    files.verify(tmp_path / "stored", digest=staged.digest, checksums=staged.checksums, origin="there")


@pytest.mark.parametrize("name", [WEIGHTS, MODEL, CARD, MLMODEL])
def test_one_changed_byte_is_found(tmp_path: Path, name: str) -> None:
    staged = _stored(tmp_path)
    path = tmp_path / "stored" / name
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match=f"there/{name} is not the file that was registered"):
        files.verify(tmp_path / "stored", digest=staged.digest, checksums=staged.checksums, origin="there")


def test_a_lost_file_and_another_model_are_found(tmp_path: Path) -> None:
    staged = _stored(tmp_path)
    with pytest.raises(IntegrityError, match=f"there has digest {staged.digest}, not another"):
        files.verify(tmp_path / "stored", digest="another", checksums={}, origin="there")
    (tmp_path / "stored" / WEIGHTS).unlink()
    with pytest.raises(IntegrityError, match=f"there lacks {WEIGHTS}"):
        files.verify(tmp_path / "stored", digest=staged.digest, checksums=staged.checksums, origin="there")


def test_the_cache_gives_what_was_put_and_throws_away_what_was_damaged(tmp_path: Path) -> None:
    staged = _stored(tmp_path)
    cache = files.Cache(tmp_path / "cache")
    assert cache.get(staged.digest, checksums=staged.checksums) is None

    def fill(folder: Path) -> None:
        for name, data in staged.files.items():
            (folder / name).write_bytes(data)

    kept = cache.put(staged.digest, fill=fill)
    assert cache.put(staged.digest, fill=fill) == kept
    assert cache.get(staged.digest, checksums=staged.checksums) == kept
    (kept / WEIGHTS).write_bytes(b"damage")
    assert cache.get(staged.digest, checksums=staged.checksums) is None
    assert [path.name for path in (tmp_path / "cache").iterdir()] == []


def test_a_failed_fill_leaves_nothing(tmp_path: Path) -> None:
    cache = files.Cache(tmp_path / "cache")

    def fail(folder: Path) -> None:
        (folder / "half").write_bytes(b"half")
        raise IntegrityError("damaged")

    with pytest.raises(IntegrityError, match="damaged"):
        cache.put("d", fill=fail)
    assert list((tmp_path / "cache").iterdir()) == []


def test_the_same_model_has_the_same_files(tmp_path: Path) -> None:
    assert _stored(tmp_path / "a").files == _stored(tmp_path / "b").files


def test_an_export_is_whole_or_no_model(tmp_path: Path) -> None:
    staged, written = _stored(tmp_path), []

    class Watched(Folder):
        def write(self, path: str, data: bytes) -> None:
            written.append(path)
            super().write(path, data)

    out = Watched(str(tmp_path / "out"))
    files.export(staged.files, into=out)
    assert sorted(written) == FILES
    assert written[-1] == MODEL, "without it nothing takes the folder for a model"
    files.verify(tmp_path / "out", digest=staged.digest, checksums=staged.checksums, origin="there")
    (tmp_path / "out" / CARD).unlink()
    files.export(staged.files, into=out)
    assert written[len(FILES) :] == [CARD], "what is there is not written again"


def test_an_export_leaves_another_model_alone(tmp_path: Path) -> None:
    staged = _stored(tmp_path)
    out = Folder(str(tmp_path / "out"))
    out.write(WEIGHTS, b"another")
    with pytest.raises(PlaceError, match=r"out holds another model\.safetensors: name a new or an empty folder"):
        files.export(staged.files, into=out)
    assert out.paths() == [WEIGHTS]
    assert out.read(WEIGHTS) == b"another"
