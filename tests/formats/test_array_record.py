"""ArrayRecord files: the bytes that the library `array_record` 0.8.6 writes, and the ones of it that are read."""

from __future__ import annotations

import base64
import hashlib
import io
import lzma
import re
import struct
from collections.abc import Sequence

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_cifar.formats.kit import array_record
from beam_cifar.formats.kit.array_record import ArrayRecordWriter, array_record_at, read_array_record
from beam_cifar.formats.kit.highway_hash import highway_hashes

RECORDS = [b"", b"a cat", b"\0" * 200]
WRITTEN = {
    "group_size:1,zstd": (
        b"T>t<81poj4|NsC0{{TU&$_)^0ci4AHNpAaBQwN=et;uG8zWN6GT4<2x_EA5S@2YP(8SFh2DY1<pV)!5q9X?5flrWmhm1kRy#g_xWwSGKy7"
        b"{poaogEe{odve>RQ1O{Ja8Bp60Fj*-L#W{6Z})#CtA|jZK{@D^0Z>`uTG4&{}h2~CFLIUhYD)j{FAL(hO*=Eg!Fq>5f=Cy@#<X`Er0<0Aw"
        b"J`4exqE>P~@`{3IqBa#3&TnG@N?CEhb7~xj_H%LC8m)^txlA;>q%GVOwRCr&GS=rVF@lE-7Hm4>kVyv0Fro$V3q>QUqa|YQz+o>s@fg;VU"
        b"12V_jr({o|i5Ga+ZFmPhh@QZ6R#u?}c57svq2p&xLdSLK-#II#n;o4_RC5=cOX;<?zqvg29d_j#Ub5491AbyFRaw>4XQWA(A4r`NH>zW8g"
        b"R4r$wIgE)pR86;6CU{Vw~H1KT3dh|oUvedg&e%MdOnNwC$eC%4F-(mqsjCJ{>H0~VR1qiOJ-ffju#o*dyJQ-Z9lx!woe!wAfvU{ROyP%CX"
        b"`Lg>uo9pBM@p0{60SM(u<hV&c_goerHBEgC&XVP9|6(lj@x{ON>L7B2Q|17bj0i%**~zvkGye$KZp_*_URtr4V4;i~A4W%?JBI1<Q3XI2P"
        b"aqI4I~Cj?P~IE!A6}2g?WO<!*kXCRWFe3hOi~#rc6mVXxiSD7Bmdl^qW}"
    ),
    "group_size:1,brotli": (
        b"T>t<81poj4|NsC0{{TU&$_)^0ci4AHNpAaBQwN=et;uG8zWN6GT4<2x_EA5S@2YPkm}E~s8t~J7@{x3qRr9Bdf*iN@pI~lo7FIOr^JM>Ta"
        b"8~$W=K=z5+qwe4g-||bj(;@#^oa|!^DF*CL1MA)K`odL+WwsmzE~2kC*065TcL)Gi`NJI_tv?dH3gLp8)OCGqC5vh*`x``w*-08I|&qfDX"
        b"{gojB!e@<sUUOZztX28~1ZK-@nPuy%ZEyz-T-M<SDO9kh498X*WetYpGZpJ0x~86yKEYfzST`AuN@G8kPE)2ATdkr-wvk*2Jm(at@yMLmO"
        b"bZkOO$8ut#}%nJIPb<_cCuDh};S39)0>z8l{oR#6q4QzEMd{AKz$L_)zO2ar-YS=vOEie{Y%JB|C@8rNz8P^OnKXJ%(vt`9tcN}r!loQ<#"
        b"ed2DN?cZ}kCljqHgSdwvKzX%lp+<I6AJsaEzVmP#^2KldFd&;7RHIdaBXS`VjOW0H3i3yTCA5+*;6DX{=qeqPX_IH6^*@Bl!MfV|G8?4I)"
        b"Ts{RxD@uzm^Iz?G_)@s}QCPc_uwvT6Z&8F4Ux?g}CMdIMf(bfRfKsN`<qo%q7H>GekaZat2ixlXya7CYZ2q0UQb#Vx3dFLvukwqu8tql>C"
        b"?#b_IIAE3-;|O-"
    ),
    "group_size:2,zstd": (
        b"T>t<81poj4|NsC0{{TU&$_)^0ci4AHNpAaBQwN=et;uG8zWN6GT4<2x_EA5S@2YPwCHvljCJ|Cc>5b0h4_i^qwbq9lWH>NNo)D+_(&0A!j"
        b"@#w81?UTD<F!aX;)*39A7jp#z;Vu<HkI$gQ`S{M?_gZfRwd49Kf^${19V2{x?*_YC3GJTRJRc|)}JTi!;S`%{5`A)9@+u<<ywa!czQ)grS"
        b"zQU3&T^+fXshzxo!#1{i|PRN|QA#1N6jhCiK*t8-1hw;*Az3qz{tlp(;PVerGw&ij4XghQ$p03>sy~et$iaux$97O&+289c)NKCT()3GaK"
        b"?g5Q5!r?UAW;#D)m_p&iV(^`fQFU*T6aCt)TTsoFn=IzUZz8nR-AKqFS2!ga}_z-;qW)YhO>E9__6bpOum(_DpqOfhYMF+=Ha2KC6Wnx9@"
        b"QY^zEmTcHGt^Aabi|3mG`O*_F1g|&JfJW`x#pn(LsOk8XvpQwm>!Ovq<o@B56l<pNe&MUJw92s-vs61MqqB3AyVJn-3UYi6uegnkYFe@Os"
        b"FJffhMiL-&$N2#fG|CuhD{BI%x`uvcwUhK_j^!b{ilAIsxOXv14(m;DgkIFE5JWzX?9R+d)RQ;CzVaL2wjDW|Qn1(>b8UHaIW)lJ@hrdCR"
        b"c-(O>(Ccq"
    ),
    "group_size:1,transpose": (
        b"T>t<81poj4|NsC0{{TU&$_)^0ci4AHNpAaBQwN=et;uG8zWN6GT4<2x_EA5S@2YO`w%h0MVy;+85-QeI%Y1n=tRpf^jUcmx!SOCpUv$F`="
        b"nEN`4Dw8kxPMRcd20S3H4iu5HVl%<uBslUd`{0Q@;M-u3!Q~R1XXb>(TmEcT=WUDbBdq5FD~k<cCPrr@0@G0PyL0exA?!?ghzMep}cf{JY"
        b"STKQMWROu%9qu*CZCnJG}TG{>n`T1GY6ZV!|@+c{{@w6zLX!EVSCX<Up-2XJNuZzw_C^P1Rfak!lR6cG`ld;l1Y5X(p_Cc|JwA3=26(2G+"
        b">^8NYJ$w}oz!l=&91J37zJ>;>H<+_?>}s-W^#DDv=-@v5nD(G+8{a-{17@tZ_<bdfJjG2=(`Rf`cgwIgFrtIr#npLNc%gbw_L8F`6dzJr4"
        b"o4~y%9&X-gYnTbypXb&4ttjql@1T9Pj)NEa@edIG01FFa1*firMobTUujxAS{{soP|a_KITtKvWG0002zthy$i-VNl2jjL56Y+9PwJn@t5"
        b"c<!03xA*(h%Q8i0WJ;t$+jLE;&oiaK2u$}A&d4A4RWQ8RCgq;Va^|ikU6?r@)WA}G0h=e`Dm=HZ=e*6WDl%hj%GtAHdRV)j6dF2?oUA?tk"
        b"aU@FbdUfX)^C0|)l4DuCBvj<hmbIj0ZyrH)gI&zaG`M^l>^j7(-BI)^SzMp3c{f&QLn+2IqyHB5F$s>bbYv0tn||3TK;ygsEM@YxNJI|81"
        b"A$tq96Z=59MG"
    ),
    "group_size:1,snappy": (
        b"T>t<81poj4|NsC0{{TU&$_)^0ci4AHNpAaBQwN=et;uG8zWN6GT4<2x_EA5S@2YPe+^K)K%<JSm_8XI-#OCzrd&)y+zFLI_l=6)o+%j$Z)"
        b"gCMOAaH~iycL7N-^LVzLB$vhvxO13Gc=i{_<Y;G1<1ReUE-*NhJo_-6`X0HbLI#X7O6WTQ1$sF<$6nYdc<~#3ew;X=#6gj)#WaK!V!d6rI"
        b"PaaNG3X*O9%6IC4dS9LNweyQ{oet4qInkH$SiXtL=O*$Dx3~4N__2l~le?gGZMr=B__0s!;k3wJ<%-OmX*&iY{}pj@WiGjh_I>b=x%c=qM"
        b"z-Yl7jXD<{EDcv~BIPQ!;<c6Qg7mCywR3uL$M6t~mvQq*1Pv<U_bo!)4NhOYl0*uJTdyZ(xuuZCuC|No$O=|hb8nmxO&8j*7#nZCa5iRmL"
        b"IfARZ9f)WSDgqKr(H?kWcyrj8np!IVN7Riem$!2!H`e}$;uRM`b7gw+Z`=o98a5C1v9feL)80E+b>O>0}`O6H|9I=lyw!&2Ywe$4*2A2yE"
        b"p9jidO8TK3VX%!57wuZXb_Xm;e0gne@qP33pv>H?6tnb&<f|smz!r<>`H93MM#fJ1bprjdetD4yoKh$p^Tf~VTmSw-;cf"
    ),
}
"""Files of these records that the library wrote with some options, compressed."""

