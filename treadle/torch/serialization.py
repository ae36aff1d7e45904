"""`torch.save` and `torch.load`: trees of tensors in safetensors files.

The tensors of a state_dict stand in the file under its keys, so that `safetensors.torch.load_file`
reads what is saved here, and `torch.load` what `safetensors.torch.save_file` wrote. Of other trees
the structure stands beside them as JSON. A pickle, which PyTorch writes, is refused: reading it
runs whatever code is in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from treadle.ir.errors import ArgumentError
from treadle.nn.weights_file import CheckpointError, read_file, write_file
from treadle.torch.device import checked_device
from treadle.torch.functions import facade
from treadle.torch.tensor import adopted
from treadle.tracer.create import tensor
from treadle.tracer.errors import located
from treadle.tracer.tensor import Tensor as _Tensor

_STRUCTURE = "treadle.torch"  # the note that holds it
_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


@facade
def save(obj: Any, f: Any) -> None:
    """Write a state_dict, or a tree (dict, list, tuple) of tensors, numbers, texts and None, to
    the file `f`, whole or not at all.

    Raises ArgumentError, which says where, for anything else: of a module save its state_dict.
    """
    path = _path(f, "save")
    arrays: dict[str, Any] = {}
    structure = _taken_apart(obj, "", arrays)
    flat = isinstance(obj, Mapping) and all(isinstance(v, _Tensor) for v in obj.values())
    write_file(path, arrays, {} if flat else {_STRUCTURE: structure})


@facade
def load(f: Any, map_location: Any = None, *, weights_only: bool = True, mmap: Any = None) -> Any:
    """What `save` wrote, or the tensors of any safetensors file, by name.

    Raises ArgumentError for a pickle, saying what to do, FileNotFoundError, and CheckpointError for
    a file that is damaged.
    """
    checked_device(map_location)
    path = _path(f, "load")
    if path.is_file():
        with path.open("rb") as file:
            if file.read(4).startswith(_PICKLES):
                raise located(
                    ArgumentError(
                        f"{path} is a pickle, which runs code when it is read; where PyTorch is, "
                        "write it anew: safetensors.torch.save_file(torch.load(path), "
                        "'weights.safetensors')"
                    )
                )
    arrays, notes = read_file(path)
    made = {name: adopted(tensor(array)) for name, array in arrays.items()}
    if _STRUCTURE not in notes:
        return made
    try:
        return _put_together(notes[_STRUCTURE], made)
    except (KeyError, TypeError, ValueError) as error:
        raise located(CheckpointError(f"{path} is damaged: {error}")) from None


def _path(f: Any, what: str) -> Path:
    if not isinstance(f, (str, Path)):
        raise located(
            ArgumentError(f"torch.{what} takes the path of a file, found {type(f).__name__}")
        )
    return Path(f)


def _taken_apart(x: Any, path: str, arrays: dict[str, Any]) -> Any:
    """The structure of `x`; its tensors go to `arrays`."""
    if isinstance(x, _Tensor):
        arrays[path or "tensor"] = np.asarray(x.detach())
        return {"tensor": path or "tensor"}
    if isinstance(x, np.generic):
        x = x.item()
    if x is None or isinstance(x, (bool, int, float, str)):
        return {"value": x}
    if isinstance(x, Mapping):
        pairs = []
        for key, part in x.items():
            if not isinstance(key, (str, int)) or isinstance(key, bool):
                raise located(ArgumentError(f"torch.save: a key {key!r} is no text or int"))
            pairs.append([key, _taken_apart(part, f"{path}.{key}" if path else str(key), arrays)])
        return {"dict": pairs}
    if isinstance(x, (list, tuple)):
        parts = [
            _taken_apart(p, f"{path}.{n}" if path else str(n), arrays) for n, p in enumerate(x)
        ]
        return {"tuple" if isinstance(x, tuple) else "list": parts}
    what = f"torch.save: {path} is" if path else "torch.save was given"
    raise located(
        ArgumentError(
            f"{what} a {type(x).__name__}; save trees of tensors, numbers and texts: of a module "
            "or an optimiser its state_dict()"
        )
    )


def _put_together(structure: Any, made: dict[str, Any]) -> Any:
    ((kind, content),) = structure.items()
    if kind == "tensor":
        return made[content]
    if kind == "value":
        return content
    if kind == "dict":
        return {key: _put_together(part, made) for key, part in content}
    if kind not in ("list", "tuple"):
        raise ValueError(f"an entry of kind {kind!r}")
    parts = [_put_together(part, made) for part in content]
    return tuple(parts) if kind == "tuple" else parts
