"""A real HTTP/1.1 proxy in front of a server: counts what passes, and breaks it where a test says so.

Heads pass byte for byte, `Host` and `Authorization` among them, so that signatures hold; only the server's own address in
an answer's head (`Location`) becomes the proxy's. Bodies stream through.
"""

from __future__ import annotations

import json
import re
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal
from urllib.parse import parse_qs, unquote, urlsplit

PIECE = 1 << 18
# What is on its way to a client that went away is counted as read: let it be little.
SEND_BUFFER = 1 << 18

Kind = Literal["wait", "answer", "drop", "cut", "cut_upload", "lose"]


@dataclass(frozen=True)
class Fault:
    """What happens to some requests.

    Attributes:
        kind: "wait" waits and passes the request on; "answer" answers in the server's place; "drop" closes the connection
            and tells the server nothing; "cut" closes it in the middle of the answer's body; "cut_upload" in the middle
            of the request's body; "lose" closes it when the server has done its work and answered.
        method: of the requests; empty for all.
        path: a regular expression, searched in path and query.
        first: the first matching request that is hit, counted from 1.
        times: how many are hit from there on; 0 for all.
        at: bytes of the body that pass before a cut.
        status: of an answer.
        code: of an answer; the error's name for S3.
        delay: seconds before it strikes.
        call: called when it strikes, in a thread of the proxy: kills a process, for instance.
    """

    kind: Kind
    method: str = ""
    path: str = ""
    first: int = 1
    times: int = 1
    at: int = 0
    status: int = 503
    code: str = "SlowDown"
    delay: float = 0.0
    call: Callable[[], object] | None = None

    def matches(self, method: str, path: str) -> bool:
        return self.method in ("", method) and re.search(self.path, path) is not None

    def strikes(self, count: int) -> bool:
        """Whether the matching request of that number is hit."""
        return count >= self.first and (not self.times or count < self.first + self.times)

    def strike(self) -> None:
        time.sleep(self.delay)
        if self.call:
            self.call()


@dataclass
class Request:
    """One request as it passed; it is known from its first line on, and complete when the client has its answer.

    Attributes:
        method: GET, ...
        path: path and query as sent.
        headers: of the request, names in lower case.
        sent: bytes of the request's body.
        received: bytes of the answer's body.
        status: of the answer; 0 if there was none.
        fault: what happened to it.
    """

    method: str
    path: str
    headers: dict[str, str] = field(repr=False)
    sent: int = 0
    received: int = 0
    status: int = 0
    fault: Fault | None = None

    @property
    def range(self) -> str:
        """The `Range` header, or an empty string."""
        return self.headers.get("range", "")

    @property
    def url(self) -> str:
        """What it is about: `s3://bucket/key` or `gs://bucket/key`; without a key for lists and unnamed uploads."""
        split = urlsplit(self.path)
        google = re.match(
            r"/(?:(?:upload|download)/)?(?:resumable/)?storage/v1/b/([^/]+)(?:/o(?:/([^/]+))?)?", split.path
        )
        if google:
            name = google[2] or parse_qs(split.query).get("name", [""])[0]
            return f"gs://{google[1]}/{unquote(name)}"
        return f"s3:/{unquote(split.path)}"


@dataclass(frozen=True)
class Total:
    """The sum of some requests."""

    requests: int = 0
    sent: int = 0
    received: int = 0

    def __add__(self, request: Request) -> Total:
        return Total(self.requests + 1, self.sent + request.sent, self.received + request.received)


