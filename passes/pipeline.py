"""The passes in order. Each line says why it stands where it stands."""

from __future__ import annotations

from treadle.passes import (
    attention,
    autodiff,
    canonicalize,
    convolution,
    cse,
    dce,
    expand,
    fold,
    fuse,
    lookups,
    loops,
    pools,
    prints,
    stabilize,
    updates,
)
from treadle.passes.manager import Pass

PIPELINE: tuple[Pass, ...] = (
    cse.EARLY,  # a hand-written softmax says exp(x) twice; its pattern needs one value
    updates.PASS,  # behind early_cse, which merges what the updates share; all others see less
    stabilize.PASS,  # before autodiff: afterwards the backward pass is not finite any more
    attention.RECOGNIZE,  # behind stabilize, which makes the softmax; before its gradient is made
    loops.EARLY,  # before autodiff: the derivative of what leaves a loop is outside of it as well
    lookups.PASS,  # behind early_loops, which brings the products out; before autodiff, as these
    pools.EARLY,  # before autodiff: the backward pass needs a mask of the pooled size alone
    autodiff.PASS,  # on whole composites: their own derivatives are shorter and more exact
    attention.CLAIM,  # before expand, which would write the matrix of scores out
    pools.PASS,  # before expand, which writes a pool's gradient out
    convolution.PASS,  # before expand too, which makes a product of each tap
    expand.PASS,  # what no rule has claimed becomes primitive ops
    canonicalize.PASS,  # one form for one thing, so that fold, cse and fuse see less
    fold.PASS,  # after canonicalize has brought constants together
    cse.PASS,  # forward and backward compute the same things
    dce.PASS,  # last before fusion: what nobody reads must not keep a loop alive
    loops.PASS,  # behind cse, which would find what a remat computes again; before loops are fused
    prints.PASS,  # after dce, which would miss the results; before memory is planned for them
    fuse.PASS,  # chains and reductions become single loops; from here on memory is planned
)

_registered: list[tuple[Pass, str]] = []


def pipeline() -> tuple[Pass, ...]:
    """The passes of a compilation: the list above with those that users registered."""
    passes = list(PIPELINE)
    for pass_, after in _registered:
        at = next(i for i, p in enumerate(passes) if p.name == after)
        passes.insert(at + 1, pass_)
    return tuple(passes)


def find_pass(name: str) -> Pass:
    """The pass called `name`; raises KeyError naming the nearest names."""
    passes = {p.name: p for p in pipeline()}
    if name not in passes:
        from difflib import get_close_matches

        near = get_close_matches(name, passes, n=2)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(passes)}"
        raise KeyError(f"there is no pass {name!r}; {hint}")
    return passes[name]


def register_pass(pass_: Pass, after: str) -> Pass:
    """Run `pass_` in every compilation from now on, right behind the pass called `after`.

    A pass of that name that was registered before is replaced. Raises KeyError where `after` is
    not in the pipeline, ValueError where the name is one of Treadle's own.
    """
    if any(p.name == pass_.name for p in PIPELINE):
        raise ValueError(f"pass {pass_.name!r} is one of Treadle's own; give yours another name")
    unregister_pass(pass_.name)
    find_pass(after)
    _registered.append((pass_, after))
    return pass_


def unregister_pass(name: str) -> None:
    """Take a registered pass out again, with those registered behind it."""
    dropped = {name}
    for pass_, after in list(_registered):
        if pass_.name in dropped or after in dropped:
            dropped.add(pass_.name)
            _registered.remove((pass_, after))
