"""Pictures on their way from file to file: while one is computed, the next are read and the last are written."""

import contextvars
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finescale.atomic import check_folder, check_free, check_target, place, writing
from finescale.errors import FinescaleError, TakenError, UsageError, is_out_of_memory, picture_error
from finescale.images import files
from finescale.images.encoders import ENCODERS
from finescale.images.picture import Picture
from finescale.inference import strips
from finescale.inference.advice import Advice, choice
from finescale.inference.prefetch import Prefetcher
from finescale.inference.size import Target
from finescale.inference.tiling import Progress
from finescale.inference.upscale import Networks, Upscaler, check_progress, networks_of

if TYPE_CHECKING:
    import torch

    from finescale.networks.base import Network

_AHEAD, _BEHIND = 32 << 20, 96 << 20  # bytes of pictures that wait to be computed, and to be written

_NO_NETWORK = "bicubic"

Bar = Callable[[str, float], None]


@dataclass(frozen=True)
class Options:
    """What to do with every picture.

    Attributes:
        target: size of the results.
        networks: what enlarges them.
        format: of the results; None: by the targets' names; "same", for `finescale.inference.batch`: as each picture.
        quality: see `finescale.images.files.write`.
        overwrite: replace results that are there already.
        skip: leave pictures out whose results are there, or made by another process meanwhile, instead of failing.
        output: where `finescale.inference.batch` puts them: a file (for one picture), a folder, or None: beside each
            picture, as PNG (TIFF stays TIFF) unless `format` says otherwise.
        suffix: what it appends to their names; None: by the target.
        strip: leave out EXIF, XMP and texts, see `finescale.images.files.stripping`.
    """

    target: Target
    networks: Networks
    format: str | None = None
    quality: int | None = None
    overwrite: bool = False
    skip: bool = False
    output: str | None = None
    suffix: str | None = None
    strip: bool = False


@dataclass(frozen=True)
class Job:
    """A picture to read and the file to write."""

    source: Path
    target: Path


@dataclass(frozen=True)
class _Task:
    """A job that was looked at.

    Attributes:
        kind: format of the result.
        small, size: (width, height) of the picture and of the result.
        picture: None where the result is so large that it may go by strips; it is read later then.
    """

    job: Job
    kind: str
    small: tuple[int, int]
    size: tuple[int, int]
    picture: Picture | None

    @property
    def weight(self) -> int:
        """Bytes of the picture; as long as there is none it waits alone, as making it may take an hour."""
        return self.picture.nbytes if self.picture else _AHEAD + 1


