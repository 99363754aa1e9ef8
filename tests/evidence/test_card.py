"""`lco card`: a run's last model says what it is, and nothing that its files say can write markup."""

import json
import re

import pytest

from lco.cli import main
from lco.evidence import records
from lco.evidence.card import MARK, NOT_SAID, Licence, front_matter, licence_of, render_card
from tests.conftest import START, small, train
from tests.evidence.made import evaluation, finished

LINE = {
    "step": 1,
    "rows": 4,
    "updates": 2,
    "tokens": 9,
    "accuracy": 0.5,
    "seconds": {"total": 1800.0},
    "updates_skipped": 0,
}


def scored(temperature, correct, samples):
    found = evaluation(temperature, correct, samples)
    found["scores"] |= {"interval": [0.25, 0.75], "no_answer": 0.125, "truncated": 0.0}
    return found


def record(tmp_path, evaluations=(), **experiment):
    """Of a run that is finished and evaluated, as `lco record` would make it."""
    run = finished(tmp_path / "run", [LINE], "lco_kld", {"title": "LCO-KLD", "family": "lco", "source": "rollouts"})
    config = json.loads((run / "config.json").read_text())
    more = {"split": "train", "prompt": "boxed", "extraction": "lenient", "hyper": {"beta": 0.7}, "lr": 1e-6}
    (run / "config.json").write_text(json.dumps({**config, **more, **experiment}))
    return {**records.distil(run, final="f" * 64), "evaluations": list(evaluations)}


def test_a_card_says_method_knobs_data_scores_cost_and_where_it_is_from(tmp_path):
    found = {**record(tmp_path, [scored(1.0, [4, 0], 8)]), "plan_sha256": "e" * 64}
    text = render_card(found, Licence("apache-2.0"), "org/base", 17)
    assert "# LCO-KLD on org/base" in text
    assert "(arXiv 2603.00963)" in text
    assert "| beta | 0.7 |" in text
    assert "| estimator | sparse |" in text  # a default that the method reads
    assert "| lr | 1e-06 |" in text
    assert "| t | 2 | 8 | 1 | 25.0% | 25.0% to 75.0% | 12.5% | 0.0% |" in text
    assert "| problems drawn from | 17 |" in text
    assert "0.5 device hours" in text
    assert all(digest * 64 in text for digest in "afe")  # start weights, these weights, plan
    assert "org/base's folder says: apache-2.0." in text


def test_what_is_not_known_is_said_to_be_unknown(tmp_path):
    text = render_card(record(tmp_path), Licence(), "", 1)
    assert "None: this model was not evaluated." in text
    assert NOT_SAID in text
    assert "belongs to no planned study" in text
    assert "commit of the suite | unknown" in text
    assert "license" not in text.split("---")[1]


def test_front_matter_is_what_the_hub_reads(tmp_path):
    from huggingface_hub import ModelCard

    found = record(tmp_path, [scored(1.0, [4, 0], 8)])
    data = ModelCard(render_card(found, Licence("other", "My own"), "org/base", 1)).data
    assert (data.license, data.license_name, data.base_model) == ("other", "My own", "org/base")
    (result,) = data.eval_results
    assert (result.dataset_type, result.metric_value) == ("t", 0.25)


BAD = ["<script>x</script>", "a | b", "x\n# heading", "[a](javascript:b)", "\u202egnp", "{{ 7 * 7 }}", "a: b\n---\n"]


