"""Programs for `stale_cases`: classes, properties, descriptors and dataclasses."""

import dataclasses
import functools
from typing import Any

from stale_cases import Box, Case, case, setter


@case
def a_class_attribute() -> Case:
    class Local(Box):
        k = 2

    return lambda x: x * Local.k, setter(Local, "k", 3)


@case
def a_class_attribute_of_a_base() -> Case:
    class Base:
        k = 2

    class Derived(Base):
        pass

    derived = Derived()
    return lambda x: x * derived.k, setter(Base, "k", 3)


@case
def a_class_attribute_that_hides_that_of_a_base() -> Case:
    class Base:
        k = 2

    class Derived(Base):
        pass

    derived = Derived()
    return lambda x: x * derived.k, setter(Derived, "k", 3)


@case
def a_mutable_class_attribute() -> Case:
    class Local:
        ks = [2]  # noqa: RUF012  that it is shared is the point

    local = Local()
    return lambda x: x * local.ks[0], lambda: Local.ks.__setitem__(0, 3)


@case
def an_attribute_of_a_metaclass() -> Case:
    class Meta(type):
        k = 2

    class Local(metaclass=Meta):
        pass

    return lambda x: x * Local.k, setter(Meta, "k", 3)


@case
def the_class_of_an_object() -> Case:
    class One:
        k = 2

    class Two:
        k = 3

    one = One()
    return lambda x: x * one.k, setter(one, "__class__", Two)


@case
def the_bases_of_a_class() -> Case:
    class One:
        k = 2

    class Two:
        k = 3

    class Derived(One):
        pass

    derived = Derived()
    return lambda x: x * derived.k, setter(Derived, "__bases__", (Two,))


@case
def a_property_that_reads_an_attribute() -> Case:
    class Local:
        def __init__(self) -> None:
            self.v = 1

        @property
        def k(self) -> int:
            return self.v * 2

    local = Local()
    return lambda x: x * local.k, setter(local, "v", 2)


@case
def a_property_replaced() -> Case:
    class Local:
        @property
        def k(self) -> int:
            return 2

    local = Local()
    return lambda x: x * local.k, setter(Local, "k", property(lambda self: 3))


@case
def a_cached_property() -> Case:
    class Local:
        v = 2

        @functools.cached_property
        def k(self) -> int:
            return self.v

    local = Local()
    assert local.k == 2

    def change() -> None:
        local.v = 3
        del local.k

    return lambda x: x * local.k, change


@case
def a_descriptor() -> Case:
    class Descriptor:
        def __init__(self) -> None:
            self.value = 2

        def __get__(self, instance: Any, owner: Any = None) -> Any:
            return self.value

    descriptor = Descriptor()

    class Local:
        k = descriptor

    local = Local()
    return lambda x: x * local.k, setter(descriptor, "value", 3)


@case
def attributes_made_up() -> Case:
    class Local:
        def __getattr__(self, name: str) -> Any:
            return self.__dict__["store"][name]

    local = Local()
    local.__dict__["store"] = {"k": 2}
    return lambda x: x * local.k, lambda: local.store.__setitem__("k", 3)


@case
def a_static_method_replaced() -> Case:
    class Local:
        @staticmethod
        def scale(x: Any) -> Any:
            return x * 2

    return lambda x: Local.scale(x), setter(Local, "scale", staticmethod(lambda x: x * 3))


@case
def a_class_method_that_reads_its_class() -> Case:
    class Local:
        k = 2

        @classmethod
        def scale(cls, x: Any) -> Any:
            return x * cls.k

    return lambda x: Local.scale(x), setter(Local, "k", 3)


@case
def an_operator_replaced() -> Case:
    class Local:
        def __rmul__(self, x: Any) -> Any:
            return NotImplemented

        def __len__(self) -> int:
            return 2

    local = Local()
    return lambda x: x * len(local), setter(Local, "__len__", lambda self: 3)


@case
def a_representation() -> Case:
    class Local:
        def __init__(self) -> None:
            self.hidden = 2

        def __repr__(self) -> str:
            return "x" * self.hidden

    local = Local()
    return lambda x: x * len(repr(local)), setter(local, "hidden", 3)


@case
def a_field_of_a_dataclass() -> Case:
    @dataclasses.dataclass
    class Config:
        k: int = 2

    config = Config()
    return lambda x: x * config.k, setter(config, "k", 3)


@case
def a_field_of_a_dataclass_by_replace() -> Case:
    @dataclasses.dataclass(frozen=True)
    class Config:
        k: int = 2
        j: int = 0

    box = Box(config=Config())

    def f(x: Any) -> Any:
        return x * dataclasses.replace(box.config, j=1).k

    return f, lambda: setattr(box, "config", Config(k=3))


@case
def a_field_matched_by_position() -> Case:
    @dataclasses.dataclass
    class Config:
        k: int = 2

    config = Config()

    def f(x: Any) -> Any:
        match config:
            case Config(2):
                return x * 2
        return x * 3

    return f, setter(config, "k", 3)
