"""A whole run: from a recipe to a weight file, with everything on the way."""

import math
import platform
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from glob import escape
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from finescale import __version__
from finescale.atomic import new_file
from finescale.backbones import catalogue as backbones
from finescale.backbones import lpips
from finescale.backbones.resnest import SplitAttention
from finescale.data.crops import Crops, Where
from finescale.data.degradations import Degrades
from finescale.data.store import Store, is_store
from finescale.errors import FinescaleError, UsageError, install, is_out_of_memory
from finescale.inference.machine import signals
from finescale.networks import catalogue
from finescale.networks.base import Network
from finescale.networks.unet import UNet
from finescale.training import checkpoints, groups, losses, measure, warm_start
from finescale.training.loop import (
    Objective,
    Observer,
    Progress,
    Training,
    Validate,
    all_digits,
    cudnn_benchmark,
    with_precision,
)
from finescale.training.parallel import World, join
from finescale.training.recipe import Recipe, parse_recipe, to_toml
from finescale.training.report import Board, Screen, Speed, clock
from finescale.weights import files
from finescale.weights.header import read_header

# (set, folder or store, scale, device, at most so many pictures, what is done to them) -> what scores a network; the
# room of evaluation makes it.
MakeValidation = Callable[[str, int, torch.device, int, Degrades | None], Validate]