LIMIT = 1 << 20


def written(records: Sequence[bytes], together: int = 100) -> bytes:
    writer = ArrayRecordWriter(file := io.BytesIO())
    for at in range(0, len(records), together):
        writer.append(records[at : at + together])
    writer.close()
    return file.getvalue()


def library(options: str) -> bytes:
    return lzma.decompress(base64.b85decode(WRITTEN[options]))


def found(data: bytes) -> list[bytes]:
    return [record for _, record in read_array_record(io.BytesIO(data), len(data), LIMIT)]


def record(size: int) -> bytes:
    return bytes((at * at + 1) % 251 for at in range(size))


# The digests are those of files that the library wrote with `group_size:1,uncompressed,max_parallelism:1`.
@pytest.mark.parametrize(
    ("records", "digest"),
    [
        pytest.param([], "bb7d9c8ed25aa0ec5f40ee07e444096b2b58697cb675400fdadaedfab1ce2c40", id="none"),
        pytest.param(
            [record(size) for size in range(100)],
            "985023fc8bfd400a8e1c8772dc7995c6c9e3eb5f5f47e443f775a7195280dc7d",
            id="of every size",
        ),
        pytest.param(
            [record(300_000), record(7)],
            "4fa305d2f46e13ebf7047a037124965b3fc4dd7aa0b4e89efee89354cddce18f",
            id="over many blocks",
        ),
        pytest.param(
            [b"x"] * 6000,
            "78565a0f126d585069743ca391c2790f46b82c0e024fa6fd406e7552494aa97b",
            id="with a list of two blocks",
        ),
    ],
)
def test_the_bytes_are_those_of_the_library(records: list[bytes], digest: str) -> None:
    data = written(records)
    assert hashlib.sha256(data).hexdigest() == digest
    assert found(data) == records


