"""Figures that others published, each with its source: `published.toml`, typed."""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(_Model):
    """Where figures come from: a paper or README, or (`measured`) the network's own published weights."""

    title: str
    url: str | None = None
    measured: bool = False


Decibels = Annotated[float, Field(gt=0, lt=60)]
Similarity = Annotated[float, Field(gt=0, le=1)]


class Published(_Model):
    """A network's figures at one scale: for every set PSNR-Y (dB), and SSIM-Y where it is known.

    `seconds` and `memory_mib` are for 320 x 180 pixels.
    """

    network: str
    scale: Literal[2, 3, 4]
    source: str
    figures: Mapping[str, tuple[Decibels] | tuple[Decibels, Similarity]]
    parameters: int | None = None
    training: str | None = None
    seconds: float | None = None
    memory_mib: float | None = None


class _File(_Model):
    sources: Mapping[str, Source]
    row: Sequence[Published]


@cache
def _file() -> _File:
    import tomllib

    return _File.model_validate(
        tomllib.loads(files("finescale.evaluation").joinpath("published.toml").read_text("utf-8"))
    )


def sources() -> Mapping[str, Source]:
    """All sources by their short names."""
    return _file().sources


def rows(scale: int | None = None, *, measured: bool | None = None) -> list[Published]:
    """Published figures.

    Args:
        scale: only of this scale.
        measured: only those measured with published weights (True) or only those quoted (False); None: both.
    """
    return [row for row in _file().row if scale in (None, row.scale) and measured in (None, source(row).measured)]


def source(row: Published) -> Source:
    """Where a row comes from."""
    return sources()[row.source]


def compared(scale: int, sets: Sequence[str], *, measured: bool = False) -> list[Published]:
    """The quoted rows, or the measured ones, that have a figure for at least one of these sets."""
    return [row for row in rows(scale, measured=measured) if any(name in row.figures for name in sets)]


def beside(scale: int, sets: Sequence[str]) -> list[Published]:
    """All that is published for these sets: the quoted rows, then the measured ones."""
    return [row for measured in (False, True) for row in compared(scale, sets, measured=measured)]


def as_json(row: Published, names: Sequence[str]) -> dict[str, Any]:
    """A row as JSON values, named as in those of a benchmark run: its figures on these sets, and its source."""
    origin = source(row)
    facts = {
        "name": row.network,
        "parameters": row.parameters,
        "training": row.training,
        "timed_seconds": row.seconds,
        "memory_mib": row.memory_mib,
        "source": origin.title,
        "url": origin.url,
    }
    sets = {name: dict(zip(("psnr", "ssim"), row.figures[name])) for name in names if name in row.figures}
    return {**{key: value for key, value in facts.items() if value is not None}, "sets": sets}


def pair(row: Published, name: str) -> str:
    """A row's figures on a set as tables print them: "32.63 / 0.9002", "32.69", or "" where there are none."""
    figures = row.figures.get(name)
    if figures is None:
        return ""
    return f"{figures[0]:.2f}" + (f" / {figures[1]:.4f}" if len(figures) == 2 else "")