# What may differ between a run and its continuation.
_FREE = {
    "budget",
    "validate_every",
    "save_every",
    "compile",
    "capture",
    "diverged",
    "parallel",
    "warm_start",
    "perception_file",
}
RECIPE = "run.toml"  # in a run's folder: what the run goes by
_PATHS = ("train", "validation")
_VALIDATION_KEYS = ("validation", "validation_pictures")
_FREE_DATA = {*_PATHS, "where", "validation_pictures"}
_LESS = "a smaller data.batch, data.patch or data.late_patch needs less"  # memory


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        progress: where it is.
        weights: the weight file, if the budget is spent.
    """

    progress: Progress
    weights: Path | None


def train(
    recipe: Recipe,
    out: Path,
    *,
    resume: bool = False,
    device: str | torch.device = "auto",
    make_validation: MakeValidation | None = None,
    degradation: Degrades | None = None,
    screen: bool = True,
    board: bool = True,
) -> Outcome | None:
    """Trains by a recipe until its budget is spent or a signal (SIGINT, SIGTERM, SIGHUP) stops it, with a checkpoint.

    Args:
        recipe: what to do.
        out: folder of the run: `run.toml` (the resolved recipe), checkpoints, `best.safetensors`, and at the end
            `NETWORK-xSCALE.safetensors`.
        resume: go on from the last checkpoint in `out`; start if there is none.
        device: see `finescale.training.parallel.join`.
        make_validation: see `MakeValidation`; `finescale train` has `finescale.evaluation.validation.Validation`; None:
            no validation, whatever the recipe says.
        degradation: what is done to the small crops, and to the small pictures of the validation, in place of what a
            table of the recipe could say; a run is gone on with by a class of the same name.
        screen: tell how it goes on standard error.
        board: write TensorBoard files, if tensorboard is installed.

    Returns:
        How it ended; None in processes other than the first.

    Raises:
        UsageError, FinescaleError: the recipe cannot be followed, or the run cannot go on; one sentence.
    """
    less = f'{_LESS}, and so do data.where = "memory" and smaller pictures to validate on; what was saved is kept'
    with _joined(device, f"{out}: out of memory ({less})") as world, _alone(out, world), cudnn_benchmark(True):
        outcome = _train(recipe, out, resume, world, make_validation, degradation, screen, board)
    return outcome if world.first else None


@contextmanager
def _joined(device: str | torch.device, no_memory: str) -> Iterator[World]:
    """Among the processes of a run, and out of them again; `no_memory` is what is said where memory runs out."""
    world = join(device)
    try:
        yield world
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise FinescaleError(no_memory) from error
    finally:
        world.close()


@contextmanager
def _alone(out: Path, world: World) -> Iterator[None]:
    """Keeps other runs from the folder, before anything is read that one of them may be writing."""
    with ExitStack() as stack:
        world.from_first(lambda: stack.enter_context(checkpoints.alone(out)))
        yield


def _train(
    recipe: Recipe,
    out: Path,
    resume: bool,
    world: World,
    make_validation: MakeValidation | None,
    degradation: Degrades | None,
    screen: bool,
    board: bool,
) -> Outcome:
    if degradation is not None and recipe.degradation.crops is not None:
        raise UsageError("degradation: the recipe has one of its own, so no other can be given")
    own = {} if degradation is None else {"degradation": type(degradation).__name__}
    degradation = degradation or recipe.degradation.crops
    saved = _saved(recipe, out, resume, world)
    before = own if saved is None else saved.get("notes", {})
    if before.get("degradation") != own.get("degradation"):
        raise UsageError(
            f"{out}: this run was started with the degradation {before.get('degradation')}, not "
            f"{own.get('degradation')}"
        )
    if recipe.precision == "auto" and saved is not None:  # decided when the run began, perhaps on another device
        recipe = recipe.model_copy(update={"precision": saved["recipe"]["precision"]})
    recipe = with_precision(recipe, world.device)
    if resume and world.first:
        _clear(recipe, out)
    if saved is not None:  # with it go the groups that count
        recipe = parse_recipe({**recipe.resolved(), "warm_start": saved["recipe"].get("warm_start", "")}, str(out))
    torch.manual_seed(recipe.seed)
    network, said = make_network(recipe, fresh=saved is None)
    said += _slow(recipe, world)
    if saved is None:
        start = {"started_from": warm_start.origin(_start(recipe))} if recipe.warm_start else {}
    else:
        start = {key: value for key, value in saved.get("notes", {}).items() if key == "started_from"}
    check_norms(network, recipe, world)
    data = recipe.data
    store = Store(data.train)
    if saved is not None:
        _check_pictures(saved.get("notes", {}).get("data", {}), _pictures(store), data.train, out)
    crops = _crops(recipe, store, world, data.where, degradation)
    said += [*_left_out(recipe, crops), *_other_task(recipe, store)]
    validate = None
    if data.validation and make_validation:
        validate = make_validation(data.validation, recipe.scale, world.device, data.validation_pictures, degradation)
    else:
        why = "make_validation is not given" if data.validation else "data.validation is empty"
        said.append(f"no validation ({why}): no PSNR is measured and no best weights are kept")
    speed = Speed(
        recipe,
        measure.step_flops(network, data.patch),
        measure.measured_peak(world.device, recipe.precision) * world.size,
    )
    begun = 0 if saved is None else saved["progress"]["step"]
    observers = _observers(recipe, out, speed, begun, screen, board) if world.first else []
    try:  # from here on a terminal shows the bar in place of its cursor
        facts = {**_facts(store, world), **start, **own}

        def keep(name: str, progress: Progress, state: dict[str, Tensor]) -> None:
            files.save(network, out / name, notes=_notes(recipe, progress, facts), state=state)

        training = Training(
            network.to(world.device),
            crops,
            recipe,
            _objective(recipe, world.device),
            world=world,
            out=out,
            validate=validate,
            observers=observers,
            notes=facts,
            on_best=partial(keep, "best.safetensors"),
            capture=recipe.capture,
            warm_started=bool(recipe.warm_start),
        )
        if saved is not None:
            said.append(_resume(training, saved))
        del saved
        world.from_first(partial(_keep, recipe, out))
        for line in said:
            for observer in observers:
                observer.said(line)
        name = f"{recipe.name}.safetensors"
        # a finished run's file stays as it is
        whole = training.finished and world.from_first(lambda: _steps(out / name)) == training.progress.step
        with _stopped_by_signals(training):
            finished = training.run()
        if finished and not whole:
            state = training.averaged_state()
            if world.first:
                keep(name, training.progress, state)
    finally:
        for observer in observers:
            observer.close()
    return Outcome(training.progress, out / name if finished else None)


def _saved(recipe: Recipe, out: Path, resume: bool, world: World) -> dict[str, Any] | None:
    """The checkpoint to go on from, if any, of a run that may be started or gone on with.

    Raises:
        UsageError: it may not.
    """
    if not resume and (checkpoints.present(out) or (out / f"{recipe.name}.safetensors").exists()):
        raise UsageError(f"{out}: already holds a run (--resume goes on with it, --out NAME starts another)")
    _check_shares(recipe, world)
    saved = world.from_first(lambda: checkpoints.read_last(out)) if resume else None
    if saved is not None:
        _check_same(recipe, saved["recipe"], out)
    return saved


def _check_shares(recipe: Recipe, world: World) -> None:
    """Refuses batches that processes cannot share."""
    if recipe.data.batch % world.size:
        raise UsageError(f"data.batch: {recipe.data.batch} crops cannot be shared equally by {world.size} processes")


def _check_pictures(before: Mapping[str, Any], now: Mapping[str, Any], folder: str, out: Path) -> None:
    """Refuses to go on with other pictures: the weights would tell their licence alone, and not that of the first."""
    for key in ("pictures", "megapixels", "licence"):
        old, new = before.get(key), now.get(key)
        if before and old != new:
            raise UsageError(
                f"{out}: this run was started on a store of {key} = {old!r}, not {new!r} as {folder} has it (--out "
                "NAME starts another, with --warm-start from this one's weights)"
            )


def _clear(recipe: Recipe, out: Path) -> None:
    """Removes what a kill left of weight files that were being written."""
    for name in ("best.safetensors", f"{recipe.name}.safetensors", RECIPE):
        for part in out.glob(f".{escape(name[:32])}.*.part"):  # see `finescale.atomic.new_file`
            with suppress(OSError):
                part.unlink()


def _keep(recipe: Recipe, out: Path) -> None:
    """Writes into a run's folder what the run goes by."""
    with new_file(out / RECIPE, overwrite=True) as file:
        file.write(to_toml(recipe).encode())


