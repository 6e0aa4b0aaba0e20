"""Items prepared ahead of their use, by a thread of its own."""

import contextvars
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Generic, Self, TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


class Prefetcher(Generic[Item, Made]):
    """Calls a function for every item, in order, in a thread of its own, before the results are asked for.

    >>> with Prefetcher(paths, read, weight=len, limit=1 << 25) as pictures:  # doctest: +SKIP
    ...     for path, made in pictures:
    ...         show(made)

    Args:
        items: the arguments.
        make: the function; an exception takes the place of its result.
        weight: of a result, in bytes say.
        limit: no further call is begun while the results that wait weigh more.
    """

    def __init__(
        self, items: Iterable[Item], make: Callable[[Item], Made], *, weight: Callable[[Made], int], limit: int
    ) -> None:
        self._items, self._make, self._weight, self._limit = items, make, weight, limit
        self._waiting: deque[tuple[Item, Made | Exception]] = deque()
        self._held, self._ended, self._stopped = 0, False, False
        self._failure: Exception | None = None
        self._changed = threading.Condition()
        heard = contextvars.copy_context()  # who listens to warnings
        self._thread = threading.Thread(
            target=heard.run, args=(self._run,), name="finescale reading ahead", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join()

    def __iter__(self) -> Iterator[tuple[Item, Made | Exception]]:
        """Every item, once, with what was made of it.

        Raises:
            Exception: that the items themselves, or a weight, ended in.
        """
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ended)
                if not self._waiting:
                    break
                item, made = self._waiting.popleft()
                self._held -= self._of(made)
                self._changed.notify_all()
            yield item, made
        if self._failure:
            raise self._failure

    def _run(self) -> None:
        try:
            for item in self._items:
                with self._changed:
                    self._changed.wait_for(lambda: self._stopped or self._held <= self._limit)
                    if self._stopped:
                        return
                made: Made | Exception
                try:
                    made = self._make(item)
                except Exception as error:
                    made = error
                with self._changed:
                    self._waiting.append((item, made))
                    self._held += self._of(made)
                    self._changed.notify_all()
        except Exception as error:
            self._failure = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _of(self, made: Made | Exception) -> int:
        return 0 if isinstance(made, Exception) else self._weight(made)
