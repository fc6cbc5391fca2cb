"""The benchmarks that run.py runs: which programs are compared on which conversion."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ENVIRONMENT = Path(os.environ.get("BEAM_CIFAR_PEERS") or HERE.parent / ".peers")
# BEAM_CIFAR_PEERS is an interpreter, as for the tests, or the directory of its virtual environment.
PEERS_PYTHON = str(ENVIRONMENT / "bin" / "python" if ENVIRONMENT.is_dir() else ENVIRONMENT)


@dataclass(frozen=True)
class Contender:
    """A program that takes part in a benchmark.

    Attributes:
        name: name in the table; for a variant of ours, the words after the comma are its name in the ratios.
        command: its arguments; `{source}` is the dataset to read, `{out}` the directory to create.
        ours: whether it is beam-cifar.
    """

    name: str
    command: tuple[str, ...]
    ours: bool = False

    @property
    def form(self) -> str:
        return self.name.partition(", ")[2]


@dataclass(frozen=True)
class Work:
    """A conversion that several programs can do.

    Attributes:
        title: name in the table.
        kind: sample to read, a value of `make-sample --kind`.
        output: kind of output, as count.py names it.
        contenders: programs, in the order in which they take turns.
    """

    title: str
    kind: str
    output: str
    contenders: tuple[Contender, ...]


def ours(name: str, *options: str) -> Contender:
    command = (sys.executable, "-m", "beam_cifar", "convert", "-i", "{source}", "-o", "{out}", *options)
    return Contender(name, command, ours=True)


def peer(name: str, script: str, *options: str, python: str = sys.executable) -> Contender:
    return Contender(name, (python, str(HERE / "peers" / script), "{source}", "{out}", *options))


def datumaro(output: str) -> Contender:
    return peer("Datumaro", "datumaro_export.py", output, python=PEERS_PYTHON)


def pipelines(task: str) -> tuple[Contender, ...]:
    """The same pipeline over single images with our transforms, and with Beam's alone."""
    script = str(HERE / "own_pipelines.py")
    own = Contender("beam-cifar's transforms", (sys.executable, script, task, "{source}", "{out}"), ours=True)
    naive = (sys.executable, str(HERE / "peers" / "beam_pipelines.py"), task, "{source}", "{out}")
    return own, Contender("Beam's own, one image an element", naive)


# Whole batches in the genuine layout are copied; repacking them moves every row and pixel.
TO_CIFAR = (
    ours("beam-cifar", "-f", "cifar", "--save-images"),
    ours("beam-cifar, packed anew", "-f", "cifar", "--save-images", "--images-per-batch", "9999"),
    datumaro("cifar"),
    Contender("cp -r", ("cp", "-r", "{source}", "{out}")),
)

WORKS = {
    "parquet": Work(
        "CIFAR-10 to Parquet (PNG)",
        "cifar10",
        "parquet",
        (
            ours("beam-cifar", "-f", "parquet"),
            peer("numpy + Pillow + pyarrow loop", "loop.py"),
            peer("Hugging Face datasets, 1 process", "huggingface.py", "1"),
            peer("Hugging Face datasets, 2 processes", "huggingface.py", "2"),
            peer("Beam, one image an element", "beam_elements.py"),
        ),
    ),
    "imagenet": Work(
        "CIFAR-10 to ImageNet (PNG)", "cifar10", "png", (ours("beam-cifar", "-f", "imagenet"), datumaro("imagenet"))
    ),
    "webdataset": Work(
        "CIFAR-10 to WebDataset (PNG)",
        "cifar10",
        "tar",
        (
            ours("beam-cifar", "-f", "webdataset"),
            peer("webdataset's ShardWriter and Pillow", "shard_writer.py", python=PEERS_PYTHON),
        ),
    ),
    "mnist": Work(
        "CIFAR-10 to MNIST (gray)",
        "cifar10",
        "idx",
        (ours("beam-cifar", "-f", "mnist"), peer("numpy + gzip", "mnist_loop.py")),
    ),
    "cifar10": Work("CIFAR-10 to CIFAR-10", "cifar10", "cifar", TO_CIFAR),
    "cifar100": Work("CIFAR-100 to CIFAR-100", "cifar100", "cifar", TO_CIFAR),
    "pipeline-count": Work("Pipeline: count labels", "cifar10", "counts", pipelines("count")),
    "pipeline-flip": Work("Pipeline: flip, to Parquet", "cifar10", "parquet", pipelines("flip")),
    "pipeline-side": Work("Pipeline: join a table by side input, to Parquet", "cifar10", "parquet", pipelines("side")),
    "pipeline-key": Work("Pipeline: join a table by key, to Parquet", "cifar10", "parquet", pipelines("key")),
    "pipeline-two": Work("Pipeline: flip, to Parquet and TFRecord", "cifar10", "parquet", pipelines("two")),
    "pipeline-late": Work("Pipeline: paths at run time, to Parquet", "cifar10", "parquet", pipelines("late")),
}
