"""Items prepared ahead of their use, by a thread of its own."""

import contextvars
import threading
from collections import deque
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Generic, Self, TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


class Prefetcher(Generic[Item, Made]):
    """Calls a function for every item, in order, in a thread of its own, before the results are asked for.

    >>> with Prefetcher(paths, read, weight=len, limit=1 << 25) as pictures:  # doctest: +SKIP
    ...     while (first := pictures.peek()) is not None:
    ...         item, made = pictures.pop()

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

    def peek(self) -> tuple[Item, Made | Exception] | None:
        """The next item and what was made of it, waiting for it; None after the last.

        Raises:
            Exception: that the items themselves, or a weight, ended in.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ended)
            if not self._waiting and self._failure:
                raise self._failure
            return self._waiting[0] if self._waiting else None

    def pop(self) -> tuple[Item, Made | Exception]:
        """Takes what `peek` shows.

        Raises:
            IndexError: there is nothing more.
        """
        if self.peek() is None:
            raise IndexError("nothing more")
        with self._changed:
            item, made = self._waiting.popleft()
            self._held -= self._of(made)
            self._changed.notify_all()
            return item, made

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
