"""What a notebook or another program may call of the library, with its signatures."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest

# Everything else in the library may change without notice.
EXPORTS = (
    "tutti.errors:UserError",
    "tutti.errors:RecipeError",
    "tutti.errors:InputError",
    "tutti.errors:MissingError",
    "tutti.errors:PlaceError",
    "tutti.errors:GateError",
    "tutti.errors:DataError",
    "tutti.errors:IntegrityError",
    "tutti.units:Key",
    "tutti.units:parse_key",
    "tutti.units:parse_length_s",
    "tutti.seeding:derive",
    "tutti.storage:Folder",
    "tutti.lineage:Dataset",
    "tutti.lineage:find",
    "tutti.lineage:load",
    "tutti.config:parse",
    "tutti.tables:from_parquet",
    "tutti.tables:to_parquet",
    "tutti.tables:to_table",
    "tutti.corpus.score:Notes",
    "tutti.corpus.score:Score",
    "tutti.corpus.score_batch:ScoreBatch",
    "tutti.corpus.formats:parse_many",
    "tutti.corpus.formats:ParseOptions",
    "tutti.corpus.formats:Parsed",
    "tutti.corpus.midi:read_midi",
    "tutti.corpus.midi:write_midi",
    "tutti.corpus.midi:from_symusic",
    "tutti.corpus.midi:to_symusic",
    "tutti.corpus.midi:from_pretty_midi",
    "tutti.corpus.midi:to_pretty_midi",
    "tutti.corpus.scores:read_scores",
    "tutti.corpus.scores:from_music21",
    "tutti.corpus.scores:to_music21",
    "tutti.features.events:on_grid",
    "tutti.features.events:encode",
    "tutti.features.events:decode",
    "tutti.features.events:Decoded",
    "tutti.features.descriptors:describe",
    "tutti.features.descriptors:describe_score",
    "tutti.features.descriptors:estimate_key",
    "tutti.features.spectral:log_mel",
    "tutti.features.sound:describe",
    "tutti.models.bundle:Bundle",
    "tutti.models.bundle:load",
    "tutti.generation.request:Request",
    "tutti.generation.latent:encode_bars",
    "tutti.generation.latent:decode_bars",
    "tutti.generation.latent:reconstruct",
    "tutti.generation.latent:interpolate",
    "tutti.generation.latent:attribute_direction",
    "tutti.generation.latent:moved",
    "tutti.generation.latent:readings",
    "tutti.generation.engine:Engine",
    "tutti.generation.engine:Piece",
    "tutti.generation.session:Session",
    "tutti.generation.piece:NoteMade",
    "tutti.generation.piece:BarMade",
    "tutti.generation.piece:PieceMade",
    "tutti.models.decoder.llama:llama_files",
    "tutti.registry.versions:Registry",
    "tutti.registry.model_version:ModelVersion",
    "tutti.registry.gate:Gate",
    "tutti.registry.gate:Finding",
    "tutti.registry.gate:findings",
    "tutti.registry.gate:judged",
    "tutti.catalogue.search_index:Index",
    "tutti.catalogue.search:search",
    "tutti.catalogue.search:similar",
    "tutti.catalogue.recommend:Recommender",
    "tutti.render.synthesis:synthesise",
    "tutti.render.mastering:master",
    "tutti.render.picture:piano_roll_png",
    "tutti.render.export:finish",
)


def described(name: str) -> Iterator[str]:
    module, _, attribute = name.partition(":")
    found = getattr(importlib.import_module(module), attribute)
    full = f"{module}.{attribute}"
    if inspect.isclass(found):
        yield f"class {full}{_signature(found)}"
        for member, value in sorted(vars(found).items()):
            if not member.startswith("_") and (line := _member(member, value)):
                yield f"    {line}"
    else:
        yield f"def {full}{_signature(found)}"


def _member(name: str, value: Any) -> str:
    if isinstance(value, property):
        return f"property {name}"
    if isinstance(value, classmethod | staticmethod):
        return f"{type(value).__name__} {name}{_signature(value.__func__)}"
    return f"def {name}{_signature(value)}" if inspect.isfunction(value) else ""


def _signature(found: Any) -> str:
    if inspect.isclass(found) and found.__init__ is Exception.__init__:
        return "(*args)"
    # Names and defaults; annotations would print differently from one Python to the next.
    signature = inspect.signature(found)
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()]
    return str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty))


def test_the_exports_are_the_agreed_ones(golden: Callable[[str, str], None]) -> None:
    golden("exports.txt", "\n".join(line for name in EXPORTS for line in described(name)) + "\n")


@pytest.mark.parametrize("name", EXPORTS)
def test_an_export_is_documented(name: str) -> None:
    module, _, attribute = name.partition(":")
    assert (getattr(importlib.import_module(module), attribute).__doc__ or "").strip()
