"""A benchmark run as files: Markdown, CSV, JSON, the table of every picture, and plots beside published networks."""

import csv as csv_files
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from finescale.atomic import check_folder, check_free, writing
from finescale.errors import FinescaleError
from finescale.evaluation import plots, published
from finescale.evaluation.benchmark import Row, Run
from finescale.evaluation.scoring import FIGURES, Unavailable, means, metrics_json, of_json, write_json, write_text
from finescale.evaluation.speed import Speed
from finescale.evaluation.tables import cells, count, decibels, headings


def check(folder: Path, scale: int, sets: Sequence[str], *, overwrite: bool = False) -> None:
    """Makes sure, before a long run, that its report can be written.

    Raises:
        FinescaleError: matplotlib is missing, the folder cannot be made or written, or a file exists that may not be
            overwritten.
    """
    plots.require()
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    check_folder(folder)
    for file in files(folder, scale, sets):
        check_free(file, overwrite)


def files(folder: Path, scale: int, sets: Sequence[str]) -> list[Path]:
    """What `write` writes; not every plot is made."""
    return [folder / file for names in (_texts(scale), *(plots.names(scale, one) for one in sets)) for file in names]


def write(run: Run, folder: Path, *, overwrite: bool = False) -> list[Path]:
    """Writes the report of a run into a folder that `check` has seen; gives the files.

    `results-x4.md`, `.csv` and `.json`, `pictures-x4.md` (the figures of every picture), and for every set
    `psnr-parameters-x4-SET.svg` and, with timing, `psnr-seconds-x4-SET.svg`. With `overwrite`, plots of an earlier run
    that are not drawn now are removed: their networks may be others.
    """
    page, lines, everything, per_picture = _texts(run.scale)
    drawn = [file for name in run.sets for file in plots.draw(run, name, folder, overwrite=overwrite)]
    write_text(folder / page, markdown(run, [file.name for file in drawn]), overwrite=overwrite)
    write_text(folder / lines, csv(run), overwrite=overwrite)
    write_json(folder / everything, run.as_json(), overwrite=overwrite)
    write_text(folder / per_picture, pictures(run), overwrite=overwrite)
    written = [folder / page, folder / lines, folder / everything, folder / per_picture, *drawn]
    if overwrite:
        for stale in {*files(folder, run.scale, run.sets)} - {*written}:
            stale.unlink(missing_ok=True)
    return written


def kept(run: Run, folder: Path, pictures: Mapping[str, Sequence[str]]) -> list[Row]:
    """The rows of the report in a folder, each with the date it is of, to stand in a run beside new ones.

    Args:
        run: without rows yet.
        folder: where `write` put the earlier report.
        pictures: the names of the run's pictures by set.

    Raises:
        FinescaleError: there is no such report, or it is of other pictures, settings, measures or another machine.
    """
    file = folder / _texts(run.scale)[2]
    try:
        before = json.loads(file.read_text("utf-8"))
        rows = [
            Row(
                scores={name: of_json(scores) for name, scores in found["sets"].items()},
                speed=Speed(found["timed_seconds"], found.get("memory_mib")) if "timed_seconds" in found else None,
                date=found.get("date", before["date"]),
                **{key: found.get(key) for key in ("name", "parameters", "macs", "weights", "sha256", "missing")},
            )
            for found in before["networks"]
        ]
    except OSError as error:
        raise FinescaleError(f"{file}: there is no report to keep rows of ({error.strerror})") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise FinescaleError(f"{file}: is no report of which rows can be kept") from error
    now = json.loads(json.dumps(run.as_json()))
    measures = [key for key in before if key.endswith(("_by", "_missing"))]
    for key in ("machine", "settings", "timed_size", *metrics_json(run.metrics), *measures):
        old, new = before.get(key), now.get(key)
        if old != new:
            raise FinescaleError(f"{file}: has other rows than these would be: {key} {old}, now {new}")
    for row in rows:
        seen = {name: [score.name for score in scores] for name, scores in row.scores.items()}
        if not row.missing and seen != pictures:
            raise FinescaleError(f"{file}: was made with other pictures")
    return rows


def csv(run: Run) -> str:
    """One line for every network and set, and one for every picture of it; then the published ones.

    Only the published ones have a `source`. `picture_seconds` are of that picture, `timed_seconds` and `memory_mib` of
    one of the run's `timed_size`; of published networks, on the machine that the source names.
    """
    out = io.StringIO()
    facts = ("parameters", "macs", "timed_seconds", "memory_mib", "sha256", "command", "source")
    writer = csv_files.DictWriter(
        out, ["network", "scale", "set", "picture", *FIGURES, *facts], extrasaction="ignore", lineterminator="\n"
    )
    writer.writeheader()
    for row in run.rows:
        own = {**row.as_json(), "network": row.name, "scale": run.scale, "command": run.command}
        for name, scores in row.scores.items():
            writer.writerow({**own, "set": name, "picture": "mean", **means(scores)})
            for score in scores:
                writer.writerow({**own, "set": name, "picture": score.name, **{f: getattr(score, f) for f in FIGURES}})
    for known in published.beside(run.scale, run.sets):
        own = {**published.as_json(known, run.sets), "network": known.network, "scale": run.scale}
        for name, figures in own["sets"].items():
            writer.writerow({**own, "set": name, "picture": "mean", **figures})
    return out.getvalue()


