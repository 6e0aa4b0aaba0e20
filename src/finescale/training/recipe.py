"""What to train and how: a TOML file read into typed, frozen models.

A recipe says only what differs from its base: `extends = "fast"` (or another name of `BASES`, or another file) takes
everything else from there. An unknown key, a wrong type or an impossible value is an error that names the key.
"""

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from finescale.data import degradations
from finescale.errors import UsageError, check_known, explain, nearest
from finescale.networks.catalogue import ALIASES, NETWORKS
from finescale.networks.unet import UNet
from finescale.training.amounts import AmountField, Moment, parse
from finescale.training.losses import LEAST_FOR_LPIPS, PERCEPTUAL, PIXEL

SCHEDULES = ("fast", "original")
BASES = ("fast", "fast-unet", "original", "original-unet")  # the files of bases/: a schedule, and what U-Nets add to it

_HERE = Path(__file__).parent
Beta = Annotated[float, Field(ge=0, lt=1)]
Strength = Annotated[float, Field(ge=0, le=50)]
Quality = Annotated[int, Field(ge=0, le=100)]
AsTuple = BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)  # TOML has lists only

# What a recipe sets for one schedule and not for the other.
_OF_SCHEDULE = {"budget", "epoch", "precision", "schedule", "optimiser", "groups"}
_CROPS = {"batch", "patch", "late_patch", "late_from"}


class _Strict(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, arbitrary_types_allowed=True, allow_inf_nan=False
    )


class Data(_Strict):
    """The pictures.

    Attributes:
        train: a packed store (see `finescale data prepare`).
        validation: a folder of pictures, a set's name or a packed store to validate on; empty: no validation.
        validation_pictures: at most so many of them, evenly spread.
        where: the pictures lie in the "device"'s memory or in the computer's "memory"; "auto" decides by size.
        batch: crops per step, over all processes.
        patch: side of the low-resolution crops.
        late_patch: their side from `late_from` on.
        late_from: share of the budget.
    """

    train: str = "stores/train"
    validation: str = ""
    validation_pictures: int = Field(default=20, ge=1)
    where: Literal["auto", "device", "memory"] = "auto"
    batch: int = Field(default=16, ge=1, le=1 << 48)
    patch: int = Field(default=48, ge=8, le=1 << 24)
    late_patch: int | None = Field(default=None, ge=8, le=1 << 24)
    late_from: float = Field(default=0.7, ge=0, le=1)

    def patch_at(self, spent: float) -> int:
        """The side of the crops when this share of the budget is spent."""
        return self.late_patch if self.late_patch is not None and spent >= self.late_from else self.patch


class Degradation(_Strict):
    """What is done to the low-resolution crops, see `finescale.data.degradations`; by default nothing.

    Attributes:
        share: of the crops that are degraded.
        blur: least and greatest standard deviation of a Gaussian, in pixels of the low-resolution picture.
        noise: least and greatest standard deviation, in grey levels.
        grain: least and greatest standard deviation of a Gaussian over the noise, in pixels; the noise stays as strong.
        grey: share of the crops that have the same noise in all colours.
        jpeg: least and greatest quality; (0, 0): no JPEG.
    """

    share: float = Field(default=1.0, ge=0, le=1)
    blur: Annotated[tuple[Strength, Strength], AsTuple] = (0.0, 0.0)
    noise: Annotated[tuple[Strength, Strength], AsTuple] = (0.0, 0.0)
    grain: Annotated[tuple[Strength, Strength], AsTuple] = (0.0, 0.0)
    grey: float = Field(default=0.0, ge=0, le=1)
    jpeg: Annotated[tuple[Quality, Quality], AsTuple] = (0, 0)

    @model_validator(mode="after")
    def _possible(self) -> "Degradation":
        for name in ("blur", "noise", "grain", "jpeg"):
            least, greatest = getattr(self, name)
            if least > greatest:
                raise ValueError(f"degradation.{name}: should be [least, greatest], not [{least:g}, {greatest:g}]")
        if self.jpeg[0] == 0 < self.jpeg[1]:
            raise ValueError("degradation.jpeg: qualities are from 1 to 100, or [0, 0] for none")
        return self

    @property
    def crops(self) -> degradations.Degradation | None:
        """What does it; None: nothing is to be done."""
        if not (self.share and (self.blur[1] or self.noise[1] or self.jpeg[1])):
            return None
        jpeg = self.jpeg if self.jpeg[1] else None
        return degradations.Degradation(self.share, self.blur, self.noise, self.grain, self.grey, jpeg)


