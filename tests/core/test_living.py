"""Weak references that are read while other threads add to them."""

from __future__ import annotations

import gc
import sys
from types import FrameType
from typing import Any

from recorder.core.living import Living


class Thing:
    """An object that can be referenced weakly."""


def test_an_object_that_is_added_during_the_reading_does_not_end_it() -> None:
    """An object is added before each line that the reading runs, as another thread could do."""
    living: Living[Thing] = Living()
    first = [Thing(), Thing()]
    for thing in first:
        living.add(thing)
    later: list[Thing] = []

    def add_another(_frame: FrameType, event: str, _argument: Any) -> Any:
        if event == "line" and len(later) < 100:
            later.append(Thing())
            living.add(later[-1])
        return add_another

    before = sys.gettrace()
    sys.settrace(add_another)
    try:
        found = living.now()
    finally:
        sys.settrace(before)
    assert later
    assert found[:2] == first


def test_collected_objects_are_gone() -> None:
    """They are not kept alive."""
    living: Living[Thing] = Living()
    kept, dropped = Thing(), Thing()
    living.add(kept)
    living.add(dropped)
    del dropped
    gc.collect()
    assert living.now() == [kept]
    living.clear()
    assert living.now() == []
