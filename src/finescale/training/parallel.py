"""One process or many: PyTorch's own distributed engine, started by `torchrun`.

Every process draws the same crops and takes its part of each batch; gradients are averaged, so the run equals one
process with the whole batch. The first process alone writes files and keeps the clock.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from finescale.errors import UsageError
from finescale.inference.engines.pytorch import UNUSABLE, cuda_computes, reason, try_out

if TYPE_CHECKING:
    from torch.distributed.checkpoint.state_dict import StateDictOptions

Kind = Literal["ddp", "fsdp"]
T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """This process among all of a run.

    Attributes:
        rank: its number.
        size: how many there are.
        device: what it computes on.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def max(self, *values: float) -> list[float]:
        """The largest of all processes' values, place by place."""
        if self.size == 1:
            return list(values)
        agreed = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(agreed, dist.ReduceOp.MAX)
        return agreed.tolist()

    def mean(self, value: Tensor) -> float:
        """The mean of a number over all processes."""
        if self.size == 1:
            return float(value)
        total = value.detach().double().cpu()
        dist.all_reduce(total)
        return float(total) / self.size

    def from_first(self, make: Callable[[], T]) -> T:
        """What `make` gives in the first process, in all of them; an exception there is raised everywhere."""
        if self.size == 1:
            return make()
        box: list[Any] = [None, None]
        if self.first:
            try:
                box[0] = make()
            except Exception as error:
                box[1] = error
        dist.broadcast_object_list(box, src=0)
        if box[1] is not None:
            raise box[1]
        result: T = box[0]
        return result

    def close(self) -> None:
        """Leaves the group of processes."""
        if self.size > 1:
            dist.destroy_process_group()


def join(device: str | torch.device) -> World:
    """Joins the processes that `torchrun` started, or stands alone.

    Args:
        device: "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:1", or PyTorch's own.

    Raises:
        UsageError: there is no such device, or the environment speaks of other processes that are not there.
    """
    device = str(device)
    size, local = _number("WORLD_SIZE", 1), _number("LOCAL_RANK", 0)
    if device == "auto":
        # one of several does not try: it would take memory of the first GPU, which is another's
        device = "cuda" if (cuda_computes() if size == 1 else torch.cuda.is_available()) else "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise UsageError(f"--device {device}: there is no such kind of device") from error
    if chosen.type not in ("cpu", "cuda"):
        raise UsageError(f"--device {device}: training runs on cpu or cuda")
    if chosen.type == "cpu":
        if chosen.index:
            raise UsageError(f"--device {device}: there is one cpu, which has no number")
        chosen = torch.device("cpu")  # as tensors call it, not cpu:0
    if chosen.type == "cuda":
        count = torch.cuda.device_count()
        chosen = torch.device("cuda", local if size > 1 else chosen.index or 0)
        if chosen.index is None or chosen.index >= count:
            raise UsageError(f"--device {device}: PyTorch finds {count} CUDA devices on this machine")
        try:
            torch.cuda.set_device(chosen)
            try_out(chosen)
        except UNUSABLE as error:
            raise UsageError(f"--device {device}: it cannot be used ({reason(error)})") from error
    if size > 1:
        if not dist.is_available():
            raise UsageError(f"WORLD_SIZE is {size}, and this build of torch is for one process alone")
        if chosen.type == "cuda" and not dist.is_nccl_available():
            raise UsageError(
                f"WORLD_SIZE is {size}, and this build of torch has no NCCL, by which several GPUs train together; "
                "use one process, or --device cpu"
            )
        # After an elastic restart the store still holds the addresses of the processes that died.
        try:
            store, rank, _ = next(dist.rendezvous("env://"))  # type: ignore[attr-defined]
        except (ValueError, RuntimeError) as error:
            words = " ".join(str(error).split())
            raise UsageError(f"WORLD_SIZE is {size}, and its processes cannot be joined ({words})") from error
        store = dist.PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)  # type: ignore[attr-defined]
        backend = "cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size)
        return World(dist.get_rank(), dist.get_world_size(), chosen)
    return World(0, 1, chosen)


def _number(variable: str, usual: int) -> int:
    """What `torchrun` says in an environment variable."""
    text = os.environ.get(variable) or str(usual)
    if not text.isdecimal():
        raise UsageError(f"{variable} should be a number, not '{text}' (torchrun sets it)")
    return int(text)


def synchronise_norms(network: nn.Module, world: World) -> None:
    """Lets batch norms see the whole batch where several GPUs share it, in place; PyTorch can do so on GPUs only."""
    if world.size > 1 and world.device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(network)


