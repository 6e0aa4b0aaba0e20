"""A benchmark run: shrink the originals exactly, enlarge them with every network, score by the protocol."""

import logging
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from finescale import __version__
from finescale.atomic import sha256
from finescale.errors import FinescaleError, UsageError
from finescale.evaluation import published, sets
from finescale.evaluation.arrays import CLEAN, Damage, downscale, to_pixels
from finescale.evaluation.contenders import PAPERS_BICUBIC, Contender, check_names, contender, labels
from finescale.evaluation.metrics import WINDOW, Pixels, Plane, luma, psnr, shave, ssim
from finescale.evaluation.scoring import (
    SMALLEST,
    Metrics,
    Score,
    Unavailable,
    as_json,
    metrics_json,
    naming,
    score_pixels,
)
from finescale.evaluation.speed import SIZE, Speed, machine, measure_apart
from finescale.images.picture import mod_crop
from finescale.images.resize import resize
from finescale.inference.engines.pytorch import pick_device
from finescale.layers.bicubic import Border


@dataclass(frozen=True)
class Row:
    """One contender's results: a list of scores for every set, its speed; or the reason why there are none."""

    name: str
    parameters: int | None = None
    macs: int | None = None
    weights: str | None = None
    sha256: str | None = None
    scores: Mapping[str, Sequence[Score]] = field(default_factory=dict)
    speed: Speed | None = None
    missing: str | None = None
    date: str | None = None  # of the run it is of, where that is an earlier one (see `report.kept`)

    def as_json(self) -> dict[str, Any]:
        """JSON values; what is not known is left out."""
        known = ("name", "parameters", "macs", "weights", "sha256", "missing", "date")
        facts = {key: getattr(self, key) for key in known}
        if self.speed:
            facts |= {"timed_seconds": self.speed.seconds, "memory_mib": self.speed.memory}
        result = {key: value for key, value in facts.items() if value is not None}
        return {**result, "sets": {name: as_json(scores) for name, scores in self.scores.items()}}


@dataclass(frozen=True)
class Run:
    """A whole benchmark run, and what is needed to repeat it."""

    scale: int
    sets: Sequence[str]
    rows: Sequence[Row]
    metrics: Metrics
    settings: Mapping[str, Any]
    command: str
    machine: Mapping[str, Any]
    timed_size: tuple[int, int] | None
    date: str
    failed: Sequence[str] = ()  # contenders without weights, or that failed in this run
    stopped: BaseException | None = None  # what ended the run before its last contender

    def as_json(self) -> dict[str, Any]:
        """JSON values; beside our networks the published ones, each with its source."""
        return {
            "finescale": __version__,
            "date": self.date,
            "command": self.command,
            "machine": dict(self.machine),
            "settings": dict(self.settings),
            "scale": self.scale,
            **metrics_json(self.metrics),
            "timed_size": self.timed_size,
            "networks": [row.as_json() for row in self.rows],
            "published": [published.as_json(row, self.sets) for row in published.beside(self.scale, self.sets)],
        }


def papers_bicubic(high: Pixels, scale: int) -> tuple[Plane, Plane]:
    """Luma of (sH, sW, 3), shrunk and enlarged in double precision, and the original's: both rounded only at the end.

    With present-day MATLAB's border this gives the bicubic rows that papers print (Set5: 33.66, 30.39, 28.42).
    """
    original = torch.from_numpy(luma(high))
    border: Border = "mirror"
    enlarged = resize(resize(original, scale=1 / scale, border=border), scale=scale, border=border)
    return enlarged.add(0.5).floor().clamp(0, 255).numpy(), original.add(0.5).floor().numpy()


def score_picture(
    entrant: Contender,
    path: Path,
    scale: int,
    metrics: Metrics = (),
    border: Border = "replicate",
    *,
    damage: Damage = CLEAN,
    timed: bool = True,
) -> Score:
    """Shrinks, enlarges and scores one original; for `border` and `damage` see `run`, `timed` tells the seconds too.

    Raises:
        FinescaleError: the picture cannot be read or is too small, or memory does not suffice.
    """
    high = sets.read_rgb(path)
    with naming(path):
        high = mod_crop(high, scale)
        if entrant.name == PAPERS_BICUBIC:
            planes = [shave(plane, scale) for plane in papers_bicubic(high, scale)]
            return Score(path.stem, psnr(*planes), ssim(*planes))
        low = downscale(high, scale, border, damage)
        start = time.perf_counter()
        enlarged = to_pixels(entrant.enlarge(low))
        seconds = time.perf_counter() - start if timed else None
        return score_pixels(path.stem, enlarged, high, scale, metrics=metrics, seconds=seconds)


def check_different(picture_sets: Sequence[sets.PictureSet]) -> None:
    """Refuses sets of one name.

    Raises:
        UsageError: two are called the same.
    """
    seen = set()
    for one in picture_sets:
        if one.name in seen:
            raise UsageError(f"two sets are called '{one.name}'; tables could not tell them apart")
        seen.add(one.name)


def _check_sets(picture_sets: Sequence[sets.PictureSet], scale: int, metrics: Metrics) -> None:
    """Refuses sets of one name and pictures that are damaged or too small, before any work is done."""
    perceptual = any(not isinstance(metric, Unavailable) for metric in metrics)
    least = max(2 * scale + WINDOW, SMALLEST if perceptual else 0)
    check_different(picture_sets)
    for one in picture_sets:
        for path in one.pictures:
            height, width = sets.read_rgb(path).shape[:2]
            if min(side - side % scale for side in (width, height)) < least:
                raise FinescaleError(f"{path}: a picture of {width} x {height} is too small to score at x{scale}")


