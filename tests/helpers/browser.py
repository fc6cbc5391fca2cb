"""A real browser for tests: Chromium, spoken to through its DevTools protocol over two pipes, without a driver.

The protocol is from https://chromedevtools.github.io/devtools-protocol: one JSON object each, ended by a zero byte.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_browser() -> str | None:
    """The path of a browser; `BEAM_CIFAR_CHROMIUM` names one that is elsewhere."""
    return os.environ.get("BEAM_CIFAR_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One page of a headless browser.

    Args:
        path: of the browser.
        profile: a folder for what it keeps.

    Attributes:
        requests: addresses that the page asked for, data URIs apart.
        complaints: what the browser said of the page: errors, and what the page's policy forbade.
    """

    def __init__(self, path: str, profile: Path) -> None:
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._last = 0
        to_read, self._write = os.pipe()
        self._read, to_write = os.pipe()
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]
        flags += ["--remote-debugging-pipe", "--no-first-run", "--disable-background-networking", "--disable-sync"]
        command = [path, *flags, f"--user-data-dir={profile}", "about:blank"]
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (to_read, to_write)]

        def connect() -> None:
            """It reads from 3 and writes to 4."""
            os.dup2(ends[0], 3)
            os.dup2(ends[1], 4)

        nowhere = subprocess.DEVNULL
        self._process = subprocess.Popen(command, preexec_fn=connect, close_fds=False, stdout=nowhere, stderr=nowhere)
        for end in (to_read, to_write, *ends):
            os.close(end)
        self._left = b""
        self._session = ""

    def __enter__(self) -> Browser:
        target = next(t for t in self._call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        asked = {"targetId": target["targetId"], "flatten": True}
        self._session = self._call("Target.attachToTarget", **asked)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self._call(f"{domain}.enable")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.terminate()
        self._process.wait(30)
        os.close(self._write)
        os.close(self._read)

    def open(self, path: Path, width: int, *, dark: bool = False, paper: bool = False) -> None:
        """Loads a page at a width in CSS pixels."""
        self.requests.clear()
        self.complaints.clear()
        narrow = width < 600
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=844 if narrow else 900,
                   deviceScaleFactor=2 if narrow else 1, mobile=narrow)  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", media="print" if paper else "", features=[scheme])
        self._call("Page.navigate", url=path.as_uri())
        while self._next().get("method") != "Page.loadEventFired":
            pass

    def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page."""
        made = self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in made:
            raise RuntimeError(json.dumps(made["exceptionDetails"]))
        return made["result"].get("value")

    def screenshot(self, path: Path, most: int = 6000) -> None:
        """Writes a PNG of the page from its top, so many CSS pixels high at most."""
        size = self._call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], most), "scale": 1}
        made = self._call("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(made["data"]))

    def _call(self, method: str, **parameters: Any) -> Any:
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._last:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._left:
            data = os.read(self._read, 1 << 20)
            if not data:
                raise RuntimeError("the browser ended")
            self._left += data
        text, _, self._left = self._left.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, method: str, told: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent" and not told["request"]["url"].startswith("data:"):
            self.requests.append(told["request"]["url"])
        elif method == "Log.entryAdded":
            self.complaints.append(told["entry"]["text"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(told["exceptionDetails"]["text"])
