"""Modules that hold modules: Sequential, ModuleList, ModuleDict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self

from treadle.ir.errors import ArgumentError, DTypeError
from treadle.nn.module import Module
from treadle.tracer.errors import located


class _Numbered(Module):
    """Children under the names "0", "1", ..., as PyTorch's `state_dict` keys have them."""

    def __init__(self, modules: Iterable[Module]) -> None:
        super().__init__()
        for module in modules:
            self.append(module)

    def append(self, module: Module) -> Self:
        if not isinstance(module, Module):
            raise located(
                DTypeError(f"{type(self).__name__} holds modules, found {type(module).__name__}")
            )
        setattr(self, str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> Self:
        for module in list(modules):
            self.append(module)
        return self

    def insert(self, index: int, module: Module) -> Self:
        """Put `module` before the one at `index`; those behind it get the next numbers."""
        items = self._items()
        items.insert(index, module)
        return self._renumber(items)

    def pop(self, index: int = -1) -> Module:
        """Take the module at `index` out; those behind it get the numbers before theirs."""
        items = self._items()
        taken = items.pop(index)
        self._renumber(items)
        return taken

    def __delitem__(self, index: int | slice) -> None:
        items = self._items()
        del items[index]
        self._renumber(items)

    def _renumber(self, modules: list[Module]) -> Self:
        for name, _ in self._members(Module):
            delattr(self, name)
        return self.extend(modules)

    def _items(self) -> list[Module]:
        return [module for _, module in self._members(Module)]

    def __len__(self) -> int:
        return len(self._items())

    def __iter__(self) -> Iterator[Module]:
        return iter(self._items())

    def __getitem__(self, index: int | slice) -> Any:
        """The module at `index`; for a slice a container of the same kind over the same modules."""
        items = self._items()
        if isinstance(index, slice):
            part = type(self).__new__(type(self))
            _Numbered.__init__(part, items[index])
            return part
        return items[index]

    def __setitem__(self, index: int, module: Module) -> None:
        names = [name for name, _ in self._members(Module)]
        setattr(self, names[index], module)


class Sequential(_Numbered):
    """The modules one after the other: each takes the result of the one before."""

    def __init__(self, *args: Module) -> None:
        super().__init__(args)

    def forward(self, x: Any) -> Any:
        for module in self:
            x = module(x)
        return x


class ModuleList(_Numbered):
    """A list of modules, for a `forward` of your own."""

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        super().__init__(modules)


class ModuleDict(Module):
    """Modules by name, in the order in which they came, for a `forward` of your own.

    Raises DTypeError for what is no module, ArgumentError for a name that is one of this class's
    own attributes.
    """

    def __init__(self, modules: Mapping[str, Module] | None = None) -> None:
        super().__init__()
        self.update(modules or {})

    def update(self, modules: Mapping[str, Module]) -> None:
        """Add these, or put them in the place of those with their names."""
        for name, module in modules.items():
            self[name] = module

    def __setitem__(self, name: str, module: Module) -> None:
        if not isinstance(module, Module):
            raise located(DTypeError(f"ModuleDict holds modules, found {type(module).__name__}"))
        if not isinstance(name, str) or not name or "." in name or hasattr(type(self), name):
            raise located(ArgumentError(f"{name!r} cannot be the name of a module"))
        setattr(self, name, module)

    def __getitem__(self, name: str) -> Any:
        return dict(self.items())[name]

    def __delitem__(self, name: str) -> None:
        self[name]
        delattr(self, name)

    def pop(self, name: str) -> Module:
        """Take the module of that name out."""
        taken: Module = self[name]
        del self[name]
        return taken

    def clear(self) -> None:
        for name in self:
            delattr(self, name)

    def __contains__(self, name: object) -> bool:
        return name in dict(self.items())

    def __len__(self) -> int:
        return len(self.items())

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def items(self) -> list[tuple[str, Module]]:
        return self._members(Module)

    def keys(self) -> list[str]:
        return [name for name, _ in self.items()]

    def values(self) -> list[Module]:
        return [module for _, module in self.items()]
