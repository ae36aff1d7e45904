"""scaled_dot_product_attention: both kinds of masks, causal, scaled, with batch axes and none."""

from __future__ import annotations

from typing import Any

import numpy as np
from agreement import Case, Draw, fixed, normal

from treadle.nn.functional import scaled_dot_product_attention

_KEEP = np.array([[1, 0, 1, 1, 0], [1, 1, 1, 1, 1], [0, 0, 0, 1, 0], [1, 1, 0, 0, 1]], bool)
_BATCH = (normal(2, 3, 4, 6), normal(2, 3, 5, 6), normal(2, 3, 5, 7))
_SQUARE = (normal(2, 9, 4), normal(2, 9, 4), normal(2, 9, 4))


def _case(name: str, draws: tuple[Draw, ...], twice: bool = True, **options: Any) -> Case:
    def there(torch: Any, *xs: Any) -> Any:
        return torch.nn.functional.scaled_dot_product_attention(*xs, **options)

    return Case(
        name, lambda *xs: scaled_dot_product_attention(*xs, **options), there, draws, twice=twice
    )


CASES = [
    _case("scaled_dot_product_attention-plain", _BATCH),
    _case("scaled_dot_product_attention-no-batch", (normal(4, 6), normal(5, 6), normal(5, 7))),
    _case("scaled_dot_product_attention-bool-mask", (*_BATCH, fixed(_KEEP))),
    _case("scaled_dot_product_attention-float-mask", (*_BATCH, normal(4, 5))),
    _case("scaled_dot_product_attention-causal", _SQUARE, is_causal=True),
    _case("scaled_dot_product_attention-causal-wide", _BATCH, is_causal=True),
    _case(
        "scaled_dot_product_attention-fewer-keys",
        (normal(2, 6, 4, 3), normal(2, 2, 5, 3), normal(2, 2, 5, 3)),
        twice=False,
        enable_gqa=True,
    ),
    _case("scaled_dot_product_attention-scaled", _BATCH, scale=0.3),
    _case(
        "scaled_dot_product_attention-long",
        (normal(40, 4), normal(70, 4), normal(70, 4)),
        twice=False,
    ),
]
