"""Recipes say what is wrong with them in one sentence."""

import tomllib
from pathlib import Path

import pytest
import torch

from finescale.errors import UsageError
from finescale.networks import catalogue
from finescale.training import groups, recipe
from finescale.training.amounts import parse

RECIPES = sorted((Path(__file__).resolve().parents[2] / "recipes").glob("*.toml"))


def write(folder: Path, text: str) -> Path:
    path = folder / "r.toml"
    path.write_text(text)
    return path


GOOD = 'network = "rcan"\nscale = 2\n'


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("optimser.rate = 1.0", "there is no key 'optimser'; did you mean 'optimiser'?"),
        ("optimiser.rat = 1.0", "there is no key 'optimiser.rat'; did you mean 'rate'?"),
        ("data.pach = 48", "there is no key 'data.pach'; did you mean 'patch'?"),
        ('optimiser.rate = "fast"', "optimiser.rate: should be a valid number, not 'fast'"),
        ("optimiser.rate = -1.0", "optimiser.rate: should be greater than 0, not -1.0"),
        ("optimiser.rate = inf", "optimiser.rate: should be a finite number, not inf"),
        ("optimiser.betas = [0.9, 1.5]", "optimiser.betas.1: should be less than 1, not 1.5"),
        ('precision = "float16"', "precision: should be 'auto', 'bfloat16' or 'float32', not 'float16'"),
        ("data.batch = 1.5", "data.batch: should be a valid integer, not 1.5"),
        ("data.batch = true", "data.batch: should be a valid integer, not True"),
        ("data.patch = 4", "data.patch: should be greater than or equal to 8, not 4"),
        ("data.batch = 1000000000000000", "data.batch: should be less than or equal to 281474976710656, not 1000"),
        (f"epoch = 1{'0' * 310}", "epoch: should be less than or equal to"),
        ('budget = "soon"', "budget: should be an amount such as '20m', '300k' or '30 epochs', not 'soon'"),
        ("budget = 0", "budget: should be an amount such as '20m', '300k' or '30 epochs', not 0"),
        ('schedule.halve_every = "3m"', "schedule.halve_every: should be in steps or epochs, not a time"),
        ("degradation.jpg = [30, 90]", "there is no key 'degradation.jpg'; did you mean 'jpeg'?"),
        ("degradation.jpeg = [30, 120]", "degradation.jpeg.1: should be less than or equal to 100, not 120"),
        ("degradation.jpeg = [90, 30]", ".toml: degradation.jpeg: should be [least, greatest], not [90, 30]"),
        ("degradation.jpeg = [0, 30]", "degradation.jpeg: qualities are from 1 to 100, or [0, 0] for none"),
        ("degradation.noise = 3", "degradation.noise: should be"),
        ('schedule.kind = "cosine"', "schedule.kind: should be 'decay' or 'halving', not 'cosine'"),
        ("loss = { l1 = -1.0 }", "loss: needs at least one loss with a weight above 0, and none below"),
        ("data.patch = 16\nloss = { lpips = 1.0 }", "data.patch: the loss lpips needs results of 35 pixels, not 32"),
        ('[[groups]]\nmatch = "a"\nrates = 1.0', "there is no key 'groups.0.rates'; did you mean 'rate'?"),
        ('[[groups]]\nmatch = "a"\nfrozen_until = 1.5', "groups.0.frozen_until: should be a share"),
        ('schedule.warmup = "0.05"', "schedule.warmup: should be a share of the budget as a number, or whole steps"),
        ('extends = "quick"', "extends 'quick', which is neither a file nor one of"),
        ('extends = "r.toml"', "extends itself"),
        ('extends = "gone.toml"', "gone.toml: cannot be read"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, line: str, said: str) -> None:
    path = write(tmp_path, GOOD + line + "\n")
    with pytest.raises(UsageError) as raised:
        recipe.load(path)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
    assert ".toml: " in str(raised.value)


def test_shards_go_without_groups_that_rest_at_first(tmp_path: Path) -> None:
    text = GOOD + 'parallel = "fsdp"\n[[groups]]\nmatch = "a"\nfrozen_until = 0.5\n'
    with pytest.raises(UsageError, match="'fsdp' goes neither with"):
        recipe.load(write(tmp_path, text))
    assert recipe.load(write(tmp_path, text + "pretrained = true\n")).active_groups == ()


def test_a_group_that_others_leave_nothing_is_named() -> None:
    network = catalogue.build("srcnn", scale=2)
    with pytest.raises(UsageError, match=r"all parameters of 'layers\.0' belong to groups before it"):
        groups.assign(network, [recipe.Group(match="layers"), recipe.Group(match="layers.0")])
    with pytest.raises(UsageError, match=r"starts with 'layer\.0'; did you mean"):
        groups.assign(network, [recipe.Group(match="layer.0")])


