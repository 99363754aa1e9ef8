"""Claims as data, verdicts computed: each claim names a test, a function of records, and what would support or refute it.

claims.toml + records ──▶ supported | contradicted | mixed | not tested, with the effect and the records it rests on
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lco.errors import UserError, nearest
from lco.evidence.check import SEAL, seal
from lco.evidence.formats import Table
from lco.evidence.kinds import kind_of, paired
from lco.evidence.names import CONTROLLED, row_key
from lco.evidence.records import read_records
from lco.evidence.statistics import hierarchical_difference, pass_at_k, stratified_difference
from lco.evidence.tables import Record, by_model, collapsed, comparable, points, runs_of, sampled

SUPPORTED, CONTRADICTED, MIXED, UNTESTED = "supported", "contradicted", "mixed", "not tested"


@dataclass(frozen=True)
class Claim:
    """A sentence that can be wrong.

    Attributes:
        id, words, said: what it is called, what it says, where it is said.
        test: the name of a function in `TESTS`, or "untested".
        results: the folders of records, below that of the claims.
        methods, than: which methods it is about, and which they are held against.
        supports, refutes: what the records would have to show.
        takes: what a test would take that has not been made yet.
        given: further values of the test.
    """

    id: str
    words: str
    said: str
    test: str
    results: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    than: tuple[str, ...] = ()
    supports: str = ""
    refutes: str = ""
    takes: str = ""
    given: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Effect:
    """One number of a claim: of which model and methods, what was found, and whether it speaks for (1) or against it (−1)."""

    of: str
    found: str
    sign: int


@dataclass(frozen=True)
class ClaimVerdict:
    """What the records say: a word, the numbers it is computed from, and how many records these rest on."""

    word: str
    effects: tuple[Effect, ...] = ()
    records: int = 0


def read_claims(file: Path) -> list[Claim]:
    """
    Raises:
        UserError: the file cannot be read, or a claim lacks a key, has an unknown one, or names a test that there is not.
    """
    try:
        found = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read the claims {file}: {error.strerror}") from None
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{file} is not TOML ({error})") from None
    return [claim_of(values, file) for values in found.get("claim", [])]


def claim_of(values: Mapping[str, Any], file: Path) -> Claim:
    own: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    known = [name for name in Claim.__dataclass_fields__ if name != "given"]
    lacking = next((key for key in ("id", "words", "said", "test") if key not in own), None)
    if lacking is not None:
        raise UserError(f"{file}: claim {own.get('id', '?')!r} has no {lacking!r}")
    if own["test"] != "untested" and own["test"] not in TESTS:
        raise UserError(f"{file}: claim {own['id']!r} has no test {own['test']!r}{nearest(own['test'], TESTS)}")
    needed = ("takes",) if own["test"] == "untested" else ("results", "methods", "supports", "refutes")
    for key in needed:
        if not own.get(key):
            raise UserError(f"{file}: claim {own['id']!r} has no {key!r}")
    if isinstance(own.get("results"), str):
        own["results"] = (own["results"],)
    given = {key: value for key, value in own.items() if key not in known}
    return Claim(**{key: value for key, value in own.items() if key in known}, given=given)


def judge(claim: Claim, folder: Path) -> ClaimVerdict:
    """The verdict on a claim from the records below its folders in `folder`; not tested where one of these is missing.

    Supported: every effect speaks for it. Contradicted: every one against it. Mixed: anything else.
    """
    folders = [folder / name for name in claim.results]
    if claim.test == "untested" or not all(place.is_dir() for place in folders):
        return ClaimVerdict(UNTESTED)
    effects, records = TESTS[claim.test](claim, folders)
    if not effects:
        return ClaimVerdict(UNTESTED)
    signs = {effect.sign for effect in effects}
    word = SUPPORTED if signs == {1} else CONTRADICTED if signs == {-1} else MIXED
    return ClaimVerdict(word, tuple(effects), records)


Found = tuple[list[Effect], int]


def files_below(folders: Sequence[Path]) -> list[Path]:
    return [file for folder in folders for file in sorted(folder.rglob("*.json"))]


def models_below(folders: Sequence[Path]) -> dict[str, list[Record]]:
    """{model: its records} of all folders together."""
    return by_model(record for _, record in read_records(files_below(folders)))


def pairs_of(
    claim: Claim, folders: Sequence[Path]
) -> Iterator[tuple[str, str, str, Sequence[Record], Sequence[Record]]]:
    """(model, method, other, records of either) wherever both have a seed in common; what is compared is comparable."""
    for model, records in models_below(folders).items():
        comparable(records)
        runs = runs_of(records)
        for method in claim.methods:
            for other in claim.than:
                if {r["seed"] for r in runs.get(method, [])} & {r["seed"] for r in runs.get(other, [])}:
                    yield model, method, other, runs[method], runs[other]


def above(claim: Claim, folders: Sequence[Path]) -> Found:
    """Paired differences of pass@1 at T = 1, by seed and problem: above zero, below it, or not to be told."""
    effects, used = [], set[str]()
    for model, method, other, a, b in pairs_of(claim, folders):
        mean, low, high, _ = stratified_difference(paired(a, b, [kind_of(sampled(a[0]))]))
        sign = 1 if low > 0 else -1 if high < 0 else 0
        effects.append(Effect(f"{model}: {method} − {other}", f"{points(mean)} [{points(low)}, {points(high)}]", sign))
        used |= keys(a) | keys(b)
    return effects, len(used)


def level(claim: Claim, folders: Sequence[Path]) -> Found:
    """The same differences: no difference that could be told speaks for the claim, any other against it."""
    effects, used = above(claim, folders)
    return [Effect(e.of, e.found, -1 if e.sign else 1) for e in effects], used


def keeps_pass_at_k(claim: Claim, folders: Sequence[Path]) -> Found:
    """pass@1 and pass@n of a method's runs against the start model, problem by problem."""
    effects, used = [], set[str]()
    for model, records in models_below(folders).items():
        start = [record for record in records if record["method"] == "start"]
        runs = runs_of(records)
        for method in claim.methods if start else ():
            if method not in runs:
                continue
            first = differences_at(runs[method], start[0], 1)
            last = differences_at(runs[method], start[0], sampled(start[0])["samples"])
            sign = 1 if first[1] > 0 and last[2] >= 0 else -1 if last[2] < 0 else 0
            shown = (f"{points(mean)} [{points(low)}, {points(high)}]" for mean, low, high in (first, last))
            effects.append(Effect(f"{model}: {method}", "pass@1 {}, pass@n {}".format(*shown), sign))
            used |= keys(runs[method]) | keys(start)
    return effects, len(used)


