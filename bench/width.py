"""Holding us and the peers to the instructions of an AVX2 machine, on one that has more."""

from __future__ import annotations

import os
from typing import Final

from treadle.runtime import knobs

# What each library reads when it is imported. All are documented by it, but for MKL's.
_AVX2_ONLY: Final = {
    "TREADLE_TARGET": "avx2",
    "ATEN_CPU_CAPABILITY": "avx2",  # torch's own kernels
    "ONEDNN_MAX_CPU_ISA": "AVX2",  # torch's products and convolutions
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "XLA_FLAGS": "--xla_cpu_max_isa=AVX2",  # JAX
    "OPENBLAS_CORETYPE": "Haswell",  # NumPy's products
    "NPY_DISABLE_CPU_FEATURES": "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL",
}


def only_avx2() -> None:
    """Compile for AVX2 here, and let every process started from here on do so, peers as well.

    Environment variables are set for children alone: what this process has imported is as it was.
    """
    knobs.write("TREADLE_TARGET", "avx2")
    for variable, value in _AVX2_ONLY.items():
        os.putenv(variable, value)
