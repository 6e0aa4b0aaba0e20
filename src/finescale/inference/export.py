"""Networks as files for other programs, checked on the spot."""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from finescale import __version__
from finescale.atomic import check_free, check_target, new_file, place, publish, writing
from finescale.errors import FinescaleError, UsageError, is_out_of_memory, nearest
from finescale.inference.engines import onnx, openvino
from finescale.inference.prepare import WINDOW, exactly, for_inference
from finescale.inference.tiling import Array
from finescale.networks.base import check_network
from finescale.weights.header import told

if TYPE_CHECKING:
    from finescale.networks.base import Network

_SUFFIXES = {"onnx": ".onnx", "openvino": ".xml"}
FORMATS = tuple(_SUFFIXES)
SIZES = ((1, 64, 48), (2, 53, 67), (1, 97, 130))  # batch, height, width
TOLERANCE = 1e-3  # a quarter of a grey level


def export(
    network: "Network",
    path: str | os.PathLike[str],
    *,
    format: str = "onnx",
    window: int | None = WINDOW,
    overwrite: bool = False,
) -> dict[tuple[int, int, int], float]:
    """Writes a network with free batch, height and width, and compares it with PyTorch.

    The file takes "picture" (B, 3, H, W) float32 in [0, 1] and gives "enlarged" (B, 3, sH, sW).

    Args:
        network: what to write.
        path: the file; for OpenVINO the .xml, beside which a .bin is written.
        format: one of `FORMATS`.
        window: of the local statistics in input pixels; None: global, as in training.
        overwrite: replace existing files.

    Returns:
        The largest difference to PyTorch for every (batch, height, width) of `SIZES`.

    Raises:
        UsageError: no network; unknown format; a name with another ending; the package it needs is not installed.
        FinescaleError: the file exists or cannot be written; what it computes is not what PyTorch computes.
    """
    if format not in FORMATS:
        raise UsageError(f"the format is one of {', '.join(FORMATS)}, not '{format}'{nearest(format, FORMATS)}")
    check_network(network)
    path = Path(path)
    if path.suffix.lower() != _SUFFIXES[format]:
        raise UsageError(f"{path}: the name of a file for {format} ends in {_SUFFIXES[format]}")
    check_target(path, overwrite)
    prepared = for_inference(network, window).cpu()
    notes = {"made_by": f"finescale {__version__}", "scale": str(network.scale), "window": str(window or "global")}
    if window:
        notes["margin"] = str(prepared.context)  # of tiles, in pixels of the small picture
    if network.config is not None:
        notes |= {"network": network.config.name, "arguments": json.dumps(dict(network.config.arguments))}
    for key, value in told(network.notes).items():  # under what licence the weights are
        notes[key] = value if isinstance(value, str) else json.dumps(value)
    if format == "onnx":
        return _export_onnx(prepared, path, notes, overwrite)
    return _export_openvino(prepared, path, notes, overwrite)


def compare(network: "Network", run: Callable[[Array], Array]) -> dict[tuple[int, int, int], float]:
    """The largest difference of `run` to the network for noise of each of `SIZES`.

    Raises:
        FinescaleError: one is above `TOLERANCE`.
    """
    import torch

    generator, found = torch.Generator("cpu").manual_seed(0), {}
    for batch, height, width in SIZES:
        x = torch.rand(batch, 3, height, width, generator=generator, dtype=torch.float32, device="cpu")
        with exactly(x.device):
            wanted = network(x).numpy()
        difference = float(np.abs(run(x.numpy()) - wanted).max())
        if not difference <= TOLERANCE:  # nor where it is not a number
            raise FinescaleError(f"the exported network differs from PyTorch's by up to {difference:.2g}")
        found[batch, height, width] = difference
    return found


def _export_onnx(
    network: "Network", path: Path, notes: dict[str, str], overwrite: bool
) -> dict[tuple[int, int, int], float]:
    data = onnx.translate(network)
    import onnx as package

    model = package.load_from_string(data)
    package.helper.set_model_props(model, notes)
    data = model.SerializeToString()
    found = compare(network, onnx.runner(data))
    with new_file(path, overwrite=overwrite) as file:
        file.write(data)
    return found


def _export_openvino(
    network: "Network", path: Path, notes: dict[str, str], overwrite: bool
) -> dict[tuple[int, int, int], float]:
    check_free(path.with_suffix(".bin"), overwrite)
    core, _ = openvino.load_core()
    try:
        model = openvino.translate(network)
        model.inputs[0].set_names({"picture"})
        model.outputs[0].set_names({"enlarged"})
        for key, value in notes.items():
            model.set_rt_info(value, ["finescale", key])
    except Exception as error:  # whatever a translator meets in somebody's network
        if is_out_of_memory(error):
            raise
        raise openvino.not_taken(error) from error
    import openvino as package

    beside = place(path, overwrite).parent
    with writing(path), tempfile.TemporaryDirectory(prefix=".finescale-", dir=beside) as folder:
        part = Path(folder) / "network.xml"  # OpenVINO wants small letters
        weights = part.with_suffix(".bin")
        try:
            package.save_model(model, os.fspath(part), compress_to_fp16=False)
            written = core.read_model(part.read_bytes(), weights.read_bytes())  # what is compared is what is on disk
            compiled = core.compile_model(written, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            raise openvino.not_taken(error) from error
        found = compare(network, lambda x: compiled([x])[0])
        publish(weights, path.with_suffix(".bin"), overwrite)
        publish(part, path, overwrite)
    return found
