"""Folders of images and small CIFAR sets made by other code than the package, and ways to look at what it wrote."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from beam_cifar import ConvertOptions, Summary, convert
from beam_cifar.formats.registry import get_sink
from beam_cifar.jobs import serial

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


def converted(source: Path, output: Path, target: str = "imagenet", *beam: str, **options: Any) -> Summary:
    """A conversion in this process, with one worker unless told otherwise."""
    return convert(ConvertOptions(str(source), str(output), target, **{"workers": 1, **options}), beam)


def picture(seed: int, height: int = 32, width: int = 32, channels: int = 3) -> Pixels:
    """A smooth image, uint8 [C, H, W], whose channels differ: reddish, so that a swap shows."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / 32
    phases = rng.uniform(0, 6, channels)
    waves = np.stack([np.sin(3 * y + 2 * x + phase) for phase in phases])
    image: Pixels = (np.array([190, 110, 45][:channels])[:, None, None] + 40 * waves).astype(np.uint8)
    return image


def encoded(pixels: Pixels, kind: str = "PNG", **options: Any) -> bytes:
    """An image file by Pillow."""
    file = io.BytesIO()
    planes = pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0))
    Image.fromarray(planes).save(file, kind, **options)
    return file.getvalue()


def decoded(data: bytes) -> Pixels:
    """The pixels of an image file by Pillow, uint8 [C, H, W], as it stores them."""
    pixels = np.asarray(Image.open(io.BytesIO(data)))
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def write_tree(folder: Path, files: dict[str, bytes]) -> Path:
    """Writes files below a folder."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its relative path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def differences(first: dict[str, bytes], second: dict[str, bytes]) -> list[str]:
    """A line for each file that differs: how many bytes, from which on, and what is there."""
    told = []
    for name in sorted(first.keys() | second.keys()):
        a, b = first.get(name, b""), second.get(name, b"")
        at = [place for place, pair in enumerate(zip(a, b, strict=False)) if pair[0] != pair[1]] or [
            min(len(a), len(b))
        ]
        if a != b:
            here = slice(max(0, at[0] - 16), at[0] + 48)
            told.append(
                f"{name}: {len(a)} and {len(b)} bytes, {len(at)} differ from {at[0]} on: {a[here]!r}, {b[here]!r}"
            )
    return told


def images(folder: Path) -> dict[str, bytes]:
    """The pixels, planar, of every file below a folder but its card, by its relative path."""
    return {name: decoded(content).tobytes() for name, content in contents(folder).items() if name != "README.md"}


def folders(folder: Path) -> set[str]:
    """Every folder below a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_dir()}


def write_cifar(
    folder: Path, batches: dict[str, dict[str, Any]], classes: Sequence[str] = ("cat", "dog", "ship"), protocol: int = 4
) -> Path:
    """A CIFAR-10 directory as somebody's Python 3 script would write it."""
    folder.mkdir(parents=True)
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list(classes)}, protocol=protocol))
    for name, content in batches.items():
        (folder / name).write_bytes(pickle.dumps(content, protocol=protocol))
    return folder


def batch(names: Sequence[str], labels: Sequence[int | None], seed: int = 0, **more: Any) -> dict[str, Any]:
    """A batch of different pictures."""
    data = np.stack([picture(1000 * seed + row).reshape(-1) for row in range(len(names))])
    return {"data": data, "labels": list(labels), "filenames": list(names), **more}


def manifest(output: Path) -> dict[str, Any]:
    """The manifest of an output."""
    found: dict[str, Any] = json.loads((_beside(output) / "manifest.json").read_text("utf-8", "surrogatepass"))
    return found


def listed(output: Path) -> Iterator[dict[str, Any]]:
    """What the lists beside the manifest say of each file; "path" from the output's root, "subset" added."""
    for shard in manifest(output)["shards"]:
        for line in (_beside(output) / shard["listing"]).read_text("utf-8", "surrogatepass").splitlines():
            entry = json.loads(line)
            yield {**entry, "path": os.path.join(shard["path"], entry["path"]), "subset": shard["subset"]}


def _beside(output: Path) -> Path:
    return output.with_name(output.name + ".beam_cifar")


def quickly(source: Path, output: Path, target: str = "imagenet", **options: Any) -> Summary:
    """A conversion without a runner, for the many tests of what is read and written rather than of how it runs."""
    with mock.patch("beam_cifar.pipeline.convert.start", serial.run):
        return converted(source, output, target, **options)


def killed(step: int, options: ConvertOptions) -> int:
    """Runs a conversion in a process that dies before a step of publishing: 9, or 0 if it has fewer steps."""
    # Forked from a process that has imported all that a job needs, and run nothing.
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["beam_cifar.pipeline.convert", "lxml.etree", "PIL.Image"])
    child = processes.Process(target=convert_until, args=(step, options))
    child.start()
    child.join(120)
    return -1 if child.exitcode is None else child.exitcode


def convert_until(step: int, options: ConvertOptions) -> None:
    """Converts in this process, which ends with code 9 before the n-th change that publishing makes to the disk."""
    from beam_cifar import storage

    left = step
    publishing = False
    publish_tree = storage.publish_tree

    def publish(*arguments: Any, **named: Any) -> None:
        nonlocal publishing
        publishing = True
        publish_tree(*arguments, **named)

    def counting(name: str) -> Any:
        real = getattr(os, name)

        def counted(*arguments: Any, **named: Any) -> None:
            nonlocal left
            # Within a tree that is being removed, paths are relative: every moment of that is alike.
            left -= publishing and os.path.isabs(arguments[0])
            if left == 0:
                os._exit(9)
            real(*arguments, **named)

        return counted

    storage.publish_tree = publish
    for name in ("rename", "replace", "unlink", "rmdir"):
        setattr(os, name, counting(name))
    with mock.patch("beam_cifar.pipeline.convert.start", serial.run):
        convert(options)


def set_part_bytes(patch: pytest.MonkeyPatch, target: str, part_bytes: int) -> None:
    """Lets a format make parts of another size."""
    sink = get_sink(target)
    patch.setattr(type(sink), "can", replace(sink.can, part_bytes=part_bytes))