class CountingProxy:
    """Listens on a port of its own while used as a context.

    Args:
        host: of the server behind it.
        port: of the server behind it.
        errors: how its own answers are written, for "s3" (XML) or "gs" (JSON).

    Attributes:
        endpoint: URL at which programs find it.
    """

    def __init__(self, host: str, port: int, errors: Literal["s3", "gs"]) -> None:
        self.errors = errors
        self.server = (host, port)
        self._lock = threading.Lock()
        self._requests: list[Request] = []
        self._faults: list[tuple[Fault, list[Request]]] = []
        self._open: set[socket.socket] = set()
        self._threads: set[threading.Thread] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.address: tuple[str, int] = self._listener.getsockname()
        self.endpoint = f"http://127.0.0.1:{self.address[1]}"
        self._closed = False
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def __enter__(self) -> CountingProxy:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Ends all connections; programs then find nobody there."""
        with self._lock:
            self._closed = True
            waiting = [self._accepting, *self._threads]
            for connection in (self._listener, *self._open):
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in waiting:
            thread.join(10)

    def inject(self, fault: Fault) -> None:
        """Adds a fault; of several that would strike, the first one added does."""
        with self._lock:
            self._faults.append((fault, []))

    def reset(self) -> None:
        """Forgets all requests and faults."""
        with self._lock:
            self._requests.clear()
            self._faults.clear()

    @property
    def requests(self) -> list[Request]:
        """All requests so far, by the time they came."""
        with self._lock:
            return list(self._requests)

    @property
    def struck(self) -> list[Request]:
        """The requests that a fault hit."""
        return [request for request in self.requests if request.fault]

    def by_method(self) -> dict[str, Total]:
        return self._sums(lambda request: request.method)

    def by_object(self, method: str = "GET") -> dict[str, Total]:
        """Requests of one method, by URL of the object."""
        return self._sums(lambda request: request.url if request.method == method else None)

    def describe(self) -> str:
        """The totals as lines, for people."""
        lines = [f"{method}: {_words(total)}" for method, total in sorted(self.by_method().items())]
        read = sorted(self.by_object().items())
        lines += [f"bytes read of {url}: {total.received} in {total.requests} requests" for url, total in read]
        return "\n".join(lines)

    def _sums(self, key: Callable[[Request], str | None]) -> dict[str, Total]:
        sums: dict[str, Total] = {}
        for request in self.requests:
            if (name := key(request)) is not None:
                sums[name] = sums.get(name, Total()) + request
        return sums

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            thread = threading.Thread(target=self._serve, args=[client], daemon=True)
            with self._lock:
                if self._closed:
                    client.close()
                    return
                self._threads.add(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        try:
            self._hold(client)
            wire = _Wire(client)
            while self._exchange(wire):
                pass
        except (OSError, EOFError):  # one of the two sides went away, or a fault closed the connection
            pass
        finally:
            self._drop(client)
            with self._lock:
                self._threads.discard(threading.current_thread())

    def _hold(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            if self._closed:
                raise EOFError
            self._open.add(connection)

    def _drop(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.discard(connection)
        connection.close()

    def _begin(self, head: _Head) -> Request:
        method, path, _ = head.first.split(" ", 2)
        request = Request(method, path, head.headers)
        with self._lock:
            self._requests.append(request)
            for fault, matched in self._faults:
                if fault.matches(method, path):
                    matched.append(request)
                    if request.fault is None and fault.strikes(len(matched)):
                        request.fault = fault
        return request

    def _exchange(self, client: _Wire) -> bool:
        """Passes one request and its answer; whether the connection is good for another one."""
        head = _Head(client.head())
        request = self._begin(head)
        fault = request.fault
        if fault and fault.kind in ("wait", "answer", "drop"):
            fault.strike()
            if fault.kind == "answer":
                return self._answer(client, head, request, fault)
            if fault.kind == "drop":
                return False
        # A connection for each request: an idle one may be closed by the server at any time.
        connection = socket.create_connection(self.server)
        try:
            self._hold(connection)
            return self._pass_on(client, _Wire(connection), head, request)
        finally:
            self._drop(connection)

    def _answer(self, client: _Wire, head: _Head, request: Request, fault: Fault) -> bool:
        waits = "expect" in head.headers
        for _, payload in [] if waits else client.body(head.length(default=0)):
            request.sent += payload
        if self.errors == "s3":
            body = f"<Error><Code>{fault.code}</Code><Message>injected by a test</Message></Error>".encode()
        else:
            told = {"code": fault.status, "message": "injected by a test", "errors": [{"reason": fault.code}]}
            body = json.dumps({"error": told}).encode()
        body = b"" if request.method == "HEAD" else body
        kind = "application/xml" if self.errors == "s3" else "application/json"
        lines = [f"HTTP/1.1 {fault.status} Injected", f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
        lines += ["Connection: close"] if waits else []
        request.status, request.received = fault.status, len(body)
        client.socket.sendall("\r\n".join([*lines, "", ""]).encode() + body)
        return not waits

    def _pass_on(self, client: _Wire, server: _Wire, head: _Head, request: Request) -> bool:
        server.socket.sendall(head.raw)
        early = self._wait_for_leave(client, server) if "expect" in head.headers else None
        if early is None:
            with suppress(BrokenPipeError, ConnectionResetError):  # it answered before it had read all
                self._pass_body_up(client, server, head, request)
            answer = _Head(server.head())
            while answer.status // 100 == 1:
                client.socket.sendall(answer.raw)
                answer = _Head(server.head())
        else:
            answer = early
        lasts = self._pass_answer(client, server, answer, request)
        return lasts and early is None and not _closes(head) and not _closes(answer)

    def _wait_for_leave(self, client: _Wire, server: _Wire) -> _Head | None:
        """After "Expect: 100-continue": until one side goes on; the server's answer if it does not want the body."""
        ready, _, _ = select.select([client.socket, server.socket], [], [])
        if server.socket not in ready:
            return None
        head = _Head(server.head())
        if head.status != 100:
            return head
        client.socket.sendall(head.raw)
        return None

    def _pass_body_up(self, client: _Wire, server: _Wire, head: _Head, request: Request) -> None:
        fault = request.fault if request.fault and request.fault.kind == "cut_upload" else None
        for raw, payload in client.body(head.length(default=0)):
            if fault and request.sent + payload > fault.at:
                server.socket.sendall(raw[: fault.at - request.sent])
                request.sent = fault.at
                fault.strike()
                raise EOFError
            request.sent += payload
            server.socket.sendall(raw)

    def _pass_answer(self, client: _Wire, server: _Wire, answer: _Head, request: Request) -> bool:
        """Whether the end of the answer is known without closing the connection."""
        fault = request.fault
        length: int | Literal["chunked"] | None = answer.length(default=None)
        if request.method == "HEAD" or answer.status in (204, 304):
            length = 0
        request.status = answer.status
        if fault and fault.kind == "lose":
            for _ in server.body(length):
                pass
            fault.strike()
            raise EOFError
        client.socket.sendall(answer.raw.replace(_address(self.server), _address(self.address)))
        cut = fault if fault and fault.kind == "cut" else None
        for raw, payload in server.body(length):
            if cut and request.received + payload > cut.at:
                client.socket.sendall(raw[: cut.at - request.received])
                request.received = cut.at
                cut.strike()
                raise EOFError
            request.received += payload
            client.socket.sendall(raw)
        return length is not None


