"""Many picture files enlarged: found, named, written, and one bad file does not stop the rest."""

import glob
import json
import logging
import os
import shutil
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from finescale.errors import FinescaleError, FinescaleWarning, UsageError, install
from finescale.images import files
from finescale.images.folders import apart, below, passed_over
from finescale.inference.advice import Advice
from finescale.inference.flow import Flow, Job, Options
from finescale.inference.size import RESULT
from finescale.inference.upscale import check_settings
from finescale.networks import FOR_JPEG, FOR_NOISE

SAME = "same"
"""The format of results that have those of their pictures."""
STREAM = "-"
"""The name of a picture that comes by standard input, and of a result that goes to standard output."""


def find(pictures: Sequence[str]) -> tuple[list[tuple[Path, Path]], list[Path]]:
    """Picture files for files, folders and patterns: (path, path relative to its folder), and all those folders.

    A pattern stands for the files it matches, or where there are none for the folders.

    Raises:
        UsageError: something does not exist, or nothing was found in it.
        FinescaleError: a folder that was named may not be listed; see also `below`.
    """
    found: dict[str, tuple[Path, Path]] = {}  # by folder and name, so that nothing is done twice
    every: list[Path] = []
    for text in pictures:
        named, folders = _named(text)
        every += folders
        chosen = [(path, Path(path.name)) for path in named]
        chosen += [(path, path.relative_to(folder)) for folder in folders for path in below(folder)]
        if not chosen and folders:
            over = [path for folder in folders for path in passed_over(folder)]
            where = "this folder" if len(folders) == 1 else "these folders"
            raise UsageError(f"{text}: there are no pictures in {where}{_but(over)}")
        if not chosen and text and Path(text).exists():
            raise UsageError(f"{text}: is neither a file nor a folder")
        if not chosen:
            raise UsageError(f"{text or 'an empty name'}: there is no such file, folder or pattern")
        for source, relative in sorted(chosen):
            found.setdefault(str(_real(source.parent) / source.name), (source, relative))
    return list(found.values()), every


def _named(text: str) -> tuple[list[Path], list[Path]]:
    """The file or folder of that name; or files that a pattern matches, or where there are none, folders."""
    path = Path(text)
    if path.is_file():
        return [path], []
    if text and path.is_dir():
        return [], [path]
    found = map(Path, glob.glob(text, recursive=True))  # noqa: PTH207  (pathlib takes no absolute patterns)
    matches = sorted(match for match in found if not match.name.startswith("."))
    matching = [match for match in matches if match.is_file()]
    return matching, [] if matching else [match for match in matches if match.is_dir()]


def jobs(pictures: Sequence[str], options: Options) -> tuple[list[Job], int, list[Path]]:
    """What to read and what to write, how many pictures are left out as results of another size, and the folders.

    Results lie beside their pictures or, in the same structure, under the output folder, as NAME_x4.png. Where two
    would have one result, extensions are kept: a.jpg and a.png become a.jpg_x4.png and a.png_x4.png. Left out are those
    that are themselves results of others in the list, of this size or (in folders and patterns) an earlier one, and
    what lies in an output folder inside a folder of pictures.

    Raises:
        UsageError: as `find`; one output file for many pictures; an unknown format, or one that the output's name
            contradicts; two pictures with one result.
        FinescaleError: as `find`.
    """
    found, folders = find(pictures)
    single = _single(pictures)
    folder, file = _output(options, single)
    suffix = options.target.suffix if options.suffix is None else options.suffix
    if file:
        return [Job(found[0][0], file)], 0, []
    real = set(map(_real, folders))
    if folder and _real(folder) not in real and not real.isdisjoint(_real(folder).parents):
        found = [(source, relative) for source, relative in found if _real(folder) not in _real(source).parents]
        if not found:
            raise UsageError(f"there are no pictures but in {folder}, where the results go")

    def target_of(source: Path, relative: Path, name: str) -> Path:
        place = folder / relative.parent if folder else source.parent
        return place / f"{name}{suffix}.{_extension(source, options.format)}"

    earlier = set() if single else _results(found, suffix)
    found = [pair for pair in found if pair not in earlier]
    names = {pair[0]: [target_of(*pair, name) for name in (pair[0].stem, pair[0].name)] for pair in found}
    targets = apart(names)
    for source, target in targets.items():
        same = False
        with suppress(OSError):  # it is not there, or its name is too long
            same = _real(source.parent) == _real(target.parent) and target.samefile(source)
        if same:
            raise UsageError(f"{source}: its result would have its name; name another folder or a suffix")
    made = {_real(target) for target in targets.values()}
    left = sum(_real(source) not in made for source, _ in earlier)
    return [Job(source, target) for source, target in targets.items() if _real(source) not in made], left, folders


