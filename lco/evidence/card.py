"""A model card: what a trained model is, from its run's record, as the README.md of its exported folder.

The front matter is huggingface_hub's, so that the hub reads it; the body comes from templates/card.jinja. Nothing that a
record or a base model's folder says can write markup.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lco import __version__
from lco.evidence.formats import markdown_text
from lco.methods import METHODS

MARK = "<!-- written by lco card -->"
"""In every card, so that a card is replaced and a README that a person wrote is not."""

SETTINGS = (
    *(
        "lr",
        "warmup_updates",
        "clip_norm",
        "steps",
        "prompts_per_step",
        "samples",
        "minibatches",
        "epochs",
        "temperature",
    ),
    *("max_prompt_tokens", "max_new_tokens", "dtype", "engine", "rollouts"),
)
"""Knobs of a run that a card lists, beside the method's own."""

NOT_SAID = "The base model's folder names no licence; whoever publishes this model has to find out."


@dataclass(frozen=True)
class Licence:
    """What a model's folder says of its licence: an identifier as the hub has them, or "other" with the first line of its
    licence file; "" where it says nothing."""

    identifier: str = ""
    name: str = ""

    def sentence(self, base: str) -> str:
        if not self.identifier:
            return NOT_SAID
        said = self.name if self.identifier == "other" and self.name else self.identifier
        return f"{base}'s folder says: {said}. What it asks for holds for this model too."


def licence_of(folder: Path | None) -> Licence:
    """The licence that the model card of a folder names, or its licence file."""
    if folder is None:
        return Licence()
    import yaml
    from huggingface_hub import ModelCard  # a hundred modules, for a card alone

    data: Any = None
    card = folder / "README.md"
    if card.is_file():
        with suppress(ValueError, yaml.YAMLError):  # front matter that is no YAML, or no mapping
            data = ModelCard(card.read_text(encoding="utf-8"), ignore_metadata_errors=True).data
    if data is not None and isinstance(data.license, str):
        return Licence(data.license, str(getattr(data, "license_name", None) or ""))
    for file in sorted(folder.glob("LICENSE*")):
        lines = file.read_text(encoding="utf-8", errors="replace").split("\n")
        return Licence("other", next((line.strip()[:80] for line in lines if line.strip()), ""))
    return Licence()


def render_card(record: Mapping[str, Any], licence: Licence, hub_id: str, problems_used: int) -> str:
    """The card of a record's model.

    Args:
        record: as `records.distil` makes it.
        licence: of the base model.
        hub_id: the base model's, "" where it came from a folder.
        problems_used: how many problems the run drew from.
    """
    method, experiment = METHODS.get(record["method"]), record["experiment"]
    hyper = method.bind(experiment["hyper"]).hyper if method else experiment["hyper"]
    title = record.get("title") or (method.title if method else record["method"])
    base = hub_id or record["model"]["name"]
    template = environment().get_template("card.jinja")
    return template.render(
        front_matter=Markup(front_matter(record, licence, hub_id, title)),
        mark=Markup(MARK),
        title=title,
        base=base,
        paper=method.paper if method else "",
        summary=method.summary if method else "",
        suite=__version__,
        record=record,
        scores=[score(found) for found in record["evaluations"]],
        knobs=[*hyper.items(), *((name, experiment[name]) for name in SETTINGS if name in experiment)],
        data=[
            ("problems", f"{experiment['problems']}, split {experiment['split']}"),
            ("problems drawn from", problems_used),
            ("hash of these", record["problems_sha256"]),
            ("prompt style", experiment["prompt"]),
            ("rule of extraction", experiment["extraction"]),
        ],
        hours=f"{record['cost']['device_hours']:.3g}",
        device=record["cost"]["device"] or "an unnamed device",
        provenance=[
            ("start weights", record["model"]["sha256"]),
            ("these weights", record["final_sha256"]),
            ("plan", record["plan_sha256"] or "none: the run belongs to no planned study"),
            ("commit of the suite", commit(record["provenance"]["git"])),
            *((f"{name}", version) for name, version in record["provenance"]["packages"].items() if version),
        ],
        licence=licence.sentence(base),
    )


def front_matter(record: Mapping[str, Any], licence: Licence, hub_id: str, title: str) -> str:
    """YAML that the hub reads, without its fences."""
    from huggingface_hub import EvalResult, ModelCardData  # as above

    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type=found["task"],
            dataset_name=found["task"],
            metric_type="pass@1",
            metric_name=f"pass@1, T {found['sampling']['temperature']:g}, {found['samples']} samples",
            metric_value=found["scores"]["pass@1"],
        )
        for found in record["evaluations"]
    ]
    named: dict[str, Any] = {"license": licence.identifier} if licence.identifier else {}
    other: dict[str, Any] = {"license_name": licence.name} if licence.identifier == "other" and licence.name else {}
    data = ModelCardData(
        base_model=hub_id or None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["reinforcement-learning", "math", record["method"]],
        model_name=f"{record['model']['name']}-{title}",
        eval_results=results or None,
        **named,
        **other,
    )
    return str(data.to_yaml()).strip()


def score(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the table of scores."""
    found = evaluation["scores"]
    return {
        "task": evaluation["task"],
        "problems": evaluation["problems"],
        "samples": evaluation["samples"] or "several",
        "temperature": f"{evaluation['sampling']['temperature']:g}",
        "score": f"{found['pass@1']:.1%}",
        "interval": "{:.1%} to {:.1%}".format(*found["interval"]),
        "no_answer": f"{found['no_answer']:.1%}",
        "truncated": f"{found['truncated']:.1%}",
    }


def commit(git: Mapping[str, Any] | None) -> str:
    if not git or not git.get("commit"):
        return "unknown"
    return f"{git['commit']}{', with changes that are not in it' if git.get('dirty') else ''}"


@cache
def environment() -> Environment:
    """Values become text that Markdown shows as it is; the template's own lines stay."""
    return Environment(
        loader=PackageLoader("lco.evidence"), autoescape=False, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=lambda value: value if isinstance(value, Markup) else markdown_text(value),
    )  # fmt: skip
