"""What is done while the site is built: pages that are made, links that lead out of `docs/`, and no strangers."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, InclusionLevel

from beam_cifar.cli.main import make_parser
from docs_hooks.cli_reference import cli_reference

# Its warnings count: the build is strict.
logger = logging.getLogger("mkdocs.hooks.site")

ROOT = Path(__file__).resolve().parents[1]
CLI_PAGE = "reference/cli.md"
ROOT_PAGES = ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
"""Files at the top of the repository that are pages of the site too."""
COPIES = "files"
"""Where files of the repository lie that pages link to."""

LINK = re.compile(r"(?<=\]\()([^)\s#]+)(?=[)#])")
MARK = re.compile(r"^ *<!-- not run: .* -->\n", re.MULTILINE)
"""What the tests of the pages read, and nobody else."""
STRANGER = re.compile(r"<(?:script|link|img|iframe)\b[^>]*?\b(?:src|href)=[\"']?((?:https?:)?//[^\"' >]+)")


def on_files(files: Any, config: Any) -> Any:
    """Adds the page of the command line, the pages at the top of the repository, and all files that pages link to."""
    files.append(File.generated(config, CLI_PAGE, content=cli_reference(make_parser())))
    for name in ROOT_PAGES:
        files.append(File.generated(config, name.lower(), abs_src_path=str(ROOT / name)))
    for path in sorted(set(_linked(files.documentation_pages()))):
        copy = f"{COPIES}/{path}"
        files.append(File.generated(config, copy, abs_src_path=str(ROOT / path), inclusion=InclusionLevel.NOT_IN_NAV))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turns links to files of the repository into links of the site, and drops what is for tests."""
    here = page.file.src_uri

    def turned(match: re.Match[str]) -> str:
        target = _target(here, match[1])
        return match[1] if target is None else os.path.relpath(target, os.path.dirname(here) or ".")

    return LINK.sub(turned, MARK.sub("", markdown))


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Says which page would load something from elsewhere."""
    for url in STRANGER.findall(output):
        logger.warning("%s loads %s: the site must work offline, and tell nobody who reads it", page.file.src_uri, url)
    return output


def _linked(pages: Iterable[Any]) -> Iterable[str]:
    """The files that pages link to, and that are not pages themselves, from the top of the repository."""
    for page in pages:
        for link in LINK.findall(page.content_string):
            target = _target(page.src_uri, link)
            if target is not None and target.startswith(f"{COPIES}/"):
                yield target.removeprefix(f"{COPIES}/")


def _target(page: str, link: str) -> str | None:
    """Where a link of a page leads within the site; None if it is one already, or leads elsewhere."""
    folder = ROOT if page in map(str.lower, ROOT_PAGES) else (ROOT / "docs" / page).parent
    path = Path(os.path.normpath(folder / link))
    if ":" in link or not path.is_file() or not path.is_relative_to(ROOT):
        return None
    name = path.relative_to(ROOT).as_posix()
    if name.startswith("docs/"):
        return name.removeprefix("docs/")
    if name in ROOT_PAGES:
        return name.lower()
    # Another page of the repository is none of the site: the link fails.
    return None if path.suffix == ".md" else f"{COPIES}/{name}"
