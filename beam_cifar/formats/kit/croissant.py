"""Croissant: a JSON-LD file that tells readers such as `mlcroissant` the files, fields and classes of a dataset.

Facts: https://docs.mlcommons.org/croissant/docs/croissant-spec-1.0.html. Paths are relative to the file, as that reader
takes them. It knows neither who made the images nor their licence, so it does not say so.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from beam_cifar.data.labels import LabelTable
from beam_cifar.data.text import counted

CROISSANT: Final = "croissant.json"
"""The file name."""

# The context that the specification asks for, whole: `mlcroissant` warns of any other.
_TERMS: Final = (
    *("citeAs", "column", "equivalentProperty", "extract", "field", "fileObject", "fileProperty", "fileSet", "format"),
    *("includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet", "references", "regex"),
    *("repeated", "replace", "samplingRate", "separator", "source", "subField", "transform"),
)
_CONTEXT: Final = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
    **{term: f"cr:{term}" for term in _TERMS},
}


def croissant(
    labels: LabelTable,
    splits: Mapping[str, int],
    files: Iterable[Mapping[str, Any]],
    records: Iterable[Mapping[str, Any]],
) -> bytes:
    """Returns the content of the file.

    Args:
        labels: the classes.
        splits: number of images of each split.
        files: the files, from `file_object` and `file_set`.
        records: what is in them, from `record_set`.
    """
    images = ", ".join(f"{name} ({counted(count, 'image')})" for name, count in splits.items())
    content = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": "image_classification_dataset",
        "description": f"Images of {counted(len(labels.names), 'class')}. Splits: {images}.",
        "distribution": list(files),
        "recordSet": [*records, *_classes(labels)],
    }
    return (json.dumps(content, indent=1) + "\n").encode()


def file_object(name: str, path: str, kind: str, sha256: str) -> dict[str, Any]:
    """Returns one file: its id, its path, its media type, and its digest."""
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": path,
        "contentUrl": path,
        "encodingFormat": kind,
        "sha256": sha256,
    }


def file_set(name: str, patterns: Sequence[str], kind: str, inside: Iterable[str] = ()) -> dict[str, Any]:
    """Returns files whose paths match patterns, beside the Croissant file, or inside other files given by id."""
    within = {"containedIn": [{"@id": each} for each in inside]} if inside else {}
    return {"@type": "cr:FileSet", "@id": name, **within, "encodingFormat": kind, "includes": list(patterns)}


def record_set(name: str, fields: Mapping[str, Mapping[str, Any]], **more: Any) -> dict[str, Any]:
    """Returns records with some fields, each from `field_of`."""
    found = [{"@type": "cr:Field", "@id": f"{name}/{key}", **field} for key, field in fields.items()]
    return {"@type": "cr:RecordSet", "@id": name, **more, "field": found}


def field_of(files: str, kind: str, extract: Mapping[str, str], **transform: str) -> dict[str, Any]:
    """Returns a field that is read from a set of files.

    Args:
        files: id of the set.
        kind: type of the values.
        extract: what is taken of a file: a `column`, or a `fileProperty`.
        transform: what is done with it: `regex` or `jsonPath`.
    """
    source = {"fileSet": {"@id": files}, "extract": dict(extract)}
    return {"dataType": kind, "source": {**source, "transform": transform} if transform else source}


def _classes(labels: LabelTable) -> list[dict[str, Any]]:
    """Returns the numbers and names of classes and superclasses; records without data are not valid."""
    found = []
    for name, names in (("classes", labels.names), ("superclasses", labels.coarse_names)):
        parents = labels.parents if name == "classes" and labels.has_superclasses else ()
        if not names:
            continue
        fields: dict[str, dict[str, Any]] = {"id": {"dataType": "sc:Integer"}, "name": {"dataType": "sc:Text"}}
        if parents:
            fields["superclass"] = {"dataType": "sc:Integer"}
        data = [
            {f"{name}/id": number, f"{name}/name": text, **({f"{name}/superclass": parents[number]} if parents else {})}
            for number, text in enumerate(names)
        ]
        found.append(record_set(name, fields, key={"@id": f"{name}/id"}, data=data))
    return found
