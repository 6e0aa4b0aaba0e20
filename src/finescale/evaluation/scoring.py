"""Which of somebody's enlarged pictures belongs to which original, and what each scores."""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from finescale.atomic import check_target, new_file
from finescale.errors import FinescaleError, UsageError, is_out_of_memory
from finescale.evaluation.metrics import Pixels, psnr_y, ssim_y
from finescale.evaluation.sets import pictures, read_rgb
from finescale.images.picture import mod_crop

STDOUT = Path("-")
SMALLEST = 32  # pixels of each side that perceptual measures need

# What people append to names of originals and of results.
_SUFFIX = re.compile(
    r"(?:[-_. ]*x\d|[-_. ]+(?:srf[-_]?\d|b[id]x\d|\dx|sr|hr|gt|rlt|bi|bd|out|output|result|groundtruth))+$"
)


class Metric(Protocol):
    """A perceptual measure of an enlarged picture, lower is better; with or without a look at the original."""

    @property
    def key(self) -> str:
        """The figure of `Score` that it gives."""

    @property
    def label(self) -> str:
        """For tables."""

    def __call__(self, enlarged: Pixels, high: Pixels) -> float | None:
        """The figure for two pictures (H, W, 3) uint8; None where it is not defined."""


@dataclass(frozen=True)
class Unavailable:
    """Stands for a metric whose files or package are not here; `reason` says how to get them."""

    key: str
    label: str
    reason: str


Metrics = Sequence[Metric | Unavailable]


def find(key: str, label: str, load: Callable[[], Metric]) -> Metric | Unavailable:
    """The measure that `load` gives, or a stand-in that says why where its files or package are not here.

    Raises:
        UsageError: there is no such measure.
    """
    try:
        return load()
    except UsageError:
        raise
    except FinescaleError as error:
        return Unavailable(key, label, str(error))


@dataclass(frozen=True)
class Pair:
    """An original and the enlarged picture that belongs to it; `name` is the original's stem."""

    name: str
    high: Path
    enlarged: Path


@dataclass(frozen=True)
class Score:
    """One picture's figures: PSNR (dB) and SSIM on luma without the border, LPIPS, BRISQUE, seconds it took to make."""

    name: str
    psnr: float
    ssim: float
    lpips: float | None = None
    brisque: float | None = None
    picture_seconds: float | None = None


FIGURES = ("psnr", "ssim", "lpips", "brisque", "picture_seconds")


def means(scores: Sequence[Score]) -> dict[str, float]:
    """The means of each figure that every one of the scores has; infinity where one is."""
    result = {}
    for figure in FIGURES:
        values = [value for score in scores if (value := getattr(score, figure)) is not None]
        if scores and len(values) == len(scores):
            result[figure] = sum(values) / len(values)
    return result


def as_json(scores: Sequence[Score]) -> dict[str, Any]:
    """Means and every picture's figures as JSON values; infinity is the string "Infinity"."""
    rows = [{key: _number(value) for key, value in asdict(score).items() if value is not None} for score in scores]
    return {**{key: _number(value) for key, value in means(scores).items()}, "pictures": rows}


def of_json(found: Mapping[str, Any]) -> list[Score]:
    """The scores that `as_json` gave."""
    return [
        Score(one["name"], **{figure: float(one[figure]) for figure in FIGURES if figure in one})
        for one in found["pictures"]
    ]


def metrics_json(metrics: Metrics) -> dict[str, str]:
    """What the perceptual figures are, `lpips_by`, or why there are none, `lpips_missing`; likewise `brisque`."""
    return {
        f"{metric.key}_missing" if isinstance(metric, Unavailable) else f"{metric.key}_by": (
            metric.reason if isinstance(metric, Unavailable) else metric.label
        )
        for metric in metrics
    }


def _number(value: Any) -> Any:
    return "Infinity" if value == math.inf else value


def check_outputs(files: Sequence[Path | None], *, overwrite: bool = False) -> None:
    """Refuses, before the work, files that could not be written after it; None is none, "-" standard output.

    Raises:
        FinescaleError: one exists and may not be overwritten, or its folder does not.
        UsageError: two are the same.
    """
    chosen = [file for file in files if file]
    check_apart(chosen)
    for file in chosen:
        if file != STDOUT:
            check_target(file, overwrite)


def check_apart(files: Sequence[Path]) -> None:
    """Refuses results of which one would be written over another.

    Raises:
        UsageError: two are the same file.
    """
    seen = set()
    for file in files:
        place = file if file == STDOUT else file.resolve()
        if place in seen:
            raise UsageError(f"{file}: two results cannot have one file")
        seen.add(place)


def write_text(path: Path, text: str, *, overwrite: bool = False) -> None:
    """Writes a text file, all of it or nothing; "-" is standard output.

    Raises:
        FinescaleError: it exists and may not be overwritten, or cannot be written.
    """
    if path == STDOUT:
        print(text, end="")
        return
    with new_file(path, overwrite=overwrite) as file:
        # names that are no Unicode, as the system may have them; in JSON that is how they are written too
        file.write(text.encode(errors="backslashreplace"))


