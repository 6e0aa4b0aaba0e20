"""MNN: float32 in about half the multiplications (Winograd's convolutions), on processors that have no bfloat16.

Its converter and a first run of what came out are a process of their own: they print, and may not survive.
"""

import ctypes
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from finescale.errors import FinescaleError, missing, system_reason
from finescale.inference.engines import compiled, interface, onnx
from finescale.inference.engines.agreement import FLOAT32, least_agreement, noises
from finescale.inference.engines.interface import Engine, grown
from finescale.inference.engines.source import Source
from finescale.inference.machine import apart, threads
from finescale.inference.tiling import Array, Progress

_LOADING = threading.Lock()
_REFUSED = 4  # what the converter's process ends with where MNN cannot take the network
# what it ends with where it is interrupted with its parent, or killed for memory; the last on Windows
_STOPPED = {-1, -2, -9, -15, 0xC000013A}
_CRASHED = 1 << 31  # on Windows numbers from here on, elsewhere negative ones
_NOT_RESIZED = 3  # the number by which MNN tells a session's state: 0 where it can compute
MEMORY = 1.4  # as much as PyTorch's features need: the default network by benchmarks/memory.py, and a little more

_forked_with: set[str] = set()


def _after_fork() -> None:
    """In a forked process: the threads of MNN and of its parent are not there, and it would wait for them for ever."""
    global _LOADING
    _LOADING = threading.Lock()
    _forked_with.update({"MNN"} & set(sys.modules))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class MNNEngine(Engine):
    """A network run by MNN on the CPU, in float32.

    Args:
        source: the network.

    Raises:
        UsageError: MNN, or onnx, through which it takes networks, is not installed.
        FinescaleError: MNN cannot take this network, or gives another picture than PyTorch; there is no folder for
            temporary files, out of which it reads.
    """

    name = "mnn"
    precision = "float32"

    def __init__(self, source: Source) -> None:
        name = compiled.key(weights=source.fingerprint, engine=f"mnn {load_library().version()} {onnx.translator()}")
        try:
            tempfile.gettempdir()
        except OSError as error:  # as in a container whose disk is read-only
            raise FinescaleError(f"the mnn engine needs a folder for temporary files ({error})") from error
        notes, self._file = compiled.once(lambda: compiled.read(name), lambda: _translate(source, name))
        self.scale, self.bytes_per_pixel, self.margin = (notes[k] for k in ("scale", "bytes_per_pixel", "margin"))
        self.multiple: int = notes["multiple"]
        self.rest()

    def run(self, x: Array, tick: Progress | None = None) -> Array:
        """See `Engine`; with `tick` other threads of Python run only between two of the network's operations."""
        height, width = x.shape[2:]
        session: _Session | None = getattr(self._sessions, "own", None)
        if session is None or session.process != os.getpid():  # one computes for one thread at a time
            self._sessions.parents = session  # which cannot be taken down here
            self._sessions.own = session = _Session(self._file, self.multiple)
        try:
            y = session.run(grown(x, self.multiple), tick)
        except MemoryError:
            self._sessions.own = None  # it may crash at the next size, however small
            raise
        return y[..., : height * self.scale, : width * self.scale]

    def rest(self) -> None:
        """See `Engine`: a session keeps all that its largest tile needed, and is soon made again."""
        self._sessions = threading.local()