class Schedule(_Strict):
    """The learning rate over the run, as a multiple of `optimiser.rate`.

    Attributes:
        kind: "decay": a warm-up, a flat part that a longer budget prolongs, and a decay to zero at the end of the
            budget; "halving": halved again and again, as the networks were first trained.
        warmup: end of the linear warm-up from 0.
        decay_from: where the decay starts (a share of the budget).
        shape: of the decay.
        halve_every: how often the rate is halved.
        halve_from: how long it is first left as it is, beyond the first `halve_every`; 0: not.
    """

    kind: Literal["decay", "halving"] = "decay"
    warmup: Moment = 0.02
    decay_from: float = Field(default=0.3, ge=0, lt=1)
    shape: Literal["cosine", "linear", "square root"] = "cosine"
    halve_every: AmountField = parse("200k")
    halve_from: AmountField | None = None

    @field_validator("halve_from", mode="before")
    @classmethod
    def _none(cls, value: Any) -> Any:
        return None if value in (0, "0") else value

    @field_validator("halve_every", "halve_from")
    @classmethod
    def _in_steps(cls, value: Any) -> Any:
        if value and value.unit == "seconds":
            raise ValueError("should be in steps or epochs, not a time")
        return value


class Optimiser(_Strict):
    """The optimiser, and the average of the weights that is validated and shipped.

    Attributes:
        kind: "adam", or "muon" for the matrices between features and Adam for the rest.
        rate: peak learning rate.
        betas: of Adam.
        epsilon: of Adam.
        clip: largest norm of the gradient; 0: no clipping.
        average: decay of the moving average of the weights per step; 0: none.
    """

    kind: Literal["adam", "muon"] = "adam"
    rate: float = Field(default=1e-3, gt=0)
    betas: Annotated[tuple[Beta, Beta], AsTuple] = (0.9, 0.99)
    epsilon: float = Field(default=1e-8, gt=0)
    clip: float = Field(default=1.0, ge=0)
    average: float = Field(default=0.999, ge=0, lt=1)


class Group(_Strict):
    """Parameters that are trained at their own rate or later than others; the first group that matches counts.

    Attributes:
        match: start of the parameters' names; "" matches all.
        rate: multiple of the learning rate.
        frozen_until: not trained (its norms in evaluation mode) before this moment.
        pretrained: the group counts only if a U-Net's ResNet encoder starts trained, from the weights that `encoder`
            names or from a `warm_start`; its batch norms keep the statistics they came with. A random or plain one is
            trained like everything else.
    """

    match: str
    rate: float = Field(default=1.0, gt=0)
    frozen_until: Moment = 0.0
    pretrained: bool = False


