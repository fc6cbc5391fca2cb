"""Runs the same commands with two versions of the package, and compares every file, manifest and message.

    python benchmarks/same_bytes.py --before ../old [--after .] [--only 'transform*'] [--jobs 4]

BEFORE and AFTER are checkouts, both run by this interpreter. The old version creates the inputs once: a CIFAR-10, a
CIFAR-100 and a mixed-size dataset, and the first two in every format. The exit code is 1 if anything differs.
"""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import importlib
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

IGNORED = ("beam_cifar", "version", "manifest_version", "schema")
SHOWN = 5
WAYS = ("write", "read")
SEED = 7


@dataclass(frozen=True)
class Case:
    """Steps that run one after another in a separate folder.

    Attributes:
        name: name that `--only` matches.
        steps: command-line arguments, in which `{in}` is the folder of inputs and `{cifar10}` an id of that dataset;
            `python NAME` calls a function in `PROGRAMS`, and a leading `-m` runs the step in a subprocess.
    """

    name: str
    steps: list[list[str]]

    @property
    def folder(self) -> str:
        return re.sub(r"[^\w.-]+", "_", self.name)[:60] + hashlib.sha256(self.name.encode()).hexdigest()[:8]


@dataclass
class Done:
    """The results of one version for a case.

    Attributes:
        steps: exit code, standard output and standard error of each step.
        files: sha256 of each file in the case's folder, "" for a folder.
    """

    steps: list[tuple[str, str, str]] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)


# The inputs.


def make_mixed(folder: Path) -> None:
    """Writes images of many sizes and kinds, some of them duplicates, to one folder per subset and class."""
    rng = np.random.default_rng(SEED)
    for number in range(96):
        subset, name = ("train", "train", "val")[number % 3], ("ant", "bee", "café crème", "gnu")[number // 3 % 4]
        height, width = rng.integers(8, 49, 2)
        pixels = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8).repeat(12, 0).repeat(12, 1)[:height, :width]
        image = Image.fromarray(pixels).convert(("RGB", "RGB", "L", "RGB", "P", "RGBA")[number % 6])
        suffix = ".jpg" if number % 6 == 3 else ".png"
        path = folder / subset / name / f"{number % 90:03d}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
        if number % 16 == 5:
            shutil.copy(path, path.with_name(f"again {number}{suffix}"))


def make_downsampled(folder: Path) -> None:
    """Writes batches like the scripts of Downsampled ImageNet."""
    rng = np.random.default_rng(SEED)
    folder.mkdir()
    for name in ("train_data_batch_1", "train_data_batch_2", "val_data"):
        data = rng.integers(0, 256, (20, 3 * 16 * 16), dtype=np.uint8)
        rows = {"data": data, "labels": [1 + row % 7 for row in range(20)], "mean": data.mean(axis=0)}
        (folder / name).write_bytes(pickle.dumps(rows, protocol=2))


def make_inputs(folder: Path, run: Callable[[list[Case]], dict[str, Done]], writers: Sequence[str]) -> None:
    make_mixed(folder / "mixed")
    make_downsampled(folder / "downsampled")
    samples = [
        ["make-sample", f"{{in}}/{out}", "--images", str(images), "--kind", kind, *more]
        for out, kind, images, *more in (
            ("cifar10", "cifar10", 300),
            ("cifar10-other", "cifar10", 60, "--seed", "4"),
            ("cifar10.tar.gz", "cifar10", 300, "--tar"),
            ("cifar100", "cifar100", 300),
            ("cifar100.tar.gz", "cifar100", 300, "--tar"),
        )
    ]
    converted = [
        ["convert", "-i", f"{{in}}/{kind}", "-f", writer, "-o", f"{{in}}/{kind}-{writer}", "--save-images"]
        for kind in ("cifar10", "cifar100")
        for writer in writers
    ]
    mixed = [["convert", "-i", "{in}/mixed", "-f", "parquet", "-o", "{in}/mixed-parquet"]]
    done = run([Case("inputs", samples + converted + mixed)])["inputs"]
    for step, (code, _, error) in zip(samples + converted + mixed, done.steps, strict=True):
        if code != "0":
            sys.exit(f"cannot create the inputs: {' '.join(step)}: {error}")


