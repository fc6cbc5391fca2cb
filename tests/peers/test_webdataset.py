"""What the package webdataset finds in the shards written, and the shards that it writes (`make test-peers`)."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from beam_cifar.formats.webdataset.source import WebdatasetSource
from tests.helpers.image_trees import encoded, picture, quickly
from tests.helpers.peers import found_by, output_of
from tests.helpers.reading import cifar_rows
from tests.peers.digest import digest_rows, digest_values


def expected(rows: list[tuple[Any, ...]]) -> dict[str, Any]:
    pixels = [np.frombuffer(row[3], np.uint8).reshape(3, 32, 32).transpose(1, 2, 0) for row in rows]
    labels = [row[1] for row in rows]
    names = [row[0].removesuffix(".png") for row in rows]
    return {**digest_rows(zip(labels, pixels, strict=True)), "names": digest_values(names), "keys": len(rows)}


@pytest.mark.parametrize("kind", ["cifar10", "cifar100"])
def test_images_labels_and_order_are_those_of_the_source(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    source = request.getfixturevalue(kind)
    quickly(source, tmp_path / "out", "webdataset", images_per_batch=150, subset_names="source")
    found = found_by("webdataset_shards.py", "read", tmp_path / "out")
    names = {path.name.rpartition("-")[0] for path in (tmp_path / "out").glob("*.tar")}
    assert found == {name: expected(cifar_rows(source, [name])) for name in names}


def test_shards_that_it_writes_are_read_with_labels_in_any_of_its_forms(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = []
    for number in range(8):
        image = encoded(picture(number, 5 + number, 7), "JPEG" if number % 2 else "PNG")
        rows.append(
            {
                "subset": "train" if number < 5 else "val",
                "__key__": f"some/folder/{number:04d}",
                "jpg" if number % 2 else "png": {"hex": image.hex()},
                "cls": number % 3,
                "json": {"label": ["cat", "dog", "eel"][number % 3], "boxes": [1, 2]},
            }
        )
    (tmp_path / "shards").mkdir()
    output_of("webdataset_shards.py", "write", tmp_path / "shards", given=json.dumps(rows))
    assert len(list((tmp_path / "shards").iterdir())) == 3
    source = WebdatasetSource()
    assert source.looks_right(str(tmp_path / "shards"), "")
    catalog = source.describe(str(tmp_path / "shards"), "")
    assert catalog.labels.names == ("cat", "dog", "eel")
    found = []
    for file in catalog.files:
        with source.open_rows(file, catalog.labels) as reader:
            found += [(file.subset, *row.values()) for row in reader.table(0, reader.rows).to_pylist()]
    assert [(row[0], row[1], row[-2]) for row in found] == [(row["subset"], row["__key__"], row["cls"]) for row in rows]
    for row, written in zip(found, rows, strict=True):
        image = bytes.fromhex(written["png" if "png" in written else "jpg"]["hex"])
        assert image in row
        assert np.asarray(Image.open(io.BytesIO(image))).shape[:2] == row[5:7]