def markdown(run: Run, images: Sequence[str] = ()) -> str:
    """The page of a run: our table, the published figures with their sources, and how it was measured."""
    width, height = run.timed_size or (0, 0)
    measured = [row for row in run.rows if not row.missing]
    parts = [
        f"# Enlarging x{run.scale}",
        "PSNR (dB) / SSIM on luma, a border of the scale dropped, low-resolution pictures by MATLAB's bicubic kernel. "
        + (
            f"Seconds and memory: {width} x {height} to {width * run.scale} x {height * run.scale} pixels. "
            if run.timed_size
            else ""
        )
        + "MACs: multiply-accumulates for 48 x 48 pixels.",
        table(headings(run), (cells(row, run) for row in measured)),
    ]
    missing = [f"- {row.missing.partition(' (')[0]}" for row in run.rows if row.missing]  # without local folders
    if missing:
        parts += ["Left out:", "\n".join(missing)]
    parts += [f"{metric.reason}." for metric in run.metrics if isinstance(metric, Unavailable)]
    parts += [f"![{_alternative(image, run)}]({image})" for image in images]
    parts += _published(run)
    facts = ", ".join(f"{key} {value}" for key, value in run.machine.items())
    said = {**run.settings, **({"window": "global"} if run.settings.get("window", 0) is None else {})}
    chosen = ", ".join(f"{key} {value}" for key, value in said.items()) or "the defaults"
    hashes = [f"- {row.name}: `{row.weights}`, SHA-256 `{row.sha256}`" for row in measured if row.weights]
    parts += [
        "## How it was measured",
        f"```\n{run.command}\n```",
        f"{run.date}; {facts}; settings: {chosen}.",
        *(f"The row of {row.name} is of an earlier run of this kind, {row.date}." for row in measured if row.date),
        *(["Weights:", "\n".join(hashes)] if hashes else []),
        f"The figures of every picture: [{_texts(run.scale)[3]}]({_texts(run.scale)[3]}).",
    ]
    return "\n\n".join(parts) + "\n"


def pictures(run: Run) -> str:
    """Every picture's PSNR / SSIM by every network, a table for each set."""
    measured = [row for row in run.rows if not row.missing]
    parts = [f"# Every picture, x{run.scale}"]
    for name in run.sets:
        pictures = zip(*(row.scores[name] for row in measured), strict=True)  # by place: two may have one name
        lines = [
            [scores[0].name, *(f"{decibels(score.psnr)} / {score.ssim:.4f}" for score in scores)] for scores in pictures
        ]
        parts += [f"## {name}", table(["picture", *(row.name for row in measured)], lines)]
    return "\n\n".join(parts) + "\n"


def _texts(scale: int) -> tuple[str, str, str, str]:
    return f"results-x{scale}.md", f"results-x{scale}.csv", f"results-x{scale}.json", f"pictures-x{scale}.md"


def _published(run: Run) -> list[str]:
    """The published rows for these sets, those measured with published weights, and the sources of both."""
    quoted, measured = (published.compared(run.scale, run.sets, measured=kind) for kind in (False, True))
    order = list(dict.fromkeys(row.source for row in (*quoted, *measured)))

    def line(row: published.Published, *more: str) -> list[str]:
        figures = (published.pair(row, name) or "-" for name in run.sets)
        return [row.network, count(row.parameters), *figures, *more, f"[{order.index(row.source) + 1}]"]

    parts = []
    head = ["network", "parameters", *run.sets]
    if quoted:
        lines = [line(row, row.training or "-") for row in quoted]
        parts += ["## Published figures", table([*head, "training set", "source"], lines)]
    if measured:
        lines = [line(row, _number(row.seconds), _number(row.memory_mib)) for row in measured]
        parts += [
            "## Small networks with their own published weights",
            "Seconds and MiB are for 320 x 180 pixels on the machine that the source names, not on ours.",
            table([*head, "seconds", "MiB", "source"], lines),
        ]
    if order:
        origins = [published.sources()[key] for key in order]
        notes = [f"{i}. {s.title}" + (f", <{s.url}>" if s.url else "") for i, s in enumerate(origins, start=1)]
        parts += ["## Sources", "\n".join(notes)]
    return parts


def _alternative(image: str, run: Run) -> str:
    """What a plot shows, for those who do not see it."""
    name = next(name for name in run.sets if image in plots.names(run.scale, name))
    against = "the number of parameters" if image == plots.names(run.scale, name)[0] else "seconds"
    return f"PSNR on {name} against {against}: Finescale's networks beside published ones"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table in Markdown: the first column to the left, the others, of figures, to the right."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *lines))
