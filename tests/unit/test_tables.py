"""Tables that cross a stage: their schemas are agreed, their bytes repeat, and a stranger's file is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutti.errors import IntegrityError
from tutti.features.vocabulary import EVENTS, INSTRUMENTS, instrument_of
from tutti.tables import REFUSAL_REASONS, REFUSALS, SCHEMAS, TOKENS, VERSIONS, from_parquet, to_parquet, to_table

ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "work_id": st.text(),
            "vocabulary": st.text(),
            "tokens": st.lists(st.integers(0, 2**16 - 1), max_size=5),
            "notes": st.integers(0, 2**31 - 1),
            "controls": st.text(),
            "split": st.sampled_from(["train", "valid", "test"]),
        }
    ),
    max_size=4,
)


def row(**columns: Any) -> dict[str, Any]:
    return {"source_uri": "a.mid", "stage": "ingest", "reason": "empty", "detail": "the file holds no bytes", **columns}


def test_the_schemas_are_the_agreed_ones(golden: Callable[[str, str], None]) -> None:
    described = {
        name: {
            "version": VERSIONS[name],
            "columns": {
                field.name: {
                    "type": str(field.type),
                    "nullable": field.nullable,
                    "unit": field.metadata[b"unit"].decode(),
                    "is": field.metadata[b"is"].decode(),
                }
                for field in schema
            },
        }
        for name, schema in SCHEMAS.items()
    }
    golden("tables.json", json.dumps({"tables": described, "refusal_reasons": REFUSAL_REASONS}, indent=1) + "\n")


def test_the_vocabulary_is_the_agreed_one(golden: Callable[[str, str], None]) -> None:
    golden("vocabulary.txt", "\n".join((f"# hash {EVENTS.hash}", *EVENTS.names)) + "\n")


def test_every_table_has_a_version_and_every_column_a_sentence() -> None:
    assert SCHEMAS.keys() == VERSIONS.keys()
    for name, schema in SCHEMAS.items():
        assert schema.metadata == {b"table": name.encode(), b"version": str(VERSIONS[name]).encode()}
        assert len(set(schema.names)) == len(schema.names)
        assert all(len(field.metadata[b"is"].split()) >= 2 for field in schema), name
        ticks = [field for field in schema if field.name.endswith(("_ticks", "_per_quarter", "_s", "_qpm"))]
        assert all(field.metadata[b"unit"] for field in ticks), name


@given(ROWS)
def test_rows_survive_parquet(rows: list[dict[str, Any]]) -> None:
    data = to_parquet(to_table(rows, TOKENS))
    assert data == to_parquet(to_table(rows, TOKENS))
    table = from_parquet(data, TOKENS)
    assert table.schema.equals(TOKENS)
    assert table.to_pylist() == rows
    assert from_parquet(data, TOKENS, columns=["notes"]).to_pylist() == [{"notes": row["notes"]} for row in rows]


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        ({"reasons": "x"}, r"a row of refusals differs from its schema in \['reasons'\]"),
        ({"detail": None}, "column detail of refusals has rows without a value"),
    ],
)
def test_a_row_that_breaks_its_schema_is_refused(odd: dict[str, Any], message: str) -> None:
    with pytest.raises(IntegrityError, match=message):
        to_table([row(), row(**odd)], REFUSALS)


def test_a_row_that_lacks_a_column_is_refused() -> None:
    short = row()
    del short["stage"]
    with pytest.raises(IntegrityError, match=r"a row of refusals differs from its schema in \['stage'\]"):
        to_table([short], REFUSALS)


def test_another_table_or_version_is_refused() -> None:
    data = to_parquet(to_table([row()], REFUSALS))
    with pytest.raises(IntegrityError, match="expected table 'tokens' and found 'refusals'"):
        from_parquet(data, TOKENS)
    older = to_parquet(to_table([row()], REFUSALS).replace_schema_metadata({"table": "refusals", "version": "0"}))
    with pytest.raises(IntegrityError, match="expected version '1' and found '0'"):
        from_parquet(older, REFUSALS)
    bare = to_parquet(pa.table({"a": [1]}))
    with pytest.raises(IntegrityError, match="expected table 'refusals' and found 'none'"):
        from_parquet(bare, REFUSALS)


@given(st.data())
def test_damaged_bytes_are_refused_or_whole(data: st.DataObject) -> None:
    good = to_parquet(to_table([row()], REFUSALS))
    cut = data.draw(st.integers(0, len(good) - 1))
    with pytest.raises(IntegrityError, match="not a readable Parquet table"):
        from_parquet(good[:cut], REFUSALS)


def test_token_ids_fit_their_column_and_kinds_are_neighbours() -> None:
    assert len(EVENTS) <= 2**16
    assert len(set(EVENTS.names)) == len(EVENTS)
    spans = [EVENTS.span(kind) for kind in EVENTS.kinds]
    assert [token for span in spans for token in span] == list(range(len(EVENTS)))
    assert all(
        EVENTS.names[token].partition("_")[0] == kind
        for kind, span in zip(EVENTS.kinds, spans, strict=True)
        for token in span
    )


def test_every_program_has_a_family() -> None:
    assert [instrument_of(program) for program in (0, 7, 8, 40, 56, 127, 128)] == [
        "piano", "piano", "chromatic_percussion", "strings", "brass", "sound_effects", "drums",
    ]  # fmt: skip
    assert {instrument_of(program) for program in range(129)} == set(INSTRUMENTS)