# The cases.

CLASSES = {"cifar10": ("cat", "dog"), "cifar100": ("tiger", "girl"), "mixed": ("ant", "bee")}
SUBSETS = {"cifar10": ("data_batch_1", "test_batch"), "cifar100": ("train", "test"), "mixed": ("train", "val")}
TRANSFORMS = (
    "filter -e '/item[annotation/label=\"{a}\"]'",
    "filter -e '/item/annotation[label!=\"{b}\"]' -m i+a",
    "remove_items --id {id}:{first}",
    "remove_annotations --id {id}:{first}",
    "remove_annotations",
    "dedupe",
    "dedupe --scope subset",
    "dedupe --prefer {second}",
    "sort",
    "sort --by label --by size --reverse",
    "sort --by subset --by filename",
    "shuffle",
    "shuffle --seed 5",
    "rename -e '|_s_|-|'",
    "rename -e '|.*(.)|same\\1|'",
    "reindex",
    "reindex -s 1000",
    "id_from_image_name -u",
    "map_subsets -s {first}:{second}",
    "map_subsets -s {first}:new -s {second}:",
    "random_split",
    "random_split -s train:.5 -s val:.25 -s test:.25 --seed 3",
    "split",
    "split -s train:.8 -s test:.2 --seed 3",
    "random_sampler -k 40",
    "random_sampler -k 7 -s {second} --seed 2",
    "label_random_sampler -k 2",
    "label_random_sampler -k 1 -l {a}:3 --seed 2",
    "remap_labels -l {a}:{b}",
    "remap_labels -l {a}:new -l {b}: --default delete",
    "project_labels -l {b} -l other -l {a}",
    "fine_to_coarse",
    "compact_labels",
    "resize -dw 20 -dh 12",
    "crop -dw 8 -dh 6",
    "crop -dw 7 -dh 6 -x 1 -y 2",
    "grayscale",
)
XPATHS = (
    '/item[annotation/label="{a}"]',
    '/item/annotation[label="{a}" or label="{b}"]',
    '/item[image/width > 20 and subset="{first}"]',
    "/item[position() < 5]",
    '/item[contains(id, "1")]/annotation[label_id < 4]',
    '/item[annotation/label="no such"]',
    "/item[",
)
OPTIONS = (
    "-f parquet --label {a}",
    "-f cifar --label {a} --label {b} --save-images --compact-labels",
    "-f npz --label nobody --resize 8x8",
    "-f parquet --limit 33",
    "-f cifar --limit 101 --save-images",
    "-f parquet --remap {a}:{b}",
    "-f imagenet --remap {a}:new --remap {b}:{a} --keep-empty-classes",
    "-f parquet --resize 10x14",
    "-f imagenet --resize 40x40 --image-ext .jpg",
    "-f imagenet_with_subset_dirs --image-ext .png",
    "-f webdataset --image-ext .jpeg",
    "-f parquet --image-ext .jpg",
    "-f datumaro --image-ext .png",
    "-f voc_classification --image-ext .png",
    "-f cifar",
    "-f cifar --save-dataset-meta",
    "-f cifar --save-images --image-ext .png",
    "-f cifar --subsets split --save-images",
    "-f parquet --subsets source",
    "-f parquet --subsets split",
    "-f webdataset --subsets source",
    "-f imagenet_with_subset_dirs --subsets split",
    "-f parquet --subset {second}",
    "-f cifar --subset train --save-images",
    "-f cifar --subset nothing",
    "-f image_dir --plan",
    "-f cifar --transform grayscale --label {a} --limit 3 --save-images",
    "-f mnist --resize 28x28 --transform 'random_split --seed 9' --compact-labels",
    "-f parquet --transform 'filter -e /item[annotation/label_id<5]' --transform shuffle --images-per-batch 50",
    "-f parquet --workers 2 --images-per-batch 30",
)
PACKED = (
    "cifar",
    "parquet",
    "webdataset",
    "tfds_parquet",
    "tfds_array_record",
    "tfds_tfrecord",
    "lance",
    "npz",
    "cifar_binary",
    "imagenet",
)