class Recipe(_Strict):
    """Everything about a training run.

    Attributes:
        network: name in the catalogue, or an alias of it.
        scale: 2, 3 or 4.
        arguments: of the network's class, over those of the catalogue.
        encoder: file of the encoder's pretrained weights, "imagenet" to find or download the published ones, or empty
            for random ones (U-Nets only).
        warm_start: what to start from, see `finescale.training.warm_start.find`; empty: nothing.
        budget: how long to train.
        epoch: steps that count as one epoch.
        seed: of everything random.
        loss: weight of every loss by name, see `finescale.training.losses`.
        perception: the VGG of the content and style losses: "vgg16", "vgg19" or "vgg19-normalised".
        perception_file: its weights; empty: the published ones, found or downloaded.
        lpips: variant of the loss of that name: "alex", "vgg" or "squeeze".
        precision: of the network's arithmetic and of Muon's directions; weights, losses and the optimiser's state are
            always float32. "auto" is bfloat16 where the device is fast in it.
        compile: "blocks" compiles the repeated block once, "whole" the network.
        capture: on a single GPU, start a step's kernels together, as a recorded CUDA graph.
        diverged: a loss that stays so many times above its lowest mean ends the run; 0: it never does.
        parallel: on several processes: copies ("ddp") or parts ("fsdp") of the weights on each.
        validate_every, save_every: intervals.
    """

    network: str
    scale: Literal[2, 3, 4]
    arguments: dict[str, Any] = Field(default_factory=dict)
    encoder: str = ""
    warm_start: str = ""
    budget: AmountField = parse("20m")
    epoch: int = Field(default=1000, ge=1, le=1 << 40)
    seed: int = Field(default=0, ge=0, lt=2**63)
    loss: dict[str, float] = Field(default_factory=lambda: {"l1": 1.0})
    perception: Literal["vgg16", "vgg19", "vgg19-normalised"] = "vgg16"
    perception_file: str = ""
    lpips: Literal["alex", "vgg", "squeeze"] = "squeeze"
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    compile: Literal["off", "blocks", "whole"] = "off"
    capture: bool = True
    diverged: float = Field(default=20.0, ge=0)
    parallel: Literal["ddp", "fsdp"] = "ddp"
    validate_every: AmountField = parse("2m")
    save_every: AmountField = parse("5m")
    data: Data = Data()
    degradation: Degradation = Degradation()
    schedule: Schedule = Schedule()
    optimiser: Optimiser = Optimiser()
    groups: Annotated[tuple[Group, ...], AsTuple] = ()

    @field_validator("network")
    @classmethod
    def _resolved(cls, value: str) -> str:
        return ALIASES.get(value, value)  # by which its weights are found

    @model_validator(mode="after")
    def _possible(self) -> "Recipe":
        losses = [*PIXEL, *PERCEPTUAL]
        for name in self.loss:
            if name not in losses:
                raise ValueError(f"loss: there is no loss '{name}'{nearest(name, losses)}")
        if not self.loss or any(weight < 0 for weight in self.loss.values()) or not any(self.loss.values()):
            raise ValueError("loss: needs at least one loss with a weight above 0, and none below")
        side = self.scale * min(self.data.patch, self.data.late_patch or self.data.patch)
        if self.loss.get("lpips") and side < LEAST_FOR_LPIPS:
            raise ValueError(f"data.patch: the loss lpips needs results of {LEAST_FOR_LPIPS} pixels, not {side}")
        if self.parallel == "fsdp" and (
            self.optimiser.kind == "muon" or any(g.frozen_until for g in self.active_groups)
        ):
            raise ValueError("parallel: 'fsdp' goes neither with muon nor with groups that are frozen at first")
        return self

    @property
    def active_groups(self) -> tuple[Group, ...]:
        """The groups that count."""
        return tuple(group for group in self.groups if self._encoder_is_trained or not group.pretrained)

    @property
    def _encoder_is_trained(self) -> bool:
        """Whether an encoder with published weights starts from those, or from what a run made of them."""
        if self.encoder or not self.warm_start:
            return bool(self.encoder)
        entry = NETWORKS.get(self.network)
        if entry is None or not issubclass(entry.architecture, UNet):
            return False
        return {**entry.arguments, **self.arguments}.get("encoder") != "plain"

    @property
    def name(self) -> str:
        """Name of the run and of its weight file."""
        return f"{self.network}-x{self.scale}"

    def resolved(self) -> dict[str, Any]:
        """All values, defaults included, as plain JSON values; `Recipe` reads them back."""
        return self.model_dump(mode="json")


def load(path: Path, overrides: Sequence[str] = (), *, schedule: str | None = None) -> Recipe:
    """Reads a recipe.

    Args:
        path: a TOML file.
        schedule: take the base of this schedule ("fast" or "original") in place of the one the recipe names; what the
            recipe sets for its own (budget, precision, crops, rates, groups) does not count then.
        overrides: "key=value" with dots for tables ("optimiser.rate=2e-4"); values as in TOML, quotes optional.

    Raises:
        UsageError: the file is not there or not TOML, or a key or value is wrong; one sentence.
    """
    path = Path(path)
    if schedule is not None:
        check_known("schedule", schedule, SCHEDULES)
    values, own = _read(path, (), schedule)
    if schedule and own is None:  # the recipe names none: this one is put beneath it
        values = _merge(_read(_HERE / "bases" / f"{schedule}.toml", (), None)[0], values)
    for override in overrides:
        _set(values, override)
    return parse_recipe(values, str(path))


