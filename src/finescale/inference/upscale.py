"""Pictures enlarged: any size, any factor, with transparency, 16 bits, profile and EXIF kept."""

import inspect
import math
import operator
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import accumulate
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, Unpack, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from finescale.errors import FinescaleError, UsageError, picture_error
from finescale.images.picture import Picture, from_pil, is_grey, split, to_integers, to_pil
from finescale.inference import tiling
from finescale.inference.engines import check, choose
from finescale.inference.engines.interface import Engine, fitting_tile
from finescale.inference.engines.source import Source
from finescale.inference.size import Target, exact_size, passes
from finescale.inference.tiling import Array, Progress, check_window
from finescale.inference.transparency import bleed, within_neighbours
from finescale.networks import AUTO, DEFAULT, FOR_OTHERS, SHORT

if TYPE_CHECKING:
    import torch

    from finescale.images.files import File
    from finescale.networks.base import Network


Sample = TypeVar("Sample", bound=np.generic)


class Upscaler:
    """A network ready to enlarge pictures of any size.

    Args:
        network: e.g. from `finescale.load` (it is copied and left as it is), or a name or weight file for it.
        scale: 2, 3 or 4, of a network that is named; None: 4, or what the file is for.
        device: "auto", "cpu", "cuda", "cuda:1", ..., or a `torch.device`.
        engine: "auto" or the name of one, see `finescale.inference.engines`.
        precision: "auto", "float32", "bfloat16" or "int8"; "auto" computes pictures of 16 bits and the self-ensemble
            in float32.
        ensemble: average over the eight flips and turns of the picture: eight times the work, a little more PSNR.
        tile: side of the tiles in input pixels; None: by the memory at hand.
        window: side, in input pixels, of the squares that attention and norms look at; None: the whole picture (then
            it is not cut into tiles unless `tile` says so).

    Raises:
        UsageError: no network or weight file, or one of another scale; unknown device, engine or precision; an
            impossible tile or window.
        FinescaleError: there are no trained weights, or the file is damaged or not the one that was published.
    """

    def __init__(
        self,
        network: "Network | str | os.PathLike[str]",
        *,
        scale: int | None = None,
        device: "str | torch.device" = "auto",
        engine: str = "auto",
        precision: str = "auto",
        ensemble: bool = False,
        tile: int | None = None,
        window: int | None = 48,
    ) -> None:
        _check_sides(tile, window)
        if isinstance(network, str | os.PathLike):
            network = _find(_called(network), scale)
        else:
            from finescale.networks.base import Network

            if not isinstance(network, Network):
                raise UsageError(f"a network is a name, a weight file or a Network, not {type(network).__name__}")
            if scale not in (None, network.scale):
                raise UsageError(f"this network enlarges x{network.scale}, not x{scale}")
        self._asked: dict[str, Any] = {"device": device, "engine": engine, "precision": precision}
        self.source = Source(network, window)
        self.engine = choose(self.source, device=device, engine=engine, precision=precision)
        self.scale = self.engine.scale
        self.ensemble, self.window, self.network = ensemble, window, network
        self.tile = tile

    def __reduce__(self) -> tuple[Any, ...]:
        """For other processes, which make it ready themselves."""
        made = partial(Upscaler, **self._asked, ensemble=self.ensemble, tile=self.tile, window=self.window)
        return made, (self.network,)

    @property
    def remark(self) -> str | None:
        """A sentence on what int8 costs; None for what is exact."""
        closeness = self.engine.closeness
        if closeness is None:
            return None
        loss = 10 * math.log10(1 + 10 ** ((30 - closeness) / 10))
        return (
            f"int8, x{self.scale}: {closeness:.1f} dB from the float32 picture, "
            f"which takes {loss:.3f} dB from a PSNR of 30 dB"
        )

    def enlarge(self, x: "torch.Tensor", progress: Progress | None = None) -> "torch.Tensor":
        """Enlarges by the network's own scale.

        Args:
            x: (3, H, W) or (B, 3, H, W), uint8 or float, about [0, 1] as what this gives, on any device.
            progress: called with the share that is done, from 0 to 1; what it raises ends the call.

        Returns:
            (3, scale H, scale W) or (B, 3, scale H, scale W), of the type and on the device of `x`. Floats are not
            clipped, and are computed in float32 unless `precision` says otherwise.

        Raises:
            UsageError: no tensor, another shape or type, or floats far outside [0, 1].
        """
        import torch

        given: object = x  # whatever a program passed
        if not isinstance(given, torch.Tensor):
            raise UsageError("Upscaler.enlarge takes a tensor; Upscaler.pixels takes an array")
        known = x.dtype == torch.uint8 or x.is_floating_point()
        if x.ndim not in (3, 4) or x.shape[-3] != 3 or not x.numel() or not known:
            raise UsageError(
                "a picture is (3, H, W), several are (B, 3, H, W), of uint8 or floats in [0, 1], not "
                f"{tuple(x.shape)} of {x.dtype}"
            )
        if x.ndim == 4:
            shares = [share_of(progress, i / len(x), 1 / len(x)) for i in range(len(x))]
            return torch.stack([self.enlarge(one, share) for one, share in zip(x, shares)])
        samples = x.detach().cpu() if x.dtype == torch.uint8 else x.detach().cpu().float()
        y = self.pixels(samples.permute(1, 2, 0).numpy(), progress)
        return torch.from_numpy(y).permute(2, 0, 1).to(x.device, x.dtype)

    def pixels(
        self, x: Array, progress: Progress | None = None, rows: tuple[int, int] | None = None, below: int = 0
    ) -> Array:
        """As `enlarge`, for an array (H, W, 3) of uint8, uint16 or float32, or some of its rows.

        For `rows` and `below` see `finescale.inference.tiling.enlarge`.

        Raises:
            UsageError: another shape or type, or floats far outside [0, 1].
            FinescaleError: a tile of 48 pixels does not fit into memory, or its values are not finite even in float32.
        """
        _check_samples(x)
        engine = self.engine_for(x.dtype)
        tile = (self.tile, self.tile) if self.tile else x.shape[:2]
        if self.tile is None and self.window is not None:
            sums = 24 * self.scale**2 if self.ensemble else 0  # bytes for a pixel: the turns so far, and one more
            share = engine.bytes_per_pixel / (engine.bytes_per_pixel + sums)
            tile = fitting_tile(engine, engine.tile_budget() * share, *x.shape[:2])
        return tiling.enlarge(
            x,
            engine,
            tile=tile,
            margin=engine.margin,
            rows=rows,
            below=below,
            ensemble=self.ensemble,
            divisible=self.window is not None or self.tile is not None,
            progress=progress,
        )

    def picture(
        self,
        picture: Picture,
        *,
        size: tuple[int, int] | None = None,
        scale: float | None = None,
        progress: Progress | None = None,
    ) -> Picture:
        """Enlarges a picture to a size: with this network as often as needed, then bicubically to the exact size.

        Args:
            picture: of any kind.
            size: (width, height) of the result, or
            scale: the factor; with neither, the network's own.
            progress: called with the share that is done, from 0 to 1; what it raises ends the call.

        Returns:
            A picture of the same kind: grey stays grey, 16 bit stays 16 bit, profile and EXIF are kept.

        Raises:
            UsageError: no `Picture`, an impossible size, or both `size` and `scale`.
        """
        if not isinstance(picture, Picture):
            raise UsageError(f"this takes a Picture; finescale.upscale takes any, also {type(picture).__name__}")
        if size is None:
            size = Target(scale=self.scale if scale is None else scale).size(*picture.size)
        elif scale is not None:
            raise UsageError("give one of size and scale, not both")
        else:
            size = exact_size(size, *picture.size)
        return Networks(self).picture(picture, size, progress)

    def rest(self) -> None:
        """Gives memory back that large tiles took, and stays ready; not while another thread enlarges."""
        self.engine.rest()

    def engine_for(self, dtype: Any) -> Engine:
        """What computes samples of a type: above 8 bits and for the self-ensemble in float32, unless asked."""
        if (dtype == np.uint8 and not self.ensemble) or self._asked["precision"] != "auto":
            return self.engine
        return self.engine.exact() or self.engine


