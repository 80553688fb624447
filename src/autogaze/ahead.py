"""Making the next item while the last one is being used."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Generic, Self, TypeVar

T = TypeVar("T")


class Ahead(Iterator[T], Generic[T]):
    """The items of an iterator in their order, made by a thread that is at most one item ahead of who takes them.

    Use it in a ``with`` block: the iterator is left alone once that ends. Items are made faster only where using them
    leaves a processor free, as work on an accelerator does.
    """

    def __init__(self, items: Iterator[T], *, name: str) -> None:
        """Begin with the first item. ``name`` is the thread's."""
        self._items = items
        self._ready: queue.Queue[tuple[T] | BaseException | None] = queue.Queue(maxsize=1)
        self._stop = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._make, name=name, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __next__(self) -> T:
        """The next item, or the iterator's end or error, as if it had been asked here."""
        if self._ended:
            raise StopIteration
        made = self._ready.get()
        if isinstance(made, tuple):
            return made[0]
        self._ended = True
        if made is None:
            raise StopIteration
        raise made

    def close(self) -> None:
        """Make no more items; wait for the one that is being made."""
        self._stop.set()
        self._ended = True
        while self._thread.is_alive():
            try:
                self._ready.get_nowait()  # the thread may be waiting to hand over
            except queue.Empty:
                self._thread.join(0.01)

    def _make(self) -> None:
        try:
            for item in self._items:
                self._ready.put((item,))
                if self._stop.is_set():
                    return
        except BaseException as error:
            self._ready.put(error)  # raised where the items are taken
        else:
            self._ready.put(None)
