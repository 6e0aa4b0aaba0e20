"""What is installed, what works, and where weights are found: one report for people and for scripts."""

import os
import platform
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import metadata
from typing import Any

from finescale import __version__
from finescale.cache import cache_folder
from finescale.errors import FinescaleError, install
from finescale.inference.machine import available, cores, meminfo, processor, threads

PACKAGES = ("torch", "numpy", "pillow", "pyvips", "safetensors", "pydantic", "rich")
PURPOSES = {
    "fast": "the fastest engine on processors",
    "onnx": "export to ONNX and running it",
    "int8": "networks in 8-bit integers",
    "web": "the page and its API",
    "report": "figures and plots",
    "heic": "HEIC, the pictures of phones",
    "brisque": "BRISQUE in `score` and `bench`",
    "train": "TensorBoard while training",
    "completion": "completion of commands in the shell",
}
# packages that hold the same modules and more; another beside them would spoil them
_ALSO = {
    "onnxruntime": ("onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml"),
    "opencv-contrib-python-headless": ("opencv-contrib-python",),
}
GIB = 1 << 30


def report() -> dict[str, Any]:
    """Everything that is known about this installation, as plain JSON values.

    Returns:
        `problems` holds one sentence for each: no weights, or what is there and does not work; the other keys are
        finescale, python, system, memory, packages, devices, engines, cache, formats, weights, data, extras.
    """
    problems: list[str] = []
    found: dict[str, Any] = {
        "finescale": __version__,
        "python": platform.python_version(),
        "system": {"platform": platform.platform(), "processor": processor(), "cores": cores()},
        "memory": _memory(),
        "packages": {name: _version(name) for name in PACKAGES},
    }
    for key, part in (
        ("devices", _devices),
        ("engines", _engines),
        ("cache", _cache),
        ("formats", _formats),
        ("weights", _weights),
        ("data", _data),
        ("extras", _extras),
    ):
        try:
            found[key] = part(problems)
        except Exception as error:  # a report about what is broken must not break
            found[key] = None
            problems.append(f"{key}: cannot be looked at ({type(error).__name__}: {error})")
    found["problems"] = problems
    return found


def _version(distribution: str) -> str | None:
    for name in (distribution, *_ALSO.get(distribution, ())):
        with suppress(metadata.PackageNotFoundError):
            return metadata.version(name)
    return None