def write_json(path: Path, content: Mapping[str, Any], *, overwrite: bool = False) -> None:
    """Writes JSON as `write_text` does; "-" is standard output."""
    if path == STDOUT:
        print(json.dumps(content, indent=1))
        return
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n", overwrite=overwrite)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """What cannot be done within, or has not the memory for it, is told with the picture that it is done to.

    Raises:
        FinescaleError: in place of a UsageError, or of what a library raises where memory runs out.
    """
    try:
        yield
    except UsageError as error:
        raise FinescaleError(f"{path}: {error}") from error
    except Exception as error:  # OpenCV's is of no kind of its own
        if isinstance(error, FinescaleError) or not is_out_of_memory(error):
            raise
        raise FinescaleError(f"{path}: out of memory while it was scored") from error


def score_pixels(
    name: str,
    enlarged: Pixels,
    high: Pixels,
    scale: int,
    *,
    metrics: Metrics = (),
    seconds: float | None = None,
) -> Score:
    """Scores an enlarged picture (sH, sW, 3) uint8 against the original, cropped to the same size."""
    perceptual = {metric.key: metric(enlarged, high) for metric in metrics if not isinstance(metric, Unavailable)}
    psnr, ssim = psnr_y(enlarged, high, scale), ssim_y(enlarged, high, scale)
    return Score(name, psnr, ssim, picture_seconds=seconds, **perceptual)


def score_pair(pair: Pair, scale: int, metrics: Metrics = ()) -> Score:
    """Reads and scores a pair by the protocol.

    The original is cropped at the bottom and right to a multiple of the scale. The enlarged picture may have the
    original's whole size (it is cropped too), or the cropped size, or that of a crop to a multiple of 12, which
    collections use that serve x2, x3 and x4 at once.

    Raises:
        FinescaleError: a picture cannot be read, the sizes do not fit, or memory does not suffice.
    """
    high, enlarged = read_rgb(pair.high), read_rgb(pair.enlarged)
    size = enlarged.shape[:2]
    with naming(pair.enlarged):
        if size == high.shape[:2]:
            high, enlarged = mod_crop(high, scale), mod_crop(enlarged, scale)
        elif size == mod_crop(high, scale).shape[:2]:
            high = mod_crop(high, scale)
        elif min(high.shape[:2]) >= 12 and size == mod_crop(high, 12).shape[:2]:
            high = mod_crop(high, 12)
        else:
            raise UsageError(
                f"it is {size[1]} x {size[0]}, the original {pair.high} is {high.shape[1]} x {high.shape[0]}; "
                f"cropped to a multiple of {scale} that is "
                f"{high.shape[1] // scale * scale} x {high.shape[0] // scale * scale}"
            )
        return score_pixels(pair.name, enlarged, high, scale, metrics=metrics)


def match(high: Path, enlarged: Path, scale: int) -> list[Pair]:
    """Pairs the pictures of two folders (or two files) by the stems of their names.

    An enlarged picture belongs to the original of the same name, or to the one whose name and such endings as `_x4`,
    `_SR`, `x4_rlt`, `_BI_x4` are its own, or else to the one whose name, without such endings as `_HR`, is its own
    without any, or begins it (`baby_RCAN_x4`). The longest such name wins. Capitals do not matter.

    Raises:
        FinescaleError: a folder is not there or holds no pictures; pictures without a partner, or with several, listed.
    """
    for path in (high, enlarged):
        if not path.exists():
            raise FinescaleError(f"{path}: there is no such file or folder")
    if high.is_file() and enlarged.is_file():
        return [Pair(high.stem, high, enlarged)]
    if high.is_file() != enlarged.is_file():
        raise UsageError("give two folders or two files, not one of each")
    originals, results = pictures(high), pictures(enlarged)
    for folder, found in ((high, originals), (enlarged, results)):
        if not found:
            raise FinescaleError(f"{folder}: holds no pictures")
    chosen: dict[Path, list[Path]] = {original: [] for original in originals}
    strangers = []
    for result in results:
        partner = _partner(result, originals)
        if partner is None:
            strangers.append(result.name)
        else:
            chosen[partner].append(result)
    settled = {original: _settle(original, found, scale) for original, found in chosen.items()}
    lonely = [original.name for original, found in settled.items() if not found]
    several = [
        f"{original.name} ({', '.join(result.name for result in found)})"
        for original, found in settled.items()
        if len(found) > 1
    ]
    problems = [
        f"{what}: {', '.join(names)}"
        for what, names in (
            (f"without a partner in {enlarged}", lonely),
            (f"without a partner in {high}", strangers),
            ("with several partners", several),
        )
        if names
    ]
    if problems:
        raise FinescaleError("the pictures do not pair up; " + "; ".join(problems))
    return [Pair(original.stem, original, found[0]) for original, found in settled.items()]


def _bare(path: Path) -> str:
    stem = path.stem.lower()
    return _SUFFIX.sub("", stem) or stem


def _partner(result: Path, originals: Sequence[Path]) -> Path | None:
    """The original a result belongs to, by the closest of four likenesses of their names."""
    stem = result.stem.lower()
    likenesses = (
        lambda original: original.stem.lower() == stem,
        # before endings are taken from originals, of which `fox1` and `fox2` would both be `fo`
        lambda original: (
            stem.startswith(own := original.stem.lower()) and _SUFFIX.fullmatch(stem, len(own)) is not None
        ),
        lambda original: _bare(original) == _bare(result),
        lambda original: re.match(re.escape(_bare(original)) + r"(?:[-_. ]|x\d)", stem) is not None,
    )
    for alike in likenesses:
        found = [original for original in originals if alike(original)]
        if found:
            return max(found, key=lambda original: (len(_bare(original)), len(original.stem)))
    return None


def _settle(original: Path, results: list[Path], scale: int) -> list[Path]:
    """Of several results for one original: the one of the same name, else those that name the scale."""
    if len(results) < 2:
        return results
    same = [result for result in results if result.stem.lower() == original.stem.lower()]
    scaled = [
        result for result in results if re.search(rf"(?:x{scale}|{scale}x|srf[-_]?{scale})(?!\d)", result.stem.lower())
    ]
    return same or scaled or results
