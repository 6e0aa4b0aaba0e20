"""The queue itself: what is kept, what is said, what is left behind."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image
from tests.web.conftest import until

from finescale.images import files
from finescale.web.jobs import Full, Job, Jobs, Limits, Order, State

ORDER = Order("cat.png", "sa-rcan-light", (2, 2), (8, 8), "png", "cat_x4.png")


def work(
    order: Order, source: Path, result: Path, progress: Callable[[float], None], choose: Callable[[str], None]
) -> None:
    """Does what the source says."""
    match source.read_text():
        case "large":
            result.write_bytes(bytes(45))
        case "copy":
            result.write_text("done")
        case "slow":
            for step in range(1000):
                progress(step / 1000)
                time.sleep(0.01)
        case "fall":
            raise RuntimeError(f"secret of {source}")
        case "memory":
            raise MemoryError


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    (tmp_path / "jobs").mkdir()
    found = Jobs(work, Limits(waiting=2, kept_bytes=100), tmp_path / "jobs")
    yield found
    found.close()


def submit(jobs: Jobs, text: str) -> Job:
    upload = jobs.folder / "upload"
    upload.write_text(text)
    return jobs.submit(ORDER, upload)


def finish(jobs: Jobs, text: str) -> Job:
    job = submit(jobs, text)
    until(lambda: job.state is State.DONE)
    return job


def test_results_are_kept_by_their_size_and_not_by_their_number(jobs: Jobs) -> None:
    small = [finish(jobs, "copy") for _ in range(12)]  # 8 bytes each
    assert all(jobs.get(job.id) for job in small)
    large = finish(jobs, "large")  # 50 bytes
    assert [jobs.get(job.id) is not None for job in small] == [False] * 6 + [True] * 6
    kept = [*small[6:], large]  # 98 bytes

    def looked_at(job: Job) -> list[str]:
        (job.folder / "preview-result.png").write_bytes(bytes(150))
        assert jobs.weigh(job)
        return [path.parent.name for path in jobs.folder.glob("*/preview-*")]

    # previews can be made anew: for that of another job they go, but no result does
    assert (looked_at(large), looked_at(small[6])) == ([large.id], [small[6].id])
    assert all(jobs.get(job.id) for job in kept)
    jobs.limits = replace(jobs.limits, kept_bytes=40)
    newest = finish(jobs, "large")
    assert [jobs.get(job.id) for job in kept] == [None] * 7
    assert [path.name for path in jobs.folder.iterdir()] == [newest.id]  # stays, too large as it is


def test_what_fails_unexpectedly_is_told_without_secrets_and_work_goes_on(
    jobs: Jobs, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = submit(jobs, "fall")
    until(lambda: failed.state is State.FAILED)
    assert failed.error == "cat.png: something unexpected went wrong (RuntimeError)"
    assert "secret" in capsys.readouterr().err  # for whoever runs the server
    assert not failed.source.exists()
    poor = submit(jobs, "memory")
    until(lambda: poor.state is State.FAILED)
    assert "not enough memory" in (poor.error or "")
    good = submit(jobs, "copy")
    until(lambda: good.state is State.DONE)


def test_work_goes_on_where_nobody_hears_what_failed(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(text: str) -> None:
        said.append(text)
        raise BrokenPipeError

    said: list[str] = []
    monkeypatch.setattr("sys.stderr", SimpleNamespace(write=write, flush=lambda: None))
    failed = submit(jobs, "fall")
    until(lambda: failed.state is State.FAILED)
    assert said
    finish(jobs, "copy")


def test_warnings_stay_with_their_job_and_name_its_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    both = threading.Barrier(2)

    def copy(order: Order, source: Path, result: Path, *_: Any, **__: Any) -> None:
        if order.name != "still.png":
            both.wait(10)  # two queues work at the same time
        files.write(files.read(source), result, format=order.format)

    def submit(name: str, picture: Image.Image, **options: Any) -> Job:
        queue = queues[name[:5]]
        picture.save(queue.folder / "upload", **options)
        return queue.submit(Order(name, "bicubic", (2, 2), (2, 2), "jpeg", f"{name}_x1.jpg"), queue.folder / "upload")

    queues = {}
    for name in ("first", "secon", "still"):
        (tmp_path / name).mkdir()
        queues[name] = Jobs(copy, Limits(), tmp_path / name)
    clear, opaque = Image.new("RGBA", (2, 2)), Image.new("RGB", (2, 2))
    first = submit("first.gif", opaque, format="GIF", save_all=True, append_images=[Image.new("RGB", (2, 2), "red")])
    second = submit("second.png", clear, format="PNG")
    still = submit("still.png", opaque, format="PNG")
    until(lambda: {job.state for job in (first, second, still)} == {State.DONE})
    for queue in queues.values():
        queue.close()
    assert first.warnings == ["first.gif: has several frames or pages; only the first is read"]
    assert second.warnings == ["second.png_x1.jpg: JPEG holds no transparency; the picture is laid on white"]
    assert still.warnings == []
    assert not caplog.records


def test_the_queue_is_bounded_and_in_order(jobs: Jobs) -> None:
    running = submit(jobs, "slow")
    until(lambda: running.state is State.RUNNING)
    waiting = [submit(jobs, "copy"), submit(jobs, "copy")]
    assert [jobs.position(job) for job in (running, *waiting)] == [0, 1, 2]
    with pytest.raises(Full) as full:
        submit(jobs, "copy")
    assert full.value.retry_after >= 1
    until(lambda: running.seconds_left is not None)
    assert jobs.remove(running.id)
    assert not jobs.remove(running.id)
    until(lambda: waiting[1].state is State.DONE)
    assert running.state is State.CANCELLED
    assert not running.folder.exists()


def test_the_folder_stays_young_while_nothing_is_asked(tmp_path: Path) -> None:
    os.utime(tmp_path, (0, 0))
    jobs = Jobs(work, Limits(keep=0.4), tmp_path)
    until(lambda: tmp_path.stat().st_mtime > 0)
    os.utime(tmp_path, (0, 0))
    until(lambda: tmp_path.stat().st_mtime > 0)
    jobs.close()


def test_work_that_the_end_of_the_server_cuts_off_is_not_done(jobs: Jobs) -> None:
    running = submit(jobs, "slow")
    until(lambda: running.state is State.RUNNING)
    jobs.closing = True  # as the server sets it, some time before it closes
    until(lambda: running.state is not State.RUNNING)
    assert running.state is State.CANCELLED
    until(lambda: not running.folder.exists())


def test_closing_stops_the_work_and_removes_everything(jobs: Jobs) -> None:
    running, waiting = submit(jobs, "slow"), submit(jobs, "copy")
    until(lambda: running.state is State.RUNNING)
    started = time.monotonic()
    jobs.close()
    assert time.monotonic() - started < 5
    assert (running.state, waiting.state) == (State.CANCELLED, State.CANCELLED)
    assert not jobs.folder.exists()
    with pytest.raises(Full):
        jobs.room()