def _memory() -> dict[str, float | None]:
    """Total and available main memory in GiB, as far as the system says; of a container what is left to it."""
    found = meminfo()
    if not found and hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found = {"MemTotal": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")}
    if left := list(available()):
        found = {**found, "MemAvailable": round(min(left))}
    keys = {"total_gib": "MemTotal", "available_gib": "MemAvailable"}
    return {key: round(found[name] / GIB, 1) if name in found else None for key, name in keys.items()}


def _devices(problems: list[str]) -> list[dict[str, Any]]:
    import torch

    count, own = threads(), torch.get_num_threads()
    what = f"{torch.backends.cpu.get_cpu_capability()}, {_number(count)}" + (f", PyTorch {own}" if own != count else "")
    devices: list[dict[str, Any]] = [{"name": "cpu", "what": what, "works": True}]

    def add(name: str, what: str) -> None:
        devices.append({"name": name, "what": what} | _attempt(lambda: torch.ones(1, device=name).sum().item()))

    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        add(f"cuda:{index}", f"{properties.name}, {properties.total_memory / GIB:.0f} GiB")
    if torch.backends.mps.is_available():
        add("mps", "Apple GPU")
    problems.extend(f"{d['name']}: does not work ({d['reason']})" for d in devices if not d["works"])
    return devices


def _number(count: int) -> str:
    return f"{count} thread{'s' * (count != 1)}"


def _attempt(action: Callable[[], object]) -> dict[str, Any]:
    """Whether something works, and why not; `what` is the text that it gives."""
    try:
        said = action()
    except Exception as error:
        kind = "" if isinstance(error, FinescaleError) else f"{type(error).__name__}: "
        return {"works": False, "reason": kind + str(error).partition("\n")[0]}
    return {"works": True, "what": said} if isinstance(said, str) else {"works": True}


def _engines(problems: list[str]) -> list[dict[str, Any]]:
    from finescale.inference.engines import mnn, onnx, openvino

    engines: list[dict[str, Any]] = [{"name": "torch", "version": _version("torch"), "works": True, "what": ""}]
    for name, extra, look in (
        ("openvino", "fast", lambda: ", ".join(openvino.load_core()[0].available_devices)),
        ("MNN", "fast", lambda: mnn.load_library() and "CPU"),
        ("onnxruntime", "onnx", lambda: ", ".join(onnx.load_runtime().get_available_providers())),
    ):
        version = _version(name)
        engine: dict[str, Any] = {"name": name, "version": version, "works": False, "what": f"extra '{extra}'"}
        if version is not None:
            engine |= _attempt(look)
            if not engine["works"]:
                problems.append(f"{name}: is installed but does not work ({engine['reason']})")
        engines.append(engine)
    return engines


def _cache(problems: list[str]) -> dict[str, Any]:
    """Where compiled networks are kept, and whether they can be."""
    folder = cache_folder("compiled")
    there = next(path for path in (folder, *folder.parents) if os.path.exists(path))  # noqa: PTH110 (as a home may not be entered)
    writable = there.is_dir() and os.access(there, os.W_OK | os.X_OK)
    if not writable:
        problems.append(f"{folder}: cannot be written, so every start compiles its network anew, which takes seconds")
    return {"folder": str(folder), "writable": writable}


def _formats(problems: list[str]) -> dict[str, list[str]]:
    from finescale.images.files import FORMATS, READABLE

    return {"read": sorted(READABLE), "written": sorted(FORMATS)}


def _weights(problems: list[str]) -> dict[str, Any]:
    from finescale.atomic import sha256
    from finescale.weights import places, store
    from finescale.weights.header import read_header

    named = os.environ.get("FINESCALE_WEIGHTS")
    if named and not os.path.isdir(named):  # noqa: PTH112
        problems.append(f"{named}: FINESCALE_WEIGHTS names this folder, but it does not exist")
    found = []
    for name, scale, path in store.present():
        entry: dict[str, Any] = {"network": name, "scale": scale, "file": str(path), "works": True}
        try:
            entry["verified"] = places.verify(path)
            entry["sha256"] = sha256(path)
            entry["notes"] = dict(read_header(path).notes)
        except FinescaleError as error:
            entry |= {"works": False, "reason": str(error)}
            problems.append(str(error))
        found.append(entry)
    if not any(entry["works"] for entry in found):
        problems.append("there are no trained weights in any of the folders that are searched")
    searched = [{"folder": str(folder), "exists": os.path.isdir(folder)} for folder in places.candidates()]  # noqa: PTH112
    return {"searched": searched, "download": os.environ.get("FINESCALE_WEIGHTS_URL"), "found": found}


def _data(problems: list[str]) -> dict[str, Any]:
    """The folder of sets that the user names, and the one that `finescale data get` fills."""
    from finescale.data.download import datasets_folder

    named = os.environ.get("FINESCALE_DATA")
    there = bool(named) and os.path.isdir(str(named))  # noqa: PTH112
    if named and not there:
        problems.append(f"{named}: FINESCALE_DATA names this folder, but it does not exist")
    downloaded = datasets_folder()
    return {
        "folder": named,
        "exists": there,
        "downloaded": {"folder": str(downloaded), "exists": os.path.isdir(downloaded)},  # noqa: PTH112
    }


def _extras(problems: list[str]) -> list[dict[str, Any]]:
    """The optional parts and what each still needs, from the package's own metadata."""
    needs: dict[str, list[str]] = {}
    try:
        requirements = metadata.requires("finescale") or []
    except metadata.PackageNotFoundError:
        return []  # run from a checkout that is not installed
    for requirement in requirements:
        match = re.match(r"([A-Za-z0-9_.-]+).*;.*extra\s*==\s*['\"]([a-z0-9_-]+)['\"]", requirement)
        if match and match[1] != "finescale" and match[2] in PURPOSES:
            needs.setdefault(match[2], []).append(match[1])
    return [
        {
            "name": extra,
            "for": PURPOSES[extra],
            "missing": [name for name in names if _version(name) is None],
            "install": install(extra),
        }
        for extra, names in needs.items()
    ]


def text(found: dict[str, Any]) -> str:
    """The report for people: plain lines, no colours."""
    lines: list[str] = []

    def section(title: str, rows: list[tuple[str, str]]) -> None:
        if rows:
            lines.append(title)
            width = max(len(name) for name, _ in rows)
            lines.extend(f"  {name:<{width}}  {what}".rstrip() for name, what in rows)
            lines.append("")

    def mark(entry: dict[str, Any]) -> str:
        return "works" if entry["works"] else f"does not work: {entry['reason']}"

    system, memory = found["system"], found["memory"]
    rows = [("Python", f"{found['python']}  {sys.executable}"), ("System", system["platform"])]
    rows.append(("Processor", f"{system['processor']}, {system['cores']} cores"))
    if memory["total_gib"]:
        free = memory["available_gib"]
        rows.append(("Memory", f"{memory['total_gib']} GiB" + (f", {free} GiB available" if free else "")))
    rows.append(("Packages", ", ".join(f"{k} {v or 'missing'}" for k, v in found["packages"].items())))
    section(f"Finescale {found['finescale']}", rows)
    section("Devices", [(d["name"], f"{mark(d)} ({d['what']})") for d in found["devices"] or []])
    section(
        "Engines",
        [
            (e["name"], f"{mark(e)}, {e['version']} {e['what']}" if e["version"] else f"not installed ({e['what']})")
            for e in found["engines"] or []
        ],
    )
    if cache := found["cache"]:
        section(
            "Cache", [("Compiled networks", cache["folder"] + ("" if cache["writable"] else "  (cannot be written)"))]
        )
    if found["formats"]:
        section("Pictures", [(what.capitalize(), " ".join(names)) for what, names in found["formats"].items()])
    if weights := found["weights"]:
        rows = [(s["folder"], "" if s["exists"] else "(not there)") for s in weights["searched"]]
        section("Weights are searched in", rows)
        for title, rows in _weight_lines(weights["found"]).items():
            section(title, rows)
    if data := found["data"]:
        own, got = data["folder"] or "not set", data["downloaded"]
        place = got["folder"] + ("" if got["exists"] else "  (not there)")
        section("Data", [("FINESCALE_DATA", own), ("Downloaded sets", place)])
    section(
        "Extras",
        [
            (
                e["name"],
                f"missing {', '.join(e['missing'])}: {e['install']}  ({e['for']})" if e["missing"] else "complete",
            )
            for e in found["extras"] or []
        ],
    )
    section("Problems", [("-", sentence) for sentence in found["problems"]])
    if not found["problems"]:
        lines.append("Everything needed to enlarge pictures works.")
    return "\n".join(lines).rstrip()


def _weight_lines(found: list[dict[str, Any]]) -> dict[str, list[tuple[str, str]]]:
    """Under a title for each licence: a network with its scales, and how and where its files are."""
    titles: dict[str, dict[tuple[str, str], list[str]]] = {}
    for entry in found:
        licence = entry.get("notes", {}).get("licence")
        title = f"Weights found, {licence}" if isinstance(licence, str) else "Weights found"
        checked = "verified" if entry.get("verified") else "not listed in an index"
        state = f"{checked}, in {os.path.dirname(entry['file'])}" if entry["works"] else f"damaged: {entry['reason']}"  # noqa: PTH120
        titles.setdefault(title, {}).setdefault((entry["network"], state), []).append(f"x{entry['scale']}")
    return {
        title: [(" ".join([network, *scales]), state) for (network, state), scales in lines.items()]
        for title, lines in titles.items()
    }