def _steps(file: Path) -> int | None:
    """How long the weights in a file were trained; None where there are none."""
    try:
        return read_header(file).notes.get("steps")
    except FinescaleError:
        return None


def _crops(recipe: Recipe, store: Store, world: World, where: Where, degradation: Degrades | None) -> Crops:
    """This process's crops of the store."""
    data = recipe.data
    crops = Crops(
        store,
        scale=recipe.scale,
        patch=data.patch,
        device=world.device,
        seed=recipe.seed,
        where=where,
        degradation=degradation,
        share=(world.rank, world.size),
    )
    if data.late_patch is not None:  # an impossible one is found now, not when its time comes
        crops.set_patch(data.late_patch)
        crops.set_patch(data.patch)
    return crops


def _left_out(recipe: Recipe, crops: Crops) -> list[str]:
    """What is to be said of pictures that are smaller than crops, those of the end included."""
    patches = sorted({recipe.data.patch, recipe.data.late_patch or recipe.data.patch})
    return [
        f"{count} of {len(crops.sizes)} pictures are too small for crops of {patch} and are left out"
        for patch in patches
        if (count := crops.too_small(patch))
    ]


def _other_task(recipe: Recipe, store: Store) -> list[str]:
    """What is to be said of a validation whose pictures are shrunk where those that are trained on were not."""
    validation = recipe.data.validation
    if recipe.scale not in store.pairs or not validation or is_store(validation):
        return []
    return [
        f"the small pictures of {store.folder} were taken from a folder, and those of {validation} are shrunk "
        "bicubically, so validation scores another task (--validation STORE, of other pairs, scores this one)"
    ]


def _resume(training: Training, saved: dict[str, Any]) -> str:
    """Goes on from a checkpoint; gives the sentence that says so."""
    unfinished = saved["progress"]["spent"] < 1
    training.restore(saved)
    progress, recipe = training.progress, training.recipe
    if unfinished and training.finished:
        raise UsageError(
            f"budget: {recipe.budget} is no more than the run has had already ({progress.step} steps in "
            f"{clock(progress.seconds)}); its weights would be those of the middle of a schedule"
        )
    if any(saved["recipe"]["data"].get(key) != getattr(recipe.data, key) for key in _VALIDATION_KEYS):
        progress.psnr, progress.ssim, progress.best = math.nan, math.nan, -math.inf  # of other pictures
    return f"going on from step {progress.step}, {progress.spent:.1%} of {recipe.budget}"


