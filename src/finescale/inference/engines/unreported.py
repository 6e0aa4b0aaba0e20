"""OpenVINO without the report of its use."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def unreported() -> Iterator[None]:
    """OpenVINO that is imported here does not tell its makers, and keeps no number for this machine in the home.

    It does both with every import, by the package `openvino_telemetry`, unless that cannot be imported. Where the home
    cannot be written, that package also sets up the whole program's logging. A program that has imported it keeps it.
    """
    name = "openvino_telemetry"
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # Python's way of saying that there is none
    try:
        yield
    finally:
        sys.modules.pop(name, None)
