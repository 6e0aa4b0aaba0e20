"""How the server starts and ends in a program of somebody else."""

import os
import re
import shutil
import signal
import socket
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from finescale.cli.main import main
from finescale.web.jobs import Jobs, Limits, Work
from finescale.web.serve import PREFIX, _listen, serve

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


def test_results_leave_half_of_the_disk(ended: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    class Noted(Jobs):
        def __init__(self, work: Work, limits: Limits, folder: Path) -> None:
            made.append(limits)
            super().__init__(work, limits, folder)

    made: list[Limits] = []
    monkeypatch.setattr("finescale.web.serve.Jobs", Noted)
    for free, kept in ((6000, 3000), (9 << 40, 5000)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: SimpleNamespace(free=free))
        serve(browser=False, limits=Limits(kept_bytes=5000, waiting=3))
        assert made[-1] == Limits(kept_bytes=kept, waiting=3)
    assert main(["serve", "--no-browser", "--port", "0"]) == 0
    assert made[-1] == Limits()  # the command's defaults are those from Python
    assert len(ended) == 3


def test_the_port_is_always_the_same_if_it_is_free(
    ended: list[object], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        monkeypatch.setattr("finescale.web.serve.PORT", taken)
        assert main(["serve", "--no-browser"]) == 0
    assert main(["serve", "--no-browser"]) == 0
    first, second = re.findall(r"http://127\.0\.0\.1:(\d+)/", capsys.readouterr().out)
    assert first != str(taken) == second
    assert len(ended) == 2


def test_a_token_of_the_environment_stays_out_of_logs(
    ended: list[object], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    token = "0123456789abcdef"
    monkeypatch.setenv("FINESCALE_TOKEN", token)
    serve(port=0, browser=False)
    assert token not in capsys.readouterr().out
    serve(port=0, browser=False, token=token)
    assert f"/?token={token}" in capsys.readouterr().out
    monkeypatch.delenv("FINESCALE_TOKEN")
    serve("0.0.0.0", 0, browser=False)
    assert "/?token=" in capsys.readouterr().out


def test_what_listens_everywhere_names_an_address_for_other_machines(
    ended: list[object], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A phone knows no host names of its network."""

    class Probe(socket.socket):
        def connect(self, address: object) -> None:
            if names == ["here"]:
                raise OSError("Network is unreachable")

        def getsockname(self) -> tuple[str, int]:
            return ("192.0.2.77", 8425) if self.type == socket.SOCK_DGRAM else super().getsockname()

    monkeypatch.setattr(socket, "socket", Probe)
    monkeypatch.setattr(socket, "gethostname", lambda: "here")
    names = ["192.0.2.77", "here"]
    while names:
        serve("0.0.0.0", 0, browser=False)
        assert f"Finescale is at http://{names.pop(0)}:" in capsys.readouterr().out
    assert len(ended) == 2


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_every_address_is_also_those_of_ipv4() -> None:
    with _listen("::", 0) as listener:
        socket.create_connection(("127.0.0.1", listener.getsockname()[1]), timeout=5).close()
