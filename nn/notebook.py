"""How a module is shown in a notebook: a tree that can be unfolded."""

from __future__ import annotations

from html import escape

from treadle.ir.notebook import fold
from treadle.nn.module import Module
from treadle.nn.parameter import Parameter

_DEPTH = 12  # levels that are shown


def module_html(module: Module) -> str:
    """The layers with their options, shapes of parameters and numbers of these. Nothing is asked
    of the module but what it holds."""
    return f"<div>{_tree('', module, 0, ())}</div>"


def _tree(name: str, module: Module, depth: int, above: tuple[int, ...]) -> str:
    head = f"{name}: " if name else ""
    options = module.extra_repr().partition("\n")[0]
    count = _size(module)
    waits = ", waits for its first input" if getattr(module, "waits", False) else ""
    head += f"{type(module).__name__}({options}) - {count:,} parameters{waits}"
    inner = (*above, id(module))
    rows = [
        f"<li>{escape(n)}: {escape(str(p.type))}{'' if p.requires_grad else ', frozen'}</li>"
        for n, p in module.__dict__.items()
        if isinstance(p, Parameter)
    ]
    children = [(n, m) for n, m in module.__dict__.items() if isinstance(m, Module)]
    for n, child in children:
        known = id(child) in inner or depth + 1 >= _DEPTH
        shown = escape(f"{n}: ...") if known else _tree(n, child, depth + 1, inner)
        rows.append(f"<li>{shown}</li>")
    if not rows:
        return escape(head)
    return fold(head, f"<ul>{''.join(rows)}</ul>", is_open=depth == 0)


def _size(module: Module) -> int:
    """The elements of all parameters, a shared one counted once."""
    found = {id(p): p.size for m in module.modules() for p in m.__dict__.values()
             if isinstance(p, Parameter)}  # fmt: skip
    return sum(found.values())