@pytest.mark.parametrize("bad", BAD)
def test_nothing_that_a_record_says_becomes_markup(tmp_path, bad):
    found = record(tmp_path, [{**scored(1.0, [4, 0], 8), "task": bad}], problems=bad, prompt=bad)
    found["model"]["name"] = bad
    found["cost"]["device"] = bad
    text = render_card(found, Licence("other", bad), "", 1)
    head, _, body = text.removeprefix("---\n").partition("\n---\n")
    plain = render_card(record(tmp_path / "plain", [scored(1.0, [4, 0], 8)]), Licence(), "", 1)
    assert "<script>" not in body
    assert not re.search(r"(?<!\\)\]\(javascript", body)
    assert "\u202e" not in body
    assert "49" not in body.split("## Training")[0]
    assert body.count("\n") == plain.partition("\n---\n")[2].count("\n")
    assert body.count("\n#") == plain.partition("\n---\n")[2].count("\n#")
    assert MARK not in head


def test_front_matter_keeps_what_it_is_told_inside_its_values(tmp_path):
    import yaml

    found = record(tmp_path)
    found["model"]["name"] = "x\nlicense: mit\n---\n"
    assert "license" not in yaml.safe_load(front_matter(found, Licence(), "", "T"))


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"README.md": "---\nlicense: apache-2.0\n---\n# M\n"}, Licence("apache-2.0")),
        ({"README.md": "---\nlicense: other\nlicense_name: qwen-research\n---\n"}, Licence("other", "qwen-research")),
        ({"README.md": "# M\n", "LICENSE": "\n  LLAMA 3.2 TERMS\ntext"}, Licence("other", "LLAMA 3.2 TERMS")),
        ({"README.md": "---\nlicense: [a, b\n---\n"}, Licence()),
        ({"README.md": "---\n- no mapping\n---\n"}, Licence()),
        ({}, Licence()),
    ],
)  # fmt: skip
def test_the_licence_is_what_the_base_models_folder_says(tmp_path, files, expected):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert licence_of(tmp_path) == expected
    assert licence_of(None) == Licence()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of one rollout, evaluated greedily."""
    folder = train(small(tmp_path_factory.mktemp("card") / "a", steps=1, eval_every=0))
    command = [
        "evaluate",
        "--model",
        str(folder / "checkpoints" / "final"),
        "--tasks",
        "lco_miniature",
        "--temperature",
        "0",
    ]
    assert main([*command, "--limit", "8", "--device", "cpu", "--out", str(folder / "evals")]) == 0
    return folder


def test_a_run_gets_its_card_and_a_second_call_writes_it_anew(run, capsys):
    place = run / "checkpoints" / "final" / "README.md"
    assert main(["card", str(run)]) == 0
    text = place.read_text(encoding="utf-8")
    assert str(place) in capsys.readouterr().out
    assert "# LCO-KLD on llama" in text
    assert "| lco_miniature | 8 | 1 | 0 |" in text
    assert str(START.parent) not in text
    place.write_text(text + "an old card\n")
    assert main(["card", str(run)]) == 0
    assert place.read_text(encoding="utf-8") == text


def test_a_readme_that_a_person_wrote_is_not_replaced_unasked(run, capsys):
    place = run / "checkpoints" / "final" / "README.md"
    place.write_text("mine\n")
    assert main(["card", str(run)]) == 2
    assert "was not written by lco card; move it away, or give --force" in capsys.readouterr().err
    assert place.read_text() == "mine\n"
    assert main(["card", str(run), "--force"]) == 0
    assert MARK in place.read_text(encoding="utf-8")


def test_the_plan_comes_from_the_runs_own_record_and_no_other(run, tmp_path, capsys):
    made = records.distil(run, plan="d" * 64)
    records.write(tmp_path / "own.json", made)
    assert main(["card", str(run), "--record", str(tmp_path / "own.json")]) == 0
    assert "d" * 64 in (run / "checkpoints" / "final" / "README.md").read_text(encoding="utf-8")
    made["source_sha256"]["config.json"] = "0" * 64
    records.write(tmp_path / "other.json", made)
    assert main(["card", str(run), "--record", str(tmp_path / "other.json")]) == 2
    assert "is the record of another run" in capsys.readouterr().err
    assert main(["card", str(tmp_path)]) == 2
    assert "there is no run in" in capsys.readouterr().err
