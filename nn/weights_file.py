"""Named arrays and text in one safetensors file, written so that no reader ever sees half of it.

The format and its reader are the `safetensors` library's (`pip install treadle[checkpoints]`).
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from treadle.ir.errors import TreadleError
from treadle.tracer.errors import located

Array = npt.NDArray[Any]
_DTYPES = {
    "BOOL": np.bool_, "U8": np.uint8, "I8": np.int8, "I16": np.int16, "U16": np.uint16,
    "I32": np.int32, "U32": np.uint32, "I64": np.int64, "F16": np.float16, "F32": np.float32,
    "F64": np.float64,
}  # fmt: skip
_CHECKSUM = "checksum"  # the note that holds it
# What Treadle has no dtype for is read as the least that holds it.
_WIDENED = {"int8": np.int32, "int16": np.int32, "uint16": np.int32, "float16": np.float32}


class CheckpointError(TreadleError, ValueError):
    """A file of weights is damaged, or does not fit what is loaded from it."""


def write_file(path: Path, arrays: Mapping[str, Array], notes: Mapping[str, Any]) -> None:
    """Write `arrays`, and `notes` as JSON texts, to `path`.

    The file is written under another name, flushed to the disk and renamed: whenever the process
    dies, `path` holds what was there before, or all of this.
    """
    ordered = {name: np.asarray(a, order="C") for name, a in arrays.items()}
    texts = {name: json.dumps(note) for name, note in notes.items()}
    replace_file(path, _library().save(ordered, {**texts, _CHECKSUM: _checksum(ordered, texts)}))


def replace_file(path: Path, content: bytes) -> None:
    """Write `content` to `path` such that it holds, whenever the process dies, all of it or what
    was there before. Raises OSError where that cannot be written."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} to write {path.name} to")
    import tempfile  # which takes longer to import than all of this module

    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o666 & ~_umask())  # mkstemp lets its owner alone in
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def read_file(path: Path) -> tuple[dict[str, Array], dict[str, Any]]:
    """(arrays, notes) of a file; bfloat16 and float16 become float32, short integers int32.

    Notes that are no JSON, as other programs write them, are given as text. Raises
    FileNotFoundError, or CheckpointError, which names the file, where it is damaged. What
    `write_file` wrote has a checksum of names, values and notes.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    raw = path.read_bytes()
    try:
        found = _library_core().deserialize(raw)
    except Exception as error:  # the library's own kind, whose name is private
        raise located(
            CheckpointError(f"{path} is damaged or no safetensors file: {error}")
        ) from None
    stored = {name: _array(path, name, part) for name, part in found}
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    texts = header.get("__metadata__", {})
    checksum = texts.pop(_CHECKSUM, None)
    if checksum is not None and checksum != _checksum(stored, texts):
        raise located(CheckpointError(f"{path} is damaged: its checksum is of other content"))
    arrays = {k: a.astype(_WIDENED.get(a.dtype.name, a.dtype), copy=False)
              for k, a in stored.items()}  # fmt: skip
    return arrays, {k: _note(v) for k, v in texts.items()}


def _checksum(arrays: Mapping[str, Array], texts: Mapping[str, str]) -> str:
    """CRC-32 of names, types, values and notes: any single run of up to 32 damaged bits shows."""
    found = zlib.crc32(json.dumps(texts, sort_keys=True).encode())
    for name in sorted(arrays):
        array = arrays[name]
        found = zlib.crc32(f"{name} {array.dtype} {array.shape}".encode(), found)
        found = zlib.crc32(array.reshape(-1).view(np.uint8).data, found)
    return f"{found:08x}"


def _array(path: Path, name: str, part: Mapping[str, Any]) -> Array:
    kind = part["dtype"]
    if kind == "BF16":
        halves = np.frombuffer(part["data"], np.uint16).astype(np.uint32) << 16
        return halves.view(np.float32).reshape(part["shape"])
    if kind not in _DTYPES:
        raise located(CheckpointError(f"{path}: {name} is {kind}, which cannot be read"))
    return np.frombuffer(part["data"], _DTYPES[kind]).reshape(part["shape"])


def _note(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _umask() -> int:
    found = os.umask(0)
    os.umask(found)
    return found


def _sync_folder(folder: Path) -> None:
    """The rename is on the disk too; a platform that cannot do this needs no telling."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)


def _library() -> Any:
    try:
        import safetensors.numpy
    except ImportError:
        raise _missing() from None
    return safetensors.numpy


def _library_core() -> Any:
    try:
        import safetensors
    except ImportError:
        raise _missing() from None
    return safetensors


def _missing() -> TreadleError:
    return located(
        TreadleError(
            "checkpoints need the safetensors library, which is not installed: "
            "pip install 'treadle[checkpoints]'"
        )
    )
