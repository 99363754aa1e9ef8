"""One optimizer step's gradient of LCOTrainer on fixed rows, summed over accelerate's ranks; rank 0 writes it.

python -m torch.distributed.run --standalone --nproc-per-node=2 -m tests.integrations.trl_ranks OUT.pt
"""

import sys
import tempfile

import torch
from datasets import Dataset
from trl import GRPOConfig

from lco.integrations.trl import LCOTrainer
from tests.conftest import START


def rows():
    """Eight rows of unequal lengths, as TRL hands them over."""
    g = torch.Generator().manual_seed(0)
    lengths = torch.tensor([3, 9, 1, 5, 12, 2, 7, 4])
    mask = (torch.arange(12) < lengths[:, None]).long()
    return {
        "prompt_ids": torch.randint(5, 70, (8, 6), generator=g),
        "prompt_mask": torch.ones(8, 6, dtype=torch.long),
        "completion_ids": torch.randint(5, 70, (8, 12), generator=g) * mask,
        "completion_mask": mask,
        "advantages": torch.randn(8, generator=g),
        "num_items_in_batch": mask.sum(),
    }


def main(out):
    with tempfile.TemporaryDirectory() as folder:
        config = GRPOConfig(
            output_dir=folder, bf16=False, gradient_checkpointing=False, use_cpu=True, num_generations=2,
            per_device_train_batch_size=4, report_to="none",
        )  # fmt: skip
        prompts = Dataset.from_list([{"prompt": [{"role": "user", "content": "Ann has 12 apples ?"}]}] * 8)
        trainer = LCOTrainer(
            str(START / "llama"), lambda completions, **_: [0.0] * len(completions), config, train_dataset=prompts
        )
        trainer._step_of_rollout = trainer.state.global_step  # the rows are this policy's own
        model = trainer.accelerator.prepare_model(trainer.model)
        model.train()
        rank, world = trainer.accelerator.process_index, trainer.accelerator.num_processes
        share = slice(rank * 8 // world, (rank + 1) * 8 // world)
        inputs = {name: value[share] if value.dim() else value for name, value in rows().items()}
        trainer.accelerator.backward(trainer._compute_loss(model, inputs))
        if rank == 0:
            torch.save(torch.cat([p.grad.flatten() for p in trainer.model.parameters()]), out)


main(sys.argv[1])
