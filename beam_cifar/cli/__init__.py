"""The command line. Nothing here imports Beam, Arrow or numpy until a job runs."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

from beam_cifar.cli.arguments import make_parser, parse
from beam_cifar.errors import BeamCifarError

INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        The exit code; the README has the table.
    """
    arguments = parse(make_parser(), list(sys.argv[1:] if argv is None else argv))
    verbose = bool(getattr(arguments, "verbose", False))
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        arguments.command(arguments)
        sys.stdout.flush()
        return 0
    except BeamCifarError as error:
        return _fail(str(error), error.exit_code, verbose)
    except BrokenPipeError:
        # The reader of our output has gone: nothing more to say, also not at the interpreter's end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        _fail("interrupted; the output was not touched", INTERRUPTED, verbose)
        # Worker threads of the runner would hold up an ordinary exit until their bundle ends.
        sys.stdout.flush()
        os._exit(INTERRUPTED)
    except OSError as error:
        return _fail(f"{error.filename or 'storage'}: {error.strerror or error}", 1, verbose)
    except MemoryError:
        return _fail("out of memory", 1, verbose)


def _fail(message: str, code: int, verbose: bool) -> int:
    if verbose:
        traceback.print_exc()
    line = " ".join(message.split("\n"))
    print(f"beam-cifar: error: {line}", file=sys.stderr, flush=True)
    return code


def _interrupt(*_: Any) -> NoReturn:
    raise KeyboardInterrupt
