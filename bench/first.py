"""A first call, in a process of its own: seconds from an import to the end of one step.

`in_new_process` starts Python, which imports NumPy, then takes the time of importing the library
(`import treadle`, `import jax.numpy`), and that of preparing a workload and running its first step.
Starting Python, importing NumPy and reading the suites are not counted, for anyone.
"""

from __future__ import annotations

import subprocess
import sys
from time import perf_counter
from typing import Final

from treadle.bench.workload import workloads
from treadle.runtime import knobs

_MODULES: Final = {
    "treadle": "treadle",
    "torch": "torch",
    "compile": "torch._dynamo",
    "jax": "jax.numpy",
}
# Bytecode is written in any case: who has read a library's source once does not read it again.
_CHILD: Final = """
import sys
sys.dont_write_bytecode = False
import numpy
from time import perf_counter
started = perf_counter()
import {module}
imported = perf_counter() - started
from treadle.bench.first import report
report(imported, {peer!r}, {workload!r}, {cache!r})
"""


def in_new_process(peer: str, workload: str | None = None, cache: str | None = None) -> float:
    """Seconds of the import and, where a workload is given, of its first step as well.

    `cache`: the folder of our disk cache; None turns it off. Raises CalledProcessError.
    """
    program = _CHILD.format(module=_MODULES[peer], peer=peer, workload=workload, cache=cache)
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, check=True)
    return float(done.stdout.split()[-1])


def report(imported: float, peer: str, workload: str | None, cache: str | None) -> None:
    """What the new process does after the import: print the seconds."""
    if workload is None:
        print(imported)
        return
    knobs.write("TREADLE_CACHE", "0" if cache is None else "1")
    if cache is not None:
        knobs.write("TREADLE_CACHE_DIR", cache)
    program = workloads()[workload].programs[peer]
    started = perf_counter()
    program()()
    print(imported + perf_counter() - started)
