"""`lco train`: flags and files → an experiment → its plan → a run in this process or as several ranks."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from lco.addresses import FOLDER, URLS
from lco.config import Experiment, fields, from_mapping
from lco.config_file import form_of, read, write
from lco.errors import UserError
from lco.methods import METHODS, method_named
from lco.outside import is_place, refuse_untyped
from lco.problems.local import parse_columns
from lco.problems.rewards import parse_terms
from lco.runs.folder import read_object
from lco.training.launch import CONFIGURATION, become_rank, end_rank, launch_ranks, prepare_rank
from lco.training.resolve import Plan, resolve


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One flag per field of `Experiment`, grouped; defaults stay unset so that a file's values survive."""
    parser.description = "Trains a model on problems whose answers can be verified, and leaves a run folder."
    parser.epilog = (
        "example: lco train --method lco_kld --model Qwen/Qwen2.5-0.5B-Instruct --problems gsm8k --prompt boxed "
        "--max-new-tokens 512 --rollouts vllm --lr 1e-6 --minibatches 4"
    )
    parser.add_argument(
        "--config", metavar="FILE", help="JSON, YAML or TOML file with any of the keys below; flags override it"
    )
    parser.add_argument(
        "--preset",
        default="common",
        choices=("common", "paper", "released"),
        help="start from the suite's common settings, from those of the method's paper, or from those of its authors' released "
        "code (`lco methods NAME` shows them); "
        "--config and flags override them",
    )
    parser.add_argument(
        "--print-config", action="store_true", help="print the whole configuration, in the form of --config, and stop"
    )
    parser.add_argument(
        "--resume", action="store_true", help="continue the run in --out where it stopped; its own config.json will do"
    )
    parser.add_argument(
        "--start-over",
        action="store_true",
        help="remove what the run in --out has left and make it again; its own config.json will do",
    )
    places = parser.add_argument_group(
        "servers", "with --rollouts vllm-server; kept in no configuration, record or log"
    )
    places.add_argument(
        "--vllm-url", nargs="+", metavar="URL", help=f"http://HOST:PORT of each `lco serve` (or {URLS})"
    )
    places.add_argument(
        "--vllm-folder",
        metavar="DIR",
        help=f"folder that trainer and servers both see, for the weights (or {FOLDER}; default: this machine's memory)",
    )
    types = typing.get_type_hints(Experiment)
    groups: dict[str, argparse._ArgumentGroup] = {}
    for name, spec in fields().items():
        group = groups.setdefault(spec.metadata["group"], parser.add_argument_group(spec.metadata["group"]))
        flag, text = "--" + name.replace("_", "-"), spec.metadata["help"]
        if spec.metadata["choices"]:
            text += f"; one of {', '.join(str(choice) for choice in spec.metadata['choices'] if choice != '')}"
        if typing.get_origin(types[name]) is dict:
            group.add_argument(flag, nargs="+", metavar="NAME=VALUE", help=text)
        elif typing.get_origin(types[name]) is list:
            group.add_argument(flag, nargs="+", metavar="TEXT", help=text)
        elif types[name] is bool:
            group.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=text)
        else:
            shown = f"{text} (default: {spec.default!r})" if spec.default != "" else text
            group.add_argument(flag, type=types[name], default=None, metavar=types[name].__name__.upper(), help=shown)


def run(arguments: argparse.Namespace) -> int:
    """Trains; prints where the run is."""
    if "LOCAL_RANK" in os.environ:
        return run_rank(arguments)
    experiment = experiment_of(arguments)
    if arguments.print_config:
        print(write(experiment, form_of(arguments.config) if arguments.config else "JSON"), end="")
        return 0
    plan = plan_of(arguments, experiment)
    if experiment.engine == "deepspeed":
        launch_ranks(experiment, arguments.resume, arguments.start_over)
        return 0
    from lco.training.run import train  # torch and transformers, only once the plan stands

    print_place(train(plan, arguments.resume, start_over=arguments.start_over))
    return 0


def run_rank(arguments: argparse.Namespace) -> NoReturn:
    """Trains as one of the processes that a launcher has started, which read the same arguments, each on its machine."""
    become_rank()
    from lco.training.roll_call import answering, join_group

    chief = int(os.environ.get("RANK", 0)) == 0
    try:
        with answering() as roll_call:
            experiment = experiment_of(arguments)
            refuse_ranks(experiment)
            plan = plan_of(arguments, experiment)
            prepare_rank(experiment.device == "cpu")
            if roll_call is not None:
                join_group(roll_call, experiment.device == "cpu")
            from lco.training.run import train

            folder = train(plan, arguments.resume, start_over=arguments.start_over)
        if chief:
            print_place(folder)
    except UserError as error:
        print(f"lco: {error}", file=sys.stderr)
        end_rank(2)
    except KeyboardInterrupt as stopped:
        if chief and CONFIGURATION not in os.environ:  # no `lco train` has started this rank, which would say so
            print(f"lco: {stopped}", file=sys.stderr)
    end_rank()  # also when stopped: a rank that failed would take the others with it, and its launcher has heard the signal, too


def plan_of(arguments: argparse.Namespace, experiment: Experiment) -> Plan:
    if arguments.resume and arguments.start_over:
        raise UserError("--resume and --start-over are given; leave one of them out")
    note_places(arguments)
    return resolve(experiment)


