"""`lco …`: parses, calls, prints. No logic lives here, and nothing heavy is imported before a command needs it."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Sequence

from lco.errors import UserError, closest


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="lco", description="Reinforcement learning of mathematical reasoning, measured: train, evaluate, compare."
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    train = commands.add_parser(
        "train",
        help="train a model with one method",
        description="Trains a model on problems whose answers can be verified, and leaves a run folder.",
        epilog="example: lco train --method lco_kld --model Qwen/Qwen2.5-0.5B-Instruct --problems gsm8k --prompt boxed "
        "--max-new-tokens 512 --rollouts vllm --lr 1e-6 --minibatches 4",
    )
    train.add_argument("--config", metavar="FILE", help="JSON file with any of the keys below; flags override it")
    train.add_argument(
        "--preset",
        default="common",
        choices=("common", "paper"),
        help="start from the suite's common settings or from those of the method's paper (`lco methods NAME` shows them); "
        "--config and flags override them",
    )
    train.add_argument("--print-config", action="store_true", help="print the whole configuration and stop")
    train.add_argument("--resume", action="store_true", help="continue the run in --out where it stopped")
    train.set_defaults(run=run_train)

    evaluate = commands.add_parser("evaluate", help="score a model on lm-eval tasks with the suite's verifier")
    evaluate.set_defaults(run=run_evaluate)
    verify = commands.add_parser("verify", help="judge responses: JSON Lines in, verdicts out")
    verify.set_defaults(run=run_verify)

    methods = commands.add_parser("methods", help="list the methods, or print one method's page")
    methods.add_argument("name", nargs="?", help="print the page of this method")
    methods.add_argument("--json", action="store_true", help="machine-readable list")
    methods.add_argument("--markdown", action="store_true", help="all pages, as docs/methods.md has them")
    methods.set_defaults(run=run_methods)

    problems = commands.add_parser(
        "problems",
        help="list problem sets and prompt styles",
        description="Lists the problem sets with their splits, and the prompt styles, that `lco train` and the tasks use.",
    )
    problems.set_defaults(run=run_problems)
    table = commands.add_parser("table", help="build tables, figures and the page from result records")
    table.set_defaults(run=run_table)
    lab = commands.add_parser(
        "lab", help="measure the paper's claims about logits on every method, in a minute on a CPU"
    )
    lab.set_defaults(run=run_lab)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; a user's mistake is one sentence on standard error and exit code 2."""
    top = parser()
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        add_command_arguments(top, given)
        check_flags(top, given)
        parsed = top.parse_args(given)
        code = int(parsed.run(parsed) or 0)
        sys.stdout.flush()
        return code
    except UserError as error:
        print(f"lco: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("lco: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # `lco methods | head`: the reader has what it wanted. What is still buffered must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def add_command_arguments(top: argparse.ArgumentParser, given: Sequence[str]) -> None:
    """Adds the arguments of the command that was typed, so that `lco verify` never imports what `lco train` needs."""
    command, chosen = command_of(top, given)
    if chosen is None:
        return
    module = {
        "train": "lco.config",
        "evaluate": "lco.evaluation.command",
        "verify": "lco.verifier.command",
        "table": "lco.evidence.command",
        "lab": "lco.lab.command",
    }.get(command)
    if module is not None:
        importlib.import_module(module).add_arguments(chosen)


def command_of(top: argparse.ArgumentParser, given: Sequence[str]) -> tuple[str, argparse.ArgumentParser | None]:
    """The command that was typed and its parser; None where there is no such command, which argparse will say."""
    command = next((word for word in given if not word.startswith("-")), "")
    choices = next(a for a in top._actions if isinstance(a, argparse._SubParsersAction)).choices
    return command, choices.get(command)


def check_flags(top: argparse.ArgumentParser, given: Sequence[str]) -> None:
    """Refuses a flag that the command does not have. argparse would name no remedy, and would ask first for the required
    flag of which this one is a misspelling.

    Raises:
        UserError: names the nearest flag.
    """
    command, chosen = command_of(top, given)
    if chosen is None:
        return
    flags = [flag for action in chosen._actions for flag in action.option_strings]
    for word in given[given.index(command) + 1 :]:
        if word == "--":  # what follows is no flag
            return
        flag = word.partition("=")[0]
        looks_like_one = flag.startswith("--") or (flag.startswith("-") and flag[1:2].isalpha())
        if not looks_like_one or any(known.startswith(flag) for known in flags):  # argparse takes abbreviations
            continue
        close = closest(flag.strip("-"), [known[2:] for known in flags if known.startswith("--")])
        hint = f"; did you mean --{close}?" if close else ";"
        raise UserError(f"lco {command} has no flag {flag}{hint} `lco {command} --help` lists them")


def run_train(arguments: argparse.Namespace) -> int:
    from lco.config import dump, experiment_of
    from lco.config_check import check

    experiment = experiment_of(arguments)
    if arguments.print_config:
        print(dump(experiment), end="")
        return 0
    check(experiment)
    from lco.training.launch import launch

    folder = launch(experiment, resume=arguments.resume)
    if folder is not None:
        final = folder / "checkpoints" / "final"
        print(
            f"the run is in {folder}" + (f"; its model in {final}" if final.exists() else "; continue it with --resume")
        )
    return 0


def run_evaluate(arguments: argparse.Namespace) -> int:
    from lco.evaluation.command import run

    return run(arguments)


def run_verify(arguments: argparse.Namespace) -> int:
    from lco.verifier.command import run

    return run(arguments)


def run_table(arguments: argparse.Namespace) -> int:
    from lco.evidence.command import run

    return run(arguments)


def run_lab(arguments: argparse.Namespace) -> int:
    from lco.lab.command import run

    return run(arguments)


def run_methods(arguments: argparse.Namespace) -> int:
    from lco.methods import METHODS, method_named
    from lco.methods.pages import document, listing, page, summary

    if arguments.name:
        print(page(method_named(arguments.name)))
    elif arguments.json:
        print(json.dumps([summary(method) for method in METHODS.values()], indent=2, ensure_ascii=False))
    elif arguments.markdown:
        print(document(METHODS.values()))
    else:
        print(listing(METHODS.values()))
    return 0


def run_problems(arguments: argparse.Namespace) -> int:
    from lco.problems.prompts import STYLES
    from lco.problems.sets import SETS

    print("problem sets:\n" + "\n".join(f"  {name:20} {', '.join(s.splits)}" for name, s in SETS.items()))
    print("prompt styles:\n" + "\n".join(f"  {name:20} {style.template!r}" for name, style in STYLES.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
