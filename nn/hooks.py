"""Functions that are called around a module's forward, and which layer an error came from."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from treadle.ir.errors import DTypeError
from treadle.tracer.errors import located

if TYPE_CHECKING:
    from treadle.nn.module import Module

PreHook = Callable[[Any, tuple[Any, ...]], Any]
Hook = Callable[[Any, tuple[Any, ...], Any], Any]


class Handle:
    """Takes a hook out again: by `remove()`, or at the end of a `with` block."""

    def __init__(self, module: Module, kind: str, hook: Callable[..., Any]) -> None:
        if not callable(hook):
            raise located(DTypeError(f"a hook is a function, found {type(hook).__name__}"))
        self._module, self._kind, self._hook = module, kind, hook
        setattr(module, kind, (*getattr(module, kind), hook))

    def remove(self) -> None:
        """The hook is called no more; a second time does nothing."""
        hooks = getattr(self._module, self._kind)
        setattr(self._module, self._kind, tuple(h for h in hooks if h is not self._hook))

    def __enter__(self) -> Handle:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


def call_with_hooks(
    module: Module, pre: tuple[PreHook, ...], post: tuple[Hook, ...], args: Any, kwargs: Any
) -> Any:
    """`module.forward`, with what the hooks make of its arguments and of its result: a hook that
    returns None changes nothing."""
    for before in pre:
        changed = before(module, args)
        if changed is not None:
            args = changed if isinstance(changed, tuple) else (changed,)
    result = module.forward(*args, **kwargs)
    for after in post:
        changed = after(module, args, result)
        if changed is not None:
            result = changed
    return result


_LAYER = "in layer "


def name_layer(error: BaseException, module: Module) -> None:
    """Note on an error that leaves `module` the path, as seen from it, of the innermost module that
    it came from, and what that is."""
    inner = error.__dict__.setdefault("_layer", module)
    if inner is module:
        return
    path = next((p for p, m in module.named_modules() if m is inner), None)
    if path is None:
        return
    notes = getattr(error, "__notes__", [])
    others = [n for n in notes if not n.startswith(_LAYER)]
    first, _, inside = repr(inner).partition("\n")
    first += "...)" if inside else ""  # what it consists of would be lines
    error.__notes__ = [*others, f"{_LAYER}{path}: {first}"]
