"""Many picture files enlarged: found, named, written, and one bad file does not stop the rest."""

import glob
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from finescale.errors import FinescaleError, UsageError
from finescale.images import files
from finescale.inference import strips
from finescale.inference.size import Target
from finescale.inference.upscale import Networks

log = logging.getLogger("finescale")


@dataclass(frozen=True)
class Options:
    """What to do with every picture.

    Attributes:
        target: size of the results.
        network: name or weight file; None: the default.
        output: a file (for one picture), a folder, or None: beside each picture.
        format: of the results; None: by the output's name, else PNG (TIFF stays TIFF).
        quality: see `finescale.images.files.write`.
        overwrite: replace results that are there already.
        settings: of the `Upscaler`.
    """

    target: Target
    network: str | None = None
    output: str | None = None
    format: str | None = None
    quality: int | None = None
    overwrite: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """A picture to read and the file to write."""

    source: Path
    target: Path


def find(pictures: Sequence[str]) -> list[tuple[Path, Path]]:
    """Picture files for files, folders and patterns: (path, path relative to the folder that was named).

    Raises:
        UsageError: something does not exist, or nothing was found in it.
    """
    found: dict[Path, Path] = {}
    for text in pictures:
        path = Path(text)
        if path.is_dir():
            inside = [Path(folder) / name for folder, _, names in os.walk(path) for name in names]
            chosen = [(p, p.relative_to(path)) for p in inside if p.suffix.lower() in files.READABLE]
            if not chosen:
                raise UsageError(f"{text}: there are no pictures in this folder")
        elif path.exists():
            chosen = [(path, Path(path.name))]
        else:
            matches = glob.glob(text, recursive=True)  # noqa: PTH207  (pathlib takes no absolute patterns)
            chosen = [(Path(p), Path(Path(p).name)) for p in matches if Path(p).is_file()]
            if not chosen:
                raise UsageError(f"{text}: there is no such file, folder or pattern")
        for source, relative in sorted(chosen):
            if not source.name.startswith("."):
                found.setdefault(source, relative)
    return list(found.items())


def jobs(pictures: Sequence[str], options: Options) -> list[Job]:
    """What to read and what to write.

    Results lie beside their pictures or, in the same structure, under the output folder, as NAME_x4.png. Pictures that
    are themselves results of others in the list are left out.

    Raises:
        UsageError: as `find`; one output file for many pictures; an unknown format; two pictures with one result.
    """
    found = find(pictures)
    output = Path(options.output) if options.output else None
    single = len(pictures) == 1 and Path(pictures[0]).is_file()
    if output and not output.is_dir() and output.suffix.lower() in files.FORMATS:
        if not single:
            raise UsageError(f"{output}: one file cannot take several pictures; name a folder")
        files.format_of(output, options.format)
        return [Job(found[0][0], output)]
    result: dict[Path, Job] = {}
    sources = {source.resolve() for source, _ in found}
    for source, relative in found:
        folder = output / relative.parent if output else source.parent
        target = folder / f"{source.stem}{options.target.suffix}.{_extension(source, options.format)}"
        if target in result:
            raise UsageError(f"{source} and {result[target].source} would both become {target}")
        result[target] = Job(source, target)
    made = {target.resolve() for target in result} & sources
    return [job for job in result.values() if job.source.resolve() not in made]


def _extension(source: Path, format: str | None) -> str:
    kept = "tif" if source.suffix.lower() in (".tif", ".tiff") else "png"
    kind = files.format_of(source, format) if format else kept
    return {"jpeg": "jpg", "tiff": "tif"}.get(kind, kind)


def upscale_files(pictures: Sequence[str], options: Options, *, quiet: bool = False) -> int:
    """Enlarges picture files one after another, with a progress bar on a terminal.

    Pictures whose result exists are skipped with a note in folders and patterns (so an interrupted job goes on
    where it stopped); for a single file that is an error.

    Returns:
        0, or 1 if any picture failed; what failed and why is printed at the end.
    """
    todo = jobs(pictures, options)
    alone = len(pictures) == 1 and Path(pictures[0]).is_file()
    networks = Networks(options.network, **options.settings)
    networks.scales  # noqa: B018  a wrong name shall stop everything at once
    failures: list[str] = []
    skipped = 0
    with _bar(len(todo), quiet) as bar:
        for job in todo:
            if not alone and job.target.exists() and not options.overwrite:
                skipped += 1
                bar(job.source.name, 1.0)
                continue
            try:
                _one(job, options, networks, partial(bar, job.source.name))
            except UsageError as error:
                if alone:
                    raise
                failures.append(_naming(job, error))
            except FinescaleError as error:
                failures.append(_naming(job, error))
            except OSError as error:
                failures.append(f"{job.source}: {(error.strerror or str(error)).lower()}")
    if skipped and not quiet:
        print(f"{skipped} of {len(todo)} skipped: their results exist (--overwrite makes them again)", file=sys.stderr)
    if failures:
        if not alone:
            print(f"finescale: {len(failures)} of {len(todo)} pictures failed:", file=sys.stderr)
        for failure in failures:
            print(f"finescale: {failure}" if alone else f"  {failure}", file=sys.stderr)
    return 1 if failures else 0


def _one(job: Job, options: Options, networks: Networks, progress: Callable[[float], None]) -> None:
    files.check_free(job.target, options.overwrite)
    kind = files.format_of(job.target, options.format)
    info = files.probe(job.source)
    small = info.width, info.height
    size = options.target.size(*small)
    job.target.parent.mkdir(parents=True, exist_ok=True)
    if size[0] * size[1] > strips.FROM_PIXELS and kind in strips.FORMATS:
        chain = networks.chain(small, size)
        if len(chain) == 1 and not chain[0].ensemble and size == (small[0] * chain[0].scale, small[1] * chain[0].scale):
            strips.upscale_strips(
                job.source, job.target, chain[0], format=kind, overwrite=options.overwrite, progress=progress
            )
            return
    enlarged = networks.picture(files.read(job.source), size, progress)
    files.write(enlarged, job.target, format=kind, quality=options.quality, overwrite=options.overwrite)


def _naming(job: Job, error: FinescaleError) -> str:
    """The error's sentence, with the picture's name before it if it names no file."""
    text = str(error)
    return text if str(job.source) in text or str(job.target) in text else f"{job.source}: {text}"


@contextmanager
def _bar(count: int, quiet: bool) -> Iterator[Callable[[str, float], None]]:
    """A progress bar with the time left; it draws nothing where there is no terminal."""
    if quiet or not sys.stderr.isatty():
        yield lambda name, done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:3.0f} %"))
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=float(count))
        last, before = "", 0

        def show(name: str, done: float) -> None:
            nonlocal last, before
            if name != last:
                before += bool(last)
                last = name
            progress.update(task, completed=before + done, description=name)

        yield show
