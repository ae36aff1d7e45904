"""The character models learn, write the same text with a cache as without, and report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import treadle
from treadle import nn
from treadle.data import CharTokens
from treadle.examples.character_models import GPT, LSTM
from treadle.examples.shakespeare import Writer, main

TEXT = "to be, or not to be: that is the question.\n" * 40


@pytest.mark.parametrize("build", [LSTM, lambda n: GPT(n, context=16, layers=2, width=32)])
def test_one_character_at_a_time_scores_as_all_at_once(build: Any) -> None:
    treadle.manual_seed(0)
    model = build(11)
    tokens = np.random.default_rng(0).integers(0, 11, 16)
    with treadle.no_grad():
        whole = model(treadle.tensor(tokens[None])).numpy()[0]
        step = treadle.jit(model.next)
        rows = [
            step(treadle.tensor(token), treadle.tensor(place)).numpy()
            for place, token in enumerate(tokens)
        ]
    np.testing.assert_allclose(rows, whole, rtol=1e-5, atol=1e-6)


def test_writing_goes_on_where_the_places_are_used_up() -> None:
    characters = CharTokens("abc")
    model = GPT(3, context=4, layers=1, heads=1, width=8)
    text = Writer(model, characters).write("a", 30)
    assert len(text) == 31 and set(text) <= set("abc") and text[0] == "a"


def test_a_cache_is_not_saved_and_trains_nothing() -> None:
    model = GPT(3, context=4, layers=1, heads=1, width=8)
    assert not [name for name in model.state_dict() if "keys" in name or "values" in name]
    assert sum(1 for _ in nn.Module.buffers(model)) == 2


@pytest.mark.parametrize("kind", ["lstm", "gpt"])
def test_it_learns_and_prints_a_table_and_a_sample(kind: str, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "input.txt").write_text(TEXT)
    assert main(["--data", str(tmp_path), "--model", kind, "--steps", "30"]) == 0
    out = capsys.readouterr().out
    loss = float(out.split("validation loss, nats")[1].split()[0])
    assert loss < np.log(len(set(TEXT))) - 0.3
    assert "us a character" in out


def test_a_text_that_is_missing_or_too_short_is_told(tmp_path: Path, capsys: Any) -> None:
    for path, what in ((tmp_path / "no.txt", "no.txt"), (tmp_path / "short.txt", "too short")):
        (tmp_path / "short.txt").write_text("short")
        with pytest.raises(SystemExit):
            main(["--data", str(path)])
        assert what in capsys.readouterr().err
