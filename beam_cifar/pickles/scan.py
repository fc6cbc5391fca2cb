"""Reads a pickle's opcodes into a tree of plain values, without importing or calling anything.

Large values stay in the file. Supports all opcodes that Python 2 and 3 write for plain data and numpy arrays, protocols
0 to 5; any other is refused. Every opcode is charged for the memory of what it makes (`PickleFile.charge`), and a value
fetched from the memo once more for all that it holds: that bounds floods, repetitions and exponential nesting alike.
"""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Callable
from typing import BinaryIO

from beam_cifar.data.text import counted
from beam_cifar.pickles import arrays
from beam_cifar.pickles.payload import decode, decode_uescape, index_coded
from beam_cifar.pickles.source import PickleFile, read_exact, shorten
from beam_cifar.pickles.values import (
    Container,
    DictValue,
    GlobalValue,
    IntRun,
    ListValue,
    Node,
    SetValue,
    Span,
    TextSpan,
    TupleValue,
    Value,
    weight_of,
)

MAX_NESTING = 32
SHORT = 255  # longer strings stay in the file
_MAX_RUN = 1 << 11  # picklers end a run after 1,000 items
_MIN_RUN = 64
# Bytes of memory: what CPython takes, with the places in lists that hold the value while it is read.
_POINTER, _NUMBER, _STRING, _SPAN, _CONTAINER, _ENTRY, _MADE = 24, 64, 96, 128, 200, 112, 256
_SLOW = 160  # for opcodes that make little and take long
_NO_FRAME = sys.maxsize
_UINT32 = struct.Struct("<I").unpack_from
INT64 = range(-(1 << 63), 1 << 63)
_SHORT_STRINGS = {0x55: False, 0x43: False, 0x8C: True}  # by opcode, whether it is text
_LONG_COUNTS = (0x8E, 0x96, 0x8D)
_TEXTS = (0x58, 0x8D)
_BINPUT, _LONG_BINPUT, _MEMOIZE = 0x71, 0x72, 0x94
_FOREIGN = {
    b"\x1f\x8b": "a gzip file",
    b"PK\x03\x04": "a zip archive, as written by PyTorch",
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ": "an xz file",
    b"\x93NUMPY": "a numpy file",
    b"\x89HDF": "an HDF5 file",
    b"\x89PNG": "a PNG image",
    b"PAR1": "a Parquet file",
    b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.": "a PyTorch file",
}


_NUMBERS = frozenset({type(None), bool, int, float, IntRun})
_STRINGS = frozenset({bytes, str})
_CONSTANTS: dict[int, bool | None] = {0x4E: None, 0x88: True, 0x89: False}
_EMPTY: dict[int, type[Container]] = {0x5D: ListValue, 0x29: TupleValue, 0x7D: DictValue, 0x8F: SetValue}
_MARKED: dict[int, type[Container]] = {0x6C: ListValue, 0x74: TupleValue, 0x64: DictValue, 0x91: SetValue}
# The container that items are added to, and how many; 0 means all since the mark.
_ADDED: dict[int, tuple[type[Container], int]] = {
    ord("a"): (ListValue, 1),
    ord("e"): (ListValue, 0),
    ord("s"): (DictValue, 2),
    ord("u"): (DictValue, 0),
    0x90: (SetValue, 0),
}
_HANDLERS = {
    0x80: "_op_proto",
    0x95: "_op_frame",
    0x28: "_op_mark",
    **dict.fromkeys(_CONSTANTS, "_op_constant"),
    **dict.fromkeys(_EMPTY, "_op_empty"),
    **dict.fromkeys(_MARKED, "_op_marked"),
    **dict.fromkeys((0x85, 0x86, 0x87), "_op_tuple"),
    **dict.fromkeys(_ADDED, "_op_add"),
    **dict.fromkeys((*b"pqr", _MEMOIZE), "_op_put"),
    **dict.fromkeys(b"ghj", "_op_get"),
    ord("K"): "_op_binint1",
    **dict.fromkeys(b"JM", "_op_binint"),
    **dict.fromkeys((0x8A, 0x8B), "_op_long"),
    **dict.fromkeys(b"IL", "_op_decimal"),
    **dict.fromkeys(b"FG", "_op_float"),
    **dict.fromkeys(_SHORT_STRINGS, "_op_short_string"),
    **dict.fromkeys((0x54, 0x42, 0x8E, 0x96, *_TEXTS), "_op_string"),
    ord("S"): "_op_string_line",
    ord("V"): "_op_text_line",
    ord("c"): "_op_global",
    0x93: "_op_stack_global",
    ord("R"): "_op_reduce",
    ord("b"): "_op_build",
}
_REFUSED = {
    **dict.fromkeys(b"PQ", "refers to a persistent id"),
    **dict.fromkeys((0x82, 0x83, 0x84), "uses an extension code"),
    **dict.fromkeys((ord("i"), ord("o"), 0x81, 0x92), "creates an instance of a class"),
    **dict.fromkeys((0x97, 0x98), "refers to out-of-band buffers"),
    **dict.fromkeys(b"012", "drops or duplicates a value on the stack"),
}


