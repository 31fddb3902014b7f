"""Records behave as the dataclasses that they stand for."""
from __future__ import annotations

import copy
import dataclasses
import pickle
from functools import cached_property

import pytest

from archdsl.records import field, fields, record, replace


@record(frozen=True)
class Point:
    x: int
    y: int = 2
    note: str = field(default="", compare=False)


@record(frozen=True)
class Point3(Point):
    z: int = 0


@record()
class Bag:
    items: list[int] = field(default_factory=list)


@record(eq=False, slots=False)
class Named:
    name: str

    @cached_property
    def length(self) -> int:
        return len(self.name)


@record()
class Empty:
    pass


def test_defaults_and_keywords():
    assert (Point(1).x, Point(1).y, Point(1, note="n").note) == (1, 2, "n")
    assert (Point3(1).z, Point3(1, 2, "", 4).z) == (0, 4)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'x'"):
        Point()  # pyright: ignore[reportCallIssue]  (the fault that is tested)
    with pytest.raises(TypeError, match="unexpected keyword argument 'w'"):
        Point(1, w=2)  # pyright: ignore[reportCallIssue]  (the fault that is tested)


@record()
class Pair:
    left: int
    right: str = "r"


@record()
class Other:
    first: int = 1
    right: int = 2


def test_records_of_as_many_fields_have_their_own_names_and_defaults():
    assert (Pair(0).left, Pair(0).right, Other().first, Other().right, Other(right=7).right) == (0, "r", 1, 2, 7)
    assert Pair.__init__.__qualname__ == "Pair.__init__"
    with pytest.raises(TypeError, match=r"Pair.__init__\(\) got an unexpected keyword argument 'first'"):
        Pair(first=1)  # pyright: ignore[reportCallIssue]  (the fault that is tested)


def test_factories_are_called_for_each_object():
    a, b = Bag(), Bag()
    a.items.append(1)
    assert b.items == []
    assert Bag([3]).items == [3]


def test_equality_and_hash():
    assert Point(1) == Point(1, 2, "another note")
    assert hash(Point(1)) == hash(Point(1, 2, "another note"))
    assert Point(1) != Point(2)
    assert Point(1) != (1, 2)
    assert Point3(1) != Point(1)
    assert Named("a") != Named("a")
    assert len({Named("a"), Named("a")}) == 2
    assert Empty() == Empty()
    with pytest.raises(TypeError, match="unhashable"):
        hash(Bag())


def test_text():
    assert repr(Point(1)) == "Point(x=1, y=2, note='')"


def test_slots():
    with pytest.raises(AttributeError):
        Point(1).other = 1  # type: ignore[attr-defined]
    assert not hasattr(Point3(1), "__dict__")
    assert Named("abc").length == 3


def test_replace():
    p = Point3(1, 2, "n", 3)
    assert replace(p, y=5) == Point3(1, 5, "n", 3)
    assert replace(p, y=5).note == "n"
    with pytest.raises(TypeError):
        replace(p, w=1)


def test_fields_are_those_of_the_bases_first():
    assert [f.name for f in fields(Point3)] == ["x", "y", "note", "z"]
    assert [f.type for f in fields(Point(1))] == ["int", "int", "str"]


def test_copies_and_pickles():
    for p in (Point3(1, 2, "n", 3), Bag([1]), Empty()):
        assert copy.copy(p) == copy.deepcopy(p) == pickle.loads(pickle.dumps(p)) == p
    assert pickle.loads(pickle.dumps(Point(1, note="kept"))).note == "kept"


def test_as_dataclasses():
    assert dataclasses.is_dataclass(Point)
    assert [f.name for f in dataclasses.fields(Point3)] == ["x", "y", "note", "z"]
    assert dataclasses.replace(Point(1), x=3) == Point(3)
    assert dataclasses.asdict(Bag([1])) == {"items": [1]}


def test_patterns():
    match Point(1, 7):
        case Point(1, y):
            assert y == 7
        case _:
            raise AssertionError
