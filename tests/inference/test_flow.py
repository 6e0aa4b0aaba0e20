"""Pictures from file to file: read ahead, computed, written behind."""

import io
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.conftest import tiny_network
from tests.inference.test_tiling import picture

import finescale
from finescale.errors import FinescaleError, UsageError
from finescale.images import files, jpeg
from finescale.images.decoders import Info
from finescale.images.encoders import Layout
from finescale.images.picture import Picture
from finescale.images.strips import StripWriter
from finescale.inference import flow, strips
from finescale.inference.flow import Flow, Job, Options
from finescale.inference.prefetch import Prefetcher
from finescale.inference.size import Target
from finescale.inference.tiling import Array, Progress
from finescale.inference.upscale import Networks, Upscaler


def test_is_made_ahead_and_no_further_than_allowed() -> None:
    begun: list[int] = []

    def make(i: int) -> bytes:
        begun.append(i)
        if i == 2:
            raise FinescaleError("two")
        return bytes(10)

    with Prefetcher(range(6), make, weight=len, limit=15) as items:
        for _ in range(1000):
            time.sleep(0.005)
            if len(begun) == 2:
                break
        time.sleep(0.05)
        assert begun == [0, 1]  # 20 bytes wait: no more before some are taken
        taken = list(items)
        assert [item for item, _ in taken] == [0, 1, 2, 3, 4, 5]
        assert isinstance(taken[2][1], FinescaleError)
        assert not list(items)


def test_stops_when_it_is_left() -> None:
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt), Prefetcher(range(10**9), lambda i: bytes(9), weight=len, limit=50):
        raise KeyboardInterrupt
    assert threading.active_count() == before


class Noting(Upscaler):
    """Notes the shapes that the engine is given."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(tiny_network(2), engine="torch", precision="float32", **settings)
        self.shapes: list[tuple[int, ...]] = []
        run = self.engine.run

        def noting(x: Array, tick: Progress | None = None) -> Array:
            self.shapes.append(x.shape)
            return run(x, tick)

        self.engine.run = noting  # type: ignore[method-assign]


@pytest.fixture
def networks(monkeypatch: pytest.MonkeyPatch, tiny_weights: Path) -> Networks:
    monkeypatch.setenv("FINESCALE_WEIGHTS", str(tiny_weights))
    found = Networks(engine="torch", precision="float32")
    found._ready[2] = Noting()
    return found


def work(
    folder: Path,
    pictures: list[Picture],
    networks: Networks,
    *,
    scale: float = 2,
    kind: str = "png",
    **options: Any,
) -> Flow:
    todo = []
    for i, one in enumerate(pictures):
        source = folder / f"{i}.png"
        files.write(one, source)
        todo.append(Job(source, folder / "out" / f"{i}.{kind}"))
    done = Flow(Options(Target(scale=scale), networks, **options))
    done.run(todo, lambda name, count: None)
    return done


def shapes(networks: Networks) -> list[tuple[int, ...]]:
    (upscaler,) = networks.ready
    assert isinstance(upscaler, Noting)
    return upscaler.shapes


@pytest.mark.parametrize(
    ("scale", "kind"), [(1.5, "png"), (8, "png"), (2, "jpg")], ids=["to a size between", "by two passes", "to JPEG"]
)
def test_large_results_that_cannot_go_by_strips_are_made_as_a_whole(
    tmp_path: Path, networks: Networks, monkeypatch: pytest.MonkeyPatch, scale: float, kind: str
) -> None:
    monkeypatch.setattr(strips, "FROM_PIXELS", 0)
    small = Picture(picture(20, 30))
    done = work(tmp_path, [small], networks, scale=scale, kind=kind)
    assert not done.failures
    large, size = files.read(tmp_path / "out" / f"0.{kind}"), (int(30 * scale), int(20 * scale))
    assert large.size == size
    wanted = networks.picture(small, size).pixels.astype(int)
    assert np.abs(large.pixels - wanted).mean() < (5 if kind == "jpg" else 0.01)


def test_without_windows_large_results_are_made_as_a_whole(
    tmp_path: Path, networks: Networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strips, "FROM_PIXELS", 0)
    monkeypatch.setattr(strips, "STRIP_BYTES", 1)
    for settings, count in (({}, 1), ({"tile": 48}, 10)):
        (tmp_path / str(count)).mkdir()
        networks._ready[2] = Noting(window=None, **settings)
        assert not work(tmp_path / str(count), [Picture(picture(205, 70))], networks).failures
        assert len(shapes(networks)) == count  # statistics are of the whole, or of the tiles that are asked for


def test_large_results_are_not_looked_at_long_before_they_are_made(
    tmp_path: Path, networks: Networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process makes the second while the first is computed."""
    monkeypatch.setattr(strips, "FROM_PIXELS", 0)
    plain_probe, plain_read, plain_picture = files.probe, files.read, networks.picture
    looked, opened = list[str](), list[str]()

    def compute(*arguments: Any) -> Picture:
        if not (tmp_path / "out" / "1.png").exists():
            time.sleep(0.3)
            assert looked == ["0.png", "1.png"]
            (tmp_path / "out" / "1.png").write_text("of the other")
        return plain_picture(*arguments)

    def probe(path: Path) -> Info:
        looked.append(path.name)
        return plain_probe(path)

    def read(path: Path) -> Picture:
        opened.append(path.name)
        return plain_read(path)

    monkeypatch.setattr(networks, "picture", compute)
    monkeypatch.setattr(files, "probe", probe)
    monkeypatch.setattr(files, "read", read)
    done = work(tmp_path, [Picture(picture(20, 30)) for _ in range(4)], networks, scale=1.5, skip=True)
    assert not done.failures
    assert [job.source.name for job in done.skipped] == ["1.png"]
    assert opened == ["0.png", "2.png", "3.png"]


