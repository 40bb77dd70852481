"""A cache of the least recently used kind, shared by threads."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class LruCache(Generic[Key, Value]):
    """Keeps the `size` values that were used last; a copy in a worker process starts empty.

    A value is made once and outside the lock: a thread that wants it waits for it, one that wants another does not.
    `functools.lru_cache` lets two threads make the same value at once, which here would read a row group twice.
    """

    def __init__(self, size: int) -> None:
        self._size, self._lock = size, threading.Lock()
        self._values: OrderedDict[Key, Future[Value]] = OrderedDict()

    def get(self, key: Key, make: Callable[[Key], Value]) -> Value:
        """The value of `key`, made by `make` where it is not kept; its error is raised to all who wait for it."""
        with self._lock:
            future = self._values.get(key)
            if wanted := future is None:
                future = self._values[key] = Future()
                if len(self._values) > self._size:
                    self._values.popitem(last=False)
            self._values.move_to_end(key)
        if wanted:
            try:
                future.set_result(make(key))
            except BaseException as error:
                self.drop(key)
                future.set_exception(error)
        return future.result()

    def drop(self, key: Key) -> None:
        """Forget `key`, if it is kept."""
        with self._lock:
            self._values.pop(key, None)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._size,)
