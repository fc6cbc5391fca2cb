"""Names as path components: what comes back, what never meets, and what a real directory takes."""

from __future__ import annotations

import re
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from beam_cifar.naming.components import clash_key, decode_name, encode_name

# Characters that meet each other by case, normalisation or escaping, or that some system refuses.
TRICKY = (
    'aAbBeEfFiIkKsSxX0123459 .._-%%%/\\:*?"<>|~$\0\n\r\t\x7f\x85\u00a0\u00ad'
    "éÉ\u0301\u030a\u0345\u0338åÅ\u212b\u212a\u017fßẞ\u0131İς\u03c3Σµμﬁ\ufe0f\u034f\u3164\u200d\u200b\u202e\u2028\ufeff\uffff\ud800\udc00\udcff한각ᄀ"
    "ёЁжい猫😀\U000e0001"
)
PARTS = ["con", "NUL", "aux", "com1", "lpt¹", "%41", "%2E", "%-", "%_", "%C3%A9", "..", " ", "a\u0301", "á", "ss"]
NAMES = st.one_of(
    st.lists(st.one_of(st.sampled_from(TRICKY), st.sampled_from(PARTS)), max_size=8).map("".join),
    st.text(st.characters(), max_size=12),
    st.tuples(st.sampled_from(TRICKY), st.integers(20, 300)).map(lambda pair: pair[0] * pair[1]),
)
STRICT = st.booleans()
DIGEST = re.compile(r"%-[0-9a-f]{32}")

HOSTILE = [
    *(
        "",
        ".",
        "..",
        "...",
        " ",
        "  ",
        ". .",
        ".hidden",
        "..hidden",
        "trailing.",
        "trailing ",
        "trailing..",
        " leading",
    ),
    *(
        "a/b",
        "/etc/passwd",
        "../../etc/passwd",
        "a\\b",
        "C:\\x",
        "C:",
        "a:stream",
        "~",
        "~root",
        "-rf",
        "--help",
        "$HOME",
    ),
    *(
        "a\0b",
        "\0",
        "a\nb",
        "\r\n",
        "\t",
        "\x1b[31m",
        "\x7f",
        "\x85",
        "%",
        "%%",
        "%2F",
        "%2e%2e",
        "%_",
        "%-",
        "100%",
        "%u002F",
    ),
    *(
        "con",
        "CON",
        "Con.txt",
        "nul",
        "nul.tar.gz",
        "nul ",
        "aux .c",
        "prn",
        "COM1",
        "com9.x",
        "com¹",
        "LPT²",
        "lpt3.",
        "CONIN$",
    ),
    *("*", "?", "<>", "|", '"', "'", "`id`", "a;b", "a&b", "{a,b}", "[a]", "!", "#", "@", "=", "+", ","),
    *("café", "cafe\u0301", "CAFÉ", "ß", "SS", "ss", "\u017fs", "K", "\u212a", "Å", "\u212b", "\u0131", "I", "ﬁ", "fi"),
    *(
        "\u202egnp.exe",
        "zero\u200bwidth",
        "\u2028",
        "\ufeffbom",
        "\ufffe",
        "\U0010ffff",
        "\ud800",
        "\udcff",
        "a\u3000b",
    ),
    *(
        "кот",
        "猫",
        "ねこ",
        "😀",
        "👨\u200d👩\u200d👧",
        "❤\ufe0f",
        "❤",
        "a" * 255,
        "a" * 256,
        "A" * 300,
        "猫" * 100,
        "%" * 200,
        "." * 300,
    ),
]


def is_cut(component: str) -> bool:
    return DIGEST.search(component) is not None


@pytest.mark.parametrize(
    ("name", "encoded"),
    [
        ("leptodactylus_pentadactylus_s_000004", "leptodactylus_pentadactylus_s_000004"),
        ("a b.c-d_e", "a b.c-d_e"),
        ("серый кот 猫 😀", "серый кот 猫 😀"),
        ("", "%_"),
        (".", "%2E"),
        ("..", "%2E%2E"),
        ("...", "%2E.%2E"),
        (".hidden ", "%2Ehidden%20"),
        ("_a", "_a"),
        ("-a", "-a"),
        ("~a", "~a"),
        ("a/b", "a%2Fb"),
        ("100%", "100%25"),
        ("nul", "%6Eul"),
        ("Com1.txt", "%43om1.txt"),
        ("con .x", "%63on .x"),
        ("lpt³", "%6Cpt³"),
        ("contour", "contour"),
        ("com10", "com10"),
        ("null", "null"),
        ("a\u200bb", "a%E2%80%8Bb"),
        ("\ud800", "%ED%A0%80"),
        ('<>:"|?*\\', "%3C%3E%3A%22%7C%3F%2A%5C"),
    ],
)
def test_plain_encoding_is_as_documented(name: str, encoded: str) -> None:
    assert encode_name(name) == encoded
    assert encode_name(name, ".png") == encoded + ".png"
    assert decode_name(encoded) == name


@pytest.mark.parametrize(
    ("name", "encoded"),
    [
        ("a", "a"),
        ("A", "%41"),
        ("frog_s-01.v2", "frog_s-01.v2"),
        ("a b", "a%20b"),
        ("a..b", "a%2E%2Eb"),
        (".a.", "%2Ea%2E"),
        ("é", "%C3%A9"),
        ("aux.c", "%61ux.c"),
        ("", "%_"),
    ],
)
def test_strict_encoding_is_as_documented(name: str, encoded: str) -> None:
    assert encode_name(name, strict=True) == encoded
    assert decode_name(encoded) == name


