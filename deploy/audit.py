"""Compares what is installed with the lists of requirements, and each file with the digest that its package recorded.

    python deploy/audit.py requirements.txt [...]

Needs no network. It finds what was changed, added or removed since pip compared the hashes of the lists. It knows
nothing of published vulnerabilities, and a record that was changed together with its files looks right.
"""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

OWN = "beam-cifar"
"""Installed from the checkout."""

MADE_LATER = (".pyc", "/RECORD", "/direct_url.json", "/INSTALLER", "/REQUESTED")


def main(files: Sequence[str]) -> int:
    """Prints what is wrong, one line each, and returns the exit code."""
    wanted = dict(line for file in files for line in listed(Path(file).read_text(encoding="utf-8")))
    installed = {
        str(canonicalize_name(each.name)): each for each in distributions(path=[sysconfig.get_path("purelib")])
    }
    versions = {name: each.version for name, each in installed.items() if name != OWN}
    wrong = [
        f"{name}: {versions.get(name, 'not')} installed, {wanted.get(name, 'not')} listed"
        for name in sorted(wanted.keys() | versions.keys())
        if wanted.get(name) != versions.get(name)
    ]
    checked = 0
    for name, each in sorted(installed.items()):
        found = list(changed(each))
        checked += len(each.files or ())
        wrong += [f"{name}: {line}" for line in found]
    wrong += strangers(installed.values(), Path(sysconfig.get_path("purelib")))
    wrong += consistent()
    print(*wrong, sep="\n", end="\n" if wrong else "")
    print(f"{len(versions)} packages, {checked} files: {len(wrong) or 'nothing'} wrong")
    return int(bool(wrong))


def listed(text: str) -> Iterator[tuple[str, str]]:
    """Yields name and version of each requirement for this interpreter, in a file made by `make requirements`."""
    for line in text.replace("\\\n", "").splitlines():
        requirement = Requirement(line.partition(" --hash=")[0]) if line and line[0] not in "#-" else None
        if requirement and (requirement.marker is None or requirement.marker.evaluate()):
            yield canonicalize_name(requirement.name), str(requirement.specifier).removeprefix("==")


def changed(distribution: Distribution) -> Iterator[str]:
    """Yields a line for each file of a package that is gone, or has another digest than its record says."""
    for file in distribution.files or ():
        path = Path(str(file.locate()))
        if not path.exists():
            if not str(file).endswith(".pyc"):
                yield f"{file} is missing"
        elif file.hash:
            digest = hashlib.new(file.hash.mode, path.read_bytes()).digest()
            if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != file.hash.value:
                yield f"{file} was changed"
        elif not str(file).endswith(MADE_LATER):
            yield f"{file} has no digest"


def strangers(packages: Iterable[Distribution], folder: Path) -> Iterator[str]:
    """Yields a line for each file in a folder of packages that none of them has recorded."""
    recorded = {Path(str(file.locate())).resolve() for each in packages for file in each.files or ()}
    folder = folder.resolve()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix != ".pyc" and path not in recorded:
            yield f"{path.relative_to(folder)}: of no package"


def consistent() -> list[str]:
    """Returns what `pip check` finds wrong."""
    done = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False)
    return done.stdout.splitlines() if done.returncode else []


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
