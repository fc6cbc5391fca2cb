from __future__ import annotations

import io
import re
from pathlib import Path

import pytest

from beam_cifar import ConvertOptions, convert
from beam_cifar.cli import terminal as module
from beam_cifar.cli.terminal import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_is_told_how_many_images_are_done(
    cifar10: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "INTERVAL", 0.001)
    terminal = Terminal()
    with Progress(terminal) as line:
        summary = convert(ConvertOptions(str(cifar10), str(tmp_path / "out"), "parquet"), on_start=line.start)
    said = [int(done.replace(",", "")) for done in re.findall(r"([\d,]+) of [\d,]+ images", terminal.getvalue())]
    assert said[0] == 0
    assert said == sorted(said)
    assert f" of {summary.written:,} images, " in terminal.getvalue()
    assert terminal.getvalue().endswith("\r\x1b[K"), "the line is taken back at the end"


def test_what_is_no_terminal_is_told_nothing(cifar10: Path, tmp_path: Path) -> None:
    stream = io.StringIO()
    with Progress(stream) as line:
        convert(ConvertOptions(str(cifar10), str(tmp_path / "out"), "parquet"), on_start=line.start)
    assert stream.getvalue() == ""