def enlarge_samples(
    upscaler: Upscaler,
    pixels: Array,
    alpha: Array | None,
    *,
    rows: tuple[int, int] | None = None,
    below: int = 0,
    progress: Progress | None = None,
) -> tuple[Array, Array | None]:
    """One pass of a network over pixels (H, W, 1 or 3) and alpha (H, W), or over some of their rows.

    Hidden colours are filled in from the visible ones first; alpha goes through the network too, as a grey picture.
    """

    def enlarged(x: Array, progress: Progress | None) -> Array:
        return _enlarge_grey_or_colour(upscaler, x, rows, below, progress)

    if alpha is None:
        return enlarged(pixels, progress), None
    pixels = bleed(pixels, alpha)
    if alpha.min() == alpha.max():  # nothing to sharpen
        large = enlarged(pixels, progress)
        return large, np.full(large.shape[:2], alpha.flat[0])
    large = enlarged(pixels, share_of(progress, 0, 0.5))
    clear = enlarged(alpha[..., None], share_of(progress, 0.5, 0.5))[..., 0]
    return large, within_neighbours(clear, alpha, rows[0] if rows else 0)


def _enlarge_grey_or_colour(
    upscaler: Upscaler, x: Array, rows: tuple[int, int] | None, below: int, progress: Progress | None
) -> Array:
    """(H, W, 1 or 3) -> (scale rows, scale W, 1 or 3); grey goes as colour and comes back as the mean."""
    if x.shape[2] == 3:
        return upscaler.pixels(x, progress, rows, below)
    y = upscaler.pixels(np.broadcast_to(x, (*x.shape[:2], 3)), progress, rows, below)
    grey = np.empty((*y.shape[:2], 1), y.dtype)
    for first in range(0, len(y), 64):  # by few rows: sums take many times the room
        grey[first : first + 64] = (y[first : first + 64].sum(2, dtype=np.uint32, keepdims=True) + 1) // 3
    return grey