def test_a_missing_key_and_a_broken_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the key 'scale' is missing"):
        recipe.load(write(tmp_path, 'network = "rcan"'))
    with pytest.raises(UsageError, match="no key 'netwrok'; did you mean 'network'"):
        recipe.load(write(tmp_path, 'netwrok = "rcan"\nscale = 2'))
    with pytest.raises(UsageError, match="not a TOML file"):
        recipe.load(write(tmp_path, "network = = 3"))
    with pytest.raises(UsageError, match="cannot be read"):
        recipe.load(tmp_path / "none.toml")


def test_overrides_have_the_types_of_toml(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    changed = recipe.load(
        path, ["budget=20m", "optimiser.rate=2e-4", "data.train=my/store", 'arguments.activation="silu"']
    )
    assert (str(changed.budget), changed.optimiser.rate, changed.data.train) == ("20m", 2e-4, "my/store")
    assert changed.arguments == {"activation": "silu"}
    for wrong in ("budget", "=3", "network.name=3"):
        with pytest.raises(UsageError, match="--set"):
            recipe.load(path, [wrong])
    with pytest.raises(UsageError, match="did you mean 'data'"):
        recipe.load(path, ["dat.train=x"])


def test_a_recipe_may_have_the_mark_of_editors_on_windows(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    plain = recipe.load(path)
    path.write_text(path.read_text("utf-8"), "utf-8-sig", newline="\r\n")
    assert recipe.load(path) == plain


def test_a_recipe_extends_a_base_and_other_recipes(tmp_path: Path) -> None:
    assert recipe.load(write(tmp_path, 'extends = "fast"\n' + GOOD)).optimiser.rate == 5e-4
    write(tmp_path, 'extends = "fast"\n' + GOOD + "[optimiser]\nrate = 3e-4\n[loss]\nl2 = 1.0\n")
    (tmp_path / "child.toml").write_text('extends = "r.toml"\nscale = 4\ndata = { batch = 32 }\n')
    child = recipe.load(tmp_path / "child.toml")
    assert (child.network, child.scale, child.optimiser.rate) == ("rcan", 4, 3e-4)
    assert (child.data.batch, child.data.late_patch, child.optimiser.average) == (32, None, 0.999)
    assert child.loss == {"l2": 1.0}  # replaced, not merged
    other = recipe.load(tmp_path / "child.toml", schedule="original")
    assert (other.schedule.kind, other.optimiser.average, other.precision) == ("halving", 0.0, "float32")
    assert (other.optimiser.rate, other.data.batch, other.loss) == (1e-4, 16, {"l2": 1.0})  # not those for "fast"
    assert recipe.load(tmp_path / "child.toml", schedule="fast") == child
    assert recipe.load(tmp_path / "child.toml", ["optimiser.rate=2e-4"], schedule="original").optimiser.rate == 2e-4
    with pytest.raises(UsageError, match="did you mean 'fast'"):
        recipe.load(tmp_path / "child.toml", schedule="fsat")


def test_a_schedule_for_a_recipe_that_names_none(tmp_path: Path) -> None:
    once = recipe.load(write(tmp_path, GOOD), schedule="original")
    assert (once.schedule.kind, once.optimiser.rate) == ("halving", 1e-4)
    assert (
        recipe.load(write(tmp_path, GOOD + "optimiser = { rate = 1e-3 }\n"), schedule="original").optimiser.rate == 1e-3
    )


def test_resolved_recipes_are_read_back(tmp_path: Path) -> None:
    text = (
        'extends = "fast-unet"\n'
        + GOOD
        + 'budget = "30 epochs"\narguments = { blocks = [1, 2], a = true, b = "c\\"d\\ne", c = [{ "d e" = 1 }, {}] }\n'
    )
    once = recipe.load(write(tmp_path, text), schedule="original")
    assert recipe.parse_recipe(once.resolved(), "a checkpoint") == once
    assert recipe.parse_recipe(tomllib.loads(recipe.to_toml(once)), "TOML") == once


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("20m", 1200, "seconds"),
        ("1.5h", 5400, "seconds"),
        ("90 s", 90, "seconds"),
        ("20 minutes", 1200, "seconds"),
        ("300k", 300_000, "steps"),
        ("300k steps", 300_000, "steps"),
        ("1M steps", 1_000_000, "steps"),
        ("1M", 1_000_000, "steps"),
        ("5000 steps", 5000, "steps"),
        (7, 7, "steps"),
        ("30 epochs", 30, "epochs"),
        ("1 epoch", 1, "epochs"),
    ],
)
def test_amounts(text: object, value: float, unit: str) -> None:
    amount = parse(text)
    assert (amount.value, amount.unit) == (value, unit)