def _timed(name: str, scale: int, settings: Mapping[str, Any], size: tuple[int, int], repeats: int) -> Speed | None:
    """As `measure_apart`; None and a warning where that fails, so that the figures are not lost."""
    try:
        return measure_apart(name, scale, settings, size, repeats=repeats)
    except UsageError:
        raise
    except FinescaleError as error:
        logging.getLogger("finescale").warning("%s", error)
        return None


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")


def run(
    names: Sequence[str],
    picture_sets: Sequence[sets.PictureSet],
    scale: int,
    *,
    settings: Mapping[str, Any] | None = None,
    metrics: Metrics = (),
    timed_size: tuple[int, int] | None = SIZE,
    repeats: int = 3,
    border: Border = "replicate",
    damage: Damage = CLEAN,
    command: Sequence[str] = (),
    earlier: Callable[[Run], Sequence[Row]] | None = None,
    progress: Callable[[str, str], None] | None = None,
    keep_stopped: bool = False,
) -> Run:
    """Runs every contender on every set.

    Args:
        names: references, networks, weight files; one without weights, or that fails, becomes a row that says so.
        picture_sets: of originals; see `sets.told_apart` for what they are called.
        scale: 2, 3 or 4.
        settings: see `contender`.
        metrics: perceptual measures to add.
        timed_size: low-resolution size (width, height) to time, None for no timing.
        repeats: timed runs, of which the median counts.
        border: what stands for samples over the edge when the originals are shrunk.
        damage: what the shrunk pictures have been through; the sets are called so too.
        command: the command line, recorded.
        earlier: told of the run before its first picture, gives rows that stand for networks it does not name, or that
            fail.
        progress: called before each picture with the contender's name and the picture's.
        keep_stopped: KeyboardInterrupt and SystemExit end the run with the contenders that are done, if any, and stand
            in its `stopped`.

    Raises:
        UsageError: an unknown name; bicubic-y, which knows no pixels, with `damage`.
        FinescaleError: all of the networks fail or have no weights, or a picture cannot be read or is too small.
    """
    check_names(names, scale)
    picture_sets = [sets.told_apart(one) for one in picture_sets]
    settings = {key: str(value) if key == "device" else value for key, value in (settings or {}).items()}
    if damage != CLEAN:
        if PAPERS_BICUBIC in names:
            raise UsageError(f"'{PAPERS_BICUBIC}' is for clean pictures; use 'bicubic'")
        picture_sets = [replace(one, name=damage.of(one.name)) for one in picture_sets]
    _check_sets(picture_sets, scale, metrics)
    whole = Run(
        scale,
        [one.name for one in picture_sets],
        (),
        metrics,
        {**settings, "border": border, **damage.settings},
        shlex.join(command),
        machine(pick_device(settings.get("device", "auto"))),
        timed_size,
        _now(),
    )
    before = {row.name: row for row in earlier(whole)} if earlier else {}
    for metric in metrics:
        if isinstance(metric, Unavailable):
            logging.getLogger("finescale").warning("no %s: %s", metric.label, metric.reason)
    rows: list[Row] = []
    stopped: BaseException | None = None
    for name, label in zip(names, _labels_beside(before, names)):
        try:
            rows.append(_row(name, label, whole, picture_sets, settings, border, damage, repeats, progress))
        except (KeyboardInterrupt, SystemExit) as error:
            if not keep_stopped or all(row.missing for row in rows):
                raise
            stopped = error
            break
    if all(row.missing for row in rows):
        raise FinescaleError("; ".join(row.missing for row in rows if row.missing))
    failed = [row.name for row in rows if row.missing]
    if before:
        new = {row.name: row for row in rows}
        for name in failed:
            if name in before and not before[name].missing:
                log = logging.getLogger("finescale")
                log.warning("%s failed, so its earlier row is kept (%s)", name, new.pop(name).missing)
        rows = [*(new.pop(name, row) for name, row in before.items()), *new.values()]
    return replace(whole, rows=rows, failed=failed, date=_now(), stopped=stopped)


def _labels_beside(before: Mapping[str, Row], names: Sequence[str]) -> list[str]:
    """What contenders are called beside kept rows: a file as its own row is, and not as that of another file."""
    called = []
    for name, label in zip(names, labels(names)):
        if before and Path(name).is_file():
            digest = sha256(Path(name))
            own = [row.name for row in before.values() if row.sha256 == digest]
            if own:
                label = own[0]
            elif label in before and before[label].sha256:
                label = name
        called.append(label)
    return called


def _row(
    name: str,
    label: str,
    whole: Run,
    picture_sets: Sequence[sets.PictureSet],
    settings: Mapping[str, Any],
    border: Border,
    damage: Damage,
    repeats: int,
    progress: Callable[[str, str], None] | None,
) -> Row:
    """One contender on every set."""
    timed = whole.timed_size is not None
    scores: dict[str, list[Score]] = {}
    try:
        entrant = contender(name, whole.scale, settings=settings, label=label)
        for one in picture_sets:
            scores[one.name] = []
            for path in one.pictures:
                if progress:
                    progress(entrant.name, path.stem)
                score = score_picture(entrant, path, whole.scale, whole.metrics, border, damage=damage, timed=timed)
                scores[one.name].append(score)
    except UsageError:
        raise
    except FinescaleError as error:  # such as too little memory: hours of the others are not lost by it
        return Row(label, missing=str(error))
    speed = None
    if whole.timed_size and entrant.name != PAPERS_BICUBIC:
        speed = _timed(name, whole.scale, settings, whole.timed_size, repeats)
    weights = entrant.weights.name if entrant.weights else None
    return Row(entrant.name, entrant.parameters, entrant.macs, weights, entrant.sha256, scores, speed)