class _Options(TypedDict, total=False):
    width: int | None
    height: int | None
    fit: tuple[int, int] | None
    device: "str | torch.device"
    engine: str
    precision: str
    ensemble: bool
    tile: int | None
    window: int | None
    progress: Progress | None


@overload  # first: of it checkers make what `map(upscale, files)` gives
def upscale(
    image: "Image.Image | File",
    scale: float | None = ...,
    network: "str | os.PathLike[str] | Network | Upscaler | None" = ...,
    **options: Unpack[_Options],
) -> "Image.Image": ...


@overload
def upscale(
    image: Picture,
    scale: float | None = ...,
    network: "str | os.PathLike[str] | Network | Upscaler | None" = ...,
    **options: Unpack[_Options],
) -> Picture: ...


@overload
def upscale(
    image: NDArray[Sample],
    scale: float | None = ...,
    network: "str | os.PathLike[str] | Network | Upscaler | None" = ...,
    **options: Unpack[_Options],
) -> NDArray[Sample]: ...


def upscale(
    image: "Image.Image | Picture | Array | File",
    scale: float | None = None,
    network: "str | os.PathLike[str] | Network | Upscaler | None" = None,
    *,
    width: int | None = None,
    height: int | None = None,
    fit: tuple[int, int] | None = None,
    device: "str | torch.device" = "auto",
    engine: str = "auto",
    precision: str = "auto",
    ensemble: bool = False,
    tile: int | None = None,
    window: int | None = 48,
    progress: Progress | None = None,
) -> "Image.Image | Picture | Array":
    """Enlarges a picture.

    >>> upscale("photo.jpg", scale=4).save("photo_x4.png")  # doctest: +SKIP

    Args:
        image: a Pillow image; an array (H, W) or (H, W, 1 to 4) of uint8, uint16 or float in [0, 1]; a file: its
            path, its bytes, or one opened for reading bytes; or a `Picture`, as `finescale.images.files.read` gives it.
        scale: any factor above 0 up to 16; if no other size is asked for 4, or the largest the network is trained for.
        network: a name (see `finescale.networks()`), a weight file or a network; None: the default; "auto": the one
            that suits the picture, as `finescale upscale` does. That of the last call is kept ready for the next,
            unless it was a network itself, which may have changed since. Or an `Upscaler`, which has one scale (other
            sizes are made of its result): who uses several networks or scales in turn keeps one for each.
        width, height: of the result, instead of `scale`; the other side follows.
        fit: (width, height) of a box to fill, instead of `scale`.
        device, engine, precision, ensemble, tile, window: see `Upscaler`; not beside one, which has its own.
        progress: called with the share that is done, from 0 to 1; what it raises ends the call.

    Returns:
        For an array: an array of the same type (in the byte order of this machine) and number of dimensions (floats
        with the precision of 16 bits).
        For a `Picture`: a `Picture` with all that it holds, which `finescale.images.files` writes.
        Otherwise a Pillow image, upright, with profile and EXIF in its `info`. Pillow has no 16-bit colour: pictures
        of 16 bits are computed so, and end as 8 bits unless they are opaque grey.

    Raises:
        UsageError: an impossible size, an unknown network, device, engine or precision; settings beside an `Upscaler`;
            no picture; floats far outside [0, 1].
        ShortOfMemoryError: there is not enough memory for the picture and its result.
        FinescaleError: the file cannot be read; there are no trained weights.
    """
    if isinstance(image, np.ndarray):
        image = np.asarray(image, image.dtype.newbyteorder("="))
    check_progress(progress)
    picture = _as_picture(image)
    target = Target.of(scale, width, height, fit)
    settings: dict[str, Any] = {"device": device, "engine": engine, "precision": precision}
    settings |= {"ensemble": ensemble, "tile": tile, "window": window}
    with networks_of(network, settings) as networks:
        size = (target or networks.target()).size(*picture.size)
        if networks.auto:
            from finescale.inference.advice import choice

            file = Path(image) if isinstance(image, str | os.PathLike) else None
            better = choice(file, picture, picture.size, size)
            networks = networks.other(better.network) if better else networks
        try:
            large = networks.picture(picture, size, progress)
        except MemoryError as error:
            raise picture_error("the picture", error) from error
    if isinstance(image, Picture):
        return large
    return _like(image, large.samples) if isinstance(image, np.ndarray) else to_pil(large)