def gains_are_the_rewards(claim: Claim, folders: Sequence[Path]) -> Found:
    """pass@1 against the start model under the verifier's rewards, and of the same method under random ones.

    For the claim: a gain with the verifier, and none that can be told without. Against it: a gain without.
    """
    effects, used = [], set[str]()
    for model, records in models_below(folders).items():
        start = [record for record in records if record["method"] == "start"]
        runs = runs_of(records)
        for method in claim.methods if start else ():
            dealt = method + CONTROLLED
            if not {method, dealt} <= runs.keys():
                continue
            rewarded, random = (differences_at(runs[name], start[0], 1) for name in (method, dealt))
            sign = -1 if random[1] > 0 else 1 if rewarded[1] > 0 else 0
            shown = (f"{points(mean)} [{points(low)}, {points(high)}]" for mean, low, high in (rewarded, random))
            effects.append(Effect(f"{model}: {method}", "verifier's {}, random {}".format(*shown), sign))
            used |= keys(runs[method]) | keys(runs[dealt]) | keys(start)
    return effects, len(used)


def differences_at(runs: Sequence[Record], start: Record, k: int) -> tuple[float, float, float]:
    """(mean, low, high) of pass@k of all runs less that of the start model, on the same problems."""

    def of(record: Record) -> list[float]:
        found = sampled(record)
        return [pass_at_k(found["samples"], count, k) for count in found["correct"]]

    trained = np.array([of(record) for record in runs])
    mean, low, high, _ = hierarchical_difference(trained, np.broadcast_to(np.array(of(start)), trained.shape))
    return mean, low, high


def stands_where_others_fall(claim: Claim, folders: Sequence[Path]) -> Found:
    """Shares of seeds that collapsed at one learning rate and number of updates a rollout, of the methods and the others."""
    cells = [json.loads(file.read_text(encoding="utf-8")) for file in files_below(folders)]
    chosen = [c for c in cells if c["lr"] == claim.given["lr"] and c["updates_per_rollout"] == claim.given["updates"]]
    effects = []
    for method in (*claim.methods, *claim.than):
        seeds = [collapsed(cell) for cell in chosen if cell["method"] == method]
        if not seeds:
            continue
        fallen, subject = sum(seeds), method in claim.methods
        stands = 1 if not fallen else -1 if fallen == len(seeds) else 0
        effects.append(Effect(method, f"{fallen} of {len(seeds)} seeds collapsed", stands if subject else -stands))
    return effects, len([cell for cell in chosen if cell["method"] in (*claim.methods, *claim.than)])


