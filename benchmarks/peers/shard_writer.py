"""CIFAR-10 to WebDataset with the webdataset library's ShardWriter and its defaults: `shard_writer.py SOURCE OUT`."""

from __future__ import annotations

import sys
from pathlib import Path

import webdataset
from loop import png, training_batches, unpickle


def convert_split(files: list[Path], split: str, out: Path) -> None:
    with webdataset.ShardWriter(str(out / f"{split}-%06d.tar"), maxcount=10_000, verbose=0) as writer:
        for path in files:
            batch = unpickle(path)
            for row, (data, label) in enumerate(zip(batch["data"], batch["labels"], strict=True)):
                writer.write({"__key__": f"{path.name}-{row:05d}", "png": png(data), "cls": label})


def main(source: Path, out: Path) -> None:
    out.mkdir(parents=True)
    convert_split(training_batches(source), "train", out)
    convert_split([source / "test_batch"], "test", out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
