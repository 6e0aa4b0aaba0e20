"""The command line: finds the verb, runs it, and turns errors into one sentence and an exit code."""

import argparse
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from types import FrameType
from typing import Any

from finescale import __version__
from finescale.errors import (
    FinescaleError,
    FinescaleWarning,
    UsageError,
    is_out_of_memory,
    nearest,
    system_reason,
)

# verb -> what it does; each is a module finescale.cli.<verb> with configure(parser) and run(args) -> exit code.
VERBS = {
    "upscale": "enlarge pictures",
    "resize": "resize a picture bicubically, exactly as the benchmarks' files were made",
    "networks": "list the networks",
    "train": "train a network by a recipe",
    "data": "get public data sets, and pack pictures to train on",
    "score": "PSNR and SSIM of your pictures against originals",
    "bench": "quality: PSNR and SSIM of networks on benchmark sets",
    "benchmark": "speed: seconds and memory of networks on this machine, with every engine",
    "figure": "draw a box of a picture from every network side by side, as in papers",
    "export": "write a network as an ONNX or OpenVINO file, checked against PyTorch",
    "convert": "make an authors' weight file (RCAN, EDSR) one that every command takes",
    "serve": "open a local page that enlarges pictures, with an HTTP API beside it",
    "doctor": "what is installed, what works, and where weights are found",
    "completion": "completion of commands, options and network names for your shell",
}


class _Parser(argparse.ArgumentParser):
    """A parser that refuses what it does not know, with its own usage: argparse leaves that to the topmost one."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's, but nothing unknown is left."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            word = next((word for word in unknown if word.startswith("-")), "")
            self.error(f"unrecognized arguments: {' '.join(unknown)}{self._hint(word)}")
        return found, unknown

    def _hint(self, word: str) -> str:
        """The options that may be meant by an unknown one: the nearest, or of a letter those that begin with it."""
        from difflib import get_close_matches

        name = word.lstrip("-").partition("=")[0]
        strings = [string for action in self._actions for string in action.option_strings]
        options = [string[2:] for string in strings if string.startswith("--")]
        near = get_close_matches(name, options, n=1)
        if name and not word.startswith("--") and not name[1:].isalpha():  # -s 2, -s2
            near = near or [option for option in options if option.startswith(name[0])]
        return f"; did you mean {' or '.join(f'--{option}' for option in near)}?" if near else ""


def parser(only: str | None = None) -> argparse.ArgumentParser:
    """The command line; every verb adds its own options, without importing anything heavy.

    Args:
        only: the verb that will be used, where that is known; the options of the others are left out, to start faster.
    """
    top = _Parser(prog="finescale", description="Makes small pictures large and sharp.")
    top.add_argument("--version", action="version", version=f"finescale {__version__}")
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, summary in VERBS.items():
        sub = verbs.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        if only in (None, name):
            import_module(f"finescale.cli.{name}").configure(sub)
    return top


_usual_format = warnings.formatwarning


def _one_sentence(message: Warning | str, category: type[Warning], *place: Any, **line: Any) -> str:
    """Our own warnings without the place in the code where they were found; the others as Python shows them."""
    if issubclass(category, FinescaleWarning):
        return f"finescale: {message}\n"
    return _usual_format(message, category, *place, **line)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        0: done, 1: some work failed, 2: the request makes no sense, 130: interrupted.

    Raises:
        SystemExit: argparse has refused the command or shown its help, or a signal ended it (128 and its number).
    """
    words = sys.argv[1:] if arguments is None else arguments

    def work() -> int:
        _check_verb(words)
        args = parser(words[0] if words and words[0] in VERBS else None).parse_args(words)
        return int(import_module(f"finescale.cli.{args.verb}").run(args))

    return told(work)


def _check_verb(words: Sequence[str]) -> None:
    """Refuses a first word that is neither a verb nor an option.

    Raises:
        UsageError: it is, with the right command where the word is a picture.
    """
    if not words or words[0] in VERBS or words[0].startswith("-"):
        return
    what = f"there is no verb '{words[0]}'"
    if os.path.exists(words[0]):  # noqa: PTH110 (Path's fails over a name that is too long)
        import shlex
        import subprocess

        meant = ["finescale", "upscale", *words]
        line = subprocess.list2cmdline(meant) if sys.platform == "win32" else shlex.join(meant)
        raise UsageError(f"{what}; did you mean: {line}")
    raise UsageError(what + (nearest(words[0], VERBS) or f" (known: {', '.join(VERBS)})"))


def told(work: Callable[[], int | None]) -> int:
    """Does what a command line asks for, tells in one sentence what went wrong, and gives the exit code; see `main`."""
    for stream, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, stream) is None:  # closed: what is meant for it would go to the next file that is opened
            setattr(sys, stream, open(os.devnull, mode))  # noqa: SIM115
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files are any bytes
    warnings.formatwarning = _one_sentence
    try:
        with _ended_in_order():
            code = work() or 0
        sys.stdout.flush()  # here, where what is wrong with it can be told
        return code
    except FinescaleError as error:
        print(f"finescale: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("finescale: interrupted", file=sys.stderr)
        return 130
    except OSError as error:
        if not isinstance(error, BrokenPipeError):  # its reader has seen enough
            name = f"{error.filename}: " if error.filename else ""
            print(f"finescale: {name}{system_reason(error)}", file=sys.stderr)
        return 1
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        print("finescale: out of memory", file=sys.stderr)
        return 1
    finally:
        _drop_output()


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """Lets `kill` and a terminal that is closed end the work as Ctrl-C does, which leaves nothing half made behind."""
    taken: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        for each in taken:  # a terminal that is closed sends it twice: the second must not break into the cleaning up
            signal.signal(each, signal.SIG_IGN)
        raise SystemExit(128 + number)

    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP", "SIGBREAK"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, end)
                taken.append(number)
    try:
        yield
    finally:
        for number in taken:
            if signal.getsignal(number) in (end, signal.SIG_IGN):
                signal.signal(number, signal.SIG_DFL)


def _drop_output() -> None:
    """Throws away what standard output does not take: at its end Python would try again, and tell in its own words."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