def _single(pictures: Sequence[str]) -> bool:
    """Whether one file is named alone, not a folder or a pattern."""
    return len(pictures) == 1 and Path(pictures[0]).is_file()


def _output(options: Options, single: bool) -> tuple[Path | None, Path | None]:
    """The folder of the results, or the file of the only one; neither: beside the pictures.

    Raises:
        UsageError: it is neither, or not for these pictures.
    """
    if options.suffix is not None and set(options.suffix) & {"/", os.sep, "\0"}:
        raise UsageError(f"--suffix {options.suffix}: should be part of a name, such as _large")
    if options.output is None:
        if options.suffix == "":
            raise UsageError("without a suffix results need a folder of their own: name it by -o")
        return None, None
    if options.output == "":
        raise UsageError("the name of the output is empty")
    output = Path(options.output)
    if output.is_dir() or options.output.endswith(("/", os.sep)):
        return output, None
    if output.suffix.lower() in files.FORMATS:
        if not single:
            raise UsageError(f"{output}: one file cannot take several pictures; name a folder")
        if options.suffix is not None:
            raise UsageError(f"{output}: is the whole name of the result; leave out --suffix, or name a folder")
        files.check_name(output, _plain(options.format))
        return None, output
    if output.name.lower() in files.READABLE:
        raise UsageError(f"{output}: is an extension without a name before it")
    if output.exists():
        raise UsageError(f"{output}: is no folder, and its name has no extension of a picture")
    if output.suffix and (single or output.suffix.lower() in files.READABLE):
        known = ", ".join(files.FORMATS)
        raise UsageError(f"{output}: a picture's name ends in one of {known}, a folder's in {os.sep}")
    return output, None


def _results(found: Sequence[tuple[Path, Path]], suffix: str) -> set[tuple[Path, Path]]:
    """Those whose names say that they were made of others among them, of any size: NAME_x2.png, NAME_300w.jpg.

    Beside the others, or in a folder for results (LARGE/NAME_x2.png) that lies where the others begin.
    """
    sources = {str(path) for source, _ in found for path in (source, source.with_suffix(""))}
    results = set()
    for source, relative in found:
        match = RESULT.search(source.stem)
        made_of = source.stem[: match.start()] if match else source.stem.removesuffix(suffix)
        if made_of != source.stem:
            top = Path(*source.parts[: -len(relative.parts)])
            folders = (source.parent, *(top.joinpath(*relative.parts[n:-1]) for n in range(1, len(relative.parts))))
            if any(str(folder / made_of) in sources for folder in folders if made_of):
                results.add((source, relative))
    return results


def _real(path: Path) -> Path:
    """The path without links; links that lead in circles stay."""
    return Path(os.path.realpath(path))  # `Path.resolve` raises RuntimeError there


def _extension(source: Path, format: str | None) -> str:
    read = files.READABLE.get(source.suffix.lower())
    if format == SAME:
        kind = {"heic": "jpeg"}.get(read or "", read if read in files.FORMATS.values() else "png")
    elif format:
        kind = files.format_of(source, format)
    else:
        kind = "tiff" if read == "tiff" else "png"
    return {"jpeg": "jpg", "tiff": "tif"}.get(kind or "", kind or "png")