def make_cases(writers: Sequence[str], readers: Sequence[str]) -> Iterator[Case]:
    """Yields all cases; each name starts with the kind of the case."""
    for kind, classes in CLASSES.items():
        fill = dict(zip("ab", classes, strict=True)) | dict(zip(("first", "second"), SUBSETS[kind], strict=True))
        fill["id"] = "ant/000" if kind == "mixed" else f"{{{kind}}}"
        for writer in writers:
            yield convert(f"write {kind} {writer}", kind, "-f", writer, "--save-images")
            size = "32x32" if writer == "cifar_binary" else "9x16"
            yield convert(f"write {kind} {writer} resized", kind, "-f", writer, "--resize", size)
        target = "datumaro" if kind == "mixed" else "cifar"
        for text in TRANSFORMS:
            call = filled(text, fill)
            yield convert(f"transform {kind} {call}", kind, "-f", target, "--transform", call, "--save-images")
        for writer in PACKED:
            rows = ["--images-per-batch", "37"] + ["--resize", "32x32"] * (kind == "mixed")
            yield convert(f"packed {kind} {writer}", kind, "-f", writer, *rows)
        for text in XPATHS:
            for mode in ("items", "annotations", "items+annotations"):
                xpath = ["-e", filled(text, fill), "--filter-mode", mode]
                yield convert(f"xpath {kind} {mode} {xpath[1]}", kind, "-f", "parquet", *xpath)
        for text in OPTIONS:
            words = [word.strip("'") for word in re.findall(r"'[^']*'|\S+", filled(text, fill))]
            yield convert(f"option {kind} {' '.join(words)}", kind, *words)
        yield from looks(kind)
    for kind in ("cifar10", "cifar100"):
        for reader in set(readers) & set(writers):
            made = f"{kind}-{reader}"
            yield convert(f"read {made}", made, "-if", reader, "-f", "cifar", "--save-images")
            yield Case(f"read {made} as found", [["info", f"{{in}}/{made}", "--json"], ["detect", f"{{in}}/{made}"]])
    for name in ("downsampled", "cifar10.tar.gz", "cifar100.tar.gz"):
        for writer in ("cifar", "parquet", "imagenet"):
            yield convert(f"read {name} {writer}", name, "-f", writer, "--save-images")
        yield convert(f"read {name} shuffled", name, "-f", "parquet", "--transform", "shuffle")
        yield Case(f"read {name} as found", [["info", f"{{in}}/{name}", "--json", "--checksums"]])
    yield from merges()
    yield from others()