def print_place(folder: Path) -> None:
    print(f"the run is in {folder}; its model in {folder / 'checkpoints' / 'final'}")


def refuse_ranks(experiment: Experiment) -> None:
    """
    Raises:
        UserError: a launcher has started several ranks, each of which would be a run of its own.
    """
    world = os.environ.get("WORLD_SIZE", "1")
    if experiment.engine == "torch" and world != "1":
        raise UserError(
            f"engine is 'torch', which trains in one process, and a launcher has started {world} (WORLD_SIZE); give --engine "
            "deepspeed, or start `lco train` without it"
        )


def note_places(arguments: argparse.Namespace) -> None:
    """Puts where the servers are into the environment, which ranks inherit and no record holds."""
    if arguments.vllm_url:
        os.environ[URLS] = " ".join(arguments.vllm_url)
    if arguments.vllm_folder:
        os.environ[FOLDER] = arguments.vllm_folder


def experiment_of(arguments: argparse.Namespace) -> Experiment:
    """What a command line asks for: the defaults, over them the paper's settings if these are wanted, the configuration
    file, the flags.

    Raises:
        UserError: an unknown key, method or value.
    """
    if CONFIGURATION in os.environ:  # this is a rank
        return from_mapping(json.loads(os.environ[CONFIGURATION]), CONFIGURATION)
    file = arguments.config or config_of_run(arguments)
    given = read(file) if file else {}
    if file and not arguments.config:
        refuse_code_of_run(arguments, given)
    method = arguments.method or given.get("method", Experiment.method)
    preset = {} if arguments.preset == "common" else preset_settings(method, arguments.preset)
    if "hyper" in preset and isinstance(given.get("hyper"), dict):
        given = {**given, "hyper": {**preset["hyper"], **given["hyper"]}}
    return from_arguments(arguments, from_mapping({**preset, **given}, file or "preset"))


def refuse_code_of_run(arguments: argparse.Namespace, given: Mapping[str, Any]) -> None:
    """
    Raises:
        UserError: the run's configuration names a file of code that is not typed too.
    """
    flags: dict[str, list[str]] = {}
    place = str(given.get("method", ""))
    if arguments.method is None and is_place(place):
        flags["--method"] = [place]
    rewards = given.get("reward")
    if arguments.reward is None and isinstance(rewards, dict) and any(map(is_place, rewards)):
        flags["--reward"] = [f"{name}={weight:g}" for name, weight in rewards.items()]
    refuse_untyped(flags, arguments.out)


def config_of_run(arguments: argparse.Namespace) -> str:
    """The configuration of the run that --resume goes on with or --start-over makes again, where --out names its folder;
    "" otherwise.

    Raises:
        UserError: no run has left one there, and no model is given that could stand in its place.
    """
    if not arguments.out or not (arguments.resume or arguments.start_over):
        return ""
    file = Path(arguments.out) / "config.json"
    if file.is_file() and read_object(file) is None:
        if arguments.start_over and arguments.model:
            return ""  # made again from what is typed
        raise UserError(
            f"{file} says what the run is, and is damaged; restore it, or make the run again with --start-over and all its "
            "flags (--model …)"
        )
    if file.is_file():
        return str(file)
    if not arguments.model:
        flag = "--resume" if arguments.resume else "--start-over"
        raise UserError(
            f"there is no run in {arguments.out}; leave {flag} out, or name the run's own folder with --out"
        )
    return ""


def from_arguments(arguments: argparse.Namespace, base: Experiment) -> Experiment:
    """`base` with every flag that was given on the command line."""
    given = {name: getattr(arguments, name) for name in fields() if getattr(arguments, name, None) is not None}
    if "hyper" in given:
        given["hyper"] = {**base.hyper, **parse_hyper(given["hyper"])}
    if "columns" in given:
        given["columns"] = parse_columns(given["columns"])
    if "reward" in given:
        given["reward"] = parse_terms(given["reward"])
    return dataclasses.replace(base, **given)


def preset_settings(method: str, kind: str) -> dict[str, Any]:
    """Keys of `Experiment` with the settings of a method's paper, or of its authors' released code.

    Raises:
        UserError: no such method, or no such settings of it are known here.
    """
    known = method_named(method)
    preset = known.released_preset if kind == "released" else known.paper_preset
    if not preset.hyper and not preset.settings:
        presets = {name: m.released_preset if kind == "released" else m.paper_preset for name, m in METHODS.items()}
        have = ", ".join(name for name, found in presets.items() if found.hyper or found.settings)
        other = " (--preset released has those of its authors' code)" if known.released_preset.source else ""
        raise UserError(f"no {kind} settings are known for {method}{other}; there are some for {have}")
    return {"method": method, "hyper": dict(preset.hyper), **preset.settings}


def parse_hyper(pairs: list[str]) -> dict[str, Any]:
    """["beta=2", "advantage=group_std"] → {"beta": 2, "advantage": "group_std"}."""
    values: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise UserError(f"--hyper {pair!r} has no value; write NAME=VALUE")
        if name in values:
            raise UserError(f"--hyper names {name} twice; leave one of them out")
        try:
            values[name] = json.loads(text)
        except json.JSONDecodeError:
            values[name] = text
    return values
