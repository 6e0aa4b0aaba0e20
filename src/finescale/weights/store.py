"""Where trained weights are found.

In this order: a path, `$FINESCALE_WEIGHTS` (a folder), the package, the checkout's `weights/`, the user's cache, and
then a download address: `$FINESCALE_WEIGHTS_URL` joined with the file's name. Files listed in an index
(`index.json` beside them) are verified by their SHA-256 before they are used.
"""

import json
import os
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException, InvalidURL
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from finescale.cache import cache_folder
from finescale.errors import FinescaleError, FinescaleWarning, UsageError, nearest
from finescale.fetch import alone, fetch
from finescale.networks import DEFAULT
from finescale.networks.base import Network
from finescale.networks.catalogue import ALIASES, NETWORKS, architecture, build, resolve
from finescale.weights import places
from finescale.weights.files import load as load_file
from finescale.weights.header import Header, read_header
from finescale.weights.official import OFFICIAL
from finescale.weights.places import INDEX, file_name, folders, locate, verify


@dataclass(frozen=True)
class Found:
    """Trained weights that are here: the network's name, the scale, the file and what it says of itself."""

    name: str
    scale: int
    path: Path
    header: Header

    @property
    def summary(self) -> str:
        """A sentence on what it is for."""
        entry = NETWORKS.get(self.name)
        return entry.summary if entry else f"weights of your own for {self.header.name}"


def find(name: str, scale: int) -> Path | None:
    """The verified weight file of a network at a scale, or None where there is none on this machine.

    The name may be one that is not in the catalogue: a file NAME-xSCALE.safetensors is found like the others.
    """
    if name in NETWORKS or name in ALIASES:
        name = resolve(name)
    return locate(name, scale)


def present() -> Iterator[tuple[str, int, Path]]:
    """Network, scale and path of all weight files here (not read): the catalogue's, then those of one's own."""
    files = [path.name for folder in folders() for path in folder.glob("[!.]*-x[234].safetensors")]
    own = {name.removesuffix(".safetensors")[:-3] for name in files}.difference(NETWORKS)
    for name in [*NETWORKS, *sorted(own)]:
        for scale in (2, 3, 4):
            if path := places.present(name, scale):
                yield name, scale, path


def available() -> Iterator[Found]:
    """As `present`, with what the files say of themselves (not verified); one that cannot be read is a warning."""
    for name, scale, path in present():
        try:
            header = read_header(path)
        except FinescaleError as error:
            warnings.warn(str(error), FinescaleWarning, stacklevel=2)
            continue
        if architecture(header.name, header.architecture) is None:  # a class of another program's own
            continue
        yield Found(name, scale, path, header)


def scales(network: str | os.PathLike[str] | None = None) -> list[int]:
    """The scales at which a network (as `load` takes it) can be had, in rising order.

    Those on this machine, or where there are none those at the download address.

    Raises:
        UsageError: there is no network or file of that name.
        FinescaleError: there are no trained weights, the file is damaged, or the address cannot be read.
    """
    text = _text(network)
    if text in NETWORKS or text in ALIASES:
        if not NETWORKS[resolve(text)].trained:
            return [2, 3, 4]
        here = [scale for scale in (2, 3, 4) if find(text, scale)]
        if not here and (address := _address()):
            index = _published(address)
            here = [scale for scale in (2, 3, 4) if file_name(resolve(text), scale) in index]
        if not here:
            raise _missing(text, 4)
        return here
    if not os.path.isfile(text) and (here := [scale for scale in (2, 3, 4) if find(text, scale)]):  # noqa: PTH113
        return here
    return [read_header(_weight_file(text)).scale]


