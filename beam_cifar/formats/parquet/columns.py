"""Reads the short columns of a Parquet file at once: names, labels and ids."""

from __future__ import annotations

import re
from typing import Any, BinaryIO

import pyarrow as pa

from beam_cifar.errors import InputError
from beam_cifar.formats.contract.indexes import indexed
from beam_cifar.formats.contract.source import kept
from beam_cifar.formats.contract.types import SourceFile
from beam_cifar.formats.kit.rows import with_unique_ids
from beam_cifar.formats.kit.short_columns import in_one_chunk, short_column, with_names
from beam_cifar.formats.parquet.schema import READ_ROWS, OpenParquet, columns_in, damaged, open_parquet

# Maximum ratio at which each codec can compress a page; other codecs get `_OTHER_RATIO`.
_CODEC_RATIOS = {"UNCOMPRESSED": 1, "SNAPPY": 22, "LZ4": 255, "GZIP": 1032, "ZSTD": 1 << 15}
_OTHER_RATIO = 1 << 20
_REPEATED_TEXT_BYTES = 256 << 20
_HELD_RATIO = 4
"""Maximum memory of short columns, as a multiple of the size of a large file, which is mostly images."""


@kept(4)
@indexed()
def read_columns(file: SourceFile) -> pa.Table:
    """Returns the short columns of a file, stored because several tasks read parts of it.

    They are `id` and `filename`, string; `label`, string or int64; `coarse`, int64; `named`, whether it has a path.

    Raises:
        InputError: the file is damaged, or has a text that is too long.
    """
    meaning = columns_in(file)
    wanted = {"path": meaning.path, "key": meaning.key, "label": meaning.label, "coarse": meaning.coarse}
    columns = list(dict.fromkeys(filter(None, wanted.values())))
    tables = []
    with open_parquet(file, meaning.texts) as opened:
        row = held = 0
        with damaged(file.shown):
            count = _text_rows(opened, meaning.path)
            for batch in opened.iter_batches(count, columns=columns, use_threads=False) if columns else ():
                found = {
                    what: short_column(_values(batch, name), name, file.shown) for what, name in wanted.items() if name
                }
                held += sum(column.nbytes for column in found.values())
                if held > max(_REPEATED_TEXT_BYTES, _HELD_RATIO * file.blob.size):
                    raise InputError(
                        f"{file.shown}: row {row}: labels and names unpack to more than {held} bytes, but the file has "
                        f"{file.blob.size}; refused as a decompression bomb"
                    )
                tables.append(with_names(found, file, meaning, row, batch.num_rows))
                row += batch.num_rows
            rows = opened.metadata.num_rows
            tables += [with_names({}, file, meaning, row, rows - row)] if not columns or not rows else []
            if row not in (0, rows) or (columns and row != rows):
                raise InputError(f"{file.shown}: ends at row {row} of {rows}; the file is damaged")
        return with_unique_ids(in_one_chunk(tables))


def _values(batch: Any, name: str) -> pa.Array:
    """Returns a column, or the only field that was read of one of structs."""
    at = batch.schema.get_field_index(name)
    return batch.column(at) if at >= 0 else batch.column(name.rpartition(".")[0]).flatten()[0]


def _text_rows(opened: OpenParquet, path: str) -> int:
    """Returns rows to read at a time, so that a long text repeated by a dictionary does not exhaust memory."""
    groups = range(opened.metadata.num_row_groups) if path else ()
    few = _REPEATED_TEXT_BYTES // READ_ROWS
    repeated = max((repeated_bytes(opened, column_chunk(opened, group, path), few) for group in groups), default=0)
    return max(1, min(READ_ROWS, _REPEATED_TEXT_BYTES // max(1, repeated)))


def column_chunk(opened: OpenParquet, group: int, column: str) -> Any:
    """Returns the footer's entry for a column of a row group.

    Reads a row first: with a damaged footer, Arrow aborts the process on the entry, but raises on a row.
    """
    next(opened.iter_batches(1, row_groups=[group], columns=[column], use_threads=False), None)
    # Not `opened.schema`: it and the footer refer to each other, so the footers of all tasks would stay in memory. Nor
    # the entries of other columns, on which Arrow may abort.
    paths = [".".join(path) for path in opened.reader.column_paths]
    chunk = opened.metadata.row_group(group).column(paths.index(column))
    if chunk.physical_type != "BYTE_ARRAY":
        raise pa.ArrowInvalid(f"column {column!r} of a row group is {chunk.physical_type}, not BYTE_ARRAY")
    return chunk


def repeated_bytes(opened: OpenParquet, chunk: Any, few: int) -> int:
    """Returns the maximum bytes of a value in a dictionary: those of its page.

    Args:
        opened: the file.
        chunk: the footer's entry for a column of a row group.
        few: bytes that are no problem; if the footer allows for more, the page's own header is read.
    """
    if not chunk.has_dictionary_page or not chunk.dictionary_page_offset:
        return 0
    packed = chunk.data_page_offset - chunk.dictionary_page_offset
    most = chunk.total_uncompressed_size
    if packed > 0:
        most = min(most, packed * _CODEC_RATIOS.get(chunk.compression, _OTHER_RATIO))
    if most > few:
        most = min(most, dictionary_bytes(chunk, opened.stream) or most)
    return int(most)


def dictionary_bytes(chunk: Any, stream: BinaryIO) -> int | None:
    """Returns the unpacked bytes of a column chunk's dictionary page, from its header; None if that is unusual.

    Arrow refuses a page that unpacks to more, but does not look at the size of one that is not compressed. The header
    is `PageHeader` of `parquet.thrift` in the compact protocol: a byte 0x15 and the page's type (2, zigzag), then a
    byte 0x15 and its unpacked size, a zigzag varint.
    """
    if chunk.compression == "UNCOMPRESSED" or not 0 < chunk.dictionary_page_offset < chunk.data_page_offset:
        return None  # Arrow would begin with the page that comes first
    stream.seek(chunk.dictionary_page_offset)
    found = re.match(rb"\x15\x04\x15([\x80-\xff]{0,4}[\x00-\x7f])", stream.read(8), re.DOTALL)
    if not found:
        return None
    number = sum((byte & 127) << 7 * place for place, byte in enumerate(found[1]))
    return number >> 1 if not number & 1 else None