def describe(recipe: Recipe, device: str | torch.device = "auto") -> str:
    """What `train` would do: the resolved recipe, the optimiser's groups, memory and time.

    Nothing is trained or downloaded, and the files that the recipe names need not be there yet.

    Raises:
        UsageError, FinescaleError: as `train`.
    """
    with _joined(device, f"{recipe.name}: out of memory ({_LESS})") as world:
        return _describe(with_precision(recipe, world.device), world)


def _describe(recipe: Recipe, world: World) -> str:
    _check_shares(recipe, world)
    network, _ = make_network(recipe, fresh=False)
    check_norms(network, recipe, world)
    members = groups.assign(network, recipe.active_groups)
    lines = [to_toml(recipe), f"# {recipe.network} x{recipe.scale} on {_device_name(world)}"]
    lines += [f"# {line}" for line in _slow(recipe, world)]
    for key in ("encoder", "warm_start", "perception_file"):
        file = getattr(recipe, key)
        if key == "encoder" and file == "imagenet":
            assert isinstance(network, UNet)
            assert network.pretrained_kind
            found = backbones.find(network.pretrained_kind)
            lines.append(f"# encoder: {found or f'ImageNet weights of {network.pretrained_kind}, to be downloaded'}")
        elif file:
            there = warm_start.find(file, recipe.scale) if key == "warm_start" else Path(file).is_file()
            lines.append(f"# {key}: {file}" + ("" if there else ", not there yet"))
    for member in members:
        name = member.group.match or ("all parameters" if len(members) == 1 else "the rest")
        late = f", from {member.group.frozen_until} of the run on" if member.group.frozen_until else ""
        rate = recipe.optimiser.rate * member.group.rate
        lines.append(f"# {name}: {member.count:,} parameters at a rate of up to {rate:g}{late}")
    data = recipe.data
    parameters = sum(member.count for member in members)
    patch = max(data.patch, data.late_patch or 0)
    kept = measure.activation_bytes(network, data.batch, patch) * (0.55 if recipe.precision == "bfloat16" else 1)
    pictures = 0
    if Path(data.train).exists():
        store = Store(data.train)
        crops = _crops(recipe, store, world, "memory", None)  # what is impossible is found, too
        pictures = store.size() + store.size(recipe.scale)
        lines.append(f"# {len(store.items)} pictures, {store.megapixels:.0f} megapixels in {data.train}")
        lines += [f"# {line}" for line in (*_left_out(recipe, crops), *_other_task(recipe, store))]
    else:
        lines.append(f"# {data.train}: not there yet")
    memory = 20 * parameters + kept + pictures  # weights, gradients, two moments and the average, 4 bytes each
    lines.append(
        f"# memory: about {memory / 2**30:.1f} GiB ({20 * parameters / 2**30:.2f} weights and optimiser, "
        f"{kept / 2**30:.2f} activations, {pictures / 2**30:.2f} pictures)"
    )
    with all_digits(recipe, world.device):
        seconds = measure.seconds_per_step(network, data.batch, data.patch, world.device, recipe.precision)
    steps = recipe.budget.steps(recipe.epoch)
    if steps is None:
        amount = f"{recipe.budget.value / seconds:,.0f} steps in {clock(recipe.budget.value)}"
    else:
        amount = f"{steps:,} steps in {clock(steps * seconds)}"
    less = "; on a GPU compiled and recorded steps take down to a fifth" if world.device.type == "cuda" else ""
    lines.append(f"# time: {seconds:.3g} s a step (measured, uncompiled), so about {amount}{less}")
    if any(recipe.loss.get(name) for name in losses.PERCEPTUAL):
        lines.append("# memory and time of what perceptual losses look through come on top")
    return "\n".join(lines)


