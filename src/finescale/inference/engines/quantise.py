"""Networks in 8-bit integers, by NNCF: where that is faster and costs little, and nowhere else.

Scales are found once per network on one photograph, so they are the same on every machine and for every user's picture.
"""

import contextlib
import io
import logging
import os
from collections.abc import Iterator
from typing import Any

from finescale.errors import UsageError, install
from finescale.inference.engines.unreported import unreported
from finescale.inference.photograph import samples

CHANNELS = 16  # a convolution with fewer of them gains nothing


def quantise(model: Any, multiple: int = 1) -> Any:
    """A copy of an OpenVINO model of a network whose wide spatial convolutions compute with 8-bit integers.

    The first and the last convolution, attention and everything else stay as they are: they are a small part of the
    time, and quantised they cost most of the loss (with the light network x4 on Set14: 0.025 dB for all, 0.006 dB so).

    Args:
        model: what to quantise.
        multiple: sides of pictures that the model takes are multiples of this.

    Raises:
        UsageError: NNCF is not installed.
    """
    nncf = _nncf()
    parts = samples(multiple)
    inside = set(convolutions(model))
    kept = [
        node.get_friendly_name()
        for node in model.get_ordered_ops()
        if node.get_friendly_name() not in inside and node.get_type_name() not in ("Constant", "Parameter", "Result")
    ]
    with _quiet():
        quantised = nncf.quantize(
            model,
            nncf.Dataset(parts),
            subset_size=len(parts),
            preset=nncf.QuantizationPreset.PERFORMANCE,
            ignored_scope=nncf.IgnoredScope(names=kept, validate=False),
        )
    _let_fuse(quantised)
    return quantised


def _let_fuse(model: Any) -> None:
    """Gives every rounding to 8 bits whose input is needed unrounded too, the residual's, an operation to be part of.

    OpenVINO's CPU plugin fuses a rounding into the operation before it if nothing else needs that, and computes it by
    itself otherwise: in float32 and in another layout, three passes over memory, a quarter of the light network's time.
    The larger of a value and the least value that survives the rounding is such an operation and changes nothing.
    """
    from openvino import opset13

    for node in model.get_ordered_ops():
        if node.get_type_name() == "FakeQuantize" and len(node.input_value(0).get_target_inputs()) > 1:
            least = node.input_value(1).get_node()
            if least.get_type_name() == "Constant":
                node.input(0).replace_source_output(opset13.maximum(node.input_value(0), least.output(0)).output(0))
    model.validate_nodes_and_infer_types()


def convolutions(model: Any) -> list[str]:
    """The names of the convolutions to quantise, in the order of computing."""
    found, spatial = [], []
    for node in model.get_ordered_ops():
        if node.get_type_name() == "Convolution":
            shape = node.input_value(1).get_partial_shape()
            if shape.is_static and max(shape.to_shape()[2:]) > 1:
                spatial.append(node.get_friendly_name())
                if min(shape.to_shape()[:2]) >= CHANNELS:
                    found.append(node.get_friendly_name())
    return [name for name in found if name not in (spatial[0], spatial[-1])]


def _nncf() -> Any:
    """NNCF, which tells its makers of every use unless it believes to run in their tests."""
    before = os.environ.get("NNCF_CI")
    os.environ["NNCF_CI"] = "1"
    try:
        with unreported():
            import nncf
    except ImportError as error:
        raise UsageError(f"int8 needs OpenVINO and NNCF: {install('int8')}") from error
    finally:
        if before is None:
            del os.environ["NNCF_CI"]
        else:
            os.environ["NNCF_CI"] = before
    logging.getLogger("nncf").setLevel(logging.ERROR)
    return nncf


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """NNCF draws progress bars on standard output."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
