"""OpenVINO and ONNX Runtime without the reports of their use."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_TELEMETRY = "openvino_telemetry"  # the package by which OpenVINO and NNCF report
_SWITCH = "ORT_DISABLE_TELEMETRY"  # of ONNX Runtime, which looks at it when it is imported


@contextmanager
def unreported() -> Iterator[None]:
    """OpenVINO, NNCF and ONNX Runtime do not report their use to their makers if they are imported here first.

    By default they do, and keep a number for this machine in the home; where that cannot be written, OpenVINO's way of
    it also sets up the whole program's logging. A program that has imported them itself keeps them as they are.
    """
    before, known = os.environ.get(_SWITCH), _TELEMETRY in sys.modules
    os.environ[_SWITCH] = "1"
    if not known:
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # Python's way of saying that there is none
    try:
        yield
    finally:
        if not known:
            sys.modules.pop(_TELEMETRY, None)
        if before is None:
            os.environ.pop(_SWITCH, None)
        else:
            os.environ[_SWITCH] = before
