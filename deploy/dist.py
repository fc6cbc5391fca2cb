"""Builds the source distribution and the wheel: the same bytes from the same commit, wherever and whenever.

    python deploy/dist.py FOLDER [--commit COMMIT]

Only files that git knows are used, with the commit's time, and modes that no umask changes.
"""

from __future__ import annotations

import argparse
import gzip
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent


def main() -> None:
    """Builds both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where to write both files")
    parser.add_argument("--commit", default="HEAD", help="what to build; default: HEAD")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    os.umask(0o022)  # the wheel's files get their modes from it
    made = int(_git("log", "-1", "--format=%ct", arguments.commit))
    with tempfile.TemporaryDirectory() as folder:
        source, unpacked = Path(folder, "source"), Path(folder, "unpacked")
        archive = Path(folder, "source.tar")
        # A copy, because setuptools takes what an egg-info of an older build lists.
        _git("archive", "--output", str(archive), arguments.commit)
        with tarfile.open(archive) as tar:
            _unpack(tar, source)
        _build(source, "--sdist", Path(folder), made)
        (sdist,) = Path(folder).glob("*.tar.gz")
        with tarfile.open(sdist) as tar:
            _unpack(tar, unpacked)
        _pack(unpacked, arguments.folder / sdist.name, made)
        _build(next(unpacked.iterdir()), "--wheel", arguments.folder, made)


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=TOP, capture_output=True, text=True, check=True).stdout


def _build(source: Path, what: str, folder: Path, made: int) -> None:
    # Not isolated: with the setuptools whose hash is listed.
    command: Sequence[str] = [sys.executable, "-m", "build", "--no-isolation", what, "--outdir", str(folder.resolve())]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(made)}
    done = subprocess.run([*command, str(source)], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)


def _unpack(tar: tarfile.TarFile, folder: Path) -> None:
    tar.extractall(folder, filter="data")
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)


def _pack(folder: Path, target: Path, made: int) -> None:
    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.mtime, member.uid, member.gid, member.uname, member.gname = made, 0, 0, "", ""
        return member

    # Without a name: gzip would store it.
    with (
        target.open("wb") as file,
        gzip.GzipFile("", "wb", 9, file, made) as packed,
        tarfile.open(fileobj=packed, mode="w") as tar,
    ):
        for path in sorted(folder.rglob("*")):
            tar.add(path, str(path.relative_to(folder)), recursive=False, filter=plain)


if __name__ == "__main__":
    main()
