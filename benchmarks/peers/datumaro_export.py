"""CIFAR to another format with Datumaro: `datumaro_export.py SOURCE OUT FORMAT`, in the environment of `make peers`."""

from __future__ import annotations

import sys

import datumaro


def main(source: str, out: str, output_format: str) -> None:
    dataset = datumaro.Dataset.import_from(source, "cifar")
    # .png is Datumaro's default for cifar; for imagenet the default is .jpg.
    dataset.export(out, output_format, save_media=True, image_ext=".png")


if __name__ == "__main__":
    main(*sys.argv[1:])
