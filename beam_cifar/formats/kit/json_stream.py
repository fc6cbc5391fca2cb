"""Reads a JSON file with an object at the top, member by member, and a long array in it element by element.

The standard library parses each value; only the chunk of the file with that value is in memory.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO, Final

from beam_cifar import storage
from beam_cifar.errors import InputError

CHUNK_BYTES: Final = 1 << 20
MAX_VALUE: Final = 8 << 20
"""Maximum number of characters of one value; three characters, an empty list, become 64 bytes."""

_GOES_ON: Final = ("", ".", "e", "E")
"""Characters after a number that may mean it continues in the next chunk."""

MAX_CONTAINERS: Final = 1_000_000
"""Maximum number of lists and objects in a text that is parsed whole: an empty one, three bytes, becomes 64."""

_space = re.compile(r"[ \t\n\r]*").match


def json_file(path: str) -> dict[str, Any]:
    """Returns the object in a small JSON file. Raises `InputError` if it is missing, too large, or not an object."""
    with storage.reading(path), storage.open_file(path) as file:
        text = file.read(MAX_VALUE + 1)
    if len(text) > MAX_VALUE:
        raise InputError(f"{path}: has more than {MAX_VALUE} bytes, the supported maximum; remove or restore it")
    found = parsed_json(text, path)
    if not isinstance(found, dict):
        raise InputError(f"{path}: has {str(found)[:50]!r}; expected a JSON object: remove or restore it")
    return found


def parsed_json(text: bytes, shown: str) -> Any:
    """Returns a whole JSON text, parsed. Raises `InputError` if it is not valid, or becomes too large."""
    _refuse_brackets(text.decode("latin-1"), shown)
    try:
        return json.loads(text)
    except RecursionError as error:
        raise InputError(f"{shown}: is not valid JSON: nested too deeply; remove or restore it") from error
    except ValueError as error:
        raise InputError(f"{shown}: is not valid JSON: {error}; remove or restore it") from error


def _refuse_brackets(text: str, shown: str) -> None:
    count = text.count("[") + text.count("{")
    if count > MAX_CONTAINERS:
        raise InputError(f"{shown}: a value has {count} brackets; at most {MAX_CONTAINERS} are supported")


class JsonStream:
    """A position in a JSON file.

    Args:
        stream: the file, at its start.
        shown: display name used in messages.
    """

    def __init__(self, stream: BinaryIO, shown: str) -> None:
        self._stream, self._shown = stream, shown
        self._utf8 = codecs.getincrementaldecoder("utf-8-sig")()
        self._decoder = json.JSONDecoder()
        self._text, self._at, self._dropped, self._ended = "", 0, 0, False

    def members(self) -> Iterator[str]:
        """Yields the keys; after each, its value must be read by `value` or `elements`. Raises `InputError`."""
        self._take("{")
        while self._next() != "}":
            key = self.value()
            if not isinstance(key, str):
                raise self._error(f"found {str(key)[:20]!r}; expected a key")
            self._take(":")
            yield key
            if self._next() != ",":
                break
            self._at += 1
            if self._next() == "}":
                raise self._error("found '}'; expected a key")
        self._take("}")
        if self._next():
            raise self._error(f"found {self._next()!r}; expected the end of the file")

    def elements(self) -> Iterator[Any]:
        """Yields the elements of an array. Raises `InputError`."""
        self._take("[")
        if self._next() == "]":
            self._at += 1
            return
        while True:
            yield self.value()
            if self._next() != ",":
                break
            self._at += 1
        self._take("]")

    def value(self) -> Any:
        """Reads and returns one value, as `json` parses it. Raises `InputError`."""
        while True:
            self._next()
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if self._more():
                    continue
                raise self._error(error.msg, error.pos) from error
            except RecursionError as error:
                raise self._error("nested too deeply") from error
            except ValueError as error:  # a number of thousands of digits
                raise self._error(str(error)) from error
            if self._text[end : end + 1] not in _GOES_ON or not self._more():
                self._at = end
                return value

    def at(self, start: str) -> bool:
        """Returns whether the next value starts with this character, such as "[". Raises `InputError` at the end."""
        found = self._next()
        if not found:
            raise self._error("unexpected end of file")
        return found == start

    def _next(self) -> str:
        """Returns the next character that is not white space, without consuming it; "" at the end."""
        while True:
            match = _space(self._text, self._at)
            self._at = match.end() if match else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def _take(self, wanted: str) -> None:
        found = self._next()
        if found != wanted:
            raise self._error(f"found {found!r}; expected {wanted!r}" if found else "unexpected end of file")
        self._at += 1

    def _more(self) -> bool:
        """Reads more, doubling the chunk while a value is incomplete; returns False at the end."""
        if self._ended:
            return False
        left = self._text[self._at :]
        if len(left) > MAX_VALUE:
            raise self._error(f"a value is incomplete after {len(left)} characters; at most {MAX_VALUE} are supported")
        data = self._stream.read(max(CHUNK_BYTES, min(len(left), MAX_VALUE - len(left))))
        self._ended = not data
        try:
            self._text, self._dropped, self._at = left + self._utf8.decode(data, not data), self._dropped + self._at, 0
        except UnicodeDecodeError as error:
            raise self._error(f"not UTF-8: {error.reason}") from error
        if len(left) > CHUNK_BYTES:
            _refuse_brackets(self._text, self._shown)
        return not self._ended

    def _error(self, what: str, at: int | None = None) -> InputError:
        place = self._dropped + (self._at if at is None else at)
        return InputError(f"{self._shown}: character {place}: is not valid JSON: {what}")