def check_progress(progress: object) -> None:
    """Refuses what cannot be told how far the work is.

    Raises:
        UsageError: it cannot be called.
    """
    if progress is not None and not callable(progress):
        raise UsageError(f"progress is a function that is called with the share that is done, not {progress!r}")


def check_settings(
    *,
    device: "str | torch.device" = "auto",
    engine: str = "auto",
    precision: str = "auto",
    tile: int | None = None,
    window: int | None = None,
    **_: Any,
) -> None:
    """Refuses settings of `Upscaler` that no network can work with here, before there is one; any others may be so.

    Raises:
        UsageError: unknown device, engine or precision; an impossible tile or window.
    """
    _check_sides(tile, window)
    check(device, engine, precision)


def _check_sides(tile: int | None, window: int | None) -> None:
    for what, side in (("tile", tile), ("window", window)):
        given: object = side  # whatever a program passed
        if given is not None and (type(given) is bool or not isinstance(given, Integral)):
            raise UsageError(f"a {what}'s side is a whole number of pixels, not {given!r}")
        if side is not None and side < 1:
            raise UsageError(f"{what}s have at least 1 pixel a side, not {side}")
    check_window(window)


def _check_samples(x: Array) -> None:
    """Refuses what an engine would make something senseless of, or an error of its own."""
    given: object = x  # whatever a program passed
    if not isinstance(given, np.ndarray) or x.ndim != 3 or x.shape[-1] != 3 or not x.size:
        raise UsageError(f"pixels are an array (H, W, 3), at least 1 x 1, not {getattr(given, 'shape', type(given))}")
    if x.dtype.newbyteorder("=") not in (np.uint8, np.uint16) and x.dtype.kind != "f":
        raise UsageError(f"pixels are uint8, uint16 or float in [0, 1], not {x.dtype}")
    _check_floats(x)


