"""Promotion through the gate, on real MLflow, by the library and by the verb."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.cli import run
from tutti.errors import GateError, RecipeError
from tutti.models.bundle import Bundle
from tutti.registry.gate import Bound, Gate
from tutti.registry.model_version import GATE
from tutti.registry.versions import Registry

NLL = "valid_nll_nats_per_token"
GATE_OF_ALL = Gate(measures={NLL: Bound(at_most=1.6)}, beats=("bigram",), no_worse_than_production={NLL: 0.02})


def _bundle(folder: Path, seed: int, **measures: float) -> Path:
    weights = {"w": torch.randn(10, generator=torch.Generator().manual_seed(seed))}
    facts: dict[str, Any] = {"measures": {"bigram_nll_nats_per_token": 2.6, **measures}}
    Bundle("decoder", "tiny", {"width": 8}, weights, ("Pad", "Start"), ("bach",), facts).save(folder)
    return folder


def test_a_version_that_does_not_show_enough_is_not_promoted(
    place: tuple[Registry, Path], name: str, tmp_path: Path
) -> None:
    registry, _ = place
    for seed, nll in ((1, 1.5), (2, 1.53), (3, 2.7)):
        registry.register(_bundle(tmp_path / str(seed), seed, **{NLL: nll}), name=name, gate=GATE_OF_ALL)
    assert registry.promote(name, "1").aliases == ("production",)
    with pytest.raises(GateError) as caught:
        registry.promote(name, "3")
    assert str(caught.value) == (
        f"{name}/3 does not show what its gate asks ({NLL} at most 1.6: 2.7; {NLL} below that of bigram: 2.7 against "
        f"2.6; {NLL} at most 0.02 above production's: 2.7, production's 1.5): promote another version, or change the "
        "gate in the recipe and run tutti train again"
    )
    with pytest.raises(
        GateError, match=rf"{name}/2 .*\({NLL} at most 0.02 above production's: 1.53, production's 1.5\)"
    ):
        registry.promote(name, "2")
    assert registry.resolve(f"{name}@production").version == "1"
    wider = GATE_OF_ALL.model_copy(update={"no_worse_than_production": {NLL: 0.05}})
    assert registry.register(tmp_path / "2", name=name, gate=wider).gate == wider.model_dump(mode="json")
    assert registry.promote(name, "2").aliases == ("production",)
    assert registry.rollback(name).version == "1"


def test_a_gate_stays_where_none_is_given_and_binds_nobody_by_itself(
    embedded: Registry, name: str, tmp_path: Path
) -> None:
    asked = embedded.register(_bundle(tmp_path / "1", 1), name=name, gate=GATE_OF_ALL)
    assert embedded.register(tmp_path / "1", name=name) == asked
    free = embedded.register(_bundle(tmp_path / "2", 2), name=name)
    assert embedded.findings(free) == ()
    assert embedded.promote(name, free.version).aliases == ("production",)
    assert "- valid_nll_nats_per_token at most 1.6\n" in embedded.card(asked)
    assert "asks nothing of it" in embedded.card(free)


def test_a_version_of_before_there_were_gates_and_one_of_after(embedded: Registry, name: str, tmp_path: Path) -> None:
    version = embedded.register(_bundle(tmp_path / "1", 1), name=name, gate=GATE_OF_ALL)
    client = embedded.backend.client()
    client.set_model_version_tag(name, version.version, GATE, json.dumps({"beauty": 1}))
    with pytest.raises(RecipeError, match=f"the gate of {name}/1: unknown key 'beauty'"):
        embedded.promote(name, version.version)
    client.delete_model_version_tag(name, version.version, GATE)
    assert embedded.resolve(name).gate == {}
    assert embedded.promote(name, version.version).aliases == ("production",)


def test_the_verb_says_each_verdict_and_refuses_in_one_line(
    embedded: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "results"
    for seed, nll in ((1, 1.5), (2, 2.0)):
        embedded.register(_bundle(tmp_path / str(seed), seed, **{NLL: nll}), name="bach", gate=GATE_OF_ALL)

    def models(*arguments: str, code: int) -> tuple[list[str], list[str]]:
        assert run(["models", *arguments, "--root", str(root)]) == code
        told = capsys.readouterr()
        return told.out.splitlines(), told.err.splitlines()

    out, err = models("promote", "bach/2", "--dry-run", code=2)
    assert out == [
        f"refused {NLL} at most 1.6: 2",
        f"passed  {NLL} below that of bigram: 2 against 2.6",
        f"passed  {NLL} at most 0.02 above production's: 2, nothing is in production",
    ]
    assert len(err) == 1
    assert "bach/2 does not show what its gate asks" in err[0]
    out, again = models("promote", "bach/2", code=2)
    assert (out, again) == ([], err)
    out, err = models("promote", "bach/1", "--dry-run", code=0)
    assert [line.split()[0] for line in out] == ["passed", "passed", "passed", "would"]
    assert embedded.resolve("bach").version == "2", "nothing is in production"
    models("promote", "bach/1", code=0)
    out, _ = models("show", "bach/2", code=0)
    assert [line.split()[0] for line in out[-4:]] == ["refused", "passed", "refused", "bach/2"]


def test_a_version_is_exported_whole(embedded: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    version = embedded.register(_bundle(tmp_path / "1", 1), name="bach")
    asked = ["models", "export", "bach", "--out", str(tmp_path / "out"), "--root", str(tmp_path / "results")]
    assert run([*asked, "--dry-run"]) == 0
    assert "would write MLmodel, card.md" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    for _ in range(2):
        assert run(asked) == 0
        assert capsys.readouterr().out.startswith("bach/1: 7 files in ")
    fetched = embedded.fetch(version)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == {
        path.name: path.read_bytes() for path in fetched.iterdir()
    }
    embedded.register(_bundle(tmp_path / "2", 2), name="bach")
    assert run(asked) == 2
    assert "holds another" in capsys.readouterr().err
