"""What `score` and `bench` show on a terminal."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn, track
from rich.table import Table
from rich.text import Text

from finescale.evaluation import published
from finescale.evaluation.scoring import Metric, Metrics, Score, Unavailable, means

if TYPE_CHECKING:
    from finescale.evaluation.benchmark import Row, Run

T = TypeVar("T")
_DIGITS = {"lpips": 4, "brisque": 2}  # of the perceptual figures


def tracked(items: Sequence[T], what: str) -> Iterator[T]:
    """The items, with a progress bar where standard error is a terminal."""
    console = Console(stderr=True, markup=False)
    return iter(track(items, what, console=console, transient=True, disable=not console.is_terminal))


@contextmanager
def bar(total: int) -> Iterator[Callable[[str, str], None]]:
    """A progress bar for a benchmark run: gives the function that is told of every picture before it is worked on."""
    console = Console(stderr=True, markup=False)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=total)
        done = 0

        def tell(network: str, picture: str) -> None:
            nonlocal done
            progress.update(task, description=f"{network}: {picture}", completed=done)
            done += 1

        yield tell


@contextmanager
def status() -> Iterator[Callable[[str], None]]:
    """A line that says what is being done, where standard error is a terminal: gives the function that is told."""
    console = Console(stderr=True, markup=False)
    if not console.is_terminal:
        yield lambda what: None
        return
    with console.status("") as line:
        yield lambda what: line.update(Text(what))


def console() -> Console:
    """Standard output; a table sent to a file or pipe is not folded to 80 columns, and brackets in names stay."""
    screen = Console(markup=False)
    return screen if screen.is_terminal else Console(markup=False, width=200)


def decibels(value: float) -> str:
    """PSNR as it is printed: three digits; ∞ for identical pictures."""
    return "∞" if value == float("inf") else f"{value:.3f}"


def count(value: float | None) -> str:
    """A number of parameters or operations with K, M or G; "-" for none."""
    if value is None:
        return "-"
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "K")):
        if value >= 0.9995 * size:  # with three digits 999,950 is 1 M
            return f"{value / size:.3g} {unit}"
    return f"{value:g}"


def show_scores(scores: Sequence[Score], scale: int, metrics: Metrics) -> None:
    """Prints every picture's figures and their means."""
    table = Table(title=f"PSNR and SSIM on luma, border {scale}", title_justify="left")
    table.add_column("picture")
    table.add_column("PSNR dB", justify="right")
    table.add_column("SSIM", justify="right")
    for metric in metrics:
        table.add_column(metric.label, justify="right")
    for score in scores:
        cells = [score.name, decibels(score.psnr), f"{score.ssim:.4f}"]
        table.add_row(*cells, *(metric_cell(metric, getattr(score, metric.key)) for metric in metrics))
    average = means(scores)
    table.add_section()
    label = f"mean of {len(scores)}"
    cells = [label, decibels(average["psnr"]), f"{average['ssim']:.4f}"]
    table.add_row(*cells, *(metric_cell(metric, average.get(metric.key)) for metric in metrics), style="bold")
    screen = console()
    screen.print(table)
    _explain(screen, metrics)


def metric_cell(metric: Metric | Unavailable, value: float | None) -> str:
    """The cell of a perceptual column: the figure, "missing" where its files are not here, "-" where it has none."""
    if isinstance(metric, Unavailable):
        return "missing"
    return "-" if value is None else f"{value:.{_DIGITS[metric.key]}f}"


def _explain(screen: Console, metrics: Metrics) -> None:
    for metric in metrics:
        if isinstance(metric, Unavailable):
            screen.print(f"{metric.label}: {metric.reason}", style="yellow", highlight=False)


def show_run(run: "Run") -> None:
    """Prints a benchmark run with the published figures beneath it, and which networks had no weights."""
    table = Table(title=f"x{run.scale}: PSNR dB / SSIM on luma", title_justify="left")
    for i, heading in enumerate((*headings(run), "weights")):
        table.add_column(heading, justify="right" if i else "left")
    measured = [row for row in run.rows if not row.missing]
    for row in measured:
        table.add_row(*cells(row, run), row.sha256[:8] if row.sha256 else "-")
    quoted = published.compared(run.scale, run.sets)
    if quoted:
        table.add_section()
        for known in quoted:
            figures = [published.pair(known, name) for name in run.sets]
            table.add_row(f"{known.network} (published)", count(known.parameters), "", *figures, style="dim")
    screen = console()
    screen.print(table)
    if run.timed_size:
        width, height = run.timed_size
        screen.print(
            f"seconds and MiB: {width} x {height} to {width * run.scale} x {height * run.scale}, "
            f"{run.machine['device']}, {run.machine['threads']} threads",
            highlight=False,
        )
    for row in run.rows:
        if row.missing:
            screen.print(f"left out: {row.missing}", style="yellow", highlight=False)
    _explain(screen, run.metrics)


def cells(row: "Row", run: "Run") -> list[str]:
    """A row's cells: name, parameters, MACs, figures of every set, perceptual ones, seconds, MiB."""
    averages = [means(row.scores[name]) for name in run.sets]
    result = [row.name, count(row.parameters), count(row.macs)]
    result += [f"{decibels(average['psnr'])} / {average['ssim']:.4f}" for average in averages]
    result += [metric_cell(metric, average.get(metric.key)) for metric in run.metrics for average in averages]
    if run.timed_size:
        seconds, memory = (row.speed.seconds, row.speed.memory) if row.speed else (None, None)
        result += ["-" if seconds is None else f"{seconds:.3g}", "-" if memory is None else f"{memory:.0f}"]
    return result


def headings(run: "Run") -> list[str]:
    """The headings of `cells`."""
    perceptual = [f"{metric.label} {name}" for metric in run.metrics for name in run.sets]
    return ["network", "parameters", "MACs", *run.sets, *perceptual, *(["seconds", "MiB"] if run.timed_size else [])]