def test_a_full_gpu_is_told_of_the_picture(tmp_path: Path, networks: Networks, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(networks, "chain", full)
    done = work(tmp_path, [Picture(picture(30, 40)) for _ in range(2)], networks)
    assert all("there is not enough memory for this picture" in str(error) for error in done.failures.values())
    assert len(done.failures) == 2


def test_a_network_that_cannot_be_made_is_tried_once(
    tmp_path: Path, networks: Networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no picture's fault; what was made before is noted."""
    plain, tries = networks.upscaler, list[int]()

    def upscaler(scale: int) -> Upscaler:
        tries.append(scale)
        if scale == 4:
            raise UsageError("int8 needs OpenVINO and NNCF")
        return plain(scale)

    monkeypatch.setattr(networks, "upscaler", upscaler)
    todo = [Job(tmp_path / f"{i}.png", tmp_path / "out" / f"{i}.png") for i in range(4)]
    for job, size in zip(todo, [(40, 30), *3 * [(20, 15)]]):
        files.write(Picture(picture(*size)), job.source)
    done = Flow(Options(Target(width=60), networks))
    with pytest.raises(UsageError, match="needs OpenVINO and NNCF"):
        done.run(todo, lambda name, count: None)
    assert tries.count(4) == 1
    assert (list(done.written), done.failures) == ([todo[0]], {})


def test_warnings_are_heard_of_every_thread(tmp_path: Path) -> None:
    clear = np.zeros((20, 30, 4), np.uint8)
    frames = [Image.fromarray(clear), Image.fromarray(clear + 9)]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:])
    told: list[str] = []
    with files.warnings_to(told.append):
        finescale.upscale_file(tmp_path / "a.webp", tmp_path / "b.jpg", scale=2, network="bicubic")
    assert [any(word in one for one in told) for word in ("only the first is read", "white")] == [True, True]