def _plain(format: str | None) -> str | None:
    """The format for those who go by names otherwise."""
    return None if format == SAME else format


def upscale_files(pictures: Sequence[str], options: Options, *, quiet: bool = False, as_json: bool = False) -> int:
    """Enlarges picture files, with a progress bar on a terminal; see `Flow`.

    What was made is said on standard output, in words or as JSON (then also where it was ended early), all else on
    standard error. Without a terminal for the bar every result is said when it is there.

    "-" instead of all pictures is the one that standard input brings; its result goes to standard output, unless
    `options.output` is a file, and so does that of any one picture where `options.output` is "-".

    Pictures whose result exists are skipped with a note in folders and patterns (so an interrupted job goes on
    where it stopped); for a single file that is an error, unless `options.skip`.

    Raises:
        UsageError: as `jobs`; an unknown network; a quality where there is none to choose; more than one picture by
            standard input or output, or a terminal there.
        FinescaleError: as `jobs`; no weights.

    Returns:
        0, or 1 if any picture failed; what failed and why is printed at the end.
    """
    streams = STREAM in pictures, options.output == STREAM or (STREAM in pictures and options.output is None)
    if not any(streams):
        return _upscale_files(pictures, options, quiet, as_json)
    _check_streams(pictures, options, streams, as_json)
    with tempfile.TemporaryDirectory(prefix="finescale-") as folder:
        hidden = folder + os.sep
        try:
            if streams[0]:
                pictures = [_received(Path(folder))]
            if not streams[1]:
                return _upscale_files(pictures, options, quiet, as_json, hidden)
            result = Path(folder, f"standard output.{_extension(Path(pictures[0]), options.format)}")
            code = _upscale_files(pictures, replace(options, output=str(result)), quiet, as_json, hidden, said=False)
        except FinescaleError as error:
            raise type(error)(str(error).replace(hidden, "")) from error
        if not code:
            with open(result, "rb") as file:
                shutil.copyfileobj(file, sys.stdout.buffer)
        return code


def _check_streams(pictures: Sequence[str], options: Options, streams: tuple[bool, bool], as_json: bool) -> None:
    """Refuses what cannot go by standard input and output, of which `streams` says whether they are used.

    Raises:
        UsageError: it is refused.
    """
    several = Path(pictures[0]).is_dir() or (set(pictures[0]) & set("*?[") and not Path(pictures[0]).is_file())
    if len(pictures) > 1 or several:
        raise UsageError("standard input and output take one picture; name files or folders for more")
    if streams[0] and sys.stdin.isatty():
        raise UsageError("-: standard input is a terminal, not a picture (finescale upscale - < small.png)")
    if not streams[1]:
        assert options.output is not None
        if Path(options.output).suffix.lower() not in files.FORMATS:
            raise UsageError(f"{options.output}: a picture by standard input has no name; name a file for its result")
        return
    if as_json:
        raise UsageError("the picture goes to standard output, where --json would go as well; name a file by -o")
    if options.suffix is not None:
        raise UsageError("standard output has no name that --suffix could end; leave it out")
    if sys.stdout.isatty():
        raise UsageError("standard output is a terminal; name a file by -o, or send it on (> large.png)")