# Before the list of chunks or the chunk after it there is room for a header of 40 bytes, for less, or for nothing.
ENDS = (65230, 65240, 65260, 65277, 65278, 65279, 65300, 65426, 65427, 65428)


def test_chunks_that_end_anywhere_near_the_end_of_a_block_are_those_of_the_library() -> None:
    files = [written([record(size)]) for size in ENDS]
    digest = hashlib.sha256(b"".join(files)).hexdigest()
    assert digest == "70bc55c18c61a240a63d50badc1068248ceaf464bf95cfa15a2886796232dba3"


@settings(max_examples=20, deadline=None)
@given(st.lists(st.binary(max_size=100) | st.integers(0, 70_000).map(bytes), max_size=9), st.integers(1, 9))
def test_records_come_back_however_they_were_appended(records: list[bytes], together: int) -> None:
    data = written(records, together)
    assert data == written(records)
    places = list(read_array_record(io.BytesIO(data), len(data), LIMIT))
    assert [each for _, each in places] == records
    assert [array_record_at(io.BytesIO(data), at, LIMIT) for at, _ in places] == records


@pytest.mark.parametrize("options", ["group_size:1,zstd", "group_size:1,brotli"])
def test_compressed_chunks_are_read(options: str) -> None:
    assert found(library(options)) == RECORDS


