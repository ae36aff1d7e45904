"""Random numbers as functions of a key, a generator, or (None) the default generator.

    key = treadle.random.key(0)
    first, second = treadle.random.split(key)
    x = treadle.random.normal(first, (3, 4))

`treadle.rand`, `treadle.randn` and their like, by PyTorch's names, draw from generators.
"""

from treadle.tracer.generator import Generator, default_generator
from treadle.tracer.random_draws import (
    bernoulli,
    categorical,
    gumbel,
    normal,
    permutation,
    randint,
    truncated_normal,
    uniform,
)
from treadle.tracer.random_keys import RandomKeyWarning, fold_in, key, split

__all__ = [
    "Generator",
    "RandomKeyWarning",
    "bernoulli",
    "categorical",
    "default_generator",
    "fold_in",
    "gumbel",
    "key",
    "normal",
    "permutation",
    "randint",
    "split",
    "truncated_normal",
    "uniform",
]
