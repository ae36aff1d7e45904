"""Treadle's dataclass decorator is the standard library's in all that can be seen of it."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, field, fields, replace
from functools import cached_property
from typing import Any, ClassVar

import pytest

from treadle.ir import dataclass as ours

Decorator = Callable[..., Any]
BOTH = pytest.mark.parametrize("dataclass", [ours.dataclass, dataclasses.dataclass])


@ours.dataclass(frozen=True, slots=True)
class Point:
    """At the top level, where pickle finds it."""

    x: int
    y: tuple[int, ...] = (2, 3)
    label: str = field(default="origin", repr=False, compare=False)


def _plain(dataclass: Decorator) -> Any:
    @dataclass
    class Plain:
        a: int
        b: list[int] = field(default_factory=list)
        c: int = field(default=3, repr=False)
        d: int = field(init=False)
        kind: ClassVar[str] = "plain"

        def __post_init__(self) -> None:
            self.d = self.a + self.c

    return Plain


@BOTH
def test_fields_defaults_and_post_init(dataclass: Decorator) -> None:
    cls = _plain(dataclass)
    x, y = cls(1), cls(a=1, c=4)
    assert (x.a, x.b, x.c, x.d, x.kind) == (1, [], 3, 4, "plain")
    assert y.d == 5 and x.b is not y.b
    assert repr(x).endswith("Plain(a=1, b=[], d=4)")
    assert x == cls(1) and x != y and x != (1, [], 3, 4)
    assert [(f.name, f.init, f.repr) for f in fields(cls)] == [
        ("a", True, True), ("b", True, True), ("c", True, False), ("d", False, True),
    ]  # fmt: skip
    assert dataclasses.is_dataclass(x) and dataclasses.asdict(x) == {
        "a": 1,
        "b": [],
        "c": 3,
        "d": 4,
    }
    assert replace(x, a=7).d == 10
    assert cls.__match_args__ == ("a", "b", "c")
    with pytest.raises(TypeError, match="unhashable"):
        hash(x)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'a'"):
        cls()
    with pytest.raises(TypeError, match="unexpected keyword argument 'kind'"):
        cls(1, kind="other")


@BOTH
@pytest.mark.parametrize("slots", [True, False])
def test_a_frozen_one_is_hashed_by_its_fields_and_cannot_be_changed(
    dataclass: Decorator, slots: bool
) -> None:
    @dataclass(frozen=True, slots=slots)
    class Frozen:
        a: int
        b: str = field(default="b", compare=False)

        def twice(self) -> int:
            return 2 * self.a

    x = Frozen(1)
    assert x == Frozen(1, "other") and hash(x) == hash(Frozen(1, "other")) and x != Frozen(2)
    assert len({x, Frozen(1), Frozen(2)}) == 2 and x.twice() == 2
    with pytest.raises(FrozenInstanceError, match="cannot assign to field 'a'"):
        x.a = 2
    with pytest.raises(FrozenInstanceError, match="cannot delete field 'a'"):
        del x.a
    assert hasattr(x, "__dict__") is not slots
    assert copy.copy(x) == x and copy.deepcopy(x) == x and replace(x, a=5).a == 5


@BOTH
def test_no_fields_are_all_equal_and_one_field_is_compared_as_a_tuple_is(
    dataclass: Decorator,
) -> None:
    @dataclass(frozen=True, slots=True)
    class Nothing:
        pass

    @dataclass(frozen=True, slots=True)
    class One:
        value: float

    nan = float("nan")
    assert Nothing() == Nothing() and hash(Nothing()) == hash(Nothing())
    assert One(nan) == One(nan) and One(nan) != One(float("nan")) and One(1.0) == One(1)
    assert repr(Nothing()).endswith("Nothing()")


@BOTH
def test_a_subclass_has_the_fields_of_its_bases_first(dataclass: Decorator) -> None:
    @dataclass(frozen=True, slots=True)
    class Base:
        op: ClassVar[str] = "base"
        a: int

        def name(self) -> str:
            return self.op

    @dataclass(frozen=True, slots=True)
    class Derived(Base):
        op: ClassVar[str] = "derived"
        b: int = 2

    class Undecorated(Base):
        pass

    x = Derived(1)
    assert (x.a, x.b, x.name()) == (1, 2, "derived") and Base(1).name() == "base"
    assert x != Base(1) and Derived.__slots__ == ("b",)
    assert Undecorated(3).a == 3 and Undecorated(3) != Base(3)


@BOTH
def test_keywords_only_identity_and_methods_of_its_own(dataclass: Decorator) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Named:
        a: int = 1
        b: int

        @cached_property
        def total(self) -> int:
            return self.a + self.b

        def __hash__(self) -> int:
            return 42

        def __repr__(self) -> str:
            return "mine"

    @dataclass(frozen=True, eq=False)
    class Same:
        a: int

    assert Named(b=2).total == 3 and hash(Named(b=2)) == 42 and repr(Named(b=2)) == "mine"
    assert Named(b=2) == Named(a=1, b=2) and Named.__match_args__ == ()
    with pytest.raises(TypeError, match="positional argument"):
        Named(2)
    assert Same(1) != Same(1) and len({Same(1), Same(1)}) == 2


@BOTH
def test_a_field_without_a_default_behind_one_with_is_refused(dataclass: Decorator) -> None:
    with pytest.raises(TypeError, match=r"'?b'?"):

        @dataclass
        class Wrong:
            a: int = 1
            b: int


def test_a_pickled_instance_is_the_same_again() -> None:
    x = Point(1, label="here")
    back = pickle.loads(pickle.dumps(x))
    assert back == x and back.label == "here" and repr(back) == "Point(x=1, y=(2, 3))"
    match back:
        case Point(a, b):
            assert (a, b) == (1, (2, 3))


def test_nothing_is_compiled_for_a_class_before_its_first_instance() -> None:
    @ours.dataclass(frozen=True, slots=True)
    class Unused:
        a: int

    before = Unused.__init__
    assert before.__code__.co_filename != "<string>"
    Unused(1)
    assert Unused.__init__.__code__.co_filename == "<string>"
    before(Unused(1), 2)  # whoever still holds the first one gets the same