class Flow:
    """The pictures of one call.

    Args:
        options: what to do with them.
        made: told every result, and its (width, height), as soon as it is written.

    Attributes:
        failures: pictures that failed, and why.
        skipped: pictures that were left out.
        written: (width, height) of the results.
        smaller: pictures whose results are smaller than they are.
        copied: pictures that keep their size and went through no network.
        advice: why another network was chosen.
        used: the name or file of the network that enlarged a picture; "bicubic" where none did.
    """

    def __init__(self, options: Options, made: Callable[[Job, tuple[int, int]], object] | None = None) -> None:
        self.options = options
        self._made = made
        self.failures: dict[Job, FinescaleError] = {}
        self.skipped: list[Job] = []
        self.written: dict[Job, tuple[int, int]] = {}
        self.smaller: list[Job] = []
        self.copied: list[Job] = []
        self.advice: dict[Job, Advice] = {}
        self.used: dict[Job, str] = {}
        self._last = options.networks
        self._writes: deque[tuple[_Task, Future[None], int]] = deque()

    def run(self, todo: list[Job], bar: Bar) -> None:
        """Does all of them; what fails is kept in `failures`, unless it is no error a person can be told.

        Interrupted, it has noted all that was written.

        Args:
            todo: the pictures.
            bar: told the name of the picture in work, and how many pictures are done.

        Raises:
            FinescaleError: a network cannot be made ready, which is the fault of no picture.
        """
        with (
            files.stripping(self.options.strip),
            ThreadPoolExecutor(1, "finescale writing") as writer,
            Prefetcher(todo, self._look, weight=lambda task: task.weight if task else 0, limit=_AHEAD) as tasks,
        ):
            try:
                for before, (job, task) in enumerate(tasks):
                    if isinstance(task, _Task):
                        self._compute(task, writer, partial(_tell, bar, job.source.name, before))
                        continue
                    if task is None:
                        self.skipped.append(job)
                    else:
                        self._fail(job, task)
                    bar("", before + 1)
                self._settle(0)
            except FinescaleError:  # of a network: what is computed is written all the same
                self._settle(0)
                raise
            except BaseException:
                self._writes = deque(write for write in self._writes if not write[1].cancel())
                self._settle(0)  # what is being written is made nevertheless
                raise

    def _look(self, job: Job) -> _Task | None:
        """Reads a picture; None where it is to be skipped."""
        options = self.options
        with writing(job.target):  # its name may be too long
            if options.skip and not options.overwrite and job.target.is_file():
                return None
        check_free(job.target, options.overwrite)
        kind = files.format_of(job.target, options.format)
        files.check_quality(options.quality)
        info = files.probe(job.source)
        small = info.width, info.height
        size = options.target.size(*small)
        files.check_size(job.target, kind, size, info.channels)
        with writing(job.target):
            job.target.parent.mkdir(parents=True, exist_ok=True)
        check_folder(place(job.target, options.overwrite).parent)
        large = size[0] * size[1] > strips.FROM_PIXELS and kind in ENCODERS
        picture = None if large else files.read(job.source)
        if options.networks.auto and (better := choice(job.source, picture, small, size)):
            self.advice[job] = better
        return _Task(job, kind, small, size, picture)

    def _networks(self, job: Job) -> Networks:
        """Those that were chosen; the ones before them give back memory that large tiles took."""
        networks, better = self.options.networks, self.advice.get(job)
        if better:
            networks = networks.other(better.network)
        if networks is not self._last:
            self._last.rest()
        self._last = networks
        return networks

    def _compute(self, task: _Task, writer: ThreadPoolExecutor, progress: Progress) -> None:
        job, overwrite, ready = task.job, self.options.overwrite, False
        networks = self._networks(job)
        try:
            chain = networks.chain(task.small, task.size)
            ready = True
            self.used[job] = networks.name if chain else _NO_NETWORK
            if task.picture is None and len(chain) == 1 and _exactly(chain[0], task) and _by_tiles(chain[0]):
                strips.upscale_strips(
                    job.source, job.target, chain[0], format=task.kind, overwrite=overwrite, progress=progress
                )
                self._wrote(task)
                return
            if task.picture is None:
                check_free(job.target, overwrite)  # it was looked at before the last one was computed
            result = networks.picture(task.picture or files.read(job.source), task.size, progress)
        except Exception as error:
            if not (ready or is_out_of_memory(error)):
                raise  # the networks are in the way of all that follow, too
            self._fail(job, error)
            return
        self._settle(_BEHIND - result.nbytes)
        write = partial(files.write, format=task.kind, quality=self.options.quality, overwrite=overwrite)
        heard = contextvars.copy_context()  # who listens to warnings
        self._writes.append((task, writer.submit(heard.run, write, result, job.target), result.nbytes))

    def _settle(self, limit: int) -> None:
        """Takes note of what is written, and waits until what is not weighs at most `limit` bytes, or nothing waits."""
        while self._writes:
            task, future, _ = self._writes[0]
            if not future.done() and sum(weight for _, _, weight in self._writes) <= limit:
                return
            error = future.exception()
            self._writes.popleft()
            if error:
                self._fail(task.job, error)
            else:
                self._wrote(task)

    def _wrote(self, task: _Task) -> None:
        self.written[task.job] = task.size
        if task.size[0] < task.small[0]:
            self.smaller.append(task.job)
        if task.size == task.small and self.used[task.job] == _NO_NETWORK:
            self.copied.append(task.job)
        if self._made:
            self._made(task.job, task.size)

    def _fail(self, job: Job, error: BaseException) -> None:
        """Notes what a person can be told; what else went wrong is raised."""
        taken = isinstance(error, TakenError) and not job.target.is_symlink()  # links to nothing are no results
        if taken and self.options.skip and not self.options.overwrite:
            self.skipped.append(job)
            return
        told = picture_error(job.source, error)
        told.__traceback__ = told.__context__ = told.__cause__ = None  # they hold the picture in memory
        self.failures[job] = told