def load(network: str | os.PathLike[str] | None = None, scale: int | None = None) -> Network:
    """A trained network, ready to use: float32, on the CPU, in evaluation mode.

    Args:
        network: a name (see `finescale.networks()`, or of a file NAME-xSCALE.safetensors where weights are found), a
            weight file, or None for the default.
        scale: 2, 3 or 4; None: 4, or what the file is for.

    Raises:
        UsageError: there is no network or file of that name, no such scale, or the file is for another one.
        FinescaleError: there are no trained weights, or the file is damaged.
    """
    if scale not in (None, 2, 3, 4):
        raise UsageError(f"scale is 2, 3 or 4, not {scale!r}")
    text = _text(network)
    if text in NETWORKS or text in ALIASES:
        scale = int(scale or 4)
        entry = NETWORKS[resolve(text)]
        if not entry.trained:
            return build(text, scale=scale).eval()
        path = find(text, scale) or _download(resolve(text), scale)
        if path is None:
            raise _missing(text, scale, f" x{scale}")
    else:
        path = _weight_file(text, scale)
        verify(path)
    loaded = load_file(path)
    if scale not in (None, loaded.scale):
        raise UsageError(f"{path}: enlarges x{loaded.scale}, not x{scale}")
    return loaded


def _text(network: object) -> str:
    if network is None:
        return DEFAULT
    if not isinstance(network, str | os.PathLike):
        raise UsageError(f"a network is a name or a weight file, not {type(network).__name__}")
    return os.fspath(network)


def _missing(name: str, scale: int, which: str = "") -> FinescaleError:
    have = sorted({f"{name} x{scale}" for name, scale, _ in present()})
    known = resolve(name)
    convert = "; `finescale convert` makes weights of its authors' file" if known in OFFICIAL else ""
    return FinescaleError(
        f"there are no trained weights for {name}{which} on this machine (found: {', '.join(have) or 'none'}; "
        f"searched: {', '.join(map(str, folders()))}; $FINESCALE_WEIGHTS names another folder, such as a checkout's "
        f"weights; untrained: finescale.networks.catalogue.build('{known}', scale={scale}){convert})"
    )


def _weight_file(text: str, scale: int | None = None) -> Path:
    if not os.path.isfile(text):  # noqa: PTH113 (Path's fails over a name that is too long)
        for one in (4, 3, 2) if scale is None else (scale,):
            if path := places.present(text, one):
                return path
        raise UsageError(f"'{text}' is neither a network nor a weight file{nearest(text, NETWORKS)}")
    return Path(text)


def _address() -> str | None:
    """Where weights are downloaded from."""
    address = os.environ.get("FINESCALE_WEIGHTS_URL")
    return address.rstrip("/") if address else None


def _published(base: str) -> dict[str, Any]:
    """The weight files at an address, and what its index says of each.

    Raises:
        FinescaleError: it cannot be read, or there is no index of weights.
    """
    try:
        if "://" not in base:
            raise ValueError("it does not begin with https://")
        with urlopen(f"{base}/{INDEX}", timeout=30) as reply:
            index = reply.read()
    except (ValueError, InvalidURL) as error:
        raise FinescaleError(f"$FINESCALE_WEIGHTS_URL: '{base}' is not an address ({error})") from error
    except (OSError, HTTPException) as error:
        raise FinescaleError(f"{base}/{INDEX}: could not be read ({error})") from error
    try:
        return dict(json.loads(index).items())
    except (ValueError, AttributeError) as error:
        raise FinescaleError(f"{base}/{INDEX}: not an index of weights") from error


def _download(name: str, scale: int) -> Path | None:
    """Downloads a weight file into the cache; None where no address is configured, or it has no such file."""
    base, file = _address(), file_name(name, scale)
    if base is None or (entry := _published(base).get(file)) is None:
        return None
    digest = str(entry.get("sha256")).lower() if isinstance(entry, dict) else ""
    if not re.fullmatch("[0-9a-f]{64}", digest):  # `fetch` would also take the beginning of one, or nothing
        raise FinescaleError(f"{base}/{INDEX}: says no SHA-256 of {file}")
    target = cache_folder("weights") / file
    fetch(f"{base}/{file}", target, sha256=digest, attempts=2, pause=0.5)
    with alone(target.with_name(f"{INDEX}.lock")):  # or two that bring two files forget one of them
        places.list_file(target, digest)
    return target