class Scan:
    """The stack machine; `run` sets `value`.

    Attributes:
        protocol: as declared by the file; default: 0.
        seen: by opcode, whether the file uses it.
        globals: the (module, name) pairs that the file refers to.
        value: the scanned value.
    """

    def __init__(self, file: BinaryIO, name: str, stored: int | None = None) -> None:
        self.source = PickleFile(file, name, stored)
        self._charge = self.source.charge
        self.protocol = 0
        self.seen = bytearray(256)
        self.globals: set[tuple[str, str]] = set()
        self.value: Value = None
        self._stack: list[Value] = []
        self._marks: list[list[Value]] = []
        self._memo: dict[int, Value] = {}
        self._frame_end = _NO_FRAME

    def run(self) -> None:
        """Reads the whole file."""
        # `pickletools.genops` fails on Python 2's payloads of protocol 0, and reads every argument into memory.
        source, seen = self.source, self.seen
        _check_start(source)
        # A list rather than a dictionary for speed: a file of protocol 0 has a million opcodes.
        handlers: list[Callable[[int], None]] = [self._refuse_opcode] * 256
        for code, method in _HANDLERS.items():
            handlers[code] = getattr(self, method)
        while True:
            if source.pos >= len(source.buf):
                source.at = source.offset
                source.fill(1)
            source.at = source.offset
            if source.at >= self._frame_end:
                self._end_frame()
            code = source.buf[source.pos]
            source.pos += 1
            seen[code] = 1
            if code == 0x2E:
                break
            handlers[code](code)
        self._stop()

    def _stop(self) -> None:
        source = self.source
        if self._marks or len(self._stack) != 1:
            source.refuse(
                f"ends with {counted(len(self._stack), 'value')} and {len(self._marks)} open marks; expected 1 value"
            )
        if source.left:
            source.at = source.offset
            source.refuse(f"{counted(source.left, 'byte')} after the end of the pickle; expected none")
        self.value = self._stack.pop()
        self._memo.clear()

    def _refuse_opcode(self, code: int) -> None:
        what = _REFUSED.get(code)
        if what is None:
            self.source.refuse(f"unknown opcode {shorten(bytes([code]))}: not a pickle, or damaged")
        self.source.refuse(f"{what}; not expected in a CIFAR file")

    # The stack.

    def _pop(self) -> Value:
        if not self._stack:
            self.source.refuse("pops a value from an empty stack")
        value = self._stack.pop()
        if type(value) is IntRun:
            self.source.refuse("pops an int from a run of ints, which no pickler does")
        return value

    def _pop_mark(self) -> list[Value]:
        if not self._marks:
            self.source.refuse("pops a mark that was not set")
        items = self._stack
        self._stack = self._marks.pop()
        return items

    def _top(self, kind: type[Container]) -> Container:
        value = self._stack[-1] if self._stack else None
        if type(value) is not kind:
            self.source.refuse(f"adds items to a {arrays.kind_of(value)}; expected a {kind.__name__[:-5].lower()}")
        if value.closed:
            self.source.refuse("adds items to a value that is already in use")
        return value

    def _grow(self, container: Container, items: list[Value]) -> None:
        """Adds items, and updates depth and weight."""
        types = set(map(type, items))
        container.weight += _POINTER * (arrays.count_items(items) if IntRun in types else len(items))
        if types <= _STRINGS:  # names, most of what a batch has to read
            container.weight += sum(map(len, items))
        elif not types <= _NUMBERS:
            for item in items:
                container.weight += weight_of(item)
                if isinstance(item, Node) and item.depth >= container.depth:
                    container.depth = item.depth + 1
        if container.depth > MAX_NESTING:
            self.source.refuse(f"nested more than {MAX_NESTING} levels deep; not expected in a CIFAR file")
        container.items.extend(items)

    def _push_new(self, kind: type[Container], items: list[Value]) -> None:
        self._charge(_CONTAINER)
        container = kind(self.source.at)
        if items:
            self._grow(container, items)
        self._stack.append(container)

    # Containers.

    def _op_mark(self, code: int) -> None:
        if len(self._marks) >= MAX_NESTING * 2:
            self.source.refuse(f"more than {MAX_NESTING * 2} open marks; not expected in a CIFAR file")
        self._charge(_SLOW)
        self._marks.append(self._stack)
        self._stack = []

    def _op_empty(self, code: int) -> None:
        self._push_new(_EMPTY[code], [])

    def _op_marked(self, code: int) -> None:
        """LIST, TUPLE, DICT, FROZENSET: pushes a container of all items since the mark."""
        items = self._pop_mark()
        kind = _MARKED[code]
        self._push_new(kind, self._checked_pairs(items) if kind is DictValue else items)

    def _op_tuple(self, code: int) -> None:
        """TUPLE1, TUPLE2, TUPLE3."""
        items = [self._pop() for _ in range(code - 0x84)]
        self._push_new(TupleValue, items[::-1])

    def _op_add(self, code: int) -> None:
        """APPEND, APPENDS, SETITEM, SETITEMS, ADDITEMS."""
        kind, count = _ADDED[code]
        items = [self._pop() for _ in range(count)][::-1] if count else self._pop_mark()
        if kind is DictValue:
            items = self._checked_pairs(items)
        self._grow(self._top(kind), items)

    def _checked_pairs(self, items: list[Value]) -> list[Value]:
        if any(type(item) is IntRun for item in items):
            items = expand_ints(self.source, items)
        if len(items) % 2:
            self.source.refuse("a dictionary key has no value")
        return items

    # The memo.

    def _index(self, code: int) -> int:
        """Returns the memo index of a PUT or GET, encoded in decimal, in one byte, or in four."""
        if code in b"pg":
            return self._decimal(self.source.line(32))
        return self.source.number(1 if code in b"qh" else 4)

    def _op_put(self, code: int) -> None:
        index = len(self._memo) if code == _MEMOIZE else self._index(code)
        if not self._stack or type(self._stack[-1]) is IntRun or not 0 <= index < 1 << 32:
            self.source.refuse(f"invalid memo entry {index}: nothing to store, or index out of range")
        self._charge(_ENTRY)
        self._memo[index] = self._stack[-1]

    def _op_get(self, code: int) -> None:
        index = self._index(code)
        if index not in self._memo:
            self.source.refuse(f"refers to memo entry {index}, which was never stored")
        value = self._memo[index]
        if isinstance(value, Node):
            value.closed = True
            self._charge(_POINTER + value.weight)
        else:
            self._charge(_POINTER + weight_of(value))
        self._stack.append(value)

    # Numbers.

    def _op_constant(self, code: int) -> None:
        self._charge(_POINTER)
        self._stack.append(_CONSTANTS[code])

    def _op_binint1(self, code: int) -> None:
        """BININT1, and the run of them that may follow."""
        source, stack = self.source, self._stack
        start = source.pos - 1
        run = _run_length(source.buf, start, _MIN_RUN)
        if run < 2:
            self._charge(_POINTER)
            stack.append(source.take(1)[0])
            return
        if run < _MIN_RUN:
            self._charge(_POINTER * run)
            stack.extend(source.buf[start + 1 : start + 2 * run : 2])
            source.pos = start + 2 * run
            return
        run = _run_length(source.buf, start, _MAX_RUN)
        # Opcodes other than APPENDS may pop up to three of the ints, which therefore stay single values.
        if source.buf[start + 2 * run : start + 2 * run + 1] != b"e":
            run -= 3
        self._charge(2 * _SPAN)
        stack.append(IntRun(source.at, run))
        source.pos = start + 2 * run

    def _op_binint(self, code: int) -> None:
        """BININT, BININT2."""
        self._charge(_NUMBER)
        data = self.source.take(4 if code == 0x4A else 2)
        self._stack.append(int.from_bytes(data, "little", signed=code == 0x4A))

    def _op_long(self, code: int) -> None:
        """LONG1, LONG4."""
        count = self.source.number(1 if code == 0x8A else 4)
        if count > 8:
            self.source.refuse(f"int of {count} bytes; expected at most 8")
        self._charge(_NUMBER)
        self._stack.append(int.from_bytes(self.source.take(count), "little", signed=True))

    def _op_decimal(self, code: int) -> None:
        """INT, LONG: decimal lines; INT also encodes booleans, as 00 and 01."""
        self._charge(_SLOW)
        line = self.source.line(32)
        if code == 0x49 and line in (b"00", b"01"):
            self._stack.append(line == b"01")
            return
        if re.match(rb"-?0[0-9]", line):  # Python's unpickler in C takes 055 for octal, the one in Python refuses it
            self.source.refuse(f"found {shorten(line)}; expected a decimal number without leading zeros")
        self._stack.append(self._decimal(line.removesuffix(b"L") if code == 0x4C else line))

    def _decimal(self, line: bytes) -> int:
        if not re.fullmatch(rb"-?[0-9]{1,20}", line):
            self.source.refuse(f"found {shorten(line)}; expected a decimal number of at most 8 bytes")
        value = int(line)
        if value not in INT64:
            self.source.refuse(f"int {value} is out of range; expected at most 8 bytes")
        return value

    def _op_float(self, code: int) -> None:
        self._charge(_NUMBER)
        if code == 0x47:
            self._stack.append(struct.unpack(">d", self.source.take(8))[0])
            return
        line = self.source.line(64)
        if not re.fullmatch(rb"[-+]?(nan|inf|[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]{1,4})?)", line):
            self.source.refuse(f"found {shorten(line)}; expected a float")
        self._stack.append(float(line))

    # Strings.

    def _op_short_string(self, code: int) -> None:
        """SHORT_BINSTRING, SHORT_BINBYTES, SHORT_BINUNICODE: thousands of names follow each other, so they are fast."""
        text, count, start = _SHORT_STRINGS[code], len(self._stack), self.source.offset
        whole = self._names_in_buffer(code, text)
        # At most the window that is in memory: charged at once, because names are most of what a batch has to read.
        self._charge(
            (_STRING + _ENTRY) * (len(self._stack) - count) + (4 if text else 1) * (self.source.offset - start)
        )
        if not whole:
            self._name(text)

    def _names_in_buffer(self, code: int, text: bool) -> bool:
        """Reads names that are entirely in the buffer; returns whether another opcode follows the last one."""
        source, memo, push = self.source, self._memo, self._stack.append
        buf, pos = source.buf, source.pos
        limit = len(buf) - SHORT - 8
        while pos <= limit:
            end = pos + 1 + buf[pos]
            value: Value = buf[pos + 1 : end]
            if text:
                value = self._utf8(value)
            push(value)
            put = buf[end]
            if put == _LONG_BINPUT:
                memo[_UINT32(buf, end + 1)[0]] = value
                end += 5
            elif put == _BINPUT:
                memo[buf[end + 1]] = value
                end += 2
            elif put == _MEMOIZE:
                memo[len(memo)] = value
                self.seen[put] = 1
                end += 1
            if buf[end] != code:
                if not text:
                    source.last, source.last_offset = value, source.offset + pos + 1 - source.pos
                source.pos = end
                return True
            pos = end + 1
        source.pos = pos
        return False

    def _name(self, text: bool) -> None:
        """Reads a single name near the end of the buffer; its PUT is left to `run`."""
        source = self.source
        need = min(SHORT + 8, source.left)
        if source.pos + need > len(source.buf):
            source.fill(need)
        buf, pos = source.buf, source.pos
        length = buf[pos] if need else 0
        end = pos + 1 + length
        if end > len(buf):
            source.refuse(f"truncated: string of {counted(length, 'byte')}, but only {max(need - 1, 0):,} left")
        self._push_short(buf[pos + 1 : end], source.offset + 1, text)
        source.pos = end

    def _op_string(self, code: int) -> None:
        """BINSTRING, BINBYTES, BINBYTES8, BYTEARRAY8, BINUNICODE, BINUNICODE8: long strings are skipped."""
        source, text = self.source, code in _TEXTS
        count = source.number(8 if code in _LONG_COUNTS else 4)
        if code == 0x54 and count >= 1 << 31:
            source.refuse("string of negative length")
        if count > SHORT:
            self._charge(_SPAN)
            self._stack.append(TextSpan("utf-8", source.offset, count) if text else Span(source.offset, count))
            source.skip(count)
            return
        self._push_short(source.take(count), source.offset - count, text)

    def _push_short(self, data: bytes, offset: int, text: bool) -> None:
        self._charge(_STRING + (4 if text else 1) * len(data))
        if text:
            self._stack.append(self._utf8(data))
            return
        self.source.last, self.source.last_offset = data, offset
        self._stack.append(data)

    def _utf8(self, data: bytes) -> str:
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            self.source.refuse(f"text is not valid UTF-8: {shorten(data)}")

    def _op_string_line(self, code: int) -> None:
        """STRING: Python 2's repr of a str."""
        source = self.source
        count, start = source.find_newline(), source.offset
        self._charge(_STRING + SHORT if count <= SHORT else _MADE)
        if count <= SHORT:
            line = source.line(SHORT)
            self._check_quotes(line[:1], line[1:][-1:])
            self._stack.append(decode("escape", line[1:-1], source.name, source.at))
            return
        first = source.take(1)
        source.skip(count - 2)
        self._check_quotes(first, source.take(1 + source.newline_bytes)[:1])
        self._stack.append(index_coded(source.file, source.name, "escape", start + 1, count - 2))

    def _check_quotes(self, first: bytes, last: bytes) -> None:
        if first not in (b"'", b'"') or first != last:
            self.source.refuse("string without quotes around it")

    def _op_text_line(self, code: int) -> None:
        """UNICODE: text with Unicode escapes."""
        source = self.source
        count = source.find_newline()
        self._charge(_STRING + 4 * count if count <= SHORT else _SPAN)
        if count > SHORT:
            self._stack.append(TextSpan("uescape", source.offset, count))
            source.skip(count + source.newline_bytes)
            return
        try:
            self._stack.append(decode_uescape(source.line(SHORT)))
        except ValueError:
            source.refuse("text with an unsupported escape, which no pickler writes")

    # Names, calls, framing.

    def _op_global(self, code: int) -> None:
        module, name = self.source.line(1 << 10), self.source.line(1 << 10)
        self._push_global(module.decode("latin-1"), name.decode("latin-1"))

    def _op_stack_global(self, code: int) -> None:
        name, module = self._pop(), self._pop()
        if type(name) is not str or type(module) is not str:
            self.source.refuse("the name of a global is not text")
        self._push_global(module, name)

    def _push_global(self, module: str, name: str) -> None:
        if (module, name) not in arrays.KNOWN_GLOBALS:
            shown = shorten(f"{module}.{name}")[1:-1]
            self.source.refuse(f"refused: calls {shown}; expected only numpy's array constructors in a CIFAR file")
        self._charge(_MADE)
        self.globals.add((module, name))
        self._stack.append(GlobalValue(self.source.at, module, name))

    def _op_reduce(self, code: int) -> None:
        self._charge(_MADE)
        args, function = self._pop(), self._pop()
        self._stack.append(arrays.call(self.source, function, args))

    def _op_build(self, code: int) -> None:
        state = self._pop()
        target = self._stack[-1] if self._stack else None
        arrays.set_state(self.source, target, state)

    def _op_proto(self, code: int) -> None:
        self.protocol = self.source.number(1)
        if self.source.at:
            self.source.refuse("protocol declared in the middle of the file; expected at its start")
        self.source.crlf = False  # binary data does not survive that
        if self.protocol > 5:
            self.source.refuse(f"unsupported pickle protocol {self.protocol}; expected 0 to 5")

    def _op_frame(self, code: int) -> None:
        self._charge(_SLOW)
        size = self.source.number(8)
        if size > self.source.left:
            self.source.refuse(f"truncated: frame of {counted(size, 'byte')}, but only {self.source.left:,} left")
        if self._frame_end != _NO_FRAME:
            self.source.refuse("a frame begins before the one around it has ended")
        self._frame_end = self.source.offset + size

    def _end_frame(self) -> None:
        # Python's own unpickler skips the rest of a frame that an opcode crosses, and so reads another value.
        if self.source.at > self._frame_end:
            self.source.refuse(f"an opcode crosses the end of its frame at byte {self._frame_end}")
        self._frame_end = _NO_FRAME


