"""Pictures on their way from file to file: while one is computed, the next are read and the last are written."""

import contextvars
import math
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from finescale.atomic import check_folder, check_free, check_target, place, writing
from finescale.errors import FinescaleError, TakenError, UsageError, is_out_of_memory
from finescale.images import files
from finescale.images.encoders import ENCODERS
from finescale.images.picture import Picture
from finescale.inference import strips
from finescale.inference.advice import Advice, advice
from finescale.inference.prefetch import Prefetcher
from finescale.inference.size import Target
from finescale.inference.tiling import Progress
from finescale.inference.upscale import Networks, Upscaler, check_progress, networks_of

if TYPE_CHECKING:
    import torch

    from finescale.networks.base import Network

GROUP_PIXELS = 96 * 1024  # small pictures of one size are computed together, up to so many input pixels
_AHEAD, _BEHIND = 32 << 20, 96 << 20  # bytes of pictures that wait to be computed, and to be written

Bar = Callable[[str, float], None]


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

    def goes_with(self, other: "_Task") -> bool:
        """Whether both can be computed together: opaque 8-bit colour of one size."""
        one, two = self.picture, other.picture
        return (
            one is not None
            and two is not None
            and one.alpha is None
            and two.alpha is None
            and one.pixels.shape == two.pixels.shape
            and one.pixels.dtype == two.pixels.dtype == np.uint8
            and one.pixels.shape[2] == 3
            and self.size == other.size
        )