def test_reading_computing_and_writing_overlap(
    tmp_path: Path, networks: Networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each stage waits for something that only happens if another one works at the same time."""
    read_third, computed_second = threading.Event(), threading.Event()
    plain_read, plain_write, plain_picture = files.read, files.write, networks.picture
    count = 0

    def read(path: Path) -> Picture:
        found = plain_read(path)
        if path.name == "2.png":
            read_third.set()
        return found

    def write(result: Picture, path: Path, **options: object) -> None:
        if path.parent.name == "out" and path.name == "0.png":
            assert computed_second.wait(20), "the second was not computed while the first was written"
        plain_write(result, path, **options)  # type: ignore[arg-type]

    def compute(*arguments: object) -> Picture:
        nonlocal count
        count += 1
        if count == 1:
            assert read_third.wait(20), "the third was not read while the first was computed"
        if count == 2:
            computed_second.set()
        return plain_picture(*arguments)  # type: ignore[arg-type]

    pictures = [Picture(picture(20, 30)) for _ in range(3)]
    monkeypatch.setattr(networks, "picture", compute)
    monkeypatch.setattr(files, "read", read)
    monkeypatch.setattr(files, "write", write)
    done = work(tmp_path, pictures, networks)
    assert not done.failures
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0.png", "1.png", "2.png"]


@pytest.mark.parametrize(("behind", "ahead"), [(0, False), (1 << 20, True)])
def test_results_that_wait_to_be_written_have_a_limit(
    tmp_path: Path, networks: Networks, monkeypatch: pytest.MonkeyPatch, behind: int, ahead: bool
) -> None:
    """While the first is written the second is computed, and the third if both together are not too much."""
    computed = [threading.Event() for _ in range(3)]
    plain_write, plain_picture, count = files.write, networks.picture, iter(computed)

    def write(result: Picture, path: Path, **options: Any) -> None:
        if path == tmp_path / "out" / "0.png":
            assert computed[1].wait(20)
            assert computed[2].wait(20 if ahead else 0.3) is ahead
        plain_write(result, path, **options)

    def compute(*arguments: Any) -> Picture:
        found = plain_picture(*arguments)
        next(count).set()
        return found

    monkeypatch.setattr(flow, "_BEHIND", behind)
    monkeypatch.setattr(networks, "picture", compute)
    monkeypatch.setattr(files, "write", write)
    done = work(tmp_path, [Picture(picture(20 + i, 30)) for i in range(3)], networks)
    assert len(done.written) == 3


def test_failures_of_every_stage_are_kept_and_the_rest_is_made(tmp_path: Path, networks: Networks) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "1.png").write_text("mine")
    good = [Picture(picture(20, 30)) for _ in range(4)]
    todo = [Job(tmp_path / f"{i}.png", tmp_path / "out" / f"{i}.png") for i in range(4)]
    for one, job in zip(good, todo):
        files.write(one, job.source)
    todo[2].source.write_bytes(b"no picture")
    done = Flow(Options(Target(scale=2), networks))
    done.run(todo, lambda name, count: None)
    assert set(done.failures) == {todo[1], todo[2]}
    assert (tmp_path / "out" / "1.png").read_text() == "mine"
    assert not (tmp_path / "out" / "2.png").exists()
    assert files.read(tmp_path / "out" / "3.png").size == (60, 40)
    again = Flow(Options(Target(scale=2), networks, skip=True))
    again.run(todo, lambda name, count: None)
    assert set(again.skipped) == {todo[0], todo[1], todo[3]}
    assert set(again.failures) == {todo[2]}


@pytest.mark.parametrize("large", [False, True])
def test_what_another_process_makes_meanwhile_is_skipped_where_that_is_asked_for(
    tmp_path: Path, networks: Networks, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    plain = networks.chain

    def slow(*sizes: tuple[int, int]) -> list[Upscaler]:
        (tmp_path / "out" / "0.png").write_text("of the other")
        return plain(*sizes)

    monkeypatch.setattr(strips, "FROM_PIXELS", 0 if large else 10**6)
    monkeypatch.setattr(networks, "chain", slow)
    done = work(tmp_path, [Picture(picture(30, 40))], networks, skip=True)
    assert not done.failures
    assert not done.written
    assert [job.target.name for job in done.skipped] == ["0.png"]
    (tmp_path / "out" / "0.png").unlink()
    (tmp_path / "0.png").unlink()
    assert len(work(tmp_path, [Picture(picture(30, 40))], networks).failures) == 1
    assert (tmp_path / "out" / "0.png").read_text() == "of the other"


@pytest.mark.skipif(os.name != "posix", reason="locks and links")
def test_what_another_process_is_writing_is_skipped_too(
    tmp_path: Path, networks: Networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strips, "FROM_PIXELS", 0)
    (tmp_path / "out").mkdir()
    target = tmp_path / "out" / "0.png"
    with (
        suppress(ValueError),  # not one row was written
        StripWriter(target, Layout(80, 60, 3, 8), resume="another process"),
    ):
        assert len(work(tmp_path, [Picture(picture(30, 40))], networks, skip=True).skipped) == 1
    target.symlink_to("gone.png")
    (tmp_path / "0.png").unlink()
    assert len(work(tmp_path, [Picture(picture(30, 40))], networks, skip=True).failures) == 1


def test_a_picture_too_large_for_the_memory_does_not_stop_the_rest(
    tmp_path: Path, networks: Networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, write = files.read, files.write

    def scarce(path: Path, **options: Any) -> Picture:
        if path.name == "0.png":
            raise MemoryError
        return read(path, **options)

    def full(picture: Picture, path: Path, **options: Any) -> None:
        if path.name == "1.png":
            raise RuntimeError("vips_malloc: out of memory")
        write(picture, path, **options)

    todo = [Job(tmp_path / f"{i}.png", tmp_path / "out" / f"{i}.png") for i in range(3)]
    for job in todo:
        files.write(Picture(picture(20, 30)), job.source)
    monkeypatch.setattr(files, "read", scarce)
    monkeypatch.setattr(files, "write", full)
    done = Flow(Options(Target(scale=2), networks))
    done.run(todo, lambda name, count: None)
    sentences = [f"{job.source}: there is not enough memory for this picture" for job in todo[:2]]
    assert [str(done.failures[job]) for job in todo[:2]] == sentences
    assert list(done.written) == [todo[2]]


def test_one_bad_picture_is_the_only_one_to_fail_and_is_let_go(tmp_path: Path, networks: Networks) -> None:
    (upscaler,) = networks.ready
    run = upscaler.engine.run

    def failing(x: Array, tick: Progress | None = None) -> Array:
        y = run(x, tick).copy()
        y[x[:, 0, 0, 0] == 1] = np.nan
        return y

    upscaler.engine.run = failing  # type: ignore[method-assign]
    upscaler.engine.exact = lambda: None  # type: ignore[method-assign]
    good, bad = picture(20, 30), picture(20, 30)
    good[0, 0, 0], bad[0, 0, 0] = 0, 255
    done = work(tmp_path, [Picture(good), Picture(bad), Picture(good)], networks)
    assert [job.source.name for job in done.written] == ["0.png", "2.png"]
    ((job, error),) = done.failures.items()
    assert job.source.name == "1.png"
    assert "not finite" in str(error)
    assert error.__traceback__ is None


def test_what_is_no_error_of_a_person_is_not_hidden(tmp_path: Path, networks: Networks) -> None:
    (upscaler,) = networks.ready

    def broken(x: Array, tick: Progress | None = None) -> Array:
        raise RuntimeError("shape mismatch")

    upscaler.engine.run = broken  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="shape mismatch"):
        work(tmp_path, [Picture(picture(20, 30))], networks)


def test_progress_counts_pictures(tmp_path: Path, networks: Networks) -> None:
    seen: list[float] = []
    todo = []
    for i, width in enumerate((30, 30, 41)):
        files.write(Picture(picture(20, width)), tmp_path / f"{i}.png")
        todo.append(Job(tmp_path / f"{i}.png", tmp_path / f"{i}_x2.png"))
    Flow(Options(Target(scale=2), networks)).run(todo, lambda name, count: seen.append(count))
    assert seen == sorted(seen)
    assert seen[-1] == 3


def test_a_result_too_large_for_its_format_is_refused_before_the_work(tmp_path: Path, networks: Networks) -> None:
    job = Job(tmp_path / "a.png", tmp_path / "out" / "a.webp")
    files.write(Picture(picture(1, 8200)), job.source)
    done = Flow(Options(Target(scale=2), networks, format="webp"))
    done.run([job], lambda name, count: None)
    assert "WEBP holds at most 16383 pixels per side, not 16400" in str(done.failures[job])
    assert not shapes(networks)


def test_from_file_to_file(tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`finescale.upscale_file` keeps what a Pillow image or an array would lose."""
    monkeypatch.setenv("FINESCALE_WEIGHTS", str(tiny_weights))
    small = Picture(picture(20, 24, np.uint16), picture(20, 24, np.uint16)[..., 0], resolution=(300.0, 300.0))
    files.write(small, tmp_path / "a.png")
    seen: list[float] = []
    size = finescale.upscale_file(tmp_path / "a.png", str(tmp_path / "b.png"), 2, engine="torch", progress=seen.append)
    assert size == (48, 40)
    assert seen == sorted(seen)
    assert seen[-1] == 1
    large = files.read(tmp_path / "b.png")
    assert (large.size, large.bits) == (size, 16)
    assert large.resolution == pytest.approx((300, 300), abs=0.1)
    assert large.alpha is not None
    with pytest.raises(FinescaleError, match=r"b\.png: already exists"):
        finescale.upscale_file(tmp_path / "a.png", tmp_path / "b.png", 2)
    with pytest.raises(FinescaleError, match=r"none\.png: no such file"):
        finescale.upscale_file(tmp_path / "none.png", tmp_path / "c.png", 2, engine="torch")
    with pytest.raises(UsageError, match="progress is a function"):
        finescale.upscale_file(tmp_path / "a.png", tmp_path / "c.png", progress=3)  # type: ignore[arg-type]
    monkeypatch.setattr(strips, "FROM_PIXELS", 100)  # large ones, too
    finescale.upscale_file(tmp_path / "a.png", tmp_path / "b.png", 2, engine="torch", overwrite=True)
    again = files.read(tmp_path / "b.png").samples
    assert np.abs(again.astype(int) - large.samples).max() <= 257
    assert (again[..., :3] % 257).any(), "not 8 bits, made wide"
    finescale.upscale_file(tmp_path / "a.png", tmp_path / "c.jpg", 2, engine="torch", quality=30)
    assert jpeg.quality(tmp_path / "c.jpg") == 30
    with pytest.raises(
        UsageError, match=r"the target's name, not BytesIO \(finescale.images.files: .* encode gives bytes"
    ):
        finescale.upscale_file(tmp_path / "a.png", io.BytesIO(), 2)  # type: ignore[arg-type]
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "b.png", "c.jpg"}


