"""libvips in forked processes, which have none of the threads that it keeps: it would wait for them for ever."""

import os
import threading
from typing import Any

import numpy as np
import pyvips

TYPES = {
    "uchar": "u1",
    "char": "i1",
    "ushort": "u2",
    "short": "i2",
    "uint": "u4",
    "int": "i4",
    "float": "f4",
    "double": "f8",
}

_MOST = 1000  # threads that a parent may have left
_started = False  # whether libvips has had work for threads
_left = False  # whether its threads are those of the parent


def samples(image: Any) -> Any:
    """The samples (H, W, bands) of an image of libvips; in a forked process in this thread, as far as the file lets."""
    shape = (image.height, image.width, image.bands)
    if ready():
        return image.numpy().reshape(shape)
    data = pyvips.Region.new(image).fetch(0, 0, image.width, image.height)
    return np.frombuffer(data, TYPES[image.format]).reshape(shape)


def ready() -> bool:
    """To be called before libvips works; whether it has its threads: not after a fork, if it had worked before that.

    Then it gets one, which stays for some seconds: enough to read, not to write. libvips leaves work to threads that it
    believes to be idle and starts one where there is more, so it is given pictures of one pixel until they are done.
    """
    global _started
    _started = True
    given: list[threading.Thread] = []
    while _left and (not given or any(thread.is_alive() for thread in given)) and len(given) < _MOST:
        given.append(threading.Thread(target=_work, daemon=True))
        given[-1].start()
        given[-1].join(0.01)
    return not _left


def _work() -> None:
    pyvips.Image.black(1, 1).write_to_memory()


def _in_child() -> None:
    global _left
    _left = _left or _started


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