def changed(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def one_chunk(data: bytes, unpacked: int) -> bytes:
    """A file whose only chunk of a record has this data, and hashes that are right."""
    writer = ArrayRecordWriter(file := io.BytesIO())
    writer._places.append(64)
    writer._sizes.append(unpacked)
    writer._write(array_record._chunks(ord("r"), [(1, unpacked, data)]))
    writer.close()
    return file.getvalue()


def packed(values: bytes) -> bytes:
    """The data of a chunk of one record, compressed with zstd; sizes are not looked at."""
    return b"z\0\0" + bytes(pa.compress(values, "zstd"))


GOOD = written(RECORDS)
WRONG = {
    "two records in a chunk": (library("group_size:2,zstd"), "the chunk at byte 64 has 2 records of the kind 'r'"),
    "transposed": (library("group_size:1,transpose"), "the chunk at byte 64 has 1 record of the kind 't'"),
    "snappy": (library("group_size:1,snappy"), "the compression 's'; expected one of zstd, brotli"),
    "empty": (b"", "it has 0 bytes; expected two or more blocks of 65,536 bytes"),
    "cut in a block": (GOOD[:-1], "it has 131,071 bytes; expected two or more blocks"),
    "without its last block": (GOOD + bytes(65536), "does not have the right hash"),
    "another file": (bytes(131072), "does not have the right hash"),
    "a changed byte of a record": (
        changed(GOOD, 64 + 43 + 48, b"!"),
        "the chunk at byte 155 does not have the right hash",
    ),
    "a changed size": (changed(GOOD, 64 + 8, b"\xff" * 8), "the chunk at byte 64 has 18446744073709551615 bytes"),
    "a size that hides records": (changed(GOOD, 64 + 8, b"\x60"), "the chunk at byte 64 does not have the right hash"),
    "a record that is too large": (one_chunk(b"\0\0", LIMIT + 1), "unpacks to 1048577 bytes; at most 1048576"),
    "more than it says": (one_chunk(packed(bytes(50 << 20)), 100), "has a record of other than the 100 bytes"),
    "less than it says": (one_chunk(packed(bytes(99)), 100), "has a record of other than the 100 bytes"),
    "not compressed": (one_chunk(b"z\0\5hello", 5), "the chunk at byte 64 cannot be unpacked"),
    "no data": (one_chunk(b"", 0), "expected one of the kind 'r'"),
    "a number without end": (one_chunk(b"\0\xff\xff", 0), "a number has no end"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_wrong_is_refused(kind: str) -> None:
    data, said = WRONG[kind]
    with pytest.raises(ValueError, match=re.escape(said)):
        found(data)


def test_every_changed_byte_is_noticed_or_does_not_matter() -> None:
    last, kept = len(GOOD) - (1 << 16), set()
    for at in (*range(700), *range(last, last + 200)):
        try:
            assert found(changed(GOOD, at, bytes([GOOD[at] ^ 1]))) == RECORDS
            kept.add(at)
        except ValueError:
            continue
    assert kept == {*range(24), *range(last, last + 24)}  # headers of blocks, which only a search for chunks needs


def test_hashes_are_those_of_the_first_bytes_of_every_file() -> None:
    # From the specification of Riegeli/records: the header of the first block, and the signature.
    first = bytes.fromhex(
        "83af70d10d884a3f 0000000000000000 4000000000000000 91bac23c9287e1a9"
        "0000000000000000 e19f13c0e9b1c372 7300000000000000 0000000000000000"
    )
    hashes = struct.unpack("<8Q", first)
    assert highway_hashes([first[8:24], first[32:], b""]) == [hashes[0], hashes[3], hashes[5]]
    assert highway_hashes([]) == []
