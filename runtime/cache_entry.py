"""One entry of the disk cache as bytes: object code, and the interface that a call needs.

    8 bytes   magic with the format's version
    32 bytes  SHA-256 of everything that follows
    32 bytes  the key, so that a file under another name is not taken for what it is not
    8 + 8     lengths of the interface's text and of the object code, little endian
    ...       the interface: JSON; arrays stand in it by place and length in what follows the code
    ...       object code
    ...       the arrays' bytes

Nothing is pickled: reading an entry runs no code of the entry's choice. LLVM checks nothing of an
object that it links (one flipped bit can kill the process), so an entry is linked only where the
whole of it has its checksum.
"""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import fields
from typing import Any, Final

from treadle.ir.op import ArrayData
from treadle.ir.types import DType, dtype_of
from treadle.runtime.interface import Interface

MAGIC: Final = b"TREADLE\x01"
_HEAD: Final = struct.Struct("<8s32s32sQQ")
_CHECKED_FROM: Final = 40  # the magic and the checksum itself


class Damaged(Exception):
    """An entry that is not what its name and checksum say; the message says in what."""


def encode(key: str, code: bytes, interface: Interface | None) -> bytes:
    """The bytes of an entry; `interface` is None for a module that is not a traced program."""
    arrays: list[bytes] = []
    text = b""
    if interface is not None:
        plain = {f.name: _plain(getattr(interface, f.name), arrays) for f in fields(interface)}
        text = json.dumps(plain).encode()
    head = _HEAD.pack(MAGIC, bytes(32), bytes.fromhex(key), len(text), len(code))
    checked = b"".join((head[_CHECKED_FROM:], text, code, *arrays))
    return b"".join((MAGIC, hashlib.sha256(checked).digest(), checked))


def decode(key: str, data: bytes) -> tuple[bytes, Interface | None]:
    """(object code, interface) of an entry of that key. Raises Damaged."""
    check(key, data)
    _, _, _, text_size, code_size = _HEAD.unpack_from(data)
    code_at = _HEAD.size + text_size
    code, arrays = data[code_at : code_at + code_size], data[code_at + code_size :]
    if not text_size:
        return code, None
    found = json.loads(data[_HEAD.size : code_at])
    return code, Interface(**{name: _revived(value, arrays) for name, value in found.items()})


def check(key: str, data: bytes) -> None:
    """Raises Damaged where `data` is not a whole entry of that key, bit for bit."""
    if len(data) < _HEAD.size:
        raise Damaged(f"it ends after {len(data)} bytes")
    magic, digest, own_key, text_size, code_size = _HEAD.unpack_from(data)
    if magic != MAGIC:
        raise Damaged("it is not an entry of this version's format")
    if hashlib.sha256(memoryview(data)[_CHECKED_FROM:]).digest() != digest:
        raise Damaged("its checksum does not fit its content")
    if own_key.hex() != key:
        raise Damaged("it is the entry of another program")
    if _HEAD.size + text_size + code_size > len(data):
        raise Damaged("its lengths do not fit its size")


def _plain(value: Any, arrays: list[bytes]) -> Any:
    """`value` in the types of JSON."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, tuple):
        return [_plain(v, arrays) for v in value]
    if isinstance(value, DType):
        return {"dtype": value.name}
    if isinstance(value, ArrayData):
        at = sum(map(len, arrays))
        arrays.append(value.data)
        return {"array": [value.dtype.name, list(value.shape), at, len(value.data)]}
    raise TypeError(f"an entry cannot hold a {type(value).__name__}")


def _revived(value: Any, arrays: bytes) -> Any:
    if isinstance(value, list):
        return tuple(_revived(v, arrays) for v in value)
    if not isinstance(value, dict):
        return value
    if "dtype" in value:
        return dtype_of(value["dtype"])
    name, shape, at, size = value["array"]
    return ArrayData(dtype_of(name), tuple(shape), arrays[at : at + size])
