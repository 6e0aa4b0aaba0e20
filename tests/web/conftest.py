"""Real servers in processes of their own, with a tiny network, each with its own folder for temporary files."""

import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from finescale.networks.catalogue import build
from finescale.weights.files import save


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a network of a few thousand weights under the default name, x2 and x4, and a slower one."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    for scale in (2, 4):
        network = build("sa-rcan-light", scale=scale, channels=16, groups=1, blocks=1)
        save(network, folder / f"sa-rcan-light-x{scale}.safetensors", notes={"licence": "CC0-1.0"})
    save(build("rcan", scale=4, channels=32, groups=1, blocks=6, reduction=8), folder / "rcan-x4.safetensors")
    return folder


# one engine, and tiles so small that a picture has several: then a job tells its progress and can be stopped
SETTINGS = {"engine": "torch", "precision": "float32", "tile": 48}


@dataclass
class Server:
    """A running `finescale serve`."""

    address: str
    token: str | None
    process: "subprocess.Popen[str]"
    temporary: Path
    log: Path  # what it writes to stderr

    def client(self, **options: Any) -> httpx.Client:
        """An HTTP client for it."""
        return httpx.Client(base_url=self.address, timeout=30, **options)

    def folders(self) -> list[Path]:
        """The server's folders of temporary files, with what lies in them."""
        return sorted(self.temporary.glob("finescale-*"))

    def stop(self) -> int:
        """Asks it to end, as a service manager does."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


@contextmanager
def running(weights: Path, temporary: Path, *options: str) -> Iterator[Server]:
    """Starts a server; ends it, if the test did not."""
    environment = {
        **os.environ,
        "FINESCALE_WEIGHTS": str(weights),
        "TMPDIR": str(temporary),
        "OMP_NUM_THREADS": "1",
        "XDG_CACHE_HOME": str(temporary / "cache"),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    settings = [f"--{name}={value}" for name, value in SETTINGS.items()]
    log = temporary / "stderr"
    with open(log, "w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "finescale", "serve", "--no-browser", "--port=0", *settings, *options],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env=environment,
        )
    try:
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], 60)
        line = process.stdout.readline() if ready else ""
        found = re.search(r"(http://\S+:(\d+)/)(?:\?token=(\S+))?", line)
        assert found, f"the server did not say where it is: {line!r}"
        yield Server(f"http://127.0.0.1:{found[2]}", found[3], process, temporary, log)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()
        sys.stderr.write(log.read_text())  # for whoever looks why a test failed


@pytest.fixture(scope="session")
def server(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server most tests use: default settings but for small limits of size."""
    options = ("--max-upload", "1", "--max-megapixels", "1", "--max-result-megapixels", "4")
    with running(weights, tmp_path_factory.mktemp("server"), *options) as found:
        yield found


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with server.client() as found:
        yield found


def until(condition: Callable[[], Any], seconds: float = 20) -> Any:
    """Waits for something to become true, and gives it."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)
    return value
