"""A tiny training run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from finescale.data.crops import Crops
from finescale.data.store import Store
from finescale.networks import catalogue
from finescale.training import losses
from finescale.training.loop import Training
from finescale.training.parallel import World
from finescale.training.recipe import Recipe, parse_recipe

CPU = torch.device("cpu")
TINY = {
    "network": "sa-rcan",
    "scale": 2,
    "arguments": {"channels": 8, "groups": 2, "blocks": 1, "reduction": 4, "attention_reduction": 4},
    "precision": "bfloat16",
    "data": {"batch": 4, "patch": 12, "late_patch": 16, "late_from": 0.6},
}

MakeTraining = Callable[..., Training]


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None: ...


@pytest.fixture
def make_training(tiny_store: Path, tmp_path: Path) -> MakeTraining:
    """(recipe keys..., out=, validate=, observers=) -> a run of a tiny SA-RCAN that has not begun."""

    def make(
        *,
        out: Path | None = None,
        validate: Any = None,
        observers: Any = (),
        crops: Any = None,
        warm_started: bool = False,
        **keys: Any,
    ) -> Training:
        values: dict[str, Any] = {**TINY, **keys}
        recipe: Recipe = parse_recipe(values, "a test")
        torch.manual_seed(recipe.seed)
        network = catalogue.build(recipe.network, scale=recipe.scale, **recipe.arguments)
        if crops is None:
            crops = Crops(Store(tiny_store), scale=recipe.scale, patch=recipe.data.patch, device=CPU, seed=recipe.seed)
        return Training(
            network,
            crops,
            recipe,
            losses.Mix(recipe.loss),
            world=World(0, 1, CPU),
            out=out or tmp_path / "run",
            validate=validate,
            observers=observers,
            warm_started=warm_started,
        )

    return make
