"""Some columns of a table on storage, shard by shard: the bytes of the others are not fetched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from tutti.errors import IntegrityError
from tutti.lineage import Dataset


def read_columns(dataset: Dataset, *, prefix: str, schema: pa.Schema, columns: Sequence[str]) -> Iterator[pa.Table]:
    """The named columns of every file whose path begins with ``prefix``, a row group at a time.

    Sizes were held against the manifest when the dataset was found. A checksum is over the whole of a file and is not
    looked at here: who trains on the rows reads them with :meth:`tutti.lineage.Dataset.read`.

    Args:
        dataset: finished.
        prefix: such as ``works-``.
        schema: of the table that the files hold.
        columns: their names.

    Raises:
        IntegrityError: a file is no Parquet, holds another table, or another version of it.
        PlaceError: a file cannot be read.
    """
    for path in dataset.paths(".parquet"):
        if path.startswith(prefix):
            yield from _row_groups(dataset, path, schema=schema, columns=list(columns))


def _row_groups(dataset: Dataset, path: str, *, schema: pa.Schema, columns: list[str]) -> Iterator[pa.Table]:
    where = f"{dataset.folder.uri}/{path}"
    with dataset.folder.open(path) as stream:
        try:
            file = pq.ParquetFile(stream, pre_buffer=True)
            found = file.schema_arrow.metadata or {}
            for key in (b"table", b"version"):
                if found.get(key) != schema.metadata[key]:
                    wanted, got = schema.metadata[key].decode(), found.get(key, b"none").decode()
                    raise IntegrityError(f"{where}: expected {key.decode()} {wanted!r} and found {got!r}")
            for number in range(file.num_row_groups):
                yield file.read_row_group(number, columns=columns)
        except pa.ArrowException as error:
            raise IntegrityError(f"{where} is not a readable Parquet table ({error})") from error