def _tell(bar: Bar, name: str, before: int, done: float) -> None:
    """Tells the share of a picture that is done, after those before it."""
    bar(name, before + done)


def upscale_file(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    scale: float | None = None,
    network: "str | os.PathLike[str] | Network | Upscaler | None" = None,
    *,
    width: int | None = None,
    height: int | None = None,
    fit: tuple[int, int] | None = None,
    format: str | None = None,
    quality: int | None = None,
    overwrite: bool = False,
    strip: bool = False,
    device: "str | torch.device" = "auto",
    engine: str = "auto",
    precision: str = "auto",
    ensemble: bool = False,
    tile: int | None = None,
    window: int | None = 48,
    progress: Progress | None = None,
) -> tuple[int, int]:
    """Enlarges a picture from file to file, as `finescale upscale` does, with 16 bits, transparency, profile and EXIF.

    16 bits a sample, transparency, profile, EXIF and resolution are kept as far as the target's format holds them.
    Large results in PNG and TIFF go by strips, in little memory, and go on where an earlier call was ended.

    >>> upscale_file("photo.jpg", "photo_x4.png", scale=4)  # doctest: +SKIP
    (1600, 1200)

    Args:
        source: the picture.
        target: the file to write, which appears whole or not at all; its folder is there.
        scale, width, height, fit, network, device, engine, precision, ensemble, tile, window: see `finescale.upscale`.
        format, quality: see `finescale.images.files.write`; the format by default by the target's name.
        overwrite: replace an existing file.
        strip: leave out EXIF, XMP and texts, which may tell of places and persons; profile and resolution are kept.
        progress: called with the share that is done, from 0 to 1; what it raises ends the call.

    Returns:
        (width, height) of the result.

    Raises:
        UsageError: an impossible size, format or quality, an unknown network, device, engine or precision; `source`
            or `target` is no name; settings beside an `Upscaler`.
        FinescaleError: the picture cannot be read, or the target exists or cannot be written.
    """
    check_progress(progress)
    for what, given in (("source", source), ("target", target)):
        if not isinstance(given, str | os.PathLike):
            raise UsageError(
                f"upscale_file takes the {what}'s name, not {type(given).__name__} (finescale.images.files: read takes "
                "open files and bytes, encode gives bytes)"
            )
    job = Job(Path(source), Path(target))
    settings: dict[str, Any] = {"device": device, "engine": engine, "precision": precision}
    settings |= {"ensemble": ensemble, "tile": tile, "window": window}
    check_target(job.target, overwrite)
    files.check_name(job.target, format)
    asked = Target.of(scale, width, height, fit)
    with networks_of(network, settings) as networks:
        flow = Flow(Options(asked or networks.target(), networks, format, quality, overwrite, strip=strip))
        flow.run([job], lambda _, done: progress(min(done, 1.0)) if progress else None)
    if flow.failures:
        raise flow.failures[job]
    return flow.written[job]


def _exactly(upscaler: Upscaler, task: _Task) -> bool:
    """Whether one pass gives the size that is asked for."""
    s = upscaler.scale
    return task.size == (task.small[0] * s, task.small[1] * s)


def _by_tiles(upscaler: Upscaler) -> bool:
    """Whether parts of a picture may be computed apart: without a window, statistics are of all of it."""
    return upscaler.window is not None or upscaler.tile is not None
