"""How the server starts and ends in a program of somebody else."""

import os
import signal
import tempfile
import threading
import time
from pathlib import Path

import pytest

from finescale.web.serve import PREFIX, serve

uvicorn = pytest.importorskip("uvicorn")


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Servers that end at once, and what SIGTERM did meanwhile."""
    heard: list[object] = []
    monkeypatch.setattr(uvicorn.Server, "run", lambda *_, **__: heard.append(signal.getsignal(signal.SIGTERM)))
    return heard


def test_what_signals_did_before_they_do_afterwards(ended: list[object]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    serve(browser=False)
    assert ended[0] != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_threads_may_serve_too(ended: list[object]) -> None:
    thread = threading.Thread(target=serve, kwargs={"browser": False})
    thread.start()
    thread.join()
    assert ended == [signal.getsignal(signal.SIGTERM)]


def test_what_killed_servers_left_is_removed(
    ended: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    hours = {f"{PREFIX}killed": 25, f"{PREFIX}alive": 1, "finescale-something-else": 25}
    for name, age in hours.items():
        (tmp_path / name / "job").mkdir(parents=True)
        (tmp_path / name / "job" / "source").write_bytes(b"a picture")
        os.utime(tmp_path / name, (0, time.time() - 3600 * age))
    (tmp_path / f"{PREFIX}link").symlink_to(tmp_path / "finescale-something-else")
    os.utime(tmp_path / f"{PREFIX}link", (0, 0), follow_symlinks=False)
    serve(browser=False)
    assert ended
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {f"{PREFIX}alive", f"{PREFIX}link", "finescale-something-else"}
    assert all((tmp_path / name / "job" / "source").exists() for name in left)
