"""Messages as Google's protobuf reads them: any by its numbers, `tf.Example` by the names in TensorFlow's `.proto` files."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

_PROTO = """
name: "example.proto" package: "x" syntax: "proto3"
message_type { name: "BytesList" field { name: "value" number: 1 type: TYPE_BYTES label: LABEL_REPEATED } }
message_type { name: "FloatList" field { name: "value" number: 1 type: TYPE_FLOAT label: LABEL_REPEATED } }
message_type { name: "Int64List" field { name: "value" number: 1 type: TYPE_INT64 label: LABEL_REPEATED } }
message_type {
  name: "Feature" oneof_decl { name: "kind" }
  field { name: "bytes_list" number: 1 type: TYPE_MESSAGE type_name: ".x.BytesList" oneof_index: 0 }
  field { name: "float_list" number: 2 type: TYPE_MESSAGE type_name: ".x.FloatList" oneof_index: 0 }
  field { name: "int64_list" number: 3 type: TYPE_MESSAGE type_name: ".x.Int64List" oneof_index: 0 }
}
message_type {
  name: "Features"
  field { name: "feature" number: 1 type: TYPE_MESSAGE type_name: ".x.Features.FeatureEntry" label: LABEL_REPEATED }
  nested_type {
    name: "FeatureEntry" options { map_entry: true }
    field { name: "key" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
    field { name: "value" number: 2 type: TYPE_MESSAGE type_name: ".x.Feature" label: LABEL_OPTIONAL }
  }
}
message_type { name: "Example" field { name: "features" number: 1 type: TYPE_MESSAGE type_name: ".x.Features" } }
"""

_POOL = descriptor_pool.DescriptorPool()
_POOL.Add(text_format.Parse(_PROTO, descriptor_pb2.FileDescriptorProto()))
_Example = message_factory.GetMessageClass(_POOL.FindMessageTypeByName("x.Example"))


def parsed_example(data: bytes, names: Collection[str]) -> dict[str, bytes | int]:
    """The values of some features, those that have one.

    Raises:
        DecodeError: the message is damaged, or has unknown fields, with which this library drops entries of a map.
    """
    message = _Example.FromString(data).features
    if len(UnknownFieldSet(message)):
        raise DecodeError("unknown fields")
    found: dict[str, bytes | int] = {}
    for name in names:
        feature = message.feature.get(name)
        kind = feature.WhichOneof("kind") if feature else None
        values = list(getattr(feature, kind).value) if kind else []
        if values:
            (found[name],) = values
    return found


def parsed_fields(data: bytes) -> dict[int, list[Any]]:
    """The values of a message whatever it means, by field number: integers, and bytes."""
    found: dict[int, list[Any]] = {}
    for field in UnknownFieldSet(Empty.FromString(data)):
        found.setdefault(field.field_number, []).append(field.data)
    return found
