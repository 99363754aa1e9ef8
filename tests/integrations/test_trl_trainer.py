"""LCOTrainer against the suite's own learner, and against TRL's own divergence kernel. Needs TRL 1.16, which is no part of the
suite: `make peers` makes an environment that has it and runs these."""

import copy
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lco.config import Experiment
from lco.heads import FixedHead, HeadRequest, LinearHead, token_loss
from lco.methods import METHODS
from lco.methods.objective import Signal
from lco.policy import PolicyModel
from lco.problems import Problem
from lco.rollout.records import Row, collate, sampled_mask
from lco.training.engine import TorchEngine
from lco.training.learner import Learner
from lco.training.state import Policies, Rollout, VerifiedRow
from lco.verifier import Verdict
from tests.conftest import START

pytest.importorskip("trl", reason="TRL is not installed; `make peers` makes an environment that has it")
pytestmark = pytest.mark.long

from accelerate.state import AcceleratorState, GradientState  # noqa: E402
from datasets import Dataset  # noqa: E402
from transformers import TrainerCallback  # noqa: E402
from trl import GRPOConfig  # noqa: E402
from trl.kernels.chunked_divergence import ChunkedDivergenceFunction  # noqa: E402

from lco.errors import UserError  # noqa: E402
from lco.integrations.trl import LCOTrainer  # noqa: E402

CASES = {
    "lco_kld": {"beta": 0.5},
    "lco_mse": {"beta": 0.5},
    "lco_lch": {"beta": 0.5, "beta_negative_scale": 2.0},
    "lco_mse raw": {"beta": 0.5, "target_space": "raw"},
    "lco_mse weighted": {"beta": 0.5, "target_space": "weighted"},
    "lco_mse token_logprob": {"beta": 0.5, "target_space": "token_logprob"},
    "lco_kld sparse_ips": {"beta": 0.5, "estimator": "sparse_ips"},
}
QUESTIONS = [
    f"{name} has {n} apples . eats {k} . finds 8 ?"
    for name in ("Ann", "Ben", "Eva")
    for n, k in ((12, 5), (9, 3), (7, 2), (15, 6))
]


def reward(completions, **_):
    """Some of the rows are right, whatever they say; the same completion always is or is not."""
    return [float(len(completion[0]["content"]) % 3 == 0) for completion in completions]


class Recorded(LCOTrainer):
    """Keeps every micro-batch that its loss was asked for, with the number of its optimizer step."""

    def _compute_loss(self, model, inputs):
        kept = {name: value.detach().clone() for name, value in inputs.items()}
        self.seen = [*getattr(self, "seen", []), (self.state.global_step, kept)]
        return super()._compute_loss(model, inputs)


def trainer_of(tmp_path, method="lco_kld", hyper=None, kind=LCOTrainer, callbacks=(), **changes):
    """Rollouts of 16 rows, 4 micro-batches of 4, two to an optimizer step, all of them twice."""
    settings = {
        "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "steps_per_generation": 4, "num_iterations": 2,
        "num_generations": 4, "max_completion_length": 20, "scale_rewards": "none", "learning_rate": 1e-3, "max_steps": 20,
        "lr_scheduler_type": "constant", "bf16": False, "gradient_checkpointing": False, "save_strategy": "no",
        "use_cpu": True, "seed": 3, "optim": "adamw_torch", "disable_tqdm": True, "max_grad_norm": 1.0,
    }  # fmt: skip
    others = {"peft_config": changes.pop("peft_config")} if "peft_config" in changes else {}
    config = GRPOConfig(output_dir=str(tmp_path), **{**settings, **changes})
    rows = Dataset.from_list([{"prompt": [{"role": "user", "content": question}]} for question in QUESTIONS])
    return kind(
        str(START / "llama"),
        reward,
        config,
        method=method,
        hyper=hyper,
        train_dataset=rows,
        callbacks=list(callbacks),
        **others,
    )


