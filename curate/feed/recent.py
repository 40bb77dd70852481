"""The values that were used last, made once and shared by threads."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Recent(Generic[Key, Value]):
    """The most recently used values, shared by threads; a worker process starts with none.

    A value is made once and outside the lock: who wants it waits for it, who wants another does not.
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
