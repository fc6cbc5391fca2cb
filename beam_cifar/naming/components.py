"""File and directory names from names in data: ids, class names, subset names.

A name becomes one path component that is valid on Linux, macOS and Windows; other characters are percent-encoded. The
rules of Windows are from Microsoft's "Naming Files, Paths, and Namespaces".
"""

from __future__ import annotations

import hashlib
import re
import shlex
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence, Set
from typing import Final

from beam_cifar.data.grouping import by_key

MAX_COMPONENT_BYTES: Final = 255

# Neither can be the result of escaping: a percent sign in the name itself is written %25.
_EMPTY: Final = "%_"
_CUT: Final = "%-"
# 128 bits, because someone might search for two names that collide.
_DIGEST_DIGITS: Final = 32

# Format characters (Cf: bidi controls, zero width), line and paragraph separators (Zl, Zp), lone surrogates,
# noncharacters. Written out, because Python's own tables grow with its version, and names must not change with it.
_INVISIBLE: Final = (
    "\u00ad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0001\U000e0020-\U000e007f"
    "\ud800-\udfff\ufdd0-\ufdef"
    + "".join(f"{chr(plane + 0xFFFE)}{chr(plane + 0xFFFF)}" for plane in range(0, 0x110000, 1 << 16))
)
_UNSAFE: Final = re.compile(rf"""^[ .]|[ .]\Z|[%/\\<>:"|?*\x00-\x1f\x7f-\x9f{_INVISIBLE}]""")
_NOT_STRICT: Final = re.compile(r"[^a-z0-9_.-]|(?<![^.])\.|\.(?![^.])")
# Windows treats these as devices with any extension, also with spaces before it and with superscript digits.
_DEVICE: Final = re.compile(
    r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[1-9¹²³]) *(?:\..*)?", re.IGNORECASE | re.DOTALL
)

# What Finder, Synology, Windows and ext4 leave in folders, in lower case.
_LITTER: Final = frozenset({"__macosx", "@eadir", "thumbs.db", "desktop.ini", "lost+found"})

# Fast path for most names that need no encoding: letters and digits of any script (no `\w` is unsafe).
_SPECIAL: Final = r"con|prn|aux|nul|com|lpt|__macosx|thumbs\.db|desktop\.ini"
_PLAIN: Final = re.compile(rf"(?!(?i:{_SPECIAL}))[\w-](?:[\w. -]*[\w-])?")
_PLAIN_STRICT: Final = re.compile(rf"(?!{_SPECIAL})[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")

_ESCAPES: Final = re.compile(r"(?:%[0-9A-F]{2})+")
_CUT_END: Final = re.compile(rf"{_CUT}[0-9a-f]{{{_DIGEST_DIGITS}}}\Z")

_IOTA: Final = "\u03b9"

# Characters that case-folding file systems ignore in comparisons (ext4 and f2fs; Unicode's
# Default_Ignorable_Code_Point).
_IGNORED: Final = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff"
    "\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)


def encode_name(name: str, suffix: str = "", *, strict: bool = False, escape: str = "") -> str:
    r"""Returns a path component for a name, safe on Linux, macOS and Windows, and different for different names.

    Percent-encoded (`%` and two uppercase hex digits per UTF-8 byte) are `% / \ < > : " | ? *`, control and invisible
    characters, lone surrogates, a space or dot at either end, and the first character of a Windows device name (`nul`,
    `COM1.txt`) and of what systems leave behind (`Thumbs.db`, see `is_litter`). Everything else stays readable. The
    empty name becomes `%_`. A name that would take more than 255 bytes is truncated and ends with `%-` and a digest of
    the whole name.

    Args:
        name: any text.
        suffix: appended unchanged, such as `.png`; with the same suffix, different names stay different.
        strict: keep only `a-z 0-9 _ -` and single inner dots, so that names also differ on file systems that fold case
            or normalise. If all names that share a `clash_key` are encoded so, none of them collides with another name.
        escape: ASCII characters to encode as well, for formats where they separate or hide names.

    Raises:
        ValueError: the suffix leaves no room for a name.
    """
    if (_PLAIN_STRICT if strict else _PLAIN).fullmatch(name):
        encoded = name
    else:
        encoded = _escape(name, _NOT_STRICT if strict else _UNSAFE) or _EMPTY
    for char in escape if name else "":
        encoded = encoded.replace(char, _percent(char))
    component = encoded + suffix
    # A character takes at most four bytes.
    if len(component) <= MAX_COMPONENT_BYTES // 4 or len(component.encode()) <= MAX_COMPONENT_BYTES:
        return component
    return _cut(name, encoded, suffix)


def encode_folder(name: str, suffix: str = "", *, strict: bool = False) -> str:
    """Returns `encode_name` for a folder of images, in which a `_` at the start hides it from readers."""
    return encode_name(name, suffix, strict=strict, escape="_" if name.startswith("_") else "")