def _check_floats(x: Array) -> None:
    """Refuses samples that are not about [0, 1]: what a network gives may overshoot, other ranges reach further."""
    if x.dtype.kind != "f":
        return
    low, high = x.min(), x.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise UsageError("the array holds values that are not finite")
    if low < -0.5 or high > 1.5:
        cure = "divide samples of 8 bits by 255" if high > 1.5 else "of samples x in [-1, 1] take (x + 1) / 2"
        raise UsageError(f"the array holds floats from {low:g} to {high:g}, and only [0, 1] is read; {cure}")


def _find(name: str, scale: int | None) -> "Network | Path":
    """The weight file of that name, see `_weight_file`, or else the network, as `store.load` finds it."""
    path = _weight_file(name, scale)
    if path is not None:
        return path
    from finescale.weights import store

    return store.load(name, scale)


def _weight_file(name: str, scale: int | None) -> Path | None:
    """The weight file of a network's name, or that has this name: its whole path; verified, and without torch.

    None where it is not on this machine, or where a path is for another scale; where no scale is said, a name stands
    for x4. UsageError where a file is not for the scale of its name.
    """
    from finescale.weights import places
    from finescale.weights.header import read_header

    if not name.endswith(".safetensors") or not os.path.isfile(name):  # noqa: PTH113 (too long a name)
        scale = 4 if scale is None else scale
        path = places.locate(name, scale)
        if path and (found := read_header(path).scale) != scale:
            raise UsageError(f"{path}: enlarges x{found}, not x{scale}")
        return path and path.absolute()
    path = Path(name)
    if scale not in (None, read_header(path).scale):
        return None
    places.verify(path)
    return path.absolute()


def _called(network: "str | os.PathLike[str]") -> str:
    """A network's whole name, or its file."""
    return SHORT.get(os.fspath(network), os.fspath(network))


