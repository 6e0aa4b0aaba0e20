"""How fast every engine and precision computes networks on this machine, and how near that is to what it can do."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from finescale.errors import FinescaleError, UsageError, install, nearest
from finescale.evaluation import speed
from finescale.evaluation.contenders import REFERENCES
from finescale.evaluation.plots import INK, OURS, PLOTS, THEIRS, require, save
from finescale.evaluation.tables import console
from finescale.inference.engines.pytorch import pick_device
from finescale.networks.complexity import count
from finescale.training.measure import measured_peak, slow_bfloat16
from finescale.weights import store

# Every engine with the precisions that it computes in, and the packages that this needs.
WAYS: dict[tuple[str, str], tuple[str, ...]] = {
    ("torch", "float32"): (),
    ("torch", "bfloat16"): (),
    ("onnx", "float32"): ("onnx", "onnxruntime"),
    ("mnn", "float32"): ("onnx", "MNN"),
    ("openvino", "float32"): ("openvino",),
    ("openvino", "bfloat16"): ("openvino",),
    ("openvino", "int8"): ("openvino", "nncf"),
}
_EXTRAS = {"onnx": "onnx", "onnxruntime": "onnx", "openvino": "fast", "MNN": "fast", "nncf": "int8"}


@dataclass(frozen=True)
class Line:
    """One network computed in one way.

    Attributes:
        network: as it was asked for.
        scale: of the network.
        engine, precision: the way.
        seconds: per megapixel of the result (median); None where it could not be measured.
        share: of the machine's measured peak, from 0 to 1: of float32 for float32, else the higher one.
        memory: peak MiB of the process (on a GPU: of what torch allocated); None where it cannot be told.
        missing: why there are no figures; None where there are.
    """

    network: str
    scale: int
    engine: str
    precision: str
    seconds: float | None = None
    share: float | None = None
    memory: float | None = None
    missing: str | None = None


@dataclass(frozen=True)
class Throughput:
    """Everything that was measured.

    Attributes:
        machine: see `finescale.evaluation.speed.machine`.
        peaks: FLOP/s of large matrix products by precision, measured here.
        size: (width, height) of the picture that was enlarged.
        repeats: of which the median counts.
        lines: one for every network and way.
    """

    machine: dict[str, Any]
    peaks: dict[str, float]
    size: tuple[int, int]
    repeats: int
    lines: tuple[Line, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def measure(
    networks: Sequence[str],
    scale: int,
    *,
    engines: Sequence[str] = (),
    precisions: Sequence[str] = (),
    size: tuple[int, int] = speed.SIZE,
    repeats: int = 7,
    device: str = "auto",
    progress: Callable[[str], None] = lambda what: None,
) -> Throughput:
    """Measures networks with every engine and precision, or with some of them.

    Args:
        networks: names or weight files.
        scale: of the networks.
        engines, precisions: only these; empty: all, but for torch's bfloat16 where that is slow.
        size: (width, height) of the picture that is enlarged.
        repeats: of which the median counts.
        device: a GPU leaves PyTorch only.
        progress: told what is measured next.

    Raises:
        UsageError: unknown names; no such device; nothing is left to measure.
        FinescaleError: a network has no weights.
    """
    for name in networks:
        if name in REFERENCES:
            raise UsageError(f"'{name}' is no network, so no engine computes it")
    ways = chosen_ways(engines, precisions)
    where = pick_device(device)
    if where.type != "cpu":
        ways = [way for way in ways if way[0] == "torch"]
        if not ways:
            raise UsageError(f"on '{where}' there is the engine torch only")
    costs = {name: count(store.load(name, scale)) for name in networks}  # also says what is missing, before any work
    progress("matrix products")
    peaks = {name: measured_peak(where, name) for name in ("float32", "bfloat16")}
    lines = []
    for name in networks:
        for engine, precision in ways:
            progress(f"{name}, {engine} in {precision}")
            line = Line(name, scale, engine, precision)
            slow = slow_bfloat16(where, precision) if engine == "torch" and not precisions else None
            if slow:  # minutes to hours
                lines.append(replace(line, missing=f"{slow}; --precisions {precision} measures it all the same"))
                continue
            lines.append(_measured(line, costs[name].macs / 48**2, peaks, where, size, repeats))
    return Throughput(speed.machine(where), peaks, size, repeats, tuple(lines))


def chosen_ways(engines: Sequence[str], precisions: Sequence[str]) -> list[tuple[str, str]]:
    """The ways of some engines and precisions, in the order of `WAYS`.

    Raises:
        UsageError: an unknown name, or no engine of these computes in one of these precisions.
    """
    for given, known in ((engines, {way[0] for way in WAYS}), (precisions, {way[1] for way in WAYS})):
        for name in given:
            if name not in known:
                raise UsageError(f"'{name}' is not one of {', '.join(sorted(known))}{nearest(name, sorted(known))}")
    ways = [w for w in WAYS if (not engines or w[0] in engines) and (not precisions or w[1] in precisions)]
    if not ways:
        raise UsageError(f"{' and '.join(engines)}: no such engine computes in {' or '.join(precisions)}")
    return ways


def _measured(
    line: Line,
    macs: float,
    peaks: dict[str, float],
    device: torch.device,
    size: tuple[int, int],
    repeats: int,
) -> Line:
    """A line with its figures, or with what is missing; `macs` are per input pixel."""
    lacking = [package for package in WAYS[line.engine, line.precision] if find_spec(package) is None]
    if lacking:
        return replace(line, missing=f"needs {lacking[0]}: {install(_EXTRAS[lacking[0]])}")
    settings = {"engine": line.engine, "precision": line.precision, "device": str(device), "tile": max(size)}
    try:
        found = speed.measure_apart(line.network, line.scale, settings, size, repeats=repeats)
    except UsageError:
        raise
    except FinescaleError as error:
        return replace(line, missing=str(error))
    pixels = size[0] * size[1]
    peak = peaks["float32"] if line.precision == "float32" else max(peaks.values())
    return replace(
        line,
        seconds=found.seconds / (pixels * line.scale**2 / 1e6),
        share=2 * macs * pixels / found.seconds / peak,
        memory=found.memory,
    )


HEADINGS = ("network", "engine", "precision", "s per megapixel", "of peak", "MiB")


def cells(line: Line) -> list[str]:
    """A line's cells, as `HEADINGS` names them."""
    return [
        f"{line.network} x{line.scale}",
        line.engine,
        line.precision,
        "-" if line.seconds is None else f"{line.seconds:.3f}",
        "-" if line.share is None else f"{line.share:.0%}",
        "-" if line.memory is None else f"{line.memory:.0f}",
    ]


