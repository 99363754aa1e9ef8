"""`lco COMMAND …`: finds the command's module, parses, calls it. No logic lives here, and nothing heavy is imported before
a command needs it."""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from types import ModuleType
from typing import NoReturn

import lco
from lco.errors import UserError, closest, nearest
from lco.stopping import Stopped, answered, raise_stopped

COMMANDS = {
    "train": ("lco.training.command", "train a model with one method"),
    "serve": ("lco.rollout.serve_command", "start a vLLM server that trainers sample with"),
    "evaluate": ("lco.evaluation.command", "score a model on lm-eval tasks with the suite's verifier"),
    "verify": ("lco.verifier.command", "judge responses: JSON Lines in, verdicts out"),
    "methods": ("lco.methods.command", "list the methods, or print one method's page"),
    "problems": ("lco.problems.command", "list problem sets and prompt styles"),
    "runs": ("lco.runs.list_command", "list runs: which there are, how far they are, their last score"),
    "watch": ("lco.runs.watch_command", "follow a run from another terminal"),
    "samples": ("lco.runs.samples_command", "read what a run's model answered"),
    "record": ("lco.evidence.record_command", "make the record of a run, or check records, a stranger's too"),
    "card": ("lco.evidence.card_command", "write the model card of a run's last model into its folder"),
    "table": ("lco.evidence.command", "build tables, figures and the page from result records"),
    "leaderboard": ("lco.evidence.leaderboard_command", "make pages of result records to sort, filter and open"),
    "claims": ("lco.evidence.claims_command", "judge the claims of a claims.toml by the records beside it"),
    "lab": ("lco.lab.command", "measure the paper's claims about logits on every method, in a minute on a CPU"),
}
"""command → the module that has its `add_arguments(parser)` and `run(arguments) → exit code`, and its line of help"""

OTHER_NAMES = {
    "learning-rate": "lr", "batch-size": "prompts-per-step", "train-batch-size": "prompts-per-step",
    "num-generations": "samples", "n": "samples", "rollout-n": "samples", "max-tokens": "max-new-tokens",
    "max-completion-length": "max-new-tokens", "max-response-length": "max-new-tokens", "max-prompt-length": "max-prompt-tokens",
    "output-dir": "out", "output": "out", "max-steps": "steps", "num-epochs": "epochs", "num-train-epochs": "epochs",
    "per-device-train-batch-size": "micro-batch", "max-grad-norm": "clip-norm", "grad-clip": "clip-norm",
    "dataset": "problems", "data": "problems", "model-name": "model", "model-path": "model", "num-gpus": "processes",
    "adam-beta1": "beta1", "adam-beta2": "beta2", "warmup-steps": "warmup-updates", "task": "tasks",
    "algorithm": "method", "loss-type": "method", "resume-from-checkpoint": "resume", "gold": "file",
}  # fmt: skip
"""What other programs call a flag → what it is called here."""

NAMED = {"train": "--method", "evaluate": "--model", "table": "--results", "leaderboard": "--results", "lab": "--out"}
"""command → the flag whose value a person would leave bare."""


class Parser(argparse.ArgumentParser):
    """argparse, but for its twenty lines of usage in front of a mistake."""

    def error(self, message: str) -> NoReturn:
        if match := re.fullmatch(r"argument (-[\w-]+)(?:/\S+)?: expected one argument", message):
            message = f"{match[1]} has no value; a value that begins with a dash is written {match[1]}=-1e-4"
        raise UserError(f"{message.removeprefix('argument ')}; `{self.prog} --help` shows what there is")


