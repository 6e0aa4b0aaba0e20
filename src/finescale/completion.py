"""Completion scripts for shells, made from the command line's own description by shtab."""

import argparse
from collections.abc import Iterator

from finescale.errors import FinescaleError, install


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """The script for bash, zsh or fish; options of networks complete to their names, other texts to files.

    Raises:
        FinescaleError: shtab is not installed.
    """
    try:
        import shtab
    except ImportError as error:
        raise FinescaleError(
            f"completion needs the extra 'completion' (shtab is missing): {install('completion')}"
        ) from error
    from finescale.networks.catalogue import ALIASES, NETWORKS

    names = " ".join([*NETWORKS, *ALIASES])
    networks = {"bash": "_finescale_networks", "zsh": f"({names})", "fish": names}
    for action in _actions(parser):
        if action.nargs == 0 or action.choices is not None or action.type in (int, float):
            continue
        is_network = action.dest in ("network", "networks")
        action.complete = networks if is_network else shtab.FILE  # type: ignore[attr-defined]
    preamble: dict[str, str] = {
        "bash": f'_finescale_networks() {{ compgen -W "{names}" -- "$1"; compgen -f -X "!*.safetensors" -- "$1"; }}\n'
    }
    return str(shtab.complete(parser, shell, preamble=preamble.get(shell, "")))


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Every argument of a parser and of the verbs below it."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for verb in action.choices.values():
                yield from _actions(verb)
