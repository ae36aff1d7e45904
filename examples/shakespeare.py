"""Text, character by character: an LSTM and a GPT learn it, and write some.

python -m treadle.examples.shakespeare --data DIR              DIR/input.txt, or any text file
python -m treadle.examples.shakespeare --data DIR --model gpt --steps 2000 --peer torch

The last tenth of the text is for validation. One jitted function is the whole step: loss,
gradients, clipping, AdamW and the schedule. Text is sampled by
another, one character a call: the GPT keeps keys and values of the characters before, the LSTM its
state.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

import treadle
from treadle import Tensor, nn
from treadle.data import CharTokens, DataError, TokenWindows, read_text
from treadle.examples import running
from treadle.examples.character_models import GPT, LSTM

Array = npt.NDArray[Any]
_PART = 200  # steps between two lines of output
_SAMPLE = 500  # characters


@dataclass(frozen=True, slots=True)
class Settings:
    """How a model is trained: `batch` windows of `length` characters a step."""

    build: Callable[[int], LSTM | GPT]
    batch: int
    length: int
    rate: float
    decay: float
    warmup: int = 100


MODELS = {
    "lstm": Settings(LSTM, 32, 64, 4e-3, 0.01),
    "gpt": Settings(GPT, 12, 64, 2e-3, 0.1),
}


class Corpus:
    """A text as numbers: the first nine tenths to learn from, the last for validation."""

    def __init__(self, text: str, length: int = 64) -> None:
        self.characters = CharTokens(text)
        tokens = self.characters.encode(text)
        split = len(tokens) * 9 // 10
        self.learn, self.validate = tokens[:split], tokens[split:]
        if min(len(self.learn), len(self.validate)) <= length:
            raise DataError(
                f"a text of {len(text)} characters is too short: a tenth of it must be longer than "
                f"{length}"
            )


class RandomWindows:
    """`count` batches (x, y) of int64 [batch, length], a new draw at each iteration."""

    def __init__(self, tokens: Array, settings: Settings, count: int, seed: int) -> None:
        self.windows = TokenWindows(tokens, settings.length, stride=1)
        self.batch, self.count = settings.batch, count
        self.rng = np.random.default_rng(seed)

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple[Array, Array]]:
        for _ in range(self.count):
            yield self.windows.rows(self.rng.integers(0, len(self.windows), self.batch))


def read_corpus(path: Path) -> Corpus:
    """The text of a file, or of input.txt in a folder."""
    return Corpus(read_text(path / "input.txt" if path.is_dir() else path))


def make_step(model: nn.Module, settings: Settings, steps: int) -> Callable[[Array, Array], Tensor]:
    """A jitted train step: tokens [N, T] and what follows each of them, to the mean loss."""
    schedules = treadle.optim.lr_scheduler
    optimizer = treadle.optim.AdamW(
        model.parameters(), lr=settings.rate, betas=(0.9, 0.99), weight_decay=settings.decay
    )
    warmup = min(settings.warmup, max(1, steps // 2))
    schedule = schedules.SequentialLR(
        optimizer,
        [
            schedules.LinearLR(optimizer, 0.01, 1.0, warmup),
            schedules.CosineAnnealingLR(optimizer, max(1, steps - warmup), settings.rate / 10),
        ],
        [warmup],
    )

    @treadle.jit
    def step(x: Tensor, y: Tensor) -> Tensor:
        optimizer.zero_grad()
        scores = model(x)
        loss = nn.functional.cross_entropy(scores.reshape((-1, scores.shape[-1])), y.reshape((-1,)))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        return loss

    return step


def loss_over(scores: Callable[[Array], Any], tokens: Array, settings: Settings) -> float:
    """The mean loss in nats a character over windows side by side, of all of `tokens` but the rest
    that fills no batch."""
    windows = TokenWindows(tokens, settings.length)
    batch = min(64, len(windows))
    total, parts = 0.0, len(windows) // batch
    for n in range(parts):
        x, y = windows.rows(np.arange(n * batch, (n + 1) * batch))
        found = np.asarray(scores(x), np.float64)
        found = found - found.max(axis=-1, keepdims=True)
        chosen = np.take_along_axis(found, y[..., None], axis=-1)[..., 0]
        total += float(np.mean(np.log(np.exp(found).sum(axis=-1)) - chosen))
    return total / parts


def compiled_scores(model: nn.Module) -> Callable[[Array], Any]:
    """The scores of tokens [N, T], compiled, without gradients."""

    @treadle.jit
    def scores(x: Tensor) -> Any:
        with treadle.no_grad():
            return model(x)

    return lambda x: scores(x).numpy()


class Writer:
    """Text from a model by one compiled step a character, which draws from softmax(scores /
    `temperature`) and keeps what the model must know of the characters before."""

    def __init__(self, model: LSTM | GPT, characters: CharTokens, temperature: float = 0.8) -> None:
        self.model, self.characters = model, characters

        @treadle.jit
        def step(token: Tensor, place: Tensor) -> Tensor:
            with treadle.no_grad():
                scores = model.next(token, place) / temperature
            return treadle.multinomial(treadle.softmax(scores), 1)[0]

        self.step, self.place = step, 0

    def write(self, start: str, count: int) -> str:
        """`start`, at least a character, and `count` characters after it. Where the GPT's places
        are used up, it goes on from the last half of them."""
        tokens = [int(n) for n in self.characters.encode(start)]
        self.place = 0
        following = self._read(tokens)
        for _ in range(count):
            tokens.append(following)
            context = self.model.context
            if self.place == context:
                self.place = 0
                following = self._read(tokens[-context // 2 :])
            else:
                following = self._read(tokens[-1:])
        return self.characters.decode(np.array(tokens))

    def _read(self, tokens: list[int]) -> int:
        """What follows `tokens`, drawn, which the model sees one after the other."""
        for token in tokens:
            drawn = self.step(treadle.tensor(token), treadle.tensor(self.place))
            self.place += 1
        return int(drawn)


@dataclass(frozen=True, slots=True)
class Report:
    """The loss in nats a character on validation text, what training cost, a sample, and
    microseconds a character of it."""

    loss: float
    run: running.Run
    text: str
    each: float

    def column(self) -> dict[str, str]:
        return {
            **self.run.costs(),
            "validation loss, nats": f"{self.loss:.3f}",
            "sampling, us a character": f"{self.each * 1e6:.0f}",
        }


def train(corpus: Corpus, kind: str, steps: int, seed: int = 0, show: bool = True) -> Report:
    """Train a model of `kind`, "lstm" or "gpt", and let it write."""
    settings = MODELS[kind]
    treadle.manual_seed(seed)
    model = settings.build(len(corpus.characters))
    if show:
        print(f"{kind}: {sum(p.size for p in model.parameters()):,} parameters")
    batches = RandomWindows(corpus.learn, settings, min(_PART, steps), seed)
    step = make_step(model, settings, steps)
    run = running.train(kind, step, batches, max(1, steps // _PART), show)
    model.eval()
    loss = loss_over(compiled_scores(model), corpus.validate, settings)
    writer = Writer(model, corpus.characters)
    start = corpus.characters.characters[0]
    writer.write(start, 1)  # compiles
    began = perf_counter()
    text = writer.write(start, _SAMPLE)
    return Report(loss, run, text, (perf_counter() - began) / _SAMPLE)


def train_peer(
    corpus: Corpus, kind: str, steps: int, seed: int, show: bool = True
) -> dict[str, str]:
    """The same in PyTorch, from the same initial weights over the same batches."""
    program = running.torch_program("shakespeare")
    settings = MODELS[kind]
    treadle.manual_seed(seed)
    weights = running.weights(settings.build(len(corpus.characters)))
    step, scores = program.program(
        kind, weights, len(corpus.characters), settings.rate, settings.decay, steps,
        min(settings.warmup, max(1, steps // 2)),
    )  # fmt: skip
    batches = RandomWindows(corpus.learn, settings, min(_PART, steps), seed)
    run = running.train(f"{kind}, PyTorch", step, batches, max(1, steps // _PART), show)
    loss = loss_over(scores, corpus.validate, settings)
    return {**run.costs(), "validation loss, nats": f"{loss:.3f}"}


def main(argv: list[str] | None = None) -> int:
    """Train, print a table and a sample."""
    parser = argparse.ArgumentParser(
        prog="python -m treadle.examples.shakespeare",
        description="An LSTM and a GPT learn a text character by character and write some.",
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="a folder with input.txt, or a text"
    )
    parser.add_argument("--model", choices=[*MODELS, "both"], default="both", help="default both")
    parser.add_argument("--steps", type=running.count, default=2000, help="default 2000")
    parser.add_argument("--seed", type=int, default=0, help="default 0")
    running.add_peer(parser)
    args = parser.parse_args(argv)
    with running.complaints(parser):
        corpus = read_corpus(args.data)
    for kind in MODELS if args.model == "both" else [args.model]:
        report = train(corpus, kind, args.steps, args.seed)
        columns = {"Treadle": report.column()}
        if args.peer:
            columns["PyTorch"] = train_peer(corpus, kind, args.steps, args.seed)
        print(f"\n{kind}\n{running.side_by_side(columns)}\n\n{report.text}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
