"""The collector is as it was after a pause, whoever pauses meanwhile."""

from __future__ import annotations

import gc

import pytest

from treadle.ir.collection import paused


def test_the_collector_is_off_inside_and_on_again_after() -> None:
    assert gc.isenabled()
    with pytest.raises(ValueError, match="stop"), paused():
        assert not gc.isenabled()
        with paused():
            assert not gc.isenabled()
        assert not gc.isenabled()
        raise ValueError("stop")
    assert gc.isenabled()


def test_who_has_switched_it_off_finds_it_off() -> None:
    gc.disable()
    try:
        with paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
