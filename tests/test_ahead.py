"""Items made ahead are the same items; nobody is left running."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from autogaze.ahead import Ahead


def running() -> int:
    return sum(thread.name == "making" for thread in threading.enumerate())


def wait_until(condition) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_the_items_in_their_order_and_then_the_end_for_ever():
    with Ahead(iter(range(50)), name="making") as ahead:
        assert list(ahead) == list(range(50))
        assert next(ahead, "end") == "end"
    assert not running()


def test_one_item_waits_and_one_is_being_made_and_no_more():
    made = []

    def items() -> Iterator[int]:
        for i in range(10):
            made.append(i)
            yield i

    with Ahead(items(), name="making") as ahead:
        wait_until(lambda: len(made) == 2)
        time.sleep(0.05)
        assert len(made) == 2
        assert next(ahead) == 0
        wait_until(lambda: len(made) == 3)
    assert len(made) <= 4 and not running()


def test_an_error_comes_after_what_was_made_before_it():
    def items() -> Iterator[int]:
        yield 1
        raise OSError("broken")

    with Ahead(items(), name="making") as ahead:
        assert next(ahead) == 1
        with pytest.raises(OSError, match="broken"):
            next(ahead)
        assert next(ahead, "end") == "end"
    assert not running()


def test_making_and_using_happen_at_once():
    """Each side waits for the other to be at work, which would never happen were they to take turns."""
    making, using = threading.Event(), threading.Event()

    def items() -> Iterator[int]:
        yield 0
        making.set()
        assert using.wait(10)
        yield 1

    with Ahead(items(), name="making") as ahead:
        assert next(ahead) == 0
        using.set()
        assert making.wait(10)
        assert next(ahead) == 1


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_leaving_early_ends_the_thread(taken):
    with pytest.raises(KeyError), Ahead(iter(range(1000)), name="making") as ahead:
        for _ in range(taken):
            next(ahead)
        raise KeyError
    assert not running()
    assert next(ahead, "end") == "end"
