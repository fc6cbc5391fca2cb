"""Draws a sample of the images in a tree of class directories, such as beam-cifar's imagenet formats, on one PNG.

Usage: python examples/contact_sheet.py DIRECTORY OUT.png [--images N]

Images are in `<class>/<image>` or `<subset>/<class>/<image>`. Every class gets an equal share of the sheet, sampled
evenly from its files. A terminal with 24-bit colours also shows the first image of each class.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
from collections.abc import Iterator
from itertools import chain, islice, zip_longest
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp"}
TILE, GAP, CAPTION = 64, 6, 16
PAPER, INK = (255, 255, 255), (32, 32, 32)
IN_TERMINAL, TERMINAL_SIDE = 16, 18

Groups = dict[str, list[Path]]
# Images of one class in a row: class name, column of the first image, files.
Run = tuple[str, int, list[Path]]


def main() -> None:
    """Draws the sheet, and prints what is on it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("directory", type=Path, metavar="DIRECTORY")
    parser.add_argument("out", type=Path, metavar="OUT.png")
    parser.add_argument("--images", type=int, default=64, metavar="N", help="maximum number of images; default: 64")
    arguments = parser.parse_args()
    if arguments.images < 1:
        parser.error(f"--images must be at least 1; found {arguments.images}")
    try:
        groups = find_images(arguments.directory)
        chosen = choose(groups, arguments.images)
        shown, total = (sum(map(len, each.values())) for each in (chosen, groups))
        counts = f"{shown:,} of {total:,} images, {len(groups):,} classes"
        draw_sheet(f"{arguments.directory.resolve().name}: {counts}", chosen).save(arguments.out, format="PNG")
        if has_colours():
            show_in_terminal(chosen)
    except (OSError, Image.DecompressionBombError) as error:
        sys.exit(f"contact_sheet: {error}")
    print(f"{arguments.out}: {counts}")


def find_images(directory: Path) -> Groups:
    """Returns image files by class (the name of their directory), for all subsets together, in natural order.

    Raises:
        OSError: the directory does not exist, or has no images.
    """
    if not directory.is_dir():
        raise OSError(f"{directory}: no such directory")
    found = [
        Path(folder, name)
        for folder, _, names in os.walk(directory)
        for name in names
        if os.path.splitext(name)[1].lower() in SUFFIXES
    ]
    if not found:
        raise OSError(f"{directory}: no images found; expected files such as <class>/<image>.png")
    groups: Groups = {}
    for path in sorted(found, key=lambda path: natural(str(path.relative_to(directory)))):
        groups.setdefault(path.parent.name, []).append(path)
    return dict(sorted(groups.items(), key=lambda group: natural(group[0])))


def natural(name: str) -> list[tuple[int, str]]:
    """Returns a sort key that puts data_batch_2 before data_batch_10."""
    return [(int(part) if part.isdecimal() else -1, part) for part in re.split(r"(\d+)", name)]


def choose(groups: Groups, images: int) -> Groups:
    """Returns equally many images of every class, as far as there are enough, sampled evenly from its files."""
    shares = dict.fromkeys(groups, 0)
    left = images
    while left and (open_ones := [name for name, files in groups.items() if shares[name] < len(files)]):
        for name in open_ones[:left]:
            shares[name] += 1
        left -= min(left, len(open_ones))
    return {
        name: [files[number * len(files) // shares[name]] for number in range(shares[name])]
        for name, files in groups.items()
        if shares[name]
    }


def lay_out(groups: Groups, columns: int) -> list[list[Run]]:
    """Returns rows of runs: a class that does not fit into the current row starts a new one."""
    rows: list[list[Run]] = []
    used = columns
    for name, files in groups.items():
        for at in range(0, len(files), columns):
            part = files[at : at + columns]
            if used + len(part) > columns:
                rows.append([])
                used = 0
            rows[-1].append((name, used, part))
            used += len(part)
    return rows


def draw_sheet(title: str, groups: Groups) -> Image.Image:
    """Returns a sheet with the title, and below it the images under their class names."""
    images = sum(map(len, groups.values()))
    rows = lay_out(groups, columns=max(4, round(images**0.5)))
    columns = max(at + len(files) for row in rows for _, at, files in row)
    font = ImageFont.load_default(size=11)
    step, height = TILE + GAP, CAPTION + TILE + GAP
    width = max(GAP + columns * step, 2 * GAP + int(font.getlength(title)))
    sheet = Image.new("RGB", (width, 2 * GAP + CAPTION + len(rows) * height), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, GAP), title, INK, font)
    for number, row in enumerate(rows):
        top = GAP + CAPTION + number * height
        for name, column, files in row:
            left = GAP + column * step
            draw.text((left, top + 2), shorten(name, font, len(files) * step - GAP), INK, font)
            for place, path in enumerate(files):
                image = fitted(path)
                corner = left + place * step + (TILE - image.width) // 2, top + CAPTION + (TILE - image.height) // 2
                sheet.paste(image, corner)
    return sheet


def shorten(name: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """Returns the name, shortened to a width in pixels."""
    if font.getlength(name) <= width:
        return name
    while name and font.getlength(name + "..") > width:
        name = name[:-1]
    return name + ".."


def fitted(path: Path) -> Image.Image:
    """Returns an image that fits a tile: reduced, or enlarged by a whole number to keep its pixels square and sharp.

    Raises:
        OSError: the image cannot be read; the message has its path.
    """
    try:
        with Image.open(path) as image:
            pixels = image.convert("RGB")
    except (OSError, SyntaxError) as error:
        raise OSError(f"{path}: not an image that Pillow can read: {error}") from error
    larger = max(pixels.size)
    if larger > TILE:
        return pixels.resize([max(1, side * TILE // larger) for side in pixels.size], Image.Resampling.LANCZOS)
    return pixels.resize([side * (TILE // larger) for side in pixels.size], Image.Resampling.NEAREST)


def has_colours() -> bool:
    """Returns whether standard output is a terminal with 24-bit colours and half blocks."""
    colours = os.environ.get("COLORTERM") in ("truecolor", "24bit")
    return sys.stdout.isatty() and colours and sys.stdout.encoding.lower().startswith("utf")


def show_in_terminal(groups: Groups) -> None:
    """Prints the first image of every class, then the second of each, and so on, up to `IN_TERMINAL` images."""
    by_turns = chain.from_iterable(zip_longest(*([(name, path) for path in files] for name, files in groups.items())))
    shown = list(islice(filter(None, by_turns), IN_TERMINAL))
    across = max(1, shutil.get_terminal_size().columns // (TERMINAL_SIDE + 1))
    for at in range(0, len(shown), across):
        part = shown[at : at + across]
        print(" ".join(name[:TERMINAL_SIDE].ljust(TERMINAL_SIDE) for name, _ in part).rstrip())
        for lines in zip(*(half_blocks(path) for _, path in part), strict=True):
            print(" ".join(lines))


def half_blocks(path: Path) -> Iterator[str]:
    """Yields lines of half-block characters: each shows two pixels, one above the other."""
    pixels = fitted(path).resize((TERMINAL_SIDE, TERMINAL_SIDE), Image.Resampling.BOX)
    colours = np.asarray(pixels)
    for y in range(0, TERMINAL_SIDE, 2):
        cells = []
        for x in range(TERMINAL_SIDE):
            upper, lower = (";".join(map(str, colours[row, x].tolist())) for row in (y, y + 1))
            cells.append(f"\x1b[38;2;{upper}m\x1b[48;2;{lower}m▀")
        yield "".join(cells) + "\x1b[0m"


if __name__ == "__main__":
    main()