def rows_of(batches):
    """TRL's padded rows as the suite's, and their groups and advantages."""
    rows, advantages = [], []
    for part in batches:
        for i, prompt in enumerate(part["prompt_ids"]):
            prompt_ids = tuple(prompt[part["prompt_mask"][i].bool()].tolist())
            response = tuple(part["completion_ids"][i][part["completion_mask"][i].bool()].tolist())
            rows.append(Row(str(prompt_ids), prompt_ids, response, "stop", ()))
            advantages.append(float(part["advantages"][i]))
    return rows, torch.tensor(advantages)


def signal_of(rows, tokenizer):
    """What the suite knows of the rows: their rewards by the same function, their groups by their prompts."""
    texts = [tokenizer.decode(row.response_ids, skip_special_tokens=True) for row in rows]
    groups = {group: number for number, group in enumerate(dict.fromkeys(row.group for row in rows))}
    return Signal(
        rewards=torch.tensor(reward([[{"content": text}] for text in texts])),
        groups=torch.tensor([groups[row.group] for row in rows]),
        mask=sampled_mask(rows),
        truncated=torch.zeros(len(rows), dtype=torch.bool),
        length_limit=20,
    )


def rollout_of(rows, signal):
    """The rows as a rollout of the suite's, which nobody judges here."""
    verified = [VerifiedRow(row, Problem(row.group, "", ""), Verdict(True, None, "", 0.0)) for row in rows]
    return Rollout(0, verified, verified, signal, {})


def learner_of(model, method, hyper, **changes):
    experiment = Experiment(
        model="tiny", lr=1e-3, micro_batch=8, max_new_tokens=20, beta2=0.999, weight_decay=0.0, clip_norm=1.0
    )
    policies = Policies(TorchEngine(PolicyModel(model), experiment), None, {}, 8)
    return Learner(experiment, METHODS[method].bind(hyper), policies)


def gradients(model):
    return torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradient_are_the_suites_on_the_same_rollout(tmp_path, case):
    """Off-policy: the weights have moved since TRL's old pass. The suite pads on the other side, keeps its own π_old,
    computes its own advantages, and takes the whole step in one micro-batch."""
    method, hyper = case.split()[0], CASES[case]
    trainer = trainer_of(tmp_path, method, hyper)
    trainer.current_gradient_accumulation_steps = 2
    trainer.model.train()
    examples = [{"prompt": [{"role": "user", "content": q}]} for q in QUESTIONS[:4] for _ in range(4)]
    trainer._prepare_inputs(examples)
    step = trainer._buffered_inputs[2:4]
    rows, advantages = rows_of(step)
    whole, _ = rows_of(trainer._buffered_inputs)
    learner = learner_of(copy.deepcopy(trainer.model), method, hyper)
    signal = signal_of(whole, trainer.processing_class)
    chosen = list(range(8, 16))
    _, _, off_policy = learner.prepare_rollout(rollout_of(whole, signal), [list(range(8)), chosen])
    assert rows == whole[8:]
    torch.testing.assert_close(off_policy.constants["advantage"][8:, 0], advantages, rtol=1e-6, atol=1e-6)
    for model in (trainer.model, learner.policies.engine.policy.model):
        g = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for p in model.parameters():
                p += 0.02 * torch.randn(p.shape, generator=g)
    trainer.state.global_step = 1
    total = 0.0
    for number, inputs in enumerate(step):
        trainer._step = 2 + number
        loss = trainer._compute_loss(trainer.model, inputs)
        loss.backward()
        total += float(loss)
    expected = 0.0
    scale, parts = learner.scale_tokens(off_policy, chosen), learner.policies.share(chosen)
    for part in parts:
        answer = learner.policies.engine.forward(
            collate([whole[row] for row in part.rows]), learner.loss_request(off_policy, part, scale)
        )
        answer.loss.backward()
        expected += float(answer.loss)
    ours, theirs = gradients(learner.policies.engine.policy.model), gradients(trainer.model)
    assert total == pytest.approx(expected, rel=2e-5)
    assert float((ours - theirs).norm() / ours.norm()) < 2e-5
    assert float(ours.norm()) > 1e-3