@pytest.mark.parametrize("large", [False, True])
def test_what_tells_of_places_and_persons_can_be_left_out(
    tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    monkeypatch.setenv("FINESCALE_WEIGHTS", str(tiny_weights))
    monkeypatch.setattr(strips, "FROM_PIXELS", 100 if large else 1_000_000)
    block = Image.Exif()
    block[0x0112] = 6
    block.get_ifd(0x8825).update({1: "N", 2: (52.0, 30.0, 0.0)})  # GPS
    Image.fromarray(picture(20, 24)).save(tmp_path / "a.jpg", exif=block.tobytes(), dpi=(300, 300))
    found = []
    for strip in (False, True):
        assert finescale.upscale_file(
            tmp_path / "a.jpg", tmp_path / "b.png", 2, engine="torch", overwrite=True, strip=strip
        ) == (40, 48)
        found.append(files.read(tmp_path / "b.png"))
    kept, bare = found
    assert kept.exif
    assert bare.exif is None
    assert b"eXIf" not in (tmp_path / "b.png").read_bytes()
    assert bare.resolution
    assert bare.resolution == kept.resolution
    np.testing.assert_array_equal(bare.pixels, kept.pixels)


def test_what_is_wrong_with_the_items_themselves_is_not_their_end() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("no more names")

    with Prefetcher(items(), bytes, weight=len, limit=5) as made:
        found = iter(made)
        assert next(found) == (1, b"\0")
        with pytest.raises(ValueError, match="no more names"):
            next(found)

    def weight(made: bytes) -> int:
        raise OverflowError

    with Prefetcher([1, 2], bytes, weight=weight, limit=5) as made, pytest.raises(OverflowError):
        list(made)
