"""Completion in real shells, as the scripts of `--print-completion` make it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from beam_cifar.cli.completion import SHELLS

# What readline does when a user presses the tabulator after the last word.
ASK = """\
source "$1"; shift
function=$(complete -p beam-cifar | sed 's/.* -F \\([^ ]*\\) .*/\\1/')
COMP_WORDS=(beam-cifar "$@") COMP_CWORD=$#
$function && printf '%s\\n' "${COMPREPLY[@]}"
"""


def script(shell: str) -> str:
    command = [sys.executable, "-m", "beam_cifar", "--print-completion", shell]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def bash(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the script and two things to name."""
    folder = tmp_path_factory.mktemp("completion")
    (folder / "script").write_text(script("bash"), encoding="utf-8")
    (folder / "images.tar.gz").touch()
    (folder / "images").mkdir()
    return folder


@pytest.mark.parametrize(
    ("words", "proposed"),
    [
        ("con", {"convert"}),
        ("--print-completion", {"--print-completion"}),
        ("--print-completion ", set(SHELLS)),
        ("convert --output", {"--output-format", "--output-dir"}),
        ("convert --output-format mn", {"mnist", "mnist_csv"}),
        ("convert -if webd", {"webdataset"}),
        ("convert -o ima", {"images", "images.tar.gz"}),
        ("convert --merge images.", {"images.tar.gz"}),
        ("info images.", {"images.tar.gz"}),
        ("diff images ima", {"images", "images.tar.gz"}),
        ("report images -o ima", {"images", "images.tar.gz"}),
        ("import -f mnist_", {"mnist_csv"}),
        ("transform -t random_", {"random_split", "random_sampler"}),
        ("make-sample out --kind ", {"cifar10", "cifar100"}),
    ],
)
def test_bash_proposes_commands_options_choices_and_files(words: str, proposed: set[str], bash: Path) -> None:
    command = ["bash", "--norc", "-c", ASK, "bash", "./script", *words.split(" ")]
    answer = subprocess.run(command, cwd=bash, capture_output=True, text=True, check=True)
    assert set(answer.stdout.split()) == proposed


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_can_read_its_script(shell: str, tmp_path: Path) -> None:
    text = script(shell)
    assert "beam-cifar" in text
    assert "parquet" in text
    if shutil.which(shell):
        (tmp_path / "script").write_text(text, encoding="utf-8")
        subprocess.run([shell, "-n", tmp_path / "script"], check=True)


def test_another_shell_is_refused_in_one_line() -> None:
    command = [sys.executable, "-m", "beam_cifar", "--print-completion", "bsh"]
    answer = subprocess.run(command, capture_output=True, text=True)
    assert (answer.returncode, answer.stderr) == (
        2,
        "beam-cifar: error: --print-completion: unknown 'bsh'; did you mean bash or zsh or tcsh?; see beam-cifar --help\n",
    )