def ends_above_by_a_knob(claim: Claim, folders: Sequence[Path]) -> Found:
    """Differences of pass@1 on validation problems after the last rollout between two values of a knob, all else equal, seed by
    seed: above in every seed, below in every seed, or neither. One seed tells nothing."""
    knob, value, other = (claim.given[key] for key in ("knob", "value", "other"))
    runs: dict[str, dict[Any, dict[int, float]]] = {}
    used = 0
    for record in (json.loads(file.read_text(encoding="utf-8")) for file in files_below(folders)):
        hyper = dict(record["hyper"])
        if record["method"] not in claim.methods or (found := hyper.pop(knob, None)) not in (value, other):
            continue
        of = ", ".join([record["method"], *(f"{name} {hyper[name]}" for name in sorted(hyper))])
        runs.setdefault(of, {}).setdefault(found, {})[record["seed"]] = record["curves"]["validation"]["pass@1"][-1]
        used += 1
    effects = []
    for of, ends in sorted(runs.items()):
        mine, theirs = ends.get(value, {}), ends.get(other, {})
        gaps = [mine[seed] - theirs[seed] for seed in sorted(mine.keys() & theirs.keys())]
        if gaps:
            alike = len(gaps) > 1
            sign = 1 if alike and min(gaps) > 0 else -1 if alike and max(gaps) < 0 else 0
            shown = f"{points(sum(gaps) / len(gaps))}, by seed {', '.join(map(points, gaps))}"
            effects.append(Effect(f"{of}: {knob} {value} − {other}", shown, sign))
    return effects, used


def measured_in_the_laboratory(claim: Claim, folders: Sequence[Path]) -> Found:
    """What `lco lab --record` kept of the experiments that the claim names, as far as they are about what the paper says.

    Raises:
        UserError: the file was changed.
    """
    effects = []
    for file in files_below(folders):
        record = json.loads(file.read_text(encoding="utf-8"))
        if "lab" not in record:
            continue
        if record.get(SEAL) != seal(record):
            raise UserError(
                f"{file}: its content does not give its own hash ({SEAL}); make it again with `lco lab --record`"
            )
        effects += [
            Effect(found["claim"].rstrip("."), found["number"], 1 if found["supported"] else -1)
            for found in record["lab"]
            if found["experiment"] in claim.given["experiments"] and found["said"].startswith(claim.given["paper"])
        ]
    return effects, 1 if effects else 0


def keys(records: Sequence[Record]) -> set[str]:
    return {f"{r['model']['sha256']}/{row_key(r)}/{r['seed']}" for r in records}


TESTS: Mapping[str, Callable[[Claim, Sequence[Path]], Found]] = {
    "above": above,
    "level": level,
    "keeps_pass_at_k": keeps_pass_at_k,
    "gains_are_the_rewards": gains_are_the_rewards,
    "stands_where_others_fall": stands_where_others_fall,
    "ends_above_by_a_knob": ends_above_by_a_knob,
    "measured_in_the_laboratory": measured_in_the_laboratory,
}


def untested(claim: Claim) -> str:
    """What a claim lacks that no record speaks of."""
    return claim.takes or f"no records in {' and '.join(claim.results)}"


def table_of(judged: Sequence[tuple[Claim, ClaimVerdict]]) -> Table:
    """A row a claim: its words and source, the verdict, and every number that it is computed from."""
    rows = tuple(
        (
            claim.words,
            claim.said,
            verdict.word,
            "; ".join(f"{e.of} {e.found}" for e in verdict.effects) or untested(claim),
            str(verdict.records or ""),
        )
        for claim, verdict in judged
    )
    share = sum(verdict.word != UNTESTED for _, verdict in judged)
    notes = (
        f"{share} of {len(judged)} claims are tested. Supported: every number speaks for the claim; contradicted: every number "
        f"against it; mixed: some do, or cannot be told. Differences are in points, hundredths of a score, with 95 % intervals "
        "over seeds and problems. The records are of a miniature, so a verdict holds for it.",
    )
    return Table("Claims", ("claim", "said in", "verdict", "effect, or what a test takes", "records"), rows, notes)