@pytest.mark.parametrize("method", ["lco_kld", "lco_mse", "lco_lch"])
def test_twenty_steps_of_trls_loop_are_the_suites(tmp_path, method):
    """TRL's loop samples and orders the rows; the suite's learner takes the same rows in the same order."""
    hyper = {"beta": 0.5}
    after = []

    class Keep(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **_):
            after.append(copy.deepcopy(model.state_dict()))

    trainer = trainer_of(tmp_path, method, hyper, Recorded, [Keep()])
    start = copy.deepcopy(trainer.model)
    trainer.train()
    assert len(after) == 20
    learner = learner_of(start, method, hyper)
    first = {name: value.clone() for name, value in start.state_dict().items()}
    by_step = {}
    for step, inputs in trainer.seen:
        by_step.setdefault(step, []).append(inputs)
    for rollout in range(5):  # two parts of a rollout, twice
        parts = [by_step[4 * rollout + k] for k in range(4)]
        rows, advantages = rows_of([*parts[0], *parts[1]])
        signal = signal_of(rows, trainer.processing_class)
        plan = [list(range(8)), list(range(8, 16))] * 2
        _, on_policy, off_policy = learner.prepare_rollout(rollout_of(rows, signal), plan)
        torch.testing.assert_close(on_policy.constants["advantage"][:, 0], advantages, rtol=1e-6, atol=1e-6)
        for number, chosen in enumerate(plan):
            learner.update_policy(off_policy if number else on_policy, chosen)
            ours, theirs = start.state_dict(), after[4 * rollout + number]
            apart = sum(float((ours[name] - theirs[name]).square().sum()) for name in ours) ** 0.5
            moved = sum(float((ours[name] - first[name]).square().sum()) for name in ours) ** 0.5
            assert moved > 0
            assert apart < 1e-3 * moved, (rollout, number, apart / moved)


def test_the_exact_divergence_is_trls_own_kernel(tmp_path):
    """LCO-KLD is KL(π* ‖ π_θ), and TRL's kernel takes π* as a teacher: old hidden states with the tilted token's one-hot beside
    them, old head with an identity beside it."""
    g = torch.Generator().manual_seed(0)
    tokens, width, vocabulary, beta = 23, 12, 41, 0.5

    def draw(*shape):
        return torch.randn(*shape, generator=g)

    hidden, weight = draw(tokens, width).requires_grad_(), draw(vocabulary, width).requires_grad_()
    old_hidden, old_weight = (
        hidden.detach() + 0.3 * draw(tokens, width),
        weight.detach() + 0.1 * draw(vocabulary, width),
    )
    sampled, advantage = torch.randint(vocabulary, (tokens,), generator=g), draw(tokens)
    objective = METHODS["lco_kld"].bind({"beta": beta})
    request = HeadRequest(
        sampled, objective.statistics, {"advantage": advantage}, torch.ones(tokens) / tokens,
        FixedHead(old_hidden, LinearHead(old_weight)), objective.target,
    )  # fmt: skip
    loss, _ = token_loss(hidden, LinearHead(weight), objective.loss, request)
    ours = torch.autograd.grad(loss, [hidden, weight])
    tilt = torch.nn.functional.one_hot(sampled, vocabulary) * (advantage / beta)[:, None]
    teacher_hidden = torch.cat([old_hidden, tilt], 1)
    teacher_weight = torch.cat([old_weight, torch.eye(vocabulary)], 1)
    divergence, _ = ChunkedDivergenceFunction.apply(hidden, weight, None, teacher_hidden, teacher_weight, None, 0.0)
    theirs = torch.autograd.grad(divergence.mean(), [hidden, weight])
    assert float(loss) == pytest.approx(float(divergence.mean()), rel=1e-5)
    assert float(loss) > 0.05
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_on_policy_nothing_is_kept_of_the_old_policy(tmp_path):
    trainer = trainer_of(tmp_path, steps_per_generation=2, num_iterations=1, max_steps=1, kind=Recorded)
    trainer.train()
    assert not any(name.startswith("lco_") for _, inputs in trainer.seen for name in inputs)


