"""Modules that Treadle writes for itself (its thread pool, the entry of a call), from the disk
cache where they are there: found by their text, which for these is quickly made."""

from __future__ import annotations

from treadle.codegen.target import Target
from treadle.ir.errors import CompileError
from treadle.runtime import cache
from treadle.runtime.native import NativeCode, compile_object, load, load_object


def load_kept(ir: str, target: Target) -> NativeCode:
    """As `native.load`, with the object code kept on disk. `ir` must hold no address of this
    process, or it is kept for nobody. Raises CompileError."""
    if not cache.is_on():
        return load(ir, target)
    from treadle.runtime.cache_key import text_key

    key = text_key(ir, target)
    found = cache.fetch(key)
    if found is not None:
        try:
            return load_object(found[0], target)
        except CompileError:  # whole, but LLVM does not take it: compiled anew and replaced
            pass
    code, parsing, generating = compile_object(ir, target)
    cache.keep(key, code, None)
    return load_object(code, target, parsing, generating)