class _Session:
    """A network in the form of MNN's files, for one thread.

    Args:
        file: the network.
        multiple: of which the sides of its pictures are multiples.
    """

    def __init__(self, file: bytes, multiple: int) -> None:
        self._library = load_library()
        self.process = os.getpid()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "network.mnn")
            path.write_bytes(file)
            self._network = self._library.Interpreter(str(path))
        count = 1 if _forked_with else threads()
        self._session = self._network.createSession({"backend": "CPU", "numThread": count})
        self._input = self._network.getSessionInput(self._session)
        side = -(-48 // multiple) * multiple
        self._resize((1, 3, side, side))  # by the first size it picks its kernels, and so the last digits of all others
        self._operations = 0  # as long as nobody asked

    def _resize(self, shape: tuple[int, ...]) -> None:
        self._network.resizeTensor(self._input, shape)
        self._network.resizeSession(self._session)
        if self._network.getSessionInfo(self._session, _NOT_RESIZED):
            raise MemoryError(f"MNN has no room for the features of {shape}")
        self._shape = shape

    def run(self, x: Array, tick: Progress | None = None) -> Array:
        """(B, 3, H, W) -> (B, 3, sH, sW); without `tick` MNN lets other threads run meanwhile.

        Raises:
            MemoryError: there is none left, of which MNN makes no error but a black picture; the session is of no use
                any more.
        """
        x = np.ascontiguousarray(x, np.float32)
        if x.shape != self._shape:
            self._resize(x.shape)
        self._input.copyFrom(self._tensor(x))
        if code := self._network.runSession(self._session) if tick is None else self._telling(tick):
            raise MemoryError(f"MNN did not compute {x.shape} (it ended with {code})")
        output = self._network.getSessionOutput(self._session)
        found = self._tensor(np.empty(output.getShape(), np.float32))
        output.copyToHostTensor(found)
        return np.array(found.getNumpyData())  # whose memory is the tensor's

    def _telling(self, tick: Progress) -> int:
        """As MNN's `runSession`; tells how many operations are done, and ends with what that raises.

        They run in another thread: what signals raise in this one would be lost in MNN.
        """
        done, stopped = 0, False

        def count(*_: object) -> bool:
            nonlocal done
            done += 1
            return not stopped

        if not self._operations:
            self._network.runSessionWithCallBack(self._session, lambda *_: False, count)  # leaves all of them out
            self._operations, done = done, 0
        with ThreadPoolExecutor(1) as apart:
            computing = apart.submit(self._network.runSessionWithCallBack, self._session, lambda *_: True, count)
            try:
                while not wait([computing], interface.LOOK).done:
                    tick(done / max(1, self._operations))
            except BaseException:
                stopped = True
                raise
            code: int = computing.result()
        return code

    def _tensor(self, x: Array) -> Any:
        library = self._library
        try:
            return library.Tensor(x.shape, library.Halide_Type_Float, x, library.Tensor_DimensionType_Caffe)
        except TypeError as error:  # it copies
            raise MemoryError(f"MNN has no room for {x.shape}") from error


def load_library() -> Any:
    """MNN; UsageError where it is not installed, FinescaleError where it is and does not start."""
    try:
        with _LOADING:
            if sys.modules.get("MNN"):
                return sys.modules["MNN"]
            with _silence():
                return import_module("MNN")
    except ImportError as error:
        raise missing("MNN", "the mnn engine needs MNN", "fast", error) from error


@contextmanager
def _silence() -> Iterator[None]:
    """Without the line that MNN prints to C's stdout when it is loaded."""
    _flush()
    try:
        kept = os.dup(1)
    except OSError:  # it is closed
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        _flush()
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def _flush() -> None:
    """Empties the buffers of C."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("ucrtbase" if sys.platform == "win32" else None).fflush(None)


def _translate(source: Source, name: str) -> tuple[dict[str, Any], bytes]:
    """Translates, compares with PyTorch, and stores."""
    converter = apart(__name__)
    network = source.prepared().cpu()
    pictures = noises(network.multiple)
    data = onnx.translated(network, name, pictures[0].shape[2:])
    try:
        file, enlarged = _converted(converter, data, pictures, network.multiple, name)
    except OSError as error:  # as of a full disk
        raise FinescaleError(f"the mnn engine could not use its temporary files ({system_reason(error)})") from error
    found = iter(enlarged)
    decibels = least_agreement(network, lambda _: next(found), network.multiple)
    return compiled.accept(name, "MNN", network, file, decibels=decibels, limit=FLOAT32, memory=MEMORY), file


def _converted(
    converter: tuple[list[str], dict[str, str]], data: bytes, pictures: list[Array], multiple: int, name: str
) -> tuple[bytes, list[Array]]:
    """An ONNX file in the form of MNN's, by a process of its own, and what that makes of pictures; see `_translate`."""
    with tempfile.TemporaryDirectory() as folder:
        there = Path(folder)
        (there / "network.onnx").write_bytes(data)
        for i, x in enumerate(pictures):
            np.save(there / f"picture-{i}.npy", x)
        command, environment = [*converter[0], folder, str(multiple)], converter[1]
        try:
            code = subprocess.run(command, capture_output=True, env=environment, check=False, timeout=1800).returncode
        except (OSError, subprocess.SubprocessError) as error:
            raise FinescaleError(f"the mnn engine could not start its converter ({error})") from error
        if code == _REFUSED or (not 0 <= code < _CRASHED and code not in _STOPPED):
            raise compiled.refuse(name, f"MNN cannot take this network (its converter ended with {code})")
        if code:  # which says nothing of the network, so it is not remembered
            raise FinescaleError(f"the mnn engine's converter did not get on (it ended with {code})")
        enlarged = [np.load(there / f"enlarged-{i}.npy") for i in range(len(pictures))]
        return (there / "network.mnn").read_bytes(), enlarged


def _convert(folder: Path, multiple: int) -> None:
    """From network.onnx there to network.mnn, and from the pictures there to enlarged ones."""
    load_library()
    import _tools  # its wrapper in Python reports its use to its makers, and installs a package for that

    file = folder / "network.mnn"
    _tools.mnnconvert(
        ["MNNConvert", "-f", "ONNX", "--modelFile", str(folder / "network.onnx"), "--MNNModel", str(file)]
        + ["--bizCode", "finescale"]
    )
    if not file.exists():
        sys.exit(_REFUSED)
    session = _Session(file.read_bytes(), multiple)
    for i in range(len(list(folder.glob("picture-*.npy")))):
        np.save(folder / f"enlarged-{i}.npy", session.run(np.load(folder / f"picture-{i}.npy")))


if __name__ == "__main__":
    try:
        _convert(Path(sys.argv[1]), int(sys.argv[2]))
    except (OSError, MemoryError, ImportError, FinescaleError):  # it is not the network that is in the way
        raise
    except Exception:
        sys.exit(_REFUSED)
