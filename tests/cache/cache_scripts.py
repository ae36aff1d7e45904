"""What the tests of the disk cache share: scripts that run in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """\
import sys
import numpy as np
import treadle
from treadle.runtime import cache, driver

compiled = []
original = driver._compiled
driver._compiled = lambda *a: compiled.append(a) or original(*a)

@treadle.jit
def step(x, i):
    table = treadle.tensor(np.arange(12, dtype=np.float32).reshape(4, 3))
    return treadle.take(table, i, axis=0) * x + treadle.sum(x)

x = treadle.tensor(np.ones(3, np.float32))
out = step(x, treadle.tensor(np.array([1, 3])))
expected = np.arange(12, dtype=np.float32).reshape(4, 3)[[1, 3]] + 3
assert np.array_equal(np.asarray(out), expected), out
print("compiled" if compiled else "kept")
"""


def run_script(
    path: Path, directory: Path, text: str = SCRIPT, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Write `text` to `path` and run it with its cache in `directory`."""
    path.write_text(text, encoding="utf-8")
    return subprocess.run(
        [sys.executable, str(path)],
        env=environment_for(directory, **environment),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def environment_for(directory: Path, **more: str) -> dict[str, str]:
    """The cache in `directory`, and no progress lines: on a busy machine a compilation may take the
    two seconds after which one is told, and stderr is to hold nothing but notices."""
    here = {"TREADLE_CACHE": "1", "TREADLE_CACHE_DIR": str(directory), "TREADLE_PROGRESS": "0"}
    return {**os.environ, **here, **more}
