"""The jobs of the page: a bounded queue, one thread that works it off, and results that expire.

Everything a job owns lies in one folder of its own; names that people gave are never used as paths.
"""

import os
import secrets
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from finescale.errors import FinescaleError
from finescale.images import files
from finescale.inference.tiling import Cancelled

_PATIENCE = 20.0  # seconds that a server waits at its end for the job at work


class State(StrEnum):
    """Where a job stands; the last three are final."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


FINAL = frozenset({State.DONE, State.FAILED, State.CANCELLED})


class Full(Exception):
    """The queue takes no more; `retry_after` is in whole seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__("the queue is full")
        self.retry_after = retry_after


@dataclass(frozen=True)
class Limits:
    """What one server accepts.

    Attributes:
        upload_bytes: of one file.
        pixels: of a picture that is sent.
        result_pixels: of a picture that is asked for.
        waiting: jobs in the queue, without the running one.
        kept_bytes: of finished jobs; above, their previews go first, then those that ended first, never the last.
        keep: seconds after which a finished job is forgotten and its files removed.
    """

    upload_bytes: int = 100 << 20
    pixels: int = 64_000_000  # phones take 48 and 50 megapixels
    result_pixels: int = 256_000_000  # 4x of a photograph of 12.5 megapixels, and some
    waiting: int = 16
    kept_bytes: int = 4 << 30
    keep: float = 12 * 3600.0


@dataclass(frozen=True)
class Order:
    """What is asked for: a picture by its safe name, a network, a result size and a file format.

    Attributes:
        name: of the source, without folders; for people only.
        network: its name, or `finescale.networks.AUTO` as long as the one for this picture is not chosen.
        source: (width, height) of the picture that was sent.
        size: (width, height) of the result.
        format: of the result's file, a value of `finescale.images.files.FORMATS`.
        result_name: file name under which the result is downloaded.
        quality: 1 to 100, of formats that have one; None: the usual one.
    """

    name: str
    network: str
    source: tuple[int, int]
    size: tuple[int, int]
    format: str
    result_name: str
    quality: int | None = None


@dataclass(eq=False)
class Job:
    """One picture on its way; read from any thread, written by `Jobs` only."""

    id: str
    order: Order
    folder: Path
    state: State = State.WAITING
    progress: float = 0.0
    error: str | None = None
    warnings: list[str] = field(default_factory=list)
    started: float | None = None
    ended: float | None = None
    seen: float = 0.0  # when somebody last asked for it
    delivered: bool = False  # whether its result was sent to its end as a download
    bytes: int = 0  # of source and result, once it is finished
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def source(self) -> Path:
        """The picture as it was sent."""
        return self.folder / "source"

    @property
    def result(self) -> Path:
        """The enlarged picture, once the job is done."""
        return self.folder / "result"

    def naming(self, sentence: str) -> str:
        """The sentence with the names that people know instead of the paths."""
        return sentence.replace(str(self.source), self.order.name).replace(str(self.result), self.order.result_name)

    def warn(self, sentence: str) -> None:
        """Takes a warning about the picture."""
        self.warnings.append(self.naming(sentence))

    def choose(self, network: str) -> None:
        """Takes the name of the network that the picture is enlarged by."""
        self.order = replace(self.order, network=network)

    @property
    def seconds(self) -> float:
        """Worked on so far."""
        if self.started is None:
            return 0.0
        return (self.ended or time.monotonic()) - self.started

    @property
    def seconds_left(self) -> float | None:
        """Estimated from the progress so far; None as long as that says nothing."""
        if self.state in FINAL:
            return 0.0
        if self.progress < 0.01 or self.seconds < 0.5:
            return None
        return self.seconds * (1 - self.progress) / self.progress


class Work(Protocol):
    """Does jobs."""

    def __call__(
        self,
        order: Order,
        source: Path,
        result: Path,
        progress: Callable[[float], None],
        choose: Callable[[str], None],
    ) -> None:
        """Reads `source` and writes `result`, atomically.

        Args:
            order: what is asked for.
            source, result: files.
            progress: takes 0 to 1, and may raise `Cancelled`.
            choose: takes the name of the network as soon as it is known.
        """


