"""Writes the ArrayRecord files of a directory again, by their own library: `write_array_records.py DIR`.

Runs in the environment of `requirements.txt`, never in this package's own. Records are read as Grain reads them. The
output is one JSON object: for each file its records, and whether the library's own bytes are the same. The files are
then compressed, as TFDS writes them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from array_record.python import array_record_module  # type: ignore[import-not-found]
from array_record.python.array_record_data_source import ArrayRecordDataSource  # type: ignore[import-not-found]


def main(folder: str) -> dict[str, Any]:
    """Reads and writes all files."""
    return {path.name: again(path) for path in sorted(Path(folder).glob("*.array_record-*"))}


def again(path: Path) -> dict[str, Any]:
    """Writes a file twice."""
    before, source = path.read_bytes(), ArrayRecordDataSource([str(path)])
    records = [bytes(source[at]) for at in range(len(source))]
    write(path, records, "group_size:1,uncompressed,max_parallelism:1")
    found = {"records": len(records), "same": path.read_bytes() == before}
    write(path, records, "group_size:1")
    return found


def write(path: Path, records: list[bytes], options: str) -> None:
    """Writes records to a file."""
    writer = array_record_module.ArrayRecordWriter(str(path), options)
    for record in records:
        writer.write(record)
    writer.close()


if __name__ == "__main__":
    json.dump(main(sys.argv[1]), sys.stdout)
