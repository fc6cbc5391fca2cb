"""The program of a worker process: Beam's, which ends with its launcher whatever it is doing."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Runs a worker process of `pipeline/processes.py`."""
    # What Ctrl-C or a closed terminal means, the launcher decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if sys.platform == "linux":  # at once, even while a library holds the interpreter lock
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_end_with_launcher, daemon=True).start()
    # Late: importing Beam takes a second.
    from apache_beam.runners.worker import sdk_worker_main

    sdk_worker_main.main(sys.argv)


def _end_with_launcher() -> None:
    """Waits for the end of standard input, which the launcher keeps open and never writes to."""
    os.read(0, 1)
    os._exit(1)


if __name__ == "__main__":
    main()