@pytest.mark.parametrize("text", ["", "m", "1e999", "-3m", "3 weeks", "1e", "nan", "3 m m", True, 2.5, None])
def test_what_is_no_amount(text: object) -> None:
    with pytest.raises(ValueError, match="should be an amount"):
        parse(text)


@pytest.mark.parametrize("schedule", ["fast", "original"])
@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_recipes_of_the_project_fit_their_networks(path: Path, schedule: str) -> None:
    once = recipe.load(path, schedule=schedule)
    assert path.stem == once.name
    # built without the spectral norms of its attention, whose start takes long
    arguments = {"groups": 2, "blocks": 1, "attention": None} if "rcan" in once.network else {"attention": None}
    with torch.device("meta"):
        network = catalogue.build(once.network, scale=once.scale, **{**once.arguments, **arguments})
    members = groups.assign(network, once.active_groups)
    assert sum(member.count for member in members) == sum(p.numel() for p in network.parameters())


def test_every_published_network_has_its_recipes() -> None:
    names = {path.stem for path in RECIPES}
    networks = [*(f"unet-{n}" for n in range(1, 12)), "rcan", "sa-rcan", "sa-rcan-group", "sa-rcan-light"]
    networks += ["sa-rcan-light-jpeg", "sa-rcan-light-noise", "sa-rcan-light-perceptual", "sa-rcan-light-graphics"]
    assert {f"{network}-x{scale}" for network in networks for scale in (2, 4)} <= names


def test_the_original_schedule() -> None:
    for path in RECIPES:
        one = recipe.load(path, schedule="original")
        optimiser, data = one.optimiser, one.data
        assert (optimiser.kind, optimiser.rate, optimiser.clip, optimiser.average) == ("adam", 1e-4, 0, 0)
        assert (data.batch, data.patch, data.late_patch, one.schedule.kind) == (16, 48, None, "halving")
        if not one.network.startswith("unet"):
            loss = {"l1": 1.0} | ({"lpips": 0.2} if "perceptual" in one.network else {})
            assert (one.loss, str(one.budget), str(one.schedule.halve_every)) == (loss, "1M", "200k")
            assert one.groups == ()
    unet = recipe.load(next(path for path in RECIPES if path.stem == "unet-9-x4"), schedule="original")
    assert unet.loss == {"l1": 1.0, "content": 0.1, "style": 0.001, "tv": 1e-6}
    assert (unet.optimiser.rate, unet.data.batch, unet.data.patch, unet.data.late_patch) == (1e-4, 16, 48, None)
    (encoder,) = unet.active_groups
    assert (encoder.match, encoder.rate, str(encoder.frozen_until)) == ("encoder", 0.1, "30 epochs")
    assert str(unet.schedule.halve_every) == "30 epochs"
    random_encoder = recipe.load(next(path for path in RECIPES if path.stem == "unet-9-x4"))
    assert random_encoder.encoder == ""
    assert random_encoder.active_groups == ()  # nothing to protect


def test_a_warm_started_encoder_is_treated_as_a_pretrained_one(tmp_path: Path) -> None:
    path = next(path for path in RECIPES if path.stem == "unet-9-x4")
    start = 'warm_start="unet-9-x2.safetensors"'
    by_name = recipe.load(path, ["encoder=imagenet"]).active_groups
    assert [(one.match, one.rate) for one in by_name][-1] == ("encoder", 0.1)
    once = recipe.load(path, [start])
    assert once.active_groups == by_name
    with torch.device("meta"):
        network = catalogue.build(once.network, scale=4, attention=None)
    *encoder, rest = groups.assign(network, once.active_groups)  # from the deepest stage to the stem
    assert [member.group.match.rpartition(".")[2] for member in encoder] == ["layer4", "layer3", "layer2", "encoder"]
    assert not any(name.startswith("encoder") for name in rest.names)
    assert recipe.load(path, [start, "groups=[]"]).active_groups == ()
    assert recipe.load(path, [start, 'arguments.encoder="plain"']).active_groups == ()  # it has no stages of that name
    for name in ("unet", "rcan", "my-own"):
        text = f'extends = "fast-unet"\nnetwork = "{name}"\nscale = 4\n{start}\n'
        assert recipe.load(write(tmp_path, text)).active_groups == ()


def test_weights_are_named_as_the_catalogue_finds_them() -> None:
    assert recipe.parse_recipe({"network": "sr-resunet", "scale": 4}, "a test").name == "unet-2-x4"