class Networks:
    """A trained network at all its scales; each is loaded when it is first needed.

    Args:
        network: a name, a weight file, or None for the default; "auto" for the default beside others, see `other`; or
            an upscaler, at its own scale alone.
        settings: see `Upscaler`.

    Attributes:
        name: the name or file.
        auto: whether another network shall be taken for a picture that it suits better.
    """

    def __init__(self, network: "str | os.PathLike[str] | Upscaler | None" = None, **settings: Any) -> None:
        self.settings = settings
        self._scales: list[int] | None = None
        self._ready: dict[int, Upscaler] = {}
        self._others: dict[str, Networks] = {}
        self._given = isinstance(network, Upscaler)
        self.auto = isinstance(network, str) and network == AUTO
        if isinstance(network, Upscaler):
            self._scales, self._ready, network = [network.scale], {network.scale: network}, None
        self.network = None if network is None or self.auto else _called(network)
        self.name = DEFAULT if self.network is None else self.network

    @property
    def scales(self) -> list[int]:
        """The scales there are weights for, in rising order.

        Raises:
            UsageError, FinescaleError: unknown name, no weights, damaged file.
        """
        if self._scales is None:
            here = [scale for scale in (2, 3, 4) if _weight_file(self.name, scale)]
            if not here:
                from finescale.weights import store

                here = store.scales(self.network)
            self._scales = here
        return self._scales

    def target(self) -> Target:
        """Where no size is asked for: four times as large if there are weights for it, else as they allow."""
        return Target(max(self.scales))

    @property
    def ready(self) -> list[Upscaler]:
        """Those that were needed so far."""
        return [*self._ready.values(), *(one for networks in self._others.values() for one in networks.ready)]

    def other(self, name: str) -> "Networks":
        """Those of another name with the same settings, which stay ready beside these."""
        if name not in self._others:
            self._others[name] = Networks(name, **self.settings)
        return self._others[name]

    def upscaler(self, scale: int) -> Upscaler:
        """The upscaler of one scale."""
        if scale not in self._ready:
            self._ready[scale] = Upscaler(self.name, scale=scale, **self.settings)
        return self._ready[scale]

    def rest(self) -> None:
        """See `Upscaler.rest`."""
        for upscaler in self.ready:
            upscaler.rest()

    @cached_property
    def restores(self) -> bool:
        """Whether it was trained on damaged pictures, as its file tells: then it is of use without enlarging, too.

        Not asked of an upscaler that was given, which may be of any network.
        """
        from finescale.weights.header import read_header

        path = None if self._given else _weight_file(self.name, min(self.scales))
        recipe = read_header(path).notes.get("recipe") if path else None
        damage = recipe.get("degradation") if isinstance(recipe, dict) else None
        return isinstance(damage, dict) and any(np.any(damage.get(kind, 0)) for kind in ("blur", "noise", "jpeg"))

    def chain(self, size: tuple[int, int], target: tuple[int, int]) -> list[Upscaler]:
        """The upscalers that take a picture of (width, height) to about `target` or more, see `passes`.

        A network that `restores` also sees what is not enlarged, or shrunk to more than half.
        """
        factor = max(target[0] / size[0], target[1] / size[1])
        scales = passes(factor, self.scales)
        if not scales and factor > 0.5 and self.restores:
            scales = [min(self.scales)]
        return [self.upscaler(scale) for scale in scales]

    def picture(self, picture: Picture, size: tuple[int, int], progress: Progress | None = None) -> Picture:
        """See `Upscaler.picture`."""
        pixels, alpha, chain = picture.pixels, picture.alpha, self.chain(picture.size, size)
        colours = pixels.shape[2]
        if chain and is_grey(pixels):
            pixels = pixels[..., :1]  # networks give colours that differ a little, which would be a tint
        for upscaler, share in zip(chain, _shares(chain)):
            pixels, alpha = enlarge_samples(upscaler, pixels, alpha, progress=share_of(progress, *share))
        if pixels.shape[2] < colours:
            pixels = pixels.repeat(colours, axis=2)
        result = replace(picture, pixels=pixels, alpha=alpha, quality=None)
        if result.size != size:
            from finescale.images.scaling import resize_picture

            result = resize_picture(result, size)
        if progress:
            progress(1.0)
        return result


@dataclass
class _Used:
    """Networks, what they were made of, and how many threads enlarge with them now."""

    of: object
    networks: Networks
    threads: int = 0


