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
    """As `present`, with what the files say of themselves (not verified).

    One that cannot be read, or is for another scale than its name says, is a warning.
    """
    for name, scale, path in present():
        try:
            header = read_header(path)
        except FinescaleError as error:
            warnings.warn(str(error), FinescaleWarning, stacklevel=2)
            continue
        if header.scale != scale:
            warnings.warn(f"{path}: enlarges x{header.scale}, not x{scale}", FinescaleWarning, stacklevel=2)
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
    known = text in NETWORKS or text in ALIASES
    if known and not NETWORKS[resolve(text)].trained:
        return [2, 3, 4]
    if known or not os.path.isfile(text):  # noqa: PTH113 (Path's fails over a name that is too long)
        if here := [scale for scale in (2, 3, 4) if find(text, scale)] or _elsewhere(text):
            return here
        if known:
            raise _missing(text, 4)
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
    have: dict[str, str] = {}
    for one, at, _ in present():
        have[one] = f"{have.get(one, one)} x{at}"
    known = resolve(name)
    convert = "; `finescale convert` makes weights of its authors' file" if known in OFFICIAL else ""
    return FinescaleError(
        f"there are no trained weights for {name}{which} on this machine (untrained: "
        f"finescale.networks.catalogue.build('{known}', scale={scale}){convert}; $FINESCALE_WEIGHTS names another "
        f"folder, such as a checkout's weights; found: {', '.join(have.values()) or 'none'}; searched: "
        f"{', '.join(map(str, folders()))})"
    )


def _weight_file(text: str, scale: int | None = None) -> Path:
    """The file of that path, or of weights that have this name: on this machine, or else at the download address."""
    if os.path.isfile(text):  # noqa: PTH113
        return Path(text)
    here = {one: path for one in (2, 3, 4) if (path := places.present(text, one))}
    if (at := scale or max(here, default=0)) in here:
        return here[at]
    there = _elsewhere(text)
    if (at := scale or max(there, default=0)) in there and (path := _download(text, at)):
        return path
    if have := sorted(here or there):
        where, scales = "here" if here else "at $FINESCALE_WEIGHTS_URL", " and ".join(f"x{one}" for one in have)
        raise UsageError(f"'{text}' is {where} for {scales} only, not for x{scale}")
    raise UsageError(f"'{text}' is neither a network nor a weight file{nearest(text, NETWORKS)}")


def _elsewhere(name: str) -> list[int]:
    """The scales of a network at the download address; none where no address is configured, or of a path."""
    address = _address()
    if address is None or not re.fullmatch(r"[\w.-]+(?<!\.safetensors)", name):
        return []
    name, index = ALIASES.get(name, name), _published(address)
    return [scale for scale in (2, 3, 4) if file_name(name, scale) in index]


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