def _received(folder: Path) -> str:
    """The file in `folder` that holds what standard input brought; its name says what it is."""
    path = folder / "standard input"
    with open(path, "wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
    with suppress(FinescaleError):  # told when it is read for good
        return str(path.rename(path.with_suffix("." + files.probe(path).format)))
    return str(path)


def _upscale_files(
    pictures: Sequence[str], options: Options, quiet: bool, as_json: bool, hidden: str = "", said: bool = True
) -> int:
    """As `upscale_files`, from files to files.

    `hidden` is left out of names (a folder that the user does not know), and where not `said`, what was made.
    """

    def called(text: str) -> str:
        return text.replace(hidden, "") if hidden else text

    with _silent(quiet):
        todo, left, folders = jobs(pictures, options)
    options = replace(options, format=_plain(options.format))
    files.check_choice(options.quality, [job.target for job in todo], options.format)
    alone = _single(pictures)
    networks = options.networks
    check_settings(**networks.settings)
    networks.scales  # noqa: B018  a wrong name shall stop everything at once
    said = said and not quiet and not as_json
    at_once = said and not _drawn(quiet)
    flow = Flow(replace(options, skip=options.skip or not alone), _say if at_once else None)
    told: list[str] = []

    def tell(sentence: str) -> str:
        told.append(called(sentence))
        return told[-1]

    try:
        with _silent(quiet), _heard(tell, quiet), _bar(len(todo), quiet) as bar:
            flow.run(todo, bar)
    except BaseException:  # also Ctrl-C, or where the system ends it
        if as_json:
            with suppress(OSError):  # its reader may have gone for the same reason
                print(json.dumps(_report(flow, told, called), indent=1), flush=True)
        raise
    if as_json:
        print(json.dumps(_report(flow, told, called), indent=1))
    for error in flow.failures.values():
        if alone and isinstance(error, UsageError):
            raise error
    if said and flow.written and not (at_once and len(flow.written) == 1):
        print(_written(flow.written))
    if not quiet:
        over = {path.absolute() for folder in folders for path in passed_over(folder)}
        if over:
            print(f"{_kinds(over)} left out: not among the kinds that are read{_cure(over)}", file=sys.stderr)
        for remark in (*_remarks(flow, len(todo), left), *_chosen(flow)):
            print(called(remark), file=sys.stderr)
    if flow.failures:
        if not alone:
            print(f"finescale: {len(flow.failures)} of {len(todo)} pictures failed:", file=sys.stderr)
        for job in todo:
            if job in flow.failures:
                failure = called(_naming(job, flow.failures[job]))
                print(f"finescale: {failure}" if alone else f"  {failure}", file=sys.stderr)
    return 1 if flow.failures else 0


def _say(job: Job, size: tuple[int, int]) -> None:
    """Says that a result is there, at once: the process may run for hours without a terminal, or be killed."""
    with suppress(OSError):  # the work goes on without a reader; at the end it is told
        print(_made(job, size), flush=True)


def _made(job: Job, size: tuple[int, int]) -> str:
    return f"{job.target}: {size[0]} x {size[1]} pixels"


@contextmanager
def _heard(told: Callable[[str], str], quiet: bool) -> Iterator[None]:
    """Within it the warnings of pictures that are read and written are shown as `told` gives them back."""

    def listen(sentence: str) -> None:
        sentence = told(sentence)
        if not quiet:
            logging.getLogger("finescale").warning("%s", sentence)

    with files.warnings_to(listen):
        yield


def _kinds(paths: Collection[Path]) -> str:
    """How many files of which extensions: 3 .heic, 1 .svg."""
    counts = Counter(path.suffix.lower() for path in paths)
    return ", ".join(f"{counts[extension]} {extension}" for extension in sorted(counts))


def _but(paths: Collection[Path]) -> str:
    """The end of a sentence on a folder in which only pictures of kinds that are not read lie."""
    return f" of a kind that is read (but {_kinds(paths)}{_cure(paths)})" if paths else ""


def _cure(paths: Collection[Path]) -> str:
    """What would let HEIC be read, if it is among the files and is not."""
    extensions = {path.suffix.lower() for path in paths}
    return f"; HEIC needs: {install('heic')}" if extensions & files.HEIC_NAMES.keys() else ""


def _report(flow: Flow, told: Sequence[str], called: Callable[[str], str]) -> dict[str, object]:
    """What was made, was there already, and failed, for programs, and the warnings that were told."""
    return {
        "written": [
            {
                "picture": called(str(job.source)),
                "result": str(job.target),
                "width": width,
                "height": height,
                "network": flow.used[job],
            }
            for job, (width, height) in flow.written.items()
        ],
        "skipped": [{"picture": called(str(job.source)), "result": str(job.target)} for job in flow.skipped],
        "failed": [
            {"picture": called(str(job.source)), "reason": called(_naming(job, error))}
            for job, error in flow.failures.items()
        ],
        "warnings": list(told),
    }


def _written(written: Mapping[Job, tuple[int, int]]) -> str:
    """What was made, and where it is."""
    if len(written) == 1:
        return _made(*next(iter(written.items())))
    folders = {job.target.parent for job in written}
    try:
        return f"{len(written)} pictures written to {os.path.commonpath(folders) or '.'}"
    except ValueError:  # on two drives, or only some absolute
        return f"{len(written)} pictures written to {len(folders)} folders"


def _remarks(flow: Flow, count: int, left: int) -> Iterator[str]:
    """What a person should know although nothing failed."""
    if left:
        yield f"{left} left out: by their names earlier results of others (name one alone to enlarge it)"
    if flow.skipped:
        now = "" if all(job.target.exists() for job in flow.skipped) else ", or another process is writing them"
        yield f"{len(flow.skipped)} of {count} skipped: their results exist{now} (--overwrite makes them again)"
    if flow.smaller and flow.options.target.scale is None:  # a factor says it itself
        yield f"{_which(flow.smaller, count)} larger than asked for, so made smaller"
    if flow.copied:
        cure = f"--network {FOR_JPEG} or {FOR_NOISE} cleans without enlarging"
        yield f"{_which(flow.copied, count)} as large as asked for, so only copied ({cure})"
    for upscaler in flow.options.networks.ready:
        if upscaler.remark:
            yield upscaler.remark


def _which(jobs: Sequence[Job], count: int) -> str:
    """One picture by its name, of several how many they are."""
    return f"{jobs[0].source}:" if len(jobs) == 1 else f"{len(jobs)} of {count}"


def _chosen(flow: Flow) -> Iterator[str]:
    """Which pictures were enlarged by another network than the default one, and why."""
    found: dict[tuple[str, str], list[tuple[Job, Advice]]] = {}
    for job in flow.written:
        if advice := flow.advice.get(job):
            found.setdefault((advice.network, advice.many), []).append((job, advice))
    for cases in found.values():
        (job, advice), *more = cases
        what = f"{len(cases)} of them {advice.many}" if more else f"{job.source}: {advice.one}"
        yield f"{what}; {advice.done}"


def _naming(job: Job, error: FinescaleError) -> str:
    """The error's sentence, with the picture's name before it if it names no file."""
    text = str(error)
    return text if str(job.source) in text or str(job.target) in text else f"{job.source}: {text}"


@contextmanager
def _silent(quiet: bool) -> Iterator[None]:
    """Keeps back remarks on pictures and networks, but not errors."""
    log = logging.getLogger("finescale")
    before = log.level
    with warnings.catch_warnings():
        if quiet:
            log.setLevel(logging.ERROR)
            warnings.simplefilter("ignore", FinescaleWarning)
        try:
            yield
        finally:
            log.setLevel(before)


def _drawn(quiet: bool) -> bool:
    """Whether there is a terminal to draw a progress bar on."""
    return not quiet and sys.stderr.isatty()


@contextmanager
def _bar(count: int, quiet: bool) -> Iterator[Callable[[str, float], None]]:
    """A progress bar with the time left; see `_drawn`."""
    if not _drawn(quiet):
        yield lambda name, done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.percentage:3.0f} %"))
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task("preparing the network", total=float(count))
        yield lambda name, done: progress.update(task, completed=done, description=name or None)
