"""Jobs that die, and what they leave: helpers of the tests of resuming, cleaning and faults."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from beam_cifar import ConvertOptions, convert
from tests.helpers.image_trees import set_part_bytes


def dies(options: ConvertOptions, parts: int, part_bytes: int | None = None) -> None:
    """Runs a job in a process that kills itself and its children when so many parts have left their accounts."""
    assert _in_process(_convert_until, options, parts, signal.SIGKILL, part_bytes) == -signal.SIGKILL


def is_interrupted(options: ConvertOptions, parts: int) -> None:
    """The same, but the process gets what Ctrl-C sends, and ends as it likes."""
    assert _in_process(_convert_until, options, parts, signal.SIGINT, None) == 1  # KeyboardInterrupt, outside the CLI


def _in_process(target: Callable[..., None], *arguments: Any) -> int | None:
    # Forked from a process that has imported all that a job needs, and run nothing.
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["beam_cifar.pipeline.convert", "lxml.etree", "PIL.Image"])
    child = processes.Process(target=target, args=arguments)
    child.start()
    child.join(120)
    if child.is_alive():
        child.kill()
    return child.exitcode


def _convert_until(options: ConvertOptions, parts: int, number: int, part_bytes: int | None) -> None:
    from beam_cifar.pipeline import write as sink

    os.setsid()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    write_account = sink.write_account  # type: ignore[attr-defined]
    left = parts

    def counted(info: Any, settings: Any) -> None:
        nonlocal left
        write_account(info, settings)
        left -= 1
        if left == 0:
            os.killpg(0, number)

    sink.write_account = counted  # type: ignore[attr-defined]
    if part_bytes:
        set_part_bytes(pytest.MonkeyPatch(), options.output_format, part_bytes)
    convert(options)


def job_folder(output: Path) -> Path:
    """What lies beside an output."""
    return output.with_name(output.name + ".beam_cifar")


def names_beside(output: Path) -> list[str]:
    """The names of what lies beside an output; the note of its inputs without the digest of its manifest."""
    return sorted(re.sub(r"^inputs-[0-9a-f]{16}", "inputs", path.name) for path in job_folder(output).iterdir())


COMPLETE = ["inputs.json", "manifest.json"]
"""What lies beside an output when its job has ended."""


def accounts(output: Path) -> list[Path]:
    """The accounts of the finished parts of a job that did not end."""
    return sorted(job_folder(output).glob("work-*/accounts/*"))


def snapshot(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Every file below a folder: inode, time and content."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(folder)): (path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes())
        for path in files
    }
