"""Records → report folder: table.md, table.tex, learning_curves, validation, one_by_one, index.html. Byte for byte repeatable."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lco.evidence import page, plots, records
from lco.evidence.differences import differences
from lco.evidence.tables import Record, Table, by_class, comparison, latex, markdown

LEAD = (
    "Every method improved the same start models with equal budgets: prompts, samples, token limit, updates and seeds. "
    "Knobs were chosen by a search on validation problems: four tries a method, unless the README beside the records says more."
    "\n\n"
    "Sampling at a lower temperature lifts the start model without any training, so “beyond sharpening” says what is left "
    "of a gain after that. A miniature shows which methods are stable on this problem; it does not rank methods for large "
    "models."
)


def titles() -> dict[str, str]:
    """Printed names. The registry is not imported here, because it needs torch and this package does not."""
    return {
        "lco_kld": "LCO-KLD", "lco_mse": "LCO-MSE", "lco_lch": "LCO-LCH", "ppo": "PPO", "grpo": "GRPO",
        "reinforce": "REINFORCE", "rft": "RFT", "sft": "SFT",
        "lco_kld_reference": "LCO-KLD, released code", "lco_mse_reference": "LCO-MSE, released code",
        "dr_grpo": "Dr. GRPO", "dapo": "DAPO", "dapo_refill": "DAPO with refill", "gspo": "GSPO", "gspo_token": "GSPO-token",
        "cispo": "CISPO", "reinforce_pp": "REINFORCE++", "reinforce_pp_baseline": "REINFORCE++-baseline", "rloo": "RLOO",
        "kimi": "Kimi OPMD", "kimi_token": "Kimi, token level", "pmd_mean": "PMD-mean", "pmd_partition": "PMD-partition",
        "lco_lch_reference": "LCO-LCH, released code", "lco_rkl": "LCO, reverse KL", "lco_rho": "LCO, ρ-target", "dpo": "DPO",
    }  # fmt: skip


def build(source: Path, out: Path, title: str = "The miniature") -> list[Table]:
    """Reads all records below `source` and writes the report into `out`; returns its tables."""
    found = records.read_all(source)
    names = titles()
    tables: list[Table] = []
    for model_class, runs in by_class(found).items():
        between = differences(model_class, runs, names)
        tables += [comparison(model_class, runs, names), *([between] if between else [])]
    out.mkdir(parents=True, exist_ok=True)
    (out / "table.md").write_text("\n".join(markdown(table) for table in tables), encoding="utf-8")
    (out / "table.tex").write_text("\n".join(latex(table) for table in tables), encoding="utf-8")
    figures = draw(found, names, out)
    (out / "index.html").write_text(page.build(title, LEAD, tables, figures, found, names), encoding="utf-8")
    return tables


def draw(found: Sequence[Record], names: dict[str, str], out: Path) -> list[tuple[str, Path]]:
    curves = plots.learning_curves(found, names, out / "learning_curves")[0]
    watched = plots.validation_curves(found, names, out / "validation")[0]
    each = plots.one_by_one(found, names, out / "one_by_one")[0]
    return [
        ("Training: right answers, entropy, gradient norm before clipping, and KL from the sampling policy to the policy "
         "of the last update, by rollout. Thin lines, where few methods are shown, are seeds. SFT learns from reference "
         "solutions, so it has no rollout whose answers could be right.", curves),
        ("Validation problems during training.", watched),
        ("Every method by itself: pass@1 at T = 1 on validation problems, one line a seed; grey are the other methods' means.",
         each),
    ]  # fmt: skip