def parse_recipe(values: Mapping[str, Any], source: str) -> Recipe:
    """Checks plain values, as a checkpoint or a TOML file holds them.

    Raises:
        UsageError: naming `source`, the key and the reason.
    """
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise UsageError(f"{source}: {_sentence(error)}") from None


def to_toml(recipe: Recipe) -> str:
    """The resolved recipe as TOML."""
    top: dict[str, Any] = {}
    parts = []
    for key, value in recipe.resolved().items():
        if isinstance(value, Mapping):
            parts.append("\n".join([f"[{key}]", *_lines(value)]))
        elif key == "groups":
            parts += ["\n".join(["[[groups]]", *_lines(group)]) for group in value]
        else:
            top[key] = value
    return "\n\n".join(["\n".join(_lines(top)), *parts]) + "\n"


def _lines(table: Mapping[str, Any]) -> list[str]:
    return [f"{_key(k)} = {_toml(v)}" for k, v in table.items() if v is not None]


def _key(name: str) -> str:
    return name if re.fullmatch("[A-Za-z0-9_-]+", name) else json.dumps(name, ensure_ascii=False)


def _toml(value: Any) -> str:
    """A value, written as JSON does, but for tables."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(_lines(value))}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value, ensure_ascii=False)


def _read(path: Path, chain: tuple[Path, ...], schedule: str | None) -> tuple[dict[str, Any], str | None]:
    """A recipe's values over those of the recipes it extends, and the schedule that the last of these names."""
    if path.resolve() in chain:
        raise UsageError(f"{path}: extends itself")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # editors on Windows mark it
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise UsageError(f"{path}: cannot be read ({reason})") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: not a TOML file ({error})") from error
    base = values.pop("extends", None)
    if base is None:
        return values, None
    if not isinstance(base, str):
        raise UsageError(f"{path}: extends should be a name or a file, not {base!r}")
    if base in BASES:
        own: str | None = base.partition("-")[0]
        name = base.replace(str(own), schedule or str(own))
        inner, _ = _read(_HERE / "bases" / f"{name}.toml", (), None)
    elif base.endswith(".toml"):
        inner, own = _read(path.parent / base, (*chain, path.resolve()), schedule)
    else:
        raise UsageError(f"{path}: extends '{base}', which is neither a file nor one of {', '.join(BASES)}")
    return _merge(inner, values if schedule in (None, own) else _unscheduled(values)), own


def _unscheduled(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values without those that belong to a schedule."""
    kept = {key: value for key, value in values.items() if key not in _OF_SCHEDULE}
    if isinstance(kept.get("data"), Mapping):
        kept["data"] = {key: value for key, value in kept["data"].items() if key not in _CROPS}
    return kept


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Tables are merged key by key, except those whose keys are free (`loss`): they replace."""
    merged = dict(base)
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping) and key != "loss":
            merged[key] = _merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def _set(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"--set {override}: should be key=value")
    *tables, last = key.strip().split(".")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    for table in tables:
        inner = values.setdefault(table, {})
        if not isinstance(inner, dict):
            raise UsageError(f"--set {override}: '{table}' is not a table")
        values = inner
    values[last] = value


def _sentence(error: ValidationError) -> str:
    """The most telling of pydantic's findings, as one sentence that names the key."""
    findings = error.errors()
    # a misspelt key is unknown and missing at once, and what it should be is said of the unknown one
    finding = next((one for one in findings if one["type"] == "extra_forbidden"), findings[0])
    where = [str(part) for part in finding["loc"]]
    key, kind = ".".join(where), finding["type"]
    if kind == "extra_forbidden":
        return f"there is no key '{key}'{nearest(where[-1], _fields(where[:-1]))}"
    if kind == "missing":
        return f"the key '{key}' is missing"
    return explain(finding, where)


def _fields(where: Sequence[str]) -> list[str]:
    """Keys of the table at `where`."""
    tables: dict[str, type[_Strict]] = {
        "data": Data,
        "degradation": Degradation,
        "schedule": Schedule,
        "optimiser": Optimiser,
        "groups": Group,
    }
    return list((tables[where[0]] if where else Recipe).model_fields)
