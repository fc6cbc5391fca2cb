"""Signals at any moment: one line, 128 and their number, and an output that is absent or whole."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from beam_cifar import make_sample
from tests.helpers.interrupted import LINE, SIGNALS, Interrupted
from tests.helpers.processes import start

HERE = """
import os, signal, sys
from beam_cifar import __main__
from beam_cifar.cli import detect, main
{body}
sys.argv[1:] = ["detect", "in"]
__main__.run()
"""


def ended(body: str) -> tuple[int, str]:
    """Exit code and standard error of a command that does this."""
    done = subprocess.run(
        [sys.executable, "-c", HERE.format(body=body)], capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_while_modules_are_imported_is_one_line(number: signal.Signals) -> None:
    body = f"main.main = lambda: os.kill(os.getpid(), {int(number)})"
    assert ended(body) == (128 + number, LINE)


@pytest.mark.parametrize("number", SIGNALS)
def test_an_interrupt_that_a_library_swallows_is_one_all_the_same(number: signal.Signals) -> None:
    body = f"""
def run(arguments):
    try:
        os.kill(os.getpid(), {int(number)})
    except BaseException:
        pass
detect.run = run
"""
    assert ended(body) == (128 + number, LINE)


def test_an_interrupt_that_a_runner_turns_into_its_own_error_is_one_all_the_same() -> None:
    body = """
def run(arguments):
    try:
        os.kill(os.getpid(), 2)
    except BaseException:
        raise RuntimeError("bundle failed") from None
detect.run = run
"""
    assert ended(body) == (130, LINE)


@pytest.mark.slow
def test_a_signal_ends_a_library_that_never_returns_to_python() -> None:
    body = """
def run(arguments):
    import threading, time
    from lxml import etree
    threading.Thread(target=lambda: (time.sleep(0.3), os.kill(os.getpid(), 15)), daemon=True).start()
    tree = etree.fromstring("<a>" + "<b/>" * 3000 + "</a>")
    etree.XPath("count(//*[count(//*[count(//*) > 0]) > 0]) > 0")(tree)  # minutes
detect.run = run
"""
    assert ended(body) == (143, LINE)


@pytest.mark.parametrize("number", SIGNALS)
def test_what_the_caller_ignores_stays_ignored(number: signal.Signals) -> None:
    code = (
        f"import os, signal, sys; signal.signal({int(number)}, signal.SIG_IGN); os.execv(sys.executable, sys.argv[1:])"
    )
    inner = HERE.format(
        body=f"""
def run(arguments):
    os.kill(os.getpid(), {int(number)})
    print("still here")
detect.run = run
"""
    )
    done = subprocess.run([sys.executable, "-c", code, sys.executable, "-c", inner], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "still here\n", "")


def interrupt(folder: Path, times: int, seed: int) -> None:
    make_sample(str(folder / "in"), kind="cifar10", images=1500, seed=0)
    for command in (["create", "-o", "project"], ["import", "in", "-p", "project"]):
        with start(command, folder) as process:
            _, errors = process.communicate()
        assert process.returncode == 0, errors
    runs, chance = Interrupted.measured(folder), random.Random(seed)
    for _ in range(times):
        runs.try_once(chance)


@pytest.mark.slow
def test_random_interrupts_leave_the_output_absent_or_whole(tmp_path: Path) -> None:
    interrupt(tmp_path, int(os.environ.get("BEAM_CIFAR_INTERRUPTS", "20")), seed=1)