class Flow:
    """The pictures of one call.

    Args:
        target: what size the results have.
        networks: what enlarges them.
        format: of the results; None: by the targets' names.
        quality: see `finescale.images.files.write`.
        overwrite: replace results that are there already.
        skip: leave pictures out whose results are there, or made by another process meanwhile, instead of failing.
        advise: note, for every picture, whether another network suits it better than the default one.

    Attributes:
        failures: pictures that failed, and why.
        skipped: pictures that were left out.
        written: (width, height) of the results.
        advice: what was noted.
    """

    def __init__(
        self,
        target: Target,
        networks: Networks,
        *,
        format: str | None = None,
        quality: int | None = None,
        overwrite: bool = False,
        skip: bool = False,
        advise: bool = False,
    ) -> None:
        self.target, self.networks = target, networks
        self.format, self.quality, self.overwrite, self.skip = format, quality, overwrite, skip
        self.failures: dict[Job, Exception] = {}
        self.skipped: list[Job] = []
        self.written: dict[Job, tuple[int, int]] = {}
        self.advise, self.advice = advise, dict[Job, Advice]()
        self._writes: deque[tuple[_Task, Future[None], int]] = deque()

    def run(self, todo: list[Job], bar: Bar) -> None:
        """Does all of them; what fails is kept in `failures`, unless it is no error a person can be told.

        Interrupted, it has noted all that was written.

        Args:
            todo: the pictures.
            bar: told the name of the picture in work, and how many pictures are done.
        """
        before = 0
        with (
            ThreadPoolExecutor(1, "finescale writing") as writer,
            Prefetcher(todo, self._look, weight=lambda task: task.weight if task else 0, limit=_AHEAD) as tasks,
        ):
            try:
                while tasks.peek():
                    group = list(self._group(tasks))
                    if group:
                        name = group[0].job.source.name
                        self._compute(group, writer, partial(_tell, bar, name, before, len(group)))
                        before += len(group)
                    else:
                        before += 1
                        bar("", before)
                self._settle(0)
            except BaseException:
                self._writes = deque(write for write in self._writes if not write[1].cancel())
                self._settle(0)  # what is being written is made nevertheless
                raise

    def _look(self, job: Job) -> _Task | None:
        """Reads a picture; None where it is to be skipped."""
        with writing(job.target):  # its name may be too long
            if self.skip and not self.overwrite and job.target.is_file():
                return None
        check_free(job.target, self.overwrite)
        kind = files.format_of(job.target, self.format)
        files.check_quality(self.quality)
        info = files.probe(job.source)
        small = info.width, info.height
        size = self.target.size(*small)
        files.check_size(job.target, kind, size, info.channels)
        with writing(job.target):
            job.target.parent.mkdir(parents=True, exist_ok=True)
        check_folder(place(job.target, self.overwrite).parent)
        large = size[0] * size[1] > strips.FROM_PIXELS and kind in ENCODERS
        picture = None if large else files.read(job.source)
        if self.advise and (better := advice(job.source, picture)):
            self.advice[job] = better
        return _Task(job, kind, small, size, picture)

    def _group(self, tasks: Prefetcher[Job, _Task | None]) -> Iterator[_Task]:
        """The next picture, with those after it that can be computed together; nothing where it failed."""
        job, task = tasks.pop()
        if task is None:
            self.skipped.append(job)
        elif isinstance(task, Exception):
            self._fail(job, task)
        else:
            yield task
            room = self._room(task) - 1
            while room > 0 and (following := tasks.peek()):
                other = following[1]
                if not isinstance(other, _Task) or not task.goes_with(other):
                    return
                tasks.pop()
                room -= 1
                yield other

    def _room(self, task: _Task) -> int:
        """How many pictures of one size are computed together: of those that need one pass in one piece."""
        if 2 * math.prod(task.small) > GROUP_PIXELS or task.picture is None:
            return 1
        try:
            chain = self.networks.chain(task.small, task.size)
            if len(chain) != 1 or not _exactly(chain[0], task) or chain[0].tile is not None or chain[0].ensemble:
                return 1
            engine = chain[0].engine_for(task.picture.pixels.dtype)
            pixels = math.prod(-(-side // engine.multiple) * engine.multiple for side in task.small)  # filled up
            return int(min(GROUP_PIXELS, engine.tile_budget() / engine.bytes_per_pixel) // pixels)
        except Exception:  # as of a full GPU; what it was is told where the picture is computed
            return 1

    def _compute(self, group: list[_Task], writer: ThreadPoolExecutor, progress: Callable[[float], None]) -> None:
        task = group[0]
        try:
            chain = self.networks.chain(task.small, task.size)
            if len(group) > 1:
                pixels = chain[0].group(np.stack([one.picture.pixels for one in group if one.picture]))
                results = [replace(one.picture, pixels=y) for one, y in zip(group, pixels) if one.picture]
            elif task.picture is None and len(chain) == 1 and _exactly(chain[0], task) and _by_tiles(chain[0]):
                strips.upscale_strips(
                    task.job.source,
                    task.job.target,
                    chain[0],
                    format=task.kind,
                    overwrite=self.overwrite,
                    progress=progress,
                )
                self.written[task.job] = task.size
                return
            else:
                if task.picture is None:
                    check_free(task.job.target, self.overwrite)  # it was looked at before the last one was computed
                picture = task.picture or files.read(task.job.source)
                results = [self.networks.picture(picture, task.size, progress)]
        except Exception as error:
            if len(group) == 1:
                self._fail(task.job, error)
                return
            for one in group:  # it is the fault of one of them
                self._compute([one], writer, lambda share: None)
            progress(1.0)
            return
        for one, result in zip(group, results):
            write = partial(files.write, format=one.kind, quality=self.quality, overwrite=self.overwrite)
            weight = result.nbytes
            self._settle(_BEHIND - weight)
            heard = contextvars.copy_context()  # who listens to warnings
            self._writes.append((one, writer.submit(heard.run, write, result, one.job.target), weight))
        progress(1.0)

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
                self.written[task.job] = task.size

    def _fail(self, job: Job, error: BaseException) -> None:
        """Notes what a person can be told; what else went wrong is raised."""
        taken = isinstance(error, TakenError) and not job.target.is_symlink()  # links to nothing are no results
        if taken and self.skip and not self.overwrite:
            self.skipped.append(job)
            return
        if not isinstance(error, FinescaleError | OSError):
            if not is_out_of_memory(error):
                raise error
            error = FinescaleError(f"{job.source}: there is not enough memory for this picture")
        error.__traceback__ = error.__context__ = error.__cause__ = None  # they hold the picture in memory
        self.failures[job] = error


def _tell(bar: Bar, name: str, before: int, count: int, done: float) -> None:
    """Tells the share of `count` pictures that is done, after those before them."""
    bar(name, before + count * done)


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
    device: "str | torch.device" = "auto",
    engine: str = "auto",
    precision: str = "auto",
    ensemble: bool = False,
    tile: int | None = None,
    progress: Progress | None = None,
) -> tuple[int, int]:
    """Enlarges a picture from file to file, as `finescale upscale` does: nothing of it is lost on the way.

    16 bits a sample, transparency, profile, EXIF and resolution are kept as far as the target's format holds them.
    Large results in PNG and TIFF go by strips, in little memory, and go on where an earlier call was ended.

    >>> upscale_file("photo.jpg", "photo_x4.png", scale=4)  # doctest: +SKIP
    (1600, 1200)

    Args:
        source: the picture.
        target: the file to write, which appears whole or not at all; its folder is there.
        scale, width, height, fit, network, device, engine, precision, ensemble, tile: see `finescale.upscale`.
        format, quality: see `finescale.images.files.write`; the format by default by the target's name.
        overwrite: replace an existing file.
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
                f"upscale_file takes the {what}'s name, not {type(given).__name__} (finescale.images.files reads and "
                "writes pictures)"
            )
    job, settings = Job(Path(source), Path(target)), {"device": device, "engine": engine, "precision": precision}
    check_target(job.target, overwrite)
    files.check_name(job.target, format)
    asked = Target.of(scale, width, height, fit)
    with networks_of(network, {**settings, "ensemble": ensemble, "tile": tile}) as networks:
        flow = Flow(asked or networks.target(), networks, format=format, quality=quality, overwrite=overwrite)
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