def caption(found: Throughput) -> str:
    """What the figures are of."""
    peaks = ", ".join(f"{name} {peak / 1e9:.4g} GFLOP/s" for name, peak in found.peaks.items())
    return (
        f"{found.machine['device']}, {found.machine['threads']} threads; measured peak of matrix products: {peaks} "
        f"(the higher one counts for bfloat16 and int8). A picture of {found.size[0]} x {found.size[1]}, whole, "
        f"median of {found.repeats}; megapixels of the result"
    )


def draw(found: Throughput, file: Path, *, overwrite: bool = False) -> None:
    """Draws seconds per megapixel as bars, SVG, PNG or PDF by the file's name.

    Raises:
        UsageError: another kind of file.
        FinescaleError: matplotlib is not installed; the file exists or cannot be written.
    """
    check_plot(file)
    matplotlib = require()
    from matplotlib.figure import Figure

    lines = [line for line in found.lines if line.seconds is not None][::-1]
    labels = [f"{line.network} x{line.scale}\n{line.engine}, {line.precision}" for line in lines]
    with matplotlib.style.context(["default", {**PLOTS, "font.size": 9}]):
        figure = Figure(figsize=(8, 1.4 + 0.55 * max(1, len(lines))), layout="constrained")
        axes = figure.subplots()
        fastest = min((line.seconds for line in lines if line.seconds), default=None)
        bars = axes.barh(
            labels,
            [line.seconds or 0 for line in lines],
            color=[OURS if line.seconds == fastest else THEIRS for line in lines],
            height=0.6,
        )
        axes.bar_label(
            bars,
            [f"{line.seconds:.2f} s" + ("" if line.share is None else f", {line.share:.0%} of peak") for line in lines],
            padding=4,
            color=INK,
        )
        axes.set_xlabel("seconds per megapixel of the result", color=INK)
        axes.set_title(str(found.machine["device"]), loc="left", color=INK, fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.25)
        save(figure, file, overwrite=overwrite)


def check_plot(file: Path) -> None:
    """Refuses names of plots that cannot be drawn.

    Raises:
        UsageError: the name does not end in .svg, .png or .pdf.
    """
    if file.suffix.lower() not in (".svg", ".png", ".pdf"):
        raise UsageError(f"{file}: a plot is an .svg, .png or .pdf file")


def show(found: Throughput) -> None:
    """Prints what was measured."""
    from rich.table import Table

    table = Table(caption=caption(found), caption_justify="left")
    for i, heading in enumerate(HEADINGS):
        table.add_column(heading, justify="right" if i > 2 else "left")
    for line in found.lines:
        table.add_row(*cells(line))
    screen = console()
    screen.print(table)
    for line in found.lines:
        if line.missing:
            screen.print(f"{line.engine} in {line.precision}: {line.missing}", style="yellow", highlight=False)
