"""Programs that start at once: forks of one process that has imported everything, instead of a second for each.

`python -m tests.helpers.warm SOCKET` is that process. What `write_program` makes is a program for a shell: it hands its
arguments, folder, environment and standard streams to a fork, and ends as that does.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.helpers import ROOT
from tests.helpers.clusters import wait_for

PROGRAM = """\
#!{python} -IS
import json, os, socket, sys
told = json.dumps([[{name!r}, *sys.argv[1:]], os.getcwd(), dict(os.environ)]).encode()
with socket.socket(socket.AF_UNIX) as link:
    link.connect({address!r})
    socket.send_fds(link, [b"."], [0, 1, 2])
    link.sendall(told)
    link.shutdown(socket.SHUT_WR)
    ended = link.recv(1)
sys.exit(ended[0] if ended else "ended without an exit code")
"""
LATE = (
    "beam_cifar.cli.main",
    "apache_beam.runners.portability.fn_api_runner.worker_handlers",
    "apache_beam.runners.portability.portable_runner",
    "apache_beam.runners.worker.sdk_worker_main",
    "pyarrow.dataset",
    "rapidgzip",
)
"""What a job imports when it runs."""


@contextmanager
def warmed(folder: Path) -> Iterator[Path]:
    """A folder with the programs `beam-cifar` and `python`, which takes scripts only, while it lasts."""
    address, programs = folder / "socket", folder / "bin"
    programs.mkdir()
    for name in ("beam-cifar", "python"):
        program = programs / name
        program.write_text(PROGRAM.format(python=sys.executable, name=name, address=str(address)), encoding="utf-8")
        program.chmod(0o755)
    command = [sys.executable, "-m", "tests.helpers.warm", str(address)]
    # It ends when its standard input does: with us.
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        wait_for(lambda: address.exists() or process.poll() is not None)
        yield programs
        assert process.stdin is not None
        process.stdin.close()


def _serve(address: str) -> None:
    import beam_cifar

    for name in LATE:
        importlib.import_module(name)
    for name in beam_cifar.__all__:
        getattr(beam_cifar, name)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{address}.new")
        server.listen()
        os.rename(f"{address}.new", address)  # there when it can be used
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # forks leave nothing to wait for
        while select.select([server, sys.stdin], [], [])[0] == [server]:
            link, _ = server.accept()
            with link:
                if os.fork() == 0:
                    server.close()
                    _run(link)


def _run(link: socket.socket) -> None:
    """Is the program until its end."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    streams = socket.recv_fds(link, 1, 3)[1]
    told = b"".join(iter(lambda: link.recv(1 << 16), b""))
    arguments, folder, environment = json.loads(told)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    # New ones: those of before know whether their files could be sought in.
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    code = _exit_code(arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    link.send(bytes([code]))
    os._exit(code)


def _exit_code(arguments: list[str]) -> int:
    from beam_cifar.cli.main import main

    program, *sys.argv = arguments
    try:
        if program == "beam-cifar":
            return main(sys.argv)
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    _serve(sys.argv[1])
