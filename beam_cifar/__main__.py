"""`python -m beam_cifar` is `beam-cifar`. Signals are handled before anything else is imported."""

from __future__ import annotations

import atexit
import os
import signal
import sys

LINE = b"beam-cifar: error: interrupted\n"


def run() -> None:
    """Runs one command, and ends the process with its exit code."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        # What the caller ignores (`nohup`, `&` in a script) stays ignored.
        if signal.getsignal(getattr(signal, name)) is not signal.SIG_IGN:
            signal.signal(getattr(signal, name), _leave)
    from contextlib import suppress

    from beam_cifar.cli.main import main

    try:
        code = main()
    except KeyboardInterrupt as interrupt:  # raised in the instant in which `main` returned
        _leave(*interrupt.args or (signal.SIGINT,))
    with suppress(AttributeError, OSError, ValueError):  # closed, or its reader has gone; `main` says what matters
        sys.stdout.flush()
    # An ordinary exit would wait for threads that a runner or a library left behind, some of them for ever. What is
    # registered to be done at exit is done: job servers are stopped, temporary folders removed.
    atexit._run_exitfuncs()
    os._exit(code)


def _leave(number: int, *_: object) -> None:
    """Ends the process at once: nothing has begun yet, or all is done."""
    try:
        os.write(2, LINE)
    finally:
        os._exit(128 + number)


if __name__ == "__main__":
    run()
