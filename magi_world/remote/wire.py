"""What goes between a `RemoteWorld` and its server: one binary message each way.

4 bytes     length of the head, big endian
head        JSON: fields, and under "arrays" the name, dtype, shape and size of each array
arrays      one after the other, compressed without loss where the head says so
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

PROTOCOL = 2
MOST_BYTES = 512 * 2**20
_LENGTH = struct.Struct(">I")
_DTYPES = ("uint8", "float32", "float64", "int64")


@dataclass(frozen=True)
class Parcel:
    """fields: whatever JSON can hold.    arrays: by name."""

    fields: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)


def pack(fields: Mapping[str, Any], arrays: Mapping[str, np.ndarray] | None = None) -> bytes:
    """A message.
    Raises ValueError: an array of another dtype than uint8, float32, float64, int64.
    """
    listed, bodies = [], []
    for name, array in (arrays or {}).items():
        if str(array.dtype) not in _DTYPES:
            raise ValueError(f"array {name} is {array.dtype}; it must be one of {_DTYPES}")
        body = np.ascontiguousarray(array).tobytes()
        # Pictures shrink a little, at hardly any cost; numbers do not.
        zipped = array.dtype == np.uint8 and len(body) > 512
        body = zlib.compress(body, 1) if zipped else body
        listed.append([name, str(array.dtype), list(array.shape), len(body), zipped])
        bodies.append(body)
    head = json.dumps({**fields, "arrays": listed}, ensure_ascii=False).encode()
    return b"".join([_LENGTH.pack(len(head)), head, *bodies])


def unpack(message: bytes) -> Parcel:
    """What was packed. Raises ValueError: it is no such message, or it was cut off."""
    try:
        (length,) = _LENGTH.unpack_from(message)
        head = json.loads(message[4 : 4 + length])
        offset, arrays = 4 + length, {}
        for name, dtype, shape, size, zipped in head.pop("arrays"):
            arrays[str(name)] = _array(message[offset : offset + size], dtype, shape, zipped)
            offset += size
        return Parcel(dict(head), arrays)
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, zlib.error) as error:
        raise ValueError(f"the message cannot be read: {error}") from error


def _array(body: bytes, dtype: str, shape: list[int], zipped: bool) -> np.ndarray:
    if dtype not in _DTYPES:
        raise ValueError(f"dtype is {dtype!r}; it must be one of {_DTYPES}")
    wanted = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    if not 0 <= wanted <= MOST_BYTES:
        raise ValueError(f"an array has {wanted} bytes; at most {MOST_BYTES} are allowed")
    if zipped:
        # No more than was promised is unpacked, whatever the body holds.
        body = zlib.decompressobj().decompress(body, wanted + 1) if wanted else b""
    if len(body) != wanted:
        raise ValueError(f"an array has {len(body)} bytes; its shape {shape} needs {wanted}")
    return np.frombuffer(body, dtype).reshape(shape).copy()