def make_network(recipe: Recipe, *, fresh: bool) -> tuple[Network, list[str]]:
    """The recipe's network on the CPU, and what is to be said of it.

    Args:
        recipe: names it.
        fresh: give it its pretrained encoder or its warm start, if it has any.

    Raises:
        UsageError: there is no such network, it cannot be built or trained so, or what it starts from is not there.
        FinescaleError: what it starts from cannot be read, downloaded or used.
    """
    if "scale" in recipe.arguments:
        raise UsageError("arguments: the scale is a key of its own")
    network = catalogue.build(recipe.network, scale=recipe.scale, **recipe.arguments)
    if not any(True for _ in network.parameters()):
        raise UsageError(f"network: {recipe.network} has nothing to train")
    said: list[str] = []
    if recipe.encoder:
        if not isinstance(network, UNet) or network.pretrained_kind is None:
            raise UsageError(f"encoder: {recipe.network} has no encoder with published weights")
        if fresh:
            given = None if recipe.encoder == "imagenet" else recipe.encoder
            file = backbones.require(network.pretrained_kind, given, download=True)
            try:
                network.load_encoder(backbones.read_state(file))
            except UsageError as error:
                raise UsageError(f"{file}: {error}") from error
            said.append(f"the encoder starts from {file}")
    elif fresh and not recipe.warm_start and isinstance(network, UNet) and network.pretrained_kind:
        said.append("the encoder starts from random weights; with --set encoder=imagenet from published ones")
    if recipe.warm_start and fresh:
        start = _start(recipe)
        taken = warm_start.apply(network, warm_start.read(start), str(start))
        missing = any(name.startswith(warm_start.ENCODER) for name in taken.left)
        if missing and not recipe.encoder and any(group.pretrained for group in recipe.active_groups):
            raise UsageError(
                f"warm_start: {recipe.warm_start} has not the encoder of {recipe.network}, which would rest untrained "
                "(--set encoder=imagenet brings one, --set groups=[] trains a random one from the start)"
            )
        said.append(f"started from {start}: {taken}")
    return network, said


def _start(recipe: Recipe) -> Path:
    """The file of the recipe's warm start.

    Raises:
        UsageError: it is not there.
    """
    start = warm_start.find(recipe.warm_start, recipe.scale)
    if start is None:
        raise UsageError(
            f"warm_start: {Path.cwd() / recipe.warm_start} is not there, nor are weights of that name for "
            f"x{recipe.scale} (train that first, name another with --warm-start, or start from random weights with "
            "--warm-start '')"
        )
    return start


def check_norms(network: Network, recipe: Recipe, world: World) -> None:
    """Refuses batches of which the batch norms of the deepest features would see a single number."""
    patch = min(recipe.data.patch, recipe.data.late_patch or recipe.data.patch)
    if recipe.data.batch > (world.size if world.device.type == "cpu" else 1):  # GPUs' norms see the whole batch
        return
    if any(isinstance(module, SplitAttention) for module in network.modules()):  # of means over whole crops
        raise UsageError(f"data.batch: one crop is too little for the batch norms of {recipe.network}; take more")
    norms = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())
    if norms and patch <= network.multiple:
        raise UsageError(
            f"data.batch: one crop of {patch} x {patch} is too little for the batch norms of {recipe.network}; "
            f"take more crops, or larger ones than {network.multiple}"
        )


def _objective(recipe: Recipe, device: torch.device) -> Objective:
    """The recipe's weighted sum of losses, on the device."""
    file = recipe.perception_file or None
    looks = any(recipe.loss.get(name) for name in losses.VGGS)
    vgg = losses.perception(recipe.perception, file, download=True) if looks else None
    distance = lpips.load(recipe.lpips) if recipe.loss.get("lpips") else None
    mix: Objective = losses.Mix(recipe.loss, vgg, distance).to(device)
    return mix