class Jobs:
    """A bounded queue with one worker thread; all methods may be called from any thread.

    Args:
        work: what is done with each job.
        limits: see `Limits`.
        folder: an empty folder for the jobs' files; `close` removes it.
    """

    def __init__(self, work: Work, limits: Limits, folder: Path) -> None:
        self.limits = limits
        self.folder = folder
        self._closed = False
        self.closing = False  # set without the lock, also from a signal handler
        self._work = work
        self._jobs: dict[str, Job] = {}  # in order of submission
        self._changed = threading.Condition(threading.RLock())
        self._typical = 5.0  # seconds a job takes: a running average
        self._thread = threading.Thread(target=self._run, name="finescale-worker", daemon=True)
        self._thread.start()

    def room(self) -> None:
        """Raises `Full` when the queue takes no more."""
        with self._changed:
            if self.waiting() >= self.limits.waiting or self.closing:
                raise Full(max(1, min(600, round(self._typical))))

    def submit(self, order: Order, upload: Path) -> Job:
        """Queues a job; the uploaded file moves into its folder.

        Raises:
            Full: try again later.
        """
        with self._changed:
            self._sweep()
            self.room()
            identity = secrets.token_urlsafe(18)
            job = Job(identity, order, self.folder / identity)
            job.folder.mkdir(mode=0o700)
            upload.replace(job.source)
            self._jobs[job.id] = job
            self._changed.notify_all()
            return job

    def get(self, identity: str) -> Job | None:
        """The job of that id, or None when there is none (any more)."""
        with self._changed:
            self._sweep()
            return self._jobs.get(identity)

    def position(self, job: Job) -> int:
        """Jobs that come before this one, the running one included."""
        with self._changed:
            if job.state is not State.WAITING:
                return 0
            before = 0
            for other in self._jobs.values():
                if other is job:
                    break
                before += other.state not in FINAL
            return before

    def waiting(self) -> int:
        """Jobs in the queue."""
        with self._changed:
            return sum(job.state is State.WAITING for job in self._jobs.values())

    def expires(self, job: Job) -> float | None:
        """Seconds until a finished job is forgotten, if nobody asks for it; None for one that is not finished."""
        return None if job.ended is None else max(0.0, max(job.ended, job.seen) + self.limits.keep - time.monotonic())

    def weigh(self, job: Job) -> bool:
        """Notes what the files of a finished job take, removes what is too much then; False when it is this one."""
        with self._changed:
            job.bytes = sum(path.stat().st_size for path in (job.source, job.result) if path.is_file())
            self._sweep()
            previews = list(self.folder.glob("*/preview-*.png"))  # no result goes for them: they can be made anew
            room = self.limits.kept_bytes - sum(other.bytes for other in self._jobs.values())
            if sum(path.stat().st_size for path in previews) > room:
                for path in (path for path in previews if path.parent != job.folder):
                    with suppress(OSError):  # Windows has it open
                        path.unlink()
            return job.id in self._jobs

    def remove(self, identity: str) -> bool:
        """Cancels a job and forgets it with all its files; False when there is none of that id."""
        with self._changed:
            job = self._jobs.get(identity)
            if job is None:
                return False
            self._forget(job)
            return True

    def close(self) -> None:
        """Stops the worker at its next progress report and removes every file; once."""
        self.closing = True
        if self._closed:
            return
        self._closed = True
        with self._changed:
            for job in list(self._jobs.values()):
                self._forget(job)
            self._changed.notify_all()
        self._thread.join(_PATIENCE)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _forget(self, job: Job) -> None:
        job.stop.set()
        running = job.state is State.RUNNING
        if job.state not in FINAL:
            job.state = State.CANCELLED
        self._jobs.pop(job.id, None)
        if not running:  # the worker removes the files of the job it is at
            shutil.rmtree(job.folder, ignore_errors=True)

    def _sweep(self) -> None:
        """Forgets what has expired, and the oldest of what takes more room than there is for it."""
        finished = [job for job in self._jobs.values() if job.ended is not None]
        finished.sort(key=lambda job: job.ended or 0.0)
        total = sum(job.bytes for job in finished)
        for job in finished:
            if self.expires(job) == 0.0 or (total > self.limits.kept_bytes and job is not finished[-1]):
                total -= job.bytes
                self._forget(job)

    def _next(self) -> Job | None:
        """Waits for a job and marks it running; None when the server closes."""
        with self._changed:
            while not self.closing:
                self._sweep()
                with suppress(OSError):
                    os.utime(self.folder)  # which some systems remove when it was not touched for days
                for job in self._jobs.values():
                    if job.state is State.WAITING:
                        job.state, job.started = State.RUNNING, time.monotonic()
                        return job
                self._changed.wait(min(30.0, max(0.1, self.limits.keep / 4)))
            return None

    def _run(self) -> None:
        while job := self._next():
            error: str | None = None
            try:
                with files.warnings_to(job.warn):
                    self._work(job.order, job.source, job.result, self._reporter(job), job.choose)
            except Cancelled:
                job.stop.set()  # it is not yet where the server closes
            except FinescaleError as problem:
                error = job.naming(str(problem))
            except MemoryError:
                error = f"{job.order.name}: there is not enough memory for a result of this size"
            except Exception as problem:
                with suppress(OSError, ValueError):  # whoever read it may have left
                    traceback.print_exc(file=sys.stderr)
                error = f"{job.order.name}: something unexpected went wrong ({type(problem).__name__})"
            with self._changed:
                if job.stop.is_set():
                    job.state = State.CANCELLED
                    shutil.rmtree(job.folder, ignore_errors=True)
                    continue
                job.ended = time.monotonic()
                job.error = error
                if error is not None:
                    with suppress(OSError):  # goes with its folder later, if Windows has it open
                        job.source.unlink()
                else:
                    job.progress = 1.0
                    self._typical += (job.seconds - self._typical) / 4
                job.state = State.DONE if error is None else State.FAILED
                self.weigh(job)

    def _reporter(self, job: Job) -> Callable[[float], None]:
        def report(progress: float) -> None:
            if self.closing or job.stop.is_set():
                raise Cancelled
            job.progress = max(job.progress, min(1.0, float(progress)))
            with self._changed:
                self._sweep()

        return report