class _Head:
    """The first line and the headers of a message."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.first, *lines = raw.decode("latin-1").rstrip("\r\n").split("\r\n")
        parted = (line.partition(":") for line in lines)
        self.headers = {name.strip().lower(): value.strip() for name, _, value in parted}

    @property
    def status(self) -> int:
        return int(self.first.split(" ", 2)[1])

    def length(self, default: int | None) -> int | Literal["chunked"] | None:
        """Bytes of the body; `default` if the head does not say."""
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            return "chunked"
        return int(self.headers["content-length"]) if "content-length" in self.headers else default


class _Wire:
    """One side of a connection: a socket, and what was read from it but not used yet."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._left = bytearray()
        self._room = memoryview(bytearray(PIECE))

    def head(self) -> bytes:
        return self._until(b"\r\n\r\n")

    def body(self, length: int | Literal["chunked"] | None) -> Iterator[tuple[memoryview, int]]:
        """Yields pieces as they came, and how many bytes of the content each one has; None is "until it closes"."""
        if length != "chunked":
            yield from ((piece, len(piece)) for piece in self._pieces(length))
            return
        size = -1
        while size:
            line = self._until(b"\r\n")
            size = int(line.split(b";")[0], 16)
            yield memoryview(line), 0
            yield from ((piece, len(piece)) for piece in self._pieces(size))
            if size:
                yield memoryview(self._until(b"\r\n")), 0
        while (line := self._until(b"\r\n")) != b"\r\n":  # trailers
            yield memoryview(line), 0
        yield memoryview(line), 0

    def _until(self, mark: bytes) -> bytes:
        while (end := self._left.find(mark)) < 0:
            data = self.socket.recv(PIECE)
            if not data:
                raise EOFError
            self._left += data
        end += len(mark)
        found = bytes(self._left[:end])
        del self._left[:end]
        return found

    def _pieces(self, count: int | None) -> Iterator[memoryview]:
        while count is None or count > 0:
            most = PIECE if count is None else min(count, PIECE)
            if self._left:
                piece = memoryview(bytes(self._left[:most]))
                del self._left[:most]
            else:
                piece = self._room[: self.socket.recv_into(self._room[:most])]
            if not piece:
                if count is None:
                    return
                raise EOFError
            count = None if count is None else count - len(piece)
            yield piece


def _closes(head: _Head) -> bool:
    return head.headers.get("connection", "").lower() == "close" or "HTTP/1.0" in head.first


def _address(pair: tuple[str, int]) -> bytes:
    return f"{pair[0]}:{pair[1]}".encode()


def _words(total: Total) -> str:
    return f"{total.requests} requests, {total.sent} bytes sent, {total.received} bytes received"
