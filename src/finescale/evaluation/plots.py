"""Plots of a benchmark run: PSNR against parameters and against seconds, published networks beside ours."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finescale.atomic import new_file
from finescale.errors import FinescaleError, install
from finescale.evaluation import published
from finescale.evaluation.benchmark import Run
from finescale.evaluation.contenders import REFERENCES
from finescale.evaluation.scoring import means
from finescale.evaluation.tables import count

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OURS, THEIRS, INK = "#1d4ed8", "#9aa3af", "#1f2937"
STYLE = {"svg.hashsalt": "finescale", "svg.fonttype": "path"}  # of matplotlib: the same bytes, and no fonts needed
PLOTS = {**STYLE, "svg.fonttype": "none"}  # names and numbers stay text: a third to a half of the size
DPI = 200
_SHOWN = 2.5  # dB below the best: published networks further down would only flatten the picture


@dataclass(frozen=True)
class Point:
    """One network in a plot."""

    name: str
    x: float
    psnr: float
    ours: bool


def require() -> Any:
    """matplotlib, with `style`.

    Raises:
        FinescaleError: it is not installed, saying how to install it.
    """
    try:
        import matplotlib
        import matplotlib.style
    except ImportError as error:
        raise FinescaleError(f"plots and figures need matplotlib: {install('report')}") from error
    return matplotlib


def save(figure: "Figure", file: Path, *, overwrite: bool = False) -> None:
    """Writes a figure in the format that the file's name says: all of it or nothing, and always the same bytes."""
    kind = file.suffix.lower()[1:]
    options: dict[str, Any] = {
        "svg": {"metadata": {"Date": None}},
        "pdf": {"metadata": {"CreationDate": None}},
        "webp": {"pil_kwargs": {"lossless": True, "quality": 90}},
    }
    with new_file(file, overwrite=overwrite) as out:
        figure.savefig(out, format=kind, dpi=DPI, **options.get(kind, {}))


def names(scale: int, name: str) -> tuple[str, str]:
    """The files that `draw` writes for a set."""
    return f"psnr-parameters-x{scale}-{name}.svg", f"psnr-seconds-x{scale}-{name}.svg"


def draw(run: Run, name: str, folder: Path, *, overwrite: bool = False) -> list[Path]:
    """Draws a set's two plots, but for one without any of our networks or with a single point. Gives the files."""
    width, height = run.timed_size or (0, 0)
    timed = f"seconds for {width} x {height} to {width * run.scale} x {height * run.scale} pixels"
    labels = ("parameters", f"{timed}; the published ones as timed on their source's machine")
    written = []
    for file, label, points in zip(names(run.scale, name), labels, (by_parameters(run, name), by_seconds(run, name))):
        best = max((point.psnr for point in points), default=0.0)
        points = [point for point in points if point.ours or point.psnr > best - _SHOWN]
        if any(point.ours for point in points) and len(points) > 1:
            _draw(points, f"{name}, x{run.scale}", label, folder / file, overwrite=overwrite)
            written.append(folder / file)
    return written


def by_parameters(run: Run, name: str) -> list[Point]:
    """Our networks and the published ones that have a number of parameters and a figure for the set."""
    ours = [
        Point(row.name, row.parameters, means(row.scores[name])["psnr"], True) for row in run.rows if row.parameters
    ]
    theirs: dict[str, Point] = {}
    for row in published.rows(run.scale):
        if row.parameters and name in row.figures:
            theirs.setdefault(row.network, Point(row.network, row.parameters, row.figures[name][0], False))
    return [*theirs.values(), *ours]


def by_seconds(run: Run, name: str) -> list[Point]:
    """Our networks as timed here and the published ones that were timed, on the machine that their source names."""
    ours = [
        Point(row.name, row.speed.seconds, means(row.scores[name])["psnr"], True)
        for row in run.rows
        if row.speed and row.name not in REFERENCES
    ]
    theirs = [
        Point(row.network, row.seconds, row.figures[name][0], False)
        for row in published.rows(run.scale)
        if row.seconds and name in row.figures and row.network not in REFERENCES
    ]
    return [*theirs, *ours]


def _draw(points: Sequence[Point], title: str, label: str, file: Path, *, overwrite: bool) -> None:
    matplotlib = require()
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    with matplotlib.style.context(["default", {**PLOTS, "font.size": 9, "axes.edgecolor": THEIRS}]):
        figure = Figure(figsize=(8, 5), layout="constrained")
        axes = figure.subplots()
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count(value) if value >= 1000 else f"{value:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        for ours, colour, size in ((False, THEIRS, 26), (True, OURS, 54)):
            some = [point for point in points if point.ours == ours]
            if not some:
                continue
            axes.scatter(
                [point.x for point in some],
                [point.psnr for point in some],
                s=size,
                color=colour,
                label="Finescale" if ours else "published",
                zorder=2 + ours,
            )
        axes.set_title(title, loc="left", color=INK, fontweight="bold")
        axes.set_xlabel(label, color=INK)
        axes.set_ylabel("PSNR on luma, dB", color=INK)
        axes.grid(True, color="#e5e7eb", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(0.1, 0.1)
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False, borderpad=0.2, handletextpad=0.1)
        figure.draw_without_rendering()
        _label(axes, points)
        save(figure, file, overwrite=overwrite)


def _label(axes: "Axes", points: Sequence[Point]) -> None:
    """Names every point, each where its name covers the least of what is already there."""
    place = axes.transData.transform
    dots = [place((point.x, point.psnr)) for point in points]
    unit = axes.figure.dpi / 72
    taken = [(x - 4 * unit, y - 4 * unit, x + 4 * unit, y + 4 * unit) for x, y in dots]
    left, bottom, right, top = axes.bbox.extents
    for point, (x, y) in sorted(zip(points, dots), key=lambda item: not item[0].ours):
        name = point.name if point.ours else point.name.partition(" (")[0]
        width, height = (6.2 if point.ours else 4.8) * unit * len(name), (10 if point.ours else 8.5) * unit
        choices = []
        for distance in (6, 9, 13, 18, 24, 31, 39):
            d = distance * unit
            for angle in range(0, 360, 15):
                dx, dy = math.cos(math.radians(angle)), math.sin(math.radians(angle))
                x0 = x + dx * d - width * (1 - dx) / 2
                y0 = y + dy * d - height * (1 - dy) / 2
                box = (x0, y0, x0 + width, y0 + height)
                outside = (
                    max(0, left - x0) + max(0, x0 + width - right) + max(0, bottom - y0) + max(0, y0 + height - top)
                )
                covered = sum(_overlap(box, other) for other in taken)
                choices.append((covered + 20 * outside * unit + 2 * distance, box, distance))
        _, box, distance = min(choices, key=lambda choice: choice[0])
        taken.append(box)
        axes.annotate(
            name,
            (point.x, point.psnr),
            xytext=((box[0] - x) / unit, (box[1] - y) / unit),
            textcoords="offset points",
            arrowprops={"arrowstyle": "-", "color": "#d1d5db", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 2}
            if distance > 13
            else None,
            parse_math=False,
            color=OURS if point.ours else "#4b5563",
            fontsize=9 if point.ours else 8,
            fontweight="bold" if point.ours else "normal",
            zorder=4,
        )


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return wide * high if wide > 0 and high > 0 else 0.0