def filled(text: str, values: dict[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda found: values[found[1]], text)


def convert(name: str, source: str, *arguments: str) -> Case:
    workers = [] if "--workers" in arguments else ["--workers", "1"]
    return Case(name, [["convert", "-i", f"{{in}}/{source}", "-o", "out", *workers, *arguments]])


def looks(kind: str) -> Iterator[Case]:
    """Yields cases that only read a dataset."""
    path = f"{{in}}/{kind}"
    for verb in ("stats", "validate"):
        yield Case(f"look {kind} {verb}", [[verb, path], [verb, path, "--json"]])
    for other in ("mixed-parquet", "cifar10-parquet", "cifar100-webdataset", "cifar10-other"):
        diffs = [["diff", path, f"{{in}}/{other}", *more] for more in ([], ["--json"], ["--json", "--ids", "--whole"])]
        yield Case(f"look {kind} diff {other}", diffs)
    yield Case(
        f"look {kind} info", [["detect", path], *(["info", path, *more] for more in ([], ["--json"], ["--checksums"]))]
    )
    yield Case(f"look {kind} report", [["report", path, "-o", "page.html"]])


def merges() -> Iterator[Case]:
    for sets in (("cifar10", "cifar10-other"), ("cifar10", "cifar10.tar.gz"), ("cifar100", "cifar10"), ("mixed",) * 2):
        paths = [f"{{in}}/{name}" for name in sets]
        for rule in ("error", "suffix", "first"):
            target = "parquet" if "mixed" in sets else "cifar"
            how = ["-o", "out", "-f", target, "--on-clash", rule, "--workers", "1", "--save-images"]
            yield Case(f"merge {' '.join(sets)} {rule}", [["merge", *paths, *how]])
            yield Case(f"merge {' '.join(sets)} {rule} dedupe", [["merge", *paths, *how, "--transform", "dedupe"]])
    more = ["--merge", "{in}/cifar10-other:cifar", "--on-clash", "suffix", "--label", "cat", "--images-per-batch", "25"]
    yield convert("merge by convert", "cifar10", "-f", "webdataset", *more)


def others() -> Iterator[Case]:
    """Yields cases with projects, Python programs, existing outputs and subprocesses."""
    project = [
        ["create", "--name", "pets"],
        ["import", "{in}/cifar10.tar.gz"],
        ["import", "{in}/cifar10-other", "-n", "other"],
        ["filter", "-e", '/item[annotation/label="cat" or annotation/label="dog"]'],
        ["transform", "-t", "random_split", "--", "-s", "train:.8", "-s", "test:.2"],
        ["project"],
        ["export", "-f", "imagenet_with_subset_dirs", "-o", "out", "--compact-labels"],
        ["export", "-f", "cifar", "--limit", "9", "--", "--save-images"],
    ]
    yield Case("project", project)
    for name in PROGRAMS:
        yield Case(f"python {name}", [["python", name]])
    once = ["convert", "-i", "{in}/cifar10", "-o", "out", "-f"]
    yield Case("again", [[*once, "parquet"], [*once, "parquet"], [*once, "npz"], [*once, "npz", "--overwrite"]])
    yield Case("process", [["-m", *once, "parquet", "--json"], ["-m", *once, "parquet"], ["-m", "formats"]])
    listed = [
        ["formats"],
        ["transform", "--list"],
        ["detect", "."],
        ["info", "{in}"],
        ["convert", "-i", "no", "-f", "x"],
    ]
    yield Case("listed", listed)


# The programs, run by a worker, so that they import the version under test.


def per_image(inputs: Path) -> None:
    import beam_cifar as bc

    targets: list[tuple[str, dict[str, Any]]] = [
        ("parquet", {"images_per_batch": 77}),
        ("cifar", {"save_images": True, "save_dataset_meta": True}),
        ("imagenet", {"image_ext": ".jpg", "keep_empty_classes": True}),
        ("webdataset", {}),
        ("datumaro", {}),
    ]
    for kind in CLASSES:
        for target, options in targets:
            with pipeline() as line:
                source = bc.ReadExamples(str(inputs / kind))
                write = bc.WriteExamples(f"{kind}-{target}", target, source.labels, bc.ExportOptions(**options))
                _ = line | source | write


def per_image_changes(inputs: Path) -> None:
    import beam_cifar as bc

    for kind, (kept, other) in CLASSES.items():
        with pipeline() as line:
            source = bc.ReadExamples(str(inputs / kind), subsets=["train"])
            found = bc.FilterExamples(f'/item[annotation/label="{kept}" or annotation/label="{other}"]', source.labels)
            remap = bc.RemapLabels({kept: other}, source.labels)
            rows = line | source | found | remap | bc.ResizeExamples((12, 20))
            rows |= "Gray" >> bc.TransformExamples("grayscale")
            rows |= "Crop" >> bc.TransformExamples("crop", {"width": 10, "height": 8})
            _ = rows | bc.WriteExamples(kind, "parquet", remap.labels)


def pipeline() -> Any:
    import apache_beam as beam
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner

    return beam.Pipeline(runner=FnApiRunner())


def dataset_items(inputs: Path) -> None:
    import beam_cifar as bc

    rng = np.random.default_rng(SEED)
    items = [
        bc.DatasetItem(
            id=f"item {number}",
            subset=("train", "test")[number % 4 == 0],
            image=rng.integers(0, 256, (5 + number % 3, 6, 3), dtype=np.uint8),
            annotations=[bc.Label(number % 3)],
        )
        for number in range(40)
    ]
    made = bc.Dataset.from_iterable(items, ["x", "y", ("z", "above")])
    made.export("as-parquet", "parquet")
    made.put(bc.DatasetItem("new", "extra", np.zeros((9, 9), np.uint8))).remove("item 3", "train")
    made.transform("random_split", splits={"a": 0.5, "b": 0.5}, seed=2).export("as-datumaro", "datumaro")
    show(made)


def dataset_merge(inputs: Path) -> None:
    import beam_cifar as bc

    first = bc.Dataset.import_from(inputs / "cifar10").filter('/item[annotation/label="cat"]')
    second = bc.Dataset.import_from(inputs / "cifar100-parquet", subsets=["test"]).select(has_even_label)
    merged = bc.Dataset.merge(first, second, on_clash="suffix").transform("reindex", start=5)
    merged.export("as-cifar", "cifar", save_images=True, images_per_batch=20)
    show(merged)


def has_even_label(item: Any) -> bool:
    return bool(item.label % 2 == 0)


def dataset_in_place(inputs: Path) -> None:
    import beam_cifar as bc

    for name in ("cifar10", "cifar100", "mixed", "cifar10-parquet", "cifar10-datumaro", "cifar100-npz"):
        shutil.copytree(inputs / name, name)
        dataset = bc.Dataset.import_from(name)
        gone = next(iter(dataset))
        dataset.remove(gone.id, gone.subset)
        dataset.save()
        dataset.put(bc.DatasetItem("new", gone.subset, np.full((32, 32, 3), 77, np.uint8), [bc.Label(1)]))
        dataset.save(save_images=True)
        show(bc.Dataset.import_from(name))


def show(dataset: Any) -> None:
    """Prints a dataset as its reader sees it."""
    print(len(dataset), dataset.categories.names, {name: len(subset) for name, subset in dataset.subsets.items()})
    for item in dataset:
        pixels = "" if item.image is None else hashlib.sha256(item.image.data.tobytes()).hexdigest()[:16]
        print(item.id, item.subset, item.label, pixels)


PROGRAMS = {f.__name__: f for f in (per_image, per_image_changes, dataset_items, dataset_merge, dataset_in_place)}


# A worker: one process runs many cases of one version, because starting Beam takes a second or more.


def work(checkout: Path, folder: Path, inputs: Path) -> None:
    """Runs the cases given on standard input, each in a separate folder; prints the results as a JSON object."""
    import beam_cifar

    if Path(str(beam_cifar.__file__)).parent.parent != checkout:
        sys.exit(f"{checkout}: another version was imported: {beam_cifar.__file__}")
    cases = [Case(**case) for case in json.load(sys.stdin)]
    results = {case.name: asdict(run_case(case, folder / case.folder, inputs)) for case in cases}
    print(json.dumps(results))


def run_case(case: Case, folder: Path, inputs: Path) -> Done:
    folder.mkdir(parents=True)
    os.chdir(folder)
    done = Done()
    for step in case.steps:
        arguments = [fill(word, inputs) for word in step]
        with Captured(1) as output, Captured(2) as error:
            code = run_step(arguments, inputs)
        done.steps.append((code, plain(output.text, folder), plain(error.text, folder)))
    done.files = hashes(folder)
    return done


class Captured:
    """Redirects a file descriptor to a file; replacing `sys.stdout` would miss what is written to the descriptor.

    Attributes:
        text: what was written, available on exit.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._stream = descriptor, {1: sys.stdout, 2: sys.stderr}[descriptor]
        self.text = ""

    def __enter__(self) -> Captured:
        self._stream.flush()
        self._before, self._file = os.dup(self._descriptor), tempfile.TemporaryFile()
        os.dup2(self._file.fileno(), self._descriptor)
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.flush()
        os.dup2(self._before, self._descriptor)
        os.close(self._before)
        with self._file:
            self._file.seek(0)
            self.text = self._file.read().decode(errors="backslashreplace")


def fill(word: str, inputs: Path) -> str:
    for kind, name in (("cifar10", "data_batch_1"), ("cifar100", "train")):
        if f"{{{kind}}}" in word:
            batch = pickle.loads((inputs / kind / name).read_bytes(), encoding="latin1")
            word = word.replace(f"{{{kind}}}", batch["filenames"][0].removesuffix(".png"))
    return word.replace("{in}", str(inputs))


def run_step(arguments: list[str], inputs: Path) -> str:
    """Returns the exit code, or the text of an unexpected exception."""
    try:
        if arguments[0] == "python":
            PROGRAMS[arguments[1]](inputs)
        elif arguments[0] == "-m":
            command = [sys.executable, "-m", "beam_cifar", *arguments[1:]]
            return str(subprocess.run(command, check=False).returncode)
        else:
            return str(entry()(arguments))
    except SystemExit as end:
        return str(end.code)
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return "0"


def entry() -> Callable[[list[str]], int]:
    """Returns the command line's `main`, a function of `beam_cifar.cli` or of a module of it."""
    try:
        found = importlib.import_module("beam_cifar.cli.main")
    except ModuleNotFoundError:
        found = importlib.import_module("beam_cifar.cli")
    main: Callable[[list[str]], int] = found.main
    return main


def plain(text: str, folder: Path) -> str:
    """Returns what was printed, without paths, versions and times."""
    text = text.replace(str(folder), "<here>").replace(os.environ["PYTHONPATH"], "<checkout>")
    text = re.sub(r'"seconds": [\d.e-]+|"version": "[^"]*"', "<varies>", text)
    return re.sub(r"[\d.,]+ s \([\d,.]+ images/s\)", "<varies>", text)


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in sorted(folder.rglob("*"))
    }