class _Kept:
    """The networks of the last call of `upscale`: making them ready takes longer than a small picture."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: _Used | None = None
        self._parents: list[_Used | None] = []
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forked)

    def _forked(self) -> None:
        """The engines' threads are not in this process: its parent's can neither compute here nor be taken down."""
        self._parents.append(self._last)
        self._lock, self._last = threading.Lock(), None

    @contextmanager
    def networks(self, network: "str | os.PathLike[str] | None", settings: dict[str, Any]) -> Iterator[Networks]:
        """Those of the last call if they would come out the same, else new ones, which are kept."""
        files = _files(network)
        of = (repr(settings), network, *files)
        with self._lock:
            used = self._last
            if used is None or used.of != of:
                used = _Used(of, Networks(network, **settings))
                self._last = used if files else None
            used.threads += 1
        try:
            yield used.networks
        finally:
            with self._lock:
                used.threads -= 1
                if not used.threads:
                    used.networks.rest()


kept_networks = _Kept().networks


@contextmanager
def networks_of(
    network: "str | os.PathLike[str] | Network | Upscaler | None", settings: dict[str, Any]
) -> Iterator[Networks]:
    """What `upscale` computes with: names' and files' networks are kept, an upscaler is taken as it is.

    Raises:
        UsageError: settings beside an upscaler; see also `Upscaler`.
    """
    if network is None or isinstance(network, str | os.PathLike):
        with kept_networks(None if network is None else _called(network), settings) as networks:
            yield networks
        return
    usual = inspect.signature(Upscaler).parameters
    if not isinstance(network, Upscaler):
        network = Upscaler(network, **settings)
    elif given := [name for name, value in settings.items() if repr(value) != repr(usual[name].default)]:
        raise UsageError(f"an Upscaler has its own settings: {' and '.join(given)} are given when it is made")
    yield Networks(network)


def _files(network: "str | os.PathLike[str] | None") -> list[object]:
    """The weight files that a name or path stands for now, with what tells whether one was replaced."""
    from finescale.weights import places

    names = [DEFAULT, *FOR_OTHERS] if network == AUTO else [DEFAULT if network is None else os.fspath(network)]
    found: list[object] = []
    for path in (Path(names[0]), *(places.present(name, scale) for name in names for scale in (2, 3, 4))):
        with suppress(OSError, ValueError):
            if path and path.is_file():
                state = path.stat()
                found += [path.absolute(), state.st_ino, state.st_size, state.st_mtime_ns]
    return found


def _as_picture(image: "Image.Image | Picture | Array | File") -> Picture:
    if isinstance(image, Picture):
        return image
    if isinstance(image, Image.Image):
        try:
            return from_pil(image)
        except UsageError as error:
            hint = "; divide samples of 8 bits by 255" if image.mode == "F" and np.asarray(image).max() > 1.5 else ""
            raise UsageError(f"the image {error}{hint}") from error
        except FinescaleError as error:
            raise FinescaleError(f"the image is {error}") from error
    if isinstance(image, np.ndarray):
        if image.dtype not in (np.uint8, np.uint16) and image.dtype.kind != "f":
            raise UsageError(f"an array is uint8, uint16 or float in [0, 1], not {image.dtype}")
        if image.ndim not in (2, 3) or not image.size or not 1 <= image.shape[-1] ** (image.ndim - 2) <= 4:
            raise UsageError(f"an array is (H, W) or (H, W, 1 to 4), at least 1 x 1, not {image.shape}")
        _check_floats(image)
        samples = image.clip(0, 1) if image.dtype.kind == "f" else image  # what a network gave overshoots a little
        return Picture(*split(to_integers(samples.reshape(*image.shape[:2], -1))))
    if isinstance(image, str | os.PathLike | bytes) or hasattr(image, "read"):
        from finescale.images.files import name_of, read, tell_colours

        picture = read(image)
        tell_colours(picture, name_of(image))  # Pillow images have no place for them
        return picture
    hint = (
        "; of a tensor: finescale.Upscaler(finescale.load(NAME, SCALE)).enlarge(x)" if hasattr(image, "detach") else ""
    )
    raise UsageError(f"a picture is a Pillow image, an array or a file, not {type(image).__name__}{hint}")


def _like(array: Array, samples: Array) -> Array:
    """The samples (H, W, C) of the result for a picture that was an array: of its type and number of dimensions."""
    if array.dtype.kind == "f":
        samples = (samples / np.float32(65535)).astype(array.dtype)
    elif np.may_share_memory(samples, array):  # a factor of 1; who changes the result does not mean the picture
        samples = samples.copy()
    return samples if array.ndim == 3 else samples[..., 0]


def share_of(progress: Progress | None, start: float, part: float) -> Callable[[float], None] | None:
    """A progress callback for a part of the whole work."""
    return None if progress is None else lambda done: progress(start + part * done)


def _shares(chain: Sequence[Upscaler]) -> list[tuple[float, float]]:
    """(start, share) of every pass, whose work goes by the pixels that it is given."""
    pixels = accumulate((u.scale**2 for u in chain[:-1]), operator.mul, initial=1)
    costs = [given * (8 if u.ensemble else 1) for given, u in zip(pixels, chain)]
    total = sum(costs)
    return [(sum(costs[:i]) / total, cost / total) for i, cost in enumerate(costs)]
