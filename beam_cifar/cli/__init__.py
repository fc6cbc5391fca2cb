"""The command line. Nothing here imports Beam, Arrow or numpy until a job runs."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, NoReturn

from beam_cifar.cli.arguments import make_parser, parse
from beam_cifar.cli.processes import descendants, is_python
from beam_cifar.errors import BeamCifarError

INTERRUPTED = 130

# Arrow's own allocators keep what they were given; the system's returns it, at the same speed.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        The exit code; the README has the table.
    """
    if sys.stdout is not None and hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # names may hold what a terminal cannot show
    arguments = parse(make_parser(), list(sys.argv[1:] if argv is None else argv))
    verbose = bool(getattr(arguments, "verbose", False))
    interrupts = _Interrupts()
    try:
        arguments.command(arguments)
        _flush()
        return 0
    except BaseException as error:
        # Runners turn an interrupt in a worker into an error of their own.
        if interrupts.seen:
            _interrupted(verbose)
        return _explained(error, verbose)


class _Interrupts:
    """Turns Ctrl-C and a request to end into KeyboardInterrupt, and remembers that there was one."""

    def __init__(self) -> None:
        self.seen = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._interrupt)

    def _interrupt(self, *_: Any) -> NoReturn:
        self.seen = True
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # a second one would cut the cleaning up short
        # The local runner waits for its worker processes, which have no reason to end. A job server is needed yet, to
        # cancel its job.
        _kill(process for process in descendants(os.getpid()) if is_python(process))
        raise KeyboardInterrupt


def _kill(processes: Iterable[int]) -> None:
    for process in processes:
        with suppress(OSError):
            os.kill(process, signal.SIGKILL)


def _explained(failure: BaseException, verbose: bool) -> int:
    """Says in one line why a command failed, and returns its exit code; what nobody foresaw is raised again."""
    try:
        raise failure
    except BeamCifarError as error:
        return _fail(str(error), error.exit_code, verbose)
    except BrokenPipeError:
        # The reader of our output has gone: nothing more to say, also not at the interpreter's end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return _fail(f"{error.filename or 'storage'}: {error.strerror or error}", 1, verbose)
    except MemoryError:
        return _fail("out of memory", 1, verbose)


def _interrupted(verbose: bool) -> NoReturn:
    _kill(descendants(os.getpid()))
    _fail("interrupted", INTERRUPTED, verbose)
    _flush()
    # Worker threads of the runner would hold up an ordinary exit until their bundle ends.
    os._exit(INTERRUPTED)


def _flush() -> None:
    if sys.stdout is not None:  # the caller may have closed it
        sys.stdout.flush()


def _fail(message: str, code: int, verbose: bool) -> int:
    if verbose:
        traceback.print_exc()
    line = " ".join(message.split("\n"))
    print(f"beam-cifar: error: {line}", file=sys.stderr, flush=True)
    return code