# The two versions, and their differences.


class Version:
    """A checkout, and the folder that its workers write to."""

    def __init__(self, checkout: Path, folder: Path, inputs: Path) -> None:
        self.checkout, self.folder, self.inputs = checkout.resolve(), folder, inputs

    def run(self, cases: Sequence[Case]) -> dict[str, Done]:
        command = [sys.executable, __file__, "--worker", *map(str, (self.checkout, self.folder, self.inputs))]
        environment = {**os.environ, "PYTHONPATH": str(self.checkout)}
        asked = json.dumps([asdict(case) for case in cases])
        done = subprocess.run(command, input=asked, env=environment, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            sys.exit(f"{self.checkout}: a worker ended with {done.returncode}")
        return {name: Done(**found) for name, found in json.loads(done.stdout.splitlines()[-1]).items()}


def differences(case: Case, before: tuple[Version, Done], after: tuple[Version, Done], ignored: set[str]) -> list[str]:
    """Returns a line for each file, manifest, exit code and message that differs."""
    (old_version, old), (new_version, new) = before, after
    found = []
    for step, was, now in zip(case.steps, old.steps, new.steps, strict=True):
        for what, one, other in zip(("exit code", "stdout", "stderr"), was, now, strict=True):
            if one != other:
                found.append(f"{what} of {' '.join(step)}: {first_difference(one, other)}")
    for name in sorted(old.files.keys() | new.files.keys()):
        if old.files.get(name) == new.files.get(name):
            continue
        if name not in old.files or name not in new.files:
            found.append(f"{name}: only {'after' if name in new.files else 'before'}")
            continue
        paths = [version.folder / case.folder / name for version in (old_version, new_version)]
        if name.endswith(".beam_cifar/manifest.json"):
            found.extend(f"{name}: {line}" for line in manifest_differences(paths[0], paths[1], ignored))
        else:
            found.append(f"{name}: {byte_difference(paths[0].read_bytes(), paths[1].read_bytes())}")
    return found


def manifest_differences(one: Path, other: Path, ignored: set[str]) -> list[str]:
    old, new = (json.loads(path.read_text("utf-8", "surrogatepass")) for path in (one, other))
    keys = sorted((old.keys() | new.keys()) - ignored)
    lines = [
        f"{key}: {first_difference(json.dumps(old.get(key), indent=0), json.dumps(new.get(key), indent=0))}"
        for key in keys
        if old.get(key) != new.get(key)
    ]
    return lines or ["order of keys"] * ([k for k in old if k in keys] != [k for k in new if k in keys])


def first_difference(one: str, other: str) -> str:
    old, new = one.splitlines(), other.splitlines()
    at = next((n for n, pair in enumerate(zip(old, new, strict=False)) if pair[0] != pair[1]), min(len(old), len(new)))
    return f"line {at + 1}: {''.join(old[at : at + 1])[:200]!r} became {''.join(new[at : at + 1])[:200]!r}"


def byte_difference(one: bytes, other: bytes) -> str:
    at = next(
        (n for n, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), min(len(one), len(other))
    )
    return f"{len(one)} and {len(other)} bytes, from byte {at} on: {one[at : at + 24]!r} became {other[at : at + 24]!r}"


def compare(arguments: argparse.Namespace, folder: Path) -> int:
    """Runs all cases with both versions; returns how many differ."""
    began = time.monotonic()
    inputs = folder / "inputs"
    inputs.mkdir()
    before, after = (Version(getattr(arguments, name), folder / name, inputs) for name in ("before", "after"))
    (_, formats, _), (_, steps, _) = before.run([Case("known", [["formats"], ["transform", "--list"]])])["known"].steps
    writers, readers = ([line.split()[0] for line in formats.splitlines() if way in line[:40].split()] for way in WAYS)
    make_inputs(inputs, before.run, writers)
    untouched = hashes(inputs)
    all_cases = list(make_cases(writers, readers))
    cases = [case for case in all_cases if fnmatch.fnmatch(case.name, arguments.only)]
    uncovered = sorted({line.split()[0] for line in steps.splitlines()} - {text.split()[0] for text in TRANSFORMS})
    lots = [
        lot for number in range(max(1, arguments.jobs // 2)) if (lot := cases[number :: max(1, arguments.jobs // 2)])
    ]
    done: dict[Version, dict[str, Done]] = {before: {}, after: {}}
    with ThreadPoolExecutor(arguments.jobs) as pool:
        runs = [(version, pool.submit(version.run, lot)) for lot in lots for version in (before, after)]
        for version, run in runs:
            done[version].update(run.result())
    ignored = {*IGNORED, *arguments.ignore}
    different = files = refused = 0
    for case in cases:
        old, new = done[before][case.name], done[after][case.name]
        found = differences(case, (before, old), (after, new), ignored)
        files += sum(bool(sha) for sha in old.files.values())
        refused += old.steps[-1][0] != "0"
        different += bool(found)
        more = [f"  and {len(found) - SHOWN} more"] * (len(found) > SHOWN)
        print(*[f"{case.name}:", *(f"  {line}" for line in found[:SHOWN]), *more], sep="\n") if found else None
    if hashes(inputs) != untouched:
        different += 1
        print("the inputs were changed")
    print(f"transforms not covered: {', '.join(uncovered) or 'none'}")
    print(f"ignored in manifests: {', '.join(sorted(ignored))}; in messages: seconds, images/s, version")
    print(
        f"{len(cases)} cases ({refused} rejected by the old version), {files} files compared, "
        f"{different} cases differ, {time.monotonic() - began:.0f} s"
    )
    return different


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--after", type=Path, default=Path(__file__).parent.parent, metavar="DIR", help="default: this checkout"
    )
    parser.add_argument("--only", default="*", metavar="PATTERN", help="names of cases, such as 'write mixed*'")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="parallel processes; default: 2")
    parser.add_argument("--ignore", action="append", default=[], metavar="KEY", help="another manifest key to ignore")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="new folder to work in; default: a temporary one")
    arguments = parser.parse_args()
    if arguments.folder:
        arguments.folder.mkdir(parents=True)
        return int(compare(arguments, arguments.folder.resolve()) > 0)
    with tempfile.TemporaryDirectory(prefix="same-bytes-") as folder:
        return int(compare(arguments, Path(folder)) > 0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(*map(Path, sys.argv[2:]))
    else:
        sys.exit(main())