class Distributed:
    """A network over the processes of a world: what to call in training, and its whole state.

    Args:
        network: on the world's device; with "fsdp" its parameters become shards.
        kind: "ddp" keeps a copy of the weights in every process, "fsdp" a part.
        world: the processes.
    """

    def __init__(self, network: nn.Module, kind: Kind, world: World) -> None:
        self.network, self.world = network, world
        self.sharded = kind == "fsdp" and world.size > 1
        if self.sharded:
            from torch.distributed.fsdp import fully_shard  # some builds of torch have no other processes

            for block in repeated_blocks(network):
                fully_shard(block)
            fully_shard(network)
        self.model: nn.Module = network
        self.renew()

    def renew(self) -> None:
        """To be called when other parameters than before want gradients."""
        if self.world.size > 1 and not self.sharded:
            self.model = self.network  # lets go of the old hooks first
            ids = [self.world.device] if self.world.device.type == "cuda" else None
            self.model = DistributedDataParallel(self.network, device_ids=ids, gradient_as_bucket_view=True)

    def network_state(self) -> dict[str, Any]:
        """All weights and buffers, whole, on the CPU where sharded; a collective call."""
        if not self.sharded:
            return self.network.state_dict()
        from torch.distributed.checkpoint.state_dict import get_model_state_dict

        return get_model_state_dict(self.network, options=_whole_on_cpu())

    def load_network(self, state: dict[str, Any]) -> None:
        """Takes what `network_state` gave."""
        if self.sharded:
            from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

            set_model_state_dict(self.network, state, options=StateDictOptions(full_state_dict=True))
        else:
            self.network.load_state_dict(state)

    def optimiser_state(self, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
        """All of the optimiser's state, whole, by the parameters' names if sharded, else by number; collective."""
        if not self.sharded:
            return optimiser.state_dict()
        from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

        return dict(get_optimizer_state_dict(self.network, optimiser, options=_whole_on_cpu()))

    def load_optimiser(self, optimiser: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        """Takes what `optimiser_state` gave.

        Raises:
            UsageError: it is of a sharded network and this one is not, or the other way round; or of other groups.
        """
        sharded = any(isinstance(key, str) for group in state["param_groups"] for key in group["params"])
        if sharded != self.sharded:
            reason = (
                "this run is of 'fsdp' on several processes, and goes on as that alone (torchrun, --set parallel=fsdp)"
                if sharded
                else "this run was begun without 'fsdp' on several processes, and goes on without (--set parallel=ddp)"
            )
            raise UsageError(f"parallel: {reason}; its best.safetensors can start another (--warm-start, --out)")
        if self.sharded:
            from torch.distributed.checkpoint.state_dict import StateDictOptions, set_optimizer_state_dict

            options = StateDictOptions(full_state_dict=True)
            set_optimizer_state_dict(self.network, optimiser, state, options=options)
        else:
            try:
                optimiser.load_state_dict(state)
            except ValueError as error:
                raise UsageError(
                    f"groups: the checkpoint's optimiser has other groups of parameters than this run ({error})"
                ) from error


def _whole_on_cpu() -> "StateDictOptions":
    from torch.distributed.checkpoint.state_dict import StateDictOptions

    return StateDictOptions(full_state_dict=True, cpu_offload=True)


def whole(value: Tensor) -> Tensor:
    """A tensor of one process from a sharded one; others as they are."""
    full = getattr(value, "full_tensor", None)  # of a DTensor
    return full() if full else value


def repeated_blocks(network: nn.Module, least: int = 4) -> list[nn.Module]:
    """The outermost modules whose class occurs at least `least` times and that hold other modules.

    These are a network's own unit of repetition, such as RCAN's residual blocks.
    """
    kinds = [type(module) for module in network.modules() if _is_block(module)]
    found: list[nn.Module] = []

    def visit(module: nn.Module) -> None:
        for child in module.children():
            if _is_block(child) and kinds.count(type(child)) >= least:
                found.append(child)
            else:
                visit(child)

    visit(network)
    return found


def units(network: nn.Module) -> list[nn.Module]:
    """As `repeated_blocks`, but in place of a block that holds several of one kind, those: what is quick to compile."""
    found: list[nn.Module] = []
    for block in repeated_blocks(network):
        inside = repeated_blocks(block, 2)
        found += inside or [block]
    return found


def _is_block(module: nn.Module) -> bool:
    plain = type(module).__module__.startswith("torch.nn")
    return not plain and any(True for _ in module.children()) and any(True for _ in module.parameters())