@pytest.mark.parametrize(
    "component", ["100%.png", "50%-off", "%", "%%", "%2", "%zz", "a%2fb", "%FF", "%C3(", "%E2%80", "%_a", "a%_"]
)
def test_a_percent_sign_that_starts_no_escape_is_left_alone(component: str) -> None:
    assert decode_name(component) == component


def test_an_escape_in_a_name_from_elsewhere_is_decoded() -> None:
    assert decode_name("a%20b") == "a b"


@settings(max_examples=200, deadline=None)
@given(NAMES, STRICT)
def test_every_name_comes_back_unless_it_was_cut(name: str, strict: bool) -> None:
    component = encode_name(name, strict=strict)
    assert decode_name(component) == (component if is_cut(component) else name)


@settings(max_examples=200, deadline=None)
@given(NAMES, st.sampled_from(["", ".png", ".jpeg"]), STRICT)
def test_every_component_is_safe(name: str, suffix: str, strict: bool) -> None:
    component = encode_name(name, suffix, strict=strict)
    assert component.endswith(suffix)
    assert 0 < len(component.encode()) <= 255
    assert not re.search(r'[/\\<>:"|?*\x00-\x1f\x7f-\x9f]', component)
    assert component[0] not in " ."
    assert component[-1] not in " ."
    assert not re.match(r"(?i)(con|prn|aux|nul|com[1-9¹²³]|lpt[1-9¹²³]) *(\.|\Z)", component)
    assert not {unicodedata.category(character) for character in component} & {"Cc", "Cf", "Cs", "Zl", "Zp"}


@settings(max_examples=200, deadline=None)
@given(st.lists(NAMES, min_size=2, max_size=6, unique=True), STRICT)
def test_different_names_get_different_components(names: list[str], strict: bool) -> None:
    assert len({encode_name(name, strict=strict) for name in names}) == len(names)


@settings(max_examples=200, deadline=None)
@given(st.lists(NAMES, min_size=2, max_size=6, unique=True))
def test_strict_components_of_different_names_never_meet(names: list[str]) -> None:
    components = [encode_name(name, strict=True) for name in names]
    assert all(re.fullmatch(r"[a-z0-9_.%A-F-]+", component) for component in components)
    assert len({clash_key(component) for component in components}) == len(names)


@settings(max_examples=300, deadline=None)
@given(NAMES, NAMES, STRICT)
def test_names_with_different_keys_never_meet_however_they_are_encoded(one: str, other: str, strict: bool) -> None:
    if clash_key(one) != clash_key(other):
        assert clash_key(encode_name(one)) != clash_key(encode_name(other, strict=strict))


@pytest.mark.parametrize("suffix", ["", ".png"])
def test_a_name_too_long_is_cut_at_a_character_and_told_apart(suffix: str) -> None:
    names = [base * 300 + end for base in ("a", "é", "猫", "😀", "\n", "%") for end in "xy"]
    components = [encode_name(name, suffix) for name in names]
    assert len(set(components)) == len(names)
    for name, component in zip(names, components, strict=True):
        assert 248 <= len(component.encode()) <= 255
        start, end = DIGEST.split(component)
        assert end == suffix
        assert name.startswith(decode_name(start))


def test_the_longest_name_that_fits_is_kept() -> None:
    assert encode_name("a" * 251, ".png") == "a" * 251 + ".png"
    assert is_cut(encode_name("a" * 252, ".png"))
    assert encode_name("é" * 127) == "é" * 127
    assert is_cut(encode_name("é" * 128))


def test_a_suffix_without_room_for_a_name_is_refused() -> None:
    with pytest.raises(ValueError, match="300 bytes"):
        encode_name("a", "." + "x" * 299)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("A", "a"),
        ("É", "é"),
        ("é", "e\u0301"),
        ("É", "e\u0301"),
        ("ß", "SS"),
        ("ẞ", "ß"),
        ("\u212a", "k"),
        ("\u212b", "å"),
        ("ς", "Σ"),
        ("µ", "μ"),
        ("\u0131", "i"),
        ("ﬁ", "FI"),
        ("❤\ufe0f", "❤"),
        ("\u1100\u1161", "가"),
        ("ΐ", "ϊ\u0301"),
        ("q\u0323\u0307", "Q\u0307\u0323"),
    ],
)
def test_names_that_a_file_system_may_join_share_a_key(one: str, other: str) -> None:
    assert clash_key(one) == clash_key(other)


def test_names_of_different_letters_have_different_keys() -> None:
    names = ["a", "b", "á", "a ", "a.", "\u0430", "кот", "ткот", "é", "e"]
    assert len({clash_key(name) for name in names}) == len(names)


@settings(max_examples=200, deadline=None)
@example("\u0345\u0301")
@given(NAMES)
def test_a_key_is_its_own_key_and_that_of_every_form_of_the_name(name: str) -> None:
    key = clash_key(name)
    assert clash_key(key) == key
    for form in ("NFC", "NFD"):
        assert clash_key(unicodedata.normalize(form, name)) == key
    for changed in (name.upper(), name.casefold(), name.swapcase()):
        assert clash_key(changed) == key


@pytest.mark.parametrize("strict", [False, True])
def test_a_real_directory_takes_every_hostile_name(tmp_path: Path, strict: bool) -> None:
    assert len(set(HOSTILE)) == len(HOSTILE) >= 60
    # The file system under the test may fold case itself.
    names = HOSTILE if strict or sys.platform == "linux" else list({clash_key(name): name for name in HOSTILE}.values())
    for name in names:
        (tmp_path / encode_name(name, strict=strict)).write_text(repr(name))
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert len(found) == len(names)
    for component, text in found.items():
        assert is_cut(component) or repr(decode_name(component)) == text