def parser() -> argparse.ArgumentParser:
    top = Parser(
        prog="lco", description="Reinforcement learning of mathematical reasoning, measured: train, evaluate, compare."
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (_, line) in COMMANDS.items():
        commands.add_parser(name, help=line)
    return top


def complete() -> None:
    """Answers the shell, which asks what could be typed next, where argcomplete is installed (docs/install.md)."""
    try:
        import argcomplete
    except ModuleNotFoundError:
        return
    top = parser()
    typed = os.environ.get("COMP_LINE", "").split()
    choices = next(a for a in top._actions if isinstance(a, argparse._SubParsersAction)).choices
    if len(typed) > 1 and typed[1] in COMMANDS:
        importlib.import_module(COMMANDS[typed[1]][0]).add_arguments(choices[typed[1]])
        importlib.import_module("lco.completion").offer_words(choices[typed[1]])
    argcomplete.autocomplete(top)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; a user's mistake is one sentence on standard error and exit code 2, a signal is 128 + its number."""
    if "_ARGCOMPLETE" in os.environ:
        complete()
    try:
        # A rank leaves them to its launching process, which has them first.
        with nullcontext() if "LOCAL_RANK" in os.environ else answered(raise_stopped):
            module, parsed = parse(list(sys.argv[1:] if arguments is None else arguments))
            code = int(module.run(parsed) or 0)
            sys.stdout.flush()
            return code
    except UserError as error:
        print(f"lco: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        if (error.name or "lco").partition(".")[0] in ("lco", *sys.stdlib_module_names):
            raise  # the suite's own mistake, or a damaged Python
        print(
            f"lco: this command needs {error.name}, which is not installed; install the whole suite with `make setup` "
            "(docs/install.md), the extra `verifier` is for `lco verify` alone",
            file=sys.stderr,
        )
        return 2
    except Stopped as stopped:
        print(f"lco: {stopped}", file=sys.stderr)
        return 128 + stopped.number
    except KeyboardInterrupt:
        print("lco: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # `lco methods | head`: the reader has what it wanted. What is still buffered must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def parse(given: Sequence[str]) -> tuple[ModuleType, argparse.Namespace]:
    """The module of the command that was typed, and its arguments. Only that module is imported, so `lco verify` needs
    nothing that `lco train` needs.

    Raises:
        UserError: an unknown flag.
    """
    top = parser()
    if given[:1] in (["--version"], ["version"]):
        print(f"lco {lco.__version__}")
        raise SystemExit(0)
    if given[:1] == ["help"]:
        given = ["--help"]
    command = next((word for word in given if not word.startswith("-")), "")
    choices = next(a for a in top._actions if isinstance(a, argparse._SubParsersAction)).choices
    if command and command not in choices:
        raise UserError(f"there is no command {command!r}{nearest(command, choices)}")
    if not command:
        top.parse_args(given or ["--help"])  # which prints the help and exits
    module = importlib.import_module(COMMANDS[command][0])
    module.add_arguments(choices[command])
    check_flags(command, choices[command], given)
    parsed, unread = top.parse_known_args(given)
    if unread:
        meant = NAMED.get(command)
        hint = f"; did you mean {meant} {unread[0]}?" if meant else ";"
        raise UserError(f"lco {command} cannot place {unread[0]!r}{hint} `lco {command} --help` shows what it takes")
    return module, parsed


def check_flags(command: str, chosen: argparse.ArgumentParser, given: Sequence[str]) -> None:
    """Refuses a flag that the command does not have. argparse would name no remedy, and would ask first for the required
    flag of which this one is a misspelling.

    Raises:
        UserError: names the nearest flag.
    """
    flags = [flag for action in chosen._actions for flag in action.option_strings]
    for word in given[given.index(command) + 1 :]:
        if word == "--":  # what follows is no flag
            return
        flag = word.partition("=")[0]
        looks_like_one = flag.startswith("--") or (flag.startswith("-") and flag[1:2].isalpha())
        if not looks_like_one or any(known.startswith(flag) for known in flags):  # argparse takes abbreviations
            continue
        words = flag.strip("-").replace("_", "-")
        long = [known[2:] for known in flags if known.startswith("--")]
        elsewhere = {name: here for name, here in OTHER_NAMES.items() if here in long}
        close = closest(words, [*long, *elsewhere])
        close = elsewhere.get(close or "", close)
        hint = f"; did you mean --{close}?" if close else ";"
        raise UserError(f"lco {command} has no flag {flag}{hint} `lco {command} --help` lists them")


if __name__ == "__main__":
    sys.exit(main())