def scan_pickle(file: BinaryIO, name: str, stored: int | None = None) -> Scan:
    """Scans a whole pickle. Raises `PickleError` if it is damaged, or not just plain data and numpy arrays."""
    machine = Scan(file, name, stored)
    machine.run()
    return machine


def expand_ints(source: PickleFile, items: list[Value]) -> list[Value]:
    """Returns the items, with every run of ints read from the file."""
    source.charge(_POINTER * arrays.count_items(items))
    expanded: list[Value] = []
    for item in items:
        if type(item) is IntRun:
            expanded.extend(read_exact(source.file, source.name, item.offset, 2 * item.count)[1::2])
        else:
            expanded.append(item)
    return expanded


def _run_length(buf: bytes, start: int, limit: int) -> int:
    """Returns the number of complete consecutive `K<byte>` pairs from `start`, at most `limit`."""
    codes = buf[start : start + 2 * limit : 2]
    return min(len(codes) - len(codes.lstrip(b"K")), (len(buf) - start) // 2)


def _check_start(source: PickleFile) -> None:
    """Refuses a file that is not a pickle, saying what it is if known."""
    if not source.size:
        source.refuse("the file is empty; expected a pickle")
    source.fill(1)
    start = source.buf[:262]
    for magic, what in _FOREIGN.items():
        if start.startswith(magic):
            source.refuse(f"not a pickle but {what}")
    if start[257:262] == b"ustar":
        source.refuse("not a pickle but a tar archive")
    if start[:1] not in b"\x80(}]c":
        source.refuse(f"not a pickle: starts with {shorten(start[:16])}")