def test_an_adapter_alone_learns_under_peft(tmp_path):
    """LoRA below the head; the old head is the frozen one."""
    from peft import LoraConfig

    lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    trainer = trainer_of(tmp_path, peft_config=lora, max_steps=4, kind=Recorded, learning_rate=1e-2)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    changed = {name for name, p in trainer.model.named_parameters() if not torch.equal(p, before[name])}
    assert changed
    assert all("lora_" in name for name in changed)


@pytest.mark.parametrize("method", ["lco_kld", "lco_lch"])
def test_under_autocast_to_bfloat16_the_gradient_is_that_of_float32_but_for_rounding(tmp_path, method):
    """TRL's default. The body runs in bfloat16, the head's mathematics stay float32."""
    found, rollout = [], None
    for bf16 in (False, True):
        trainer = trainer_of(tmp_path, method, {"beta": 0.5}, bf16=bf16)
        model = trainer.accelerator.prepare_model(trainer.model)
        model.train()
        examples = [{"prompt": [{"role": "user", "content": q}]} for q in QUESTIONS[:4] for _ in range(4)]
        torch.manual_seed(0)
        inputs = trainer._prepare_inputs(examples)
        if rollout is None:
            rollout = inputs, trainer._buffered_inputs
        inputs, trainer._buffered_inputs = rollout  # the same rows for both
        loss = trainer._compute_loss(model, inputs)
        loss.backward()
        found.append(gradients(trainer.model).float())
        teardown_function()
    exact, rough = found
    assert 0 < float((exact - rough).norm() / exact.norm()) < 0.1


def test_an_evaluation_amid_a_rollout_leaves_the_old_policy_alone(tmp_path):
    """The same run with an evaluation after each step ends with the same weights, where sampling is not disturbed."""
    trainer = trainer_of(tmp_path, max_steps=4)
    trainer.model.train()
    examples = [{"prompt": [{"role": "user", "content": q}]} for q in QUESTIONS[:4] for _ in range(4)]
    trainer._prepare_inputs(examples)
    kept, head = trainer._buffered_inputs[0]["lco_old_hidden"].clone(), trainer._old_head.weight.clone()
    with torch.no_grad():
        for p in trainer.model.parameters():
            p += 0.01
    trainer.model.eval()
    trainer._prepare_inputs(examples)
    trainer.model.train()
    assert torch.equal(trainer._buffered_inputs[0]["lco_old_hidden"], kept)
    assert torch.equal(trainer._old_head.weight, head)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method": "lco_klb"}, "did you mean 'lco_kld'"),
        ({"hyper": {"advantage": "grpo"}}, "the trainer computes it"),
        ({"hyper": {"estimator": "logprob"}}, "sparse or sparse_ips"),
        ({"beta": 0.1}, "LCO's own β stands in hyper"),
        ({"loss_type": "cispo"}, "only TRL's own losses read"),
        ({"top_p": 0.9}, "another distribution"),
    ],
)
def test_what_the_loss_would_not_read_is_refused_in_one_sentence(tmp_path, changes, words):
    with pytest.raises(UserError, match=re.escape(words)):
        trainer_of(tmp_path, **changes)


def test_two_ranks_under_accelerate_make_the_step_of_one(tmp_path):
    """Two processes with half of the rows each, against one with all: the divisor is that of all ranks together."""
    found = []
    for ranks in (1, 2):
        out = tmp_path / f"{ranks}.pt"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
        done = subprocess.run(
            [*command, "-m", "tests.integrations.trl_ranks", str(out)], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-3000:]
        found.append(torch.load(out, weights_only=True))
    one, two = found
    assert float(one.norm()) > 1e-3
    assert float((one - two).norm() / one.norm()) < 1e-5


def test_the_pages_script_improves_the_start_model_by_trls_own_loop(tmp_path):
    text = Path("docs/trl.md").read_text(encoding="utf-8")
    script = tmp_path / "script.py"
    script.write_text(
        re.search(r"```python\n(.*?)```", text, re.DOTALL)[1].replace('"runs/trl"', repr(str(tmp_path / "out")))
    )
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        capture_output=True,
        text=True,
        timeout=3000,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    before, after = (float(re.search(rf"right {when}: (\S+)", done.stdout)[1]) for when in ("before", "after"))
    assert after > before + 0.1, done.stdout


def teardown_function():
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