def is_litter(name: str) -> bool:
    """Returns whether a file or folder is hidden, or is one that systems and programs leave behind, such as `@eaDir`.

    >>> from beam_cifar.naming.components import is_litter
    >>> [name for name in (".DS_Store", "__MACOSX", "Thumbs.db", "cat", "_cat.png") if is_litter(name)]
    ['.DS_Store', '__MACOSX', 'Thumbs.db']
    """
    return (name.startswith(".") and name != "..") or name.lower() in _LITTER


def decode_name(component: str) -> str:
    """Returns the name from a component of `encode_name`, given without suffix; a truncated one is returned unchanged.

    Also safe for other components: a `%` that does not start an escape of valid UTF-8 stays, as in `100%`, `50%-off`.
    """
    if "%" not in component or is_cut(component):
        return component
    if component == _EMPTY:
        return ""
    return _ESCAPES.sub(_unescaped, component)


def is_cut(component: str) -> bool:
    """Returns whether a component is a truncated name, which readers cannot restore."""
    return _CUT_END.search(component) is not None


def decoded_names(components: Iterable[str], decode: Callable[[str], str] = decode_name) -> dict[str, str]:
    """Returns component -> name; all stay as written if two would decode to the same."""
    found = {component: decode(component) for component in components}
    return found if len(set(found.values())) == len(found) else {component: component for component in found}


def escape_first(component: str) -> str:
    """Returns the component with its first character escaped, for use when the plain one is taken."""
    return _percent(component[0]) + component[1:]


def distinct_components(
    names: Sequence[str], encode: Callable[..., str] = encode_name, taken: Set[str] = frozenset()
) -> tuple[str, ...]:
    """Returns a component for each name, in the strict form where two names might collide on some file system.

    Names must be distinct; `taken` has the clash keys of names that they must not collide with either.
    """
    keys = list(map(clash_key, names))
    repeated = {key for key, count in Counter(keys).items() if count > 1} | taken
    return tuple(encode(name, strict=key in repeated) for name, key in zip(names, keys, strict=True))


def clash_key(name: str) -> str:
    """Returns a key that is equal for names that may collide on a file system that folds case, normalises, or both.

    It errs on the safe side: file systems fold differently, and this joins all names that any is known to join.
    """
    if name.isascii():
        return name.lower()
    # Decomposed first: folding is defined on decomposed text (Unicode, D145). Upper-cased too: some systems compare
    # upper case, where a dotless i equals I.
    folded = unicodedata.normalize("NFD", _IGNORED.sub("", name)).upper().casefold()
    if _IOTA in folded:
        # A combining iota (U+0345) folds to a letter, before or after neighbouring marks: drop all the marks.
        letters = (char for char in unicodedata.normalize("NFD", folded) if not unicodedata.combining(char))
        folded = "".join(letters)
    return unicodedata.normalize("NFC", folded)


def alike_names(classes: Iterable[str]) -> list[str]:
    """Returns the notice, if any, that names of classes differ only in Unicode form, case or invisible characters.

    >>> from beam_cifar.naming.components import alike_names
    >>> alike_names(["Cat", "dog", "cat"])
    ["classes 'Cat' and 'cat' differ only in Unicode form or case; if they are one class, pass --remap 'cat:Cat'"]
    """
    groups = by_key((clash_key(name), name) for name in dict.fromkeys(classes)).values()
    pairs = [group[:2] for group in groups if len(group) > 1]
    if not pairs:
        return []
    first, second = sorted(pairs[0], key=lambda name: not unicodedata.is_normalized("NFC", name))
    # Escaped where they look the same; the command has the names themselves.
    shown = f"{first!a} and {second!a}"
    found = f"classes {shown}" if len(pairs) == 1 else f"{len(pairs)} groups of classes, such as {shown},"
    remap = shlex.quote(f"{second}:{first}") if f"{first}{second}".isprintable() else "OLD:NEW"
    if remap == f"{second}:{first}":
        remap = f"'{remap}'"
    return [f"{found} differ only in Unicode form or case; if they are one class, pass --remap {remap}"]


def _escape(name: str, unsafe: re.Pattern[str]) -> str:
    encoded = unsafe.sub(lambda match: _percent(match[0]), name)
    # If the first character is already escaped, it is not a device name any more.
    if (_DEVICE.fullmatch(name) or is_litter(name)) and encoded[0] != "%":
        return escape_first(encoded)
    return encoded


def _percent(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode("utf-8", "surrogatepass"))


def _unescaped(match: re.Match[str]) -> str:
    try:
        return bytes.fromhex(match[0].replace("%", "")).decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return match[0]


def _cut(name: str, encoded: str, suffix: str) -> str:
    """Returns as much of the encoded name as fits, followed by a mark, a digest of the name, and the suffix."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST_DIGITS]
    end = _CUT + digest + suffix
    room = MAX_COMPONENT_BYTES - len(end.encode())
    if room < 0:
        raise ValueError(
            f"suffix has {len(suffix.encode())} bytes and leaves no room for a name; expected a file extension"
        )
    start = encoded[:room].encode()[:room].decode(errors="ignore")
    # Drop half an escape at the end, which would look like text.
    return re.sub("%[0-9A-F]?$", "", start) + end
