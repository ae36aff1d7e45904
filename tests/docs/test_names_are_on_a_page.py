"""Every public name of the network library stands on its page, as code."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

from treadle import data, nn, optim

DOCS = Path(__file__).resolve().parents[2] / "docs"


def defined_in(module: Any) -> list[str]:
    """What a module without a list of names defines for its users."""
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isfunction(value) or inspect.isclass(value))
        and value.__module__ == module.__name__
    ]


STATE = {"manual_seed", "draw_seed", "generator_state", "set_generator_state"}  # for checkpoints
PAGES: list[tuple[str, list[str]]] = [
    ("layers.md losses.md training.md recipe.md debugging.md", nn.__all__),
    ("layers.md losses.md", nn.functional.__all__),
    ("layers.md", [n for n in defined_in(nn.init) if n not in STATE]),
    ("optimisers.md", [*optim.__all__, *optim.lr_scheduler.__all__, *nn.utils.__all__]),
    ("data.md", [*data.__all__, *defined_in(data.transforms)]),
    ("checkpoints.md", ["save_checkpoint", "load_checkpoint"]),
]


@pytest.mark.parametrize(("pages", "names"), PAGES, ids=[p.split()[0] for p, _ in PAGES])
def test_every_public_name_is_on_a_page(pages: str, names: list[str]) -> None:
    text = "\n".join((DOCS / page).read_text(encoding="utf-8") for page in pages.split())
    quoted = {word for part in text.split("`")[1::2] for word in part.replace(".", " ").split()}
    called = {name for name in names if f"{name}(" in text or f".{name}" in text}
    assert len(names) > 1 and set(names) - quoted - called == set()
