"""Fixtures shared by all tests."""

import io
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from finescale.networks.base import Network

if "PYTEST_XDIST_WORKER" in os.environ:  # each has a core: threads that wait for theirs would take the others'
    os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parents[1]
# of the package, and those too large for it; not what else lies there
SHIPPED_WEIGHTS = [
    folder / name
    for folder in (ROOT / "src" / "finescale" / "weights" / "files", ROOT / "weights")
    if (folder / "index.json").is_file()
    for name in json.loads((folder / "index.json").read_text("utf-8"))
]


def tracked(folder: str) -> list[Path]:
    """Files of the repository in a folder, without what else lies there."""
    command = ["git", "ls-files", "-z", folder]
    git = shutil.which("git")
    listed = git and subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if not listed or listed.returncode:
        pytest.skip("git does not tell which files are of the project")
    return [path for name in listed.stdout.split("\0")[:-1] if (path := ROOT / name).is_file()]


def find_shared_data() -> Path | None:
    """The folder of pictures and weights to test on: $FINESCALE_DATA, or `shared/data` beside the checkout."""
    named = os.environ.get("FINESCALE_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    return folder if folder.is_dir() else None


@pytest.fixture(scope="session")
def shared_data() -> Path:
    folder = find_shared_data()
    if folder is None:
        pytest.skip(
            "the test pictures are not here: set FINESCALE_DATA to the folder that holds bench/, train/, weights/"
        )
    return folder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of four small pictures with smooth colours and edges, PNG."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for i, (height, width) in enumerate([(96, 120), (108, 84), (150, 97), (72, 72)]):
        y, x = np.mgrid[:height, :width] / 24.0
        waves = [np.sin(a * x + b * y + c) for a, b, c in rng.uniform(-3, 3, (3, 3))]
        pixels = np.stack(waves, -1) * 60 + 128 + 50 * (np.hypot(x - 2, y - 2) < 1.5)[..., None]
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="session")
def tiny_store(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed store of `pictures` for x2, x3 and x4."""
    from finescale.data import store
    from finescale.images.folders import find_pictures

    folder = tmp_path_factory.mktemp("stores") / "tiny"
    list(store.prepare(find_pictures([pictures]), folder, (2, 3, 4), licence="CC0-1.0"))
    return folder


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with random weights of a tiny default network for x2 and x4, as `$FINESCALE_WEIGHTS` takes it."""
    import torch

    from finescale.networks import DEFAULT
    from finescale.weights.files import save

    folder = tmp_path_factory.mktemp("weights")
    for scale in (2, 4):
        save(tiny_network(scale), folder / f"{DEFAULT}-x{scale}.safetensors", dtype=torch.float32)
    return folder


@pytest.fixture
def _here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_weights: Path) -> None:
    """Tiny weights, and a fresh folder to work in."""
    monkeypatch.setenv("FINESCALE_WEIGHTS", str(tiny_weights))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Tiny networks are not divided among processors, which takes longer than they do."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Terminal(io.StringIO):
    """What is written to it a person would see at once."""

    def isatty(self) -> bool:
        return True


@contextmanager
def hearing_signals() -> Iterator[None]:
    """Processes started within hear SIGINT and SIGHUP, which are ignored where the suite runs in the background."""
    usual: dict[str, Any] = {"SIGINT": signal.default_int_handler, "SIGHUP": signal.SIG_DFL}
    numbers = {getattr(signal, name): handler for name, handler in usual.items() if hasattr(signal, name)}
    heard = {number: signal.signal(number, handler) for number, handler in numbers.items()}
    try:
        yield
    finally:
        for number, handler in heard.items():
            signal.signal(number, handler)


@contextmanager
def bound_by_permissions() -> Iterator[None]:
    """Permissions bind everybody but root, who is somebody else meanwhile."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """No file can grow beyond `size` bytes in the meantime: what a full disk does, without one."""
    resource = pytest.importorskip("resource")  # not on Windows
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def needs(engine: str) -> None:
    """Skips a test where the packages of an engine are missing."""
    for package in {"onnx": ("onnx", "onnxruntime"), "mnn": ("onnx", "MNN")}.get(engine, (engine,)):
        pytest.importorskip(package)


def tiny_network(scale: int = 2, **overrides: object) -> "Network":
    """A small SA-RCAN whose attention is switched on, and which brightens and sharpens only a little."""
    import torch

    from finescale.layers.attention import SelfAttention
    from finescale.networks import DEFAULT
    from finescale.networks.catalogue import build

    with torch.random.fork_rng():
        torch.manual_seed(0)
        options = {"channels": 16, "groups": 1, "blocks": 2, "attention_reduction": 4, "reduction": 4}
        network = build(DEFAULT, scale=scale, **{**options, **overrides}).eval()
    for module in network.modules():
        if isinstance(module, SelfAttention):
            module.gamma.data.fill_(0.5)
    return network


@pytest.fixture(scope="session", autouse=True)
def _own_places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What this user has compiled, trained or set is neither used nor changed; each network is compiled once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        for name in ("FINESCALE_WEIGHTS", "FINESCALE_WEIGHTS_URL", "FINESCALE_TOKEN", "FORCE_COLOR"):
            patch.delenv(name, raising=False)
        for name in ("NO_PROXY", "no_proxy"):  # our own servers are here
            patch.setenv(name, "127.0.0.1,localhost")
        yield


@pytest.fixture
def windows_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files behave as on Windows: one that this process has open or mapped is neither removed nor renamed."""
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("this system does not tell which files are open")

    def is_held(path: Any) -> bool:
        held = []
        for opened in Path("/proc/self/fd").iterdir():
            with suppress(OSError):  # the one of this listing
                held.append(opened.stat().st_ino)
        held += [int(line.split()[4]) for line in Path("/proc/self/maps").read_text().splitlines()]
        return Path(path).exists() and Path(path).stat().st_ino in held

    def guarded(real: Any, *paths: Any, **options: Any) -> None:
        for path in filter(is_held, paths):
            raise PermissionError(13, "another process has it open", str(path))
        real(*paths, **options)

    monkeypatch.setattr("finescale.images.strips._WINDOWS", True)
    for name in ("unlink", "replace", "rename"):
        monkeypatch.setattr(os, name, partial(guarded, getattr(os, name)))
