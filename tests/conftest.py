"""Options of the whole suite, and hypothesis settings that make a run repeatable."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

# No test reads or writes the user's cache, and none is answered with code of an earlier run; tests
# of the cache switch it on, in a directory of their own.
os.environ["TREADLE_CACHE"] = "0"

settings.register_profile(
    "suite",
    deadline=None,  # a shared machine pauses
    derandomize=True,  # a failure stays until it is fixed
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("suite")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--bless",
        action="store_true",
        help="write what the passes give now into tests/golden/; read the diff before a commit",
    )