def _check_same(recipe: Recipe, before: Mapping[str, Any], out: Path) -> None:
    """Refuses to go on with a run by another recipe, naming the key."""
    before = parse_recipe(before, str(out)).resolved()  # in today's words
    now = recipe.resolved()
    free = {*_FREE, "data", *(("precision",) if recipe.precision == "auto" else ())}
    pairs = {key: (before.get(key), now[key]) for key in now if key not in free}
    pairs |= {f"data.{k}": (before["data"].get(k), v) for k, v in now["data"].items() if k not in _FREE_DATA}
    for table in ("degradation", "schedule", "optimiser"):
        del pairs[table]
        pairs |= {f"{table}.{key}": (before[table].get(key), value) for key, value in now[table].items()}
    for key, (old, new) in pairs.items():
        if old != new and not (key == "encoder" and old and new):  # which file it was started from is past
            raise UsageError(
                f"{out}: this run was started with {key} = {old!r}, not {new!r} (--out NAME starts another)"
            )


def _observers(recipe: Recipe, out: Path, speed: Speed, begun: int, screen: bool, board: bool) -> list[Observer]:
    observers: list[Observer] = []
    missing = False
    if board:
        try:
            observers.append(Board(out / "board", speed, begun))
        except ImportError:
            missing = True
    # last: a folder that cannot be written must not leave the bar on the terminal; programs with windows may have none
    if screen and sys.stderr is not None:
        observers.append(Screen(recipe.name, speed))
        if missing:
            observers[-1].said(f"tensorboard is not installed, so no curves are written ({install('train')})")
    return observers


@contextmanager
def _stopped_by_signals(training: Training) -> Iterator[None]:
    """Ctrl-C, `kill` and a closed terminal make the run save and end, if they are not ignored; Ctrl-C then, at once."""

    def handle(number: int, frame: FrameType | None) -> None:
        if training.stop_requested and number == signal.SIGINT:  # the others come in pairs, from shell and system
            raise KeyboardInterrupt
        training.request_stop()

    before = signals("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _notes(recipe: Recipe, progress: Progress, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What a weight file says of how it came to be."""
    resolved = recipe.resolved()
    for table, keys in ((resolved, ("encoder", "warm_start", "perception_file")), (resolved["data"], _PATHS)):
        table.update({key: Path(table[key]).name for key in keys})  # where things lay is nobody else's business
    notes: dict[str, Any] = {
        **facts,
        "budget": str(recipe.budget),
        "steps": progress.step,
        "minutes": round(progress.seconds / 60, 2),
        "recipe": resolved,
    }
    if progress.psnr > 0:
        notes["validation"] = {"set": Path(recipe.data.validation).name, "psnr_y": round(progress.psnr, 4)}
        if math.isfinite(progress.ssim):
            notes["validation"]["ssim_y"] = round(progress.ssim, 5)
    return notes


def _pictures(store: Store) -> dict[str, Any]:
    return {
        "store": store.folder.resolve().name,
        "pictures": len(store.items),
        "megapixels": round(store.megapixels, 1),
        **({"licence": store.licence} if store.licence else {}),
    }


def _slow(recipe: Recipe, world: World) -> list[str]:
    reason = measure.slow_bfloat16(world.device, recipe.precision)
    return [reason] if reason else []


def _facts(store: Store, world: World) -> dict[str, Any]:
    """What checkpoints and weight files say of the pictures, the machine and the code."""
    pictures = _pictures(store)
    return {
        "data": pictures,
        "device": _device_name(world),
        "torch": str(torch.__version__),
        "finescale": __version__,
        "commit": _commit(),
        **{key: pictures[key] for key in ("licence",) if key in pictures},
    }


def _device_name(world: World) -> str:
    if world.device.type == "cuda":
        name = torch.cuda.get_device_name(world.device)
    else:
        count = torch.get_num_threads()
        name = f"CPU ({platform.machine()}, {count} thread{'s' * (count > 1)})"
    return name if world.size == 1 else f"{world.size} x {name}"


def _commit() -> str | None:
    """The commit of the checkout this runs from, with "+" if its files were changed; None outside of one."""
    here = Path(__file__)

    def git(*words: str) -> str:
        command = ["git", "-C", str(here.parent), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", here.name)
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".")
        return git("rev-parse", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None
