"""How the server starts and ends in a program of somebody else."""

import signal
import threading

import pytest

from finescale.web.serve import serve

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
