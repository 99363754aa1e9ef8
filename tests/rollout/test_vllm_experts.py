"""A mixture of experts under vLLM: the trainer's weights after a sync, under the names of the files and packed anew."""

import pytest
import torch

from lco.errors import UserError
from lco.models import check_names, checkpoint_weights
from lco.policy import PolicyModel, Statistics
from lco.rollout.agreement import check_agreement
from lco.rollout.records import Sampling
from lco.rollout.vllm import VLLMSampler
from tests.rollout.conftest import save, trainer_gap

PROMPTS = [("a", (1, 5, 6, 9)), ("b", (1, 8)), ("c", (1, 3, 4, 5, 6, 7, 8, 9, 10))]
SAMPLING = Sampling(temperature=1.0, top_p=1.0, top_k=0, max_new_tokens=16, samples=4, stop_token_ids=(2, 5))


def mixture(kind, seed):
    """Two layers of four experts, heads of 32 (the least that vLLM's CPU attention takes), random weights, float32."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        kind, vocab_size=64, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=32, max_position_embeddings=128, tie_word_embeddings=False, initializer_range=0.15,
        bos_token_id=1, eos_token_id=9, pad_token_id=0, num_experts=4, num_local_experts=4, num_experts_per_tok=2,
        moe_intermediate_size=64,
    )  # fmt: skip
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("kind", "separate"), [("qwen3_moe", False), ("mixtral", True)])
def test_a_mixture_of_experts_follows_the_trainers_weights(tmp_path, kind, separate):
    start, later = mixture(kind, seed=0), mixture(kind, seed=1)
    folder = save(start, tmp_path)
    check_names(later, folder)
    sampler = VLLMSampler(folder, "float32", cache_gib=0.1, max_model_len=64, separate_process=separate)

    def gap(model):
        return trainer_gap(model, sampler.sample(PROMPTS, SAMPLING, seed=7))

    def agree(model):
        policy = PolicyModel(model)
        return check_agreement(
            sampler,
            lambda batch: policy(batch, Statistics(["logprob"]))["logprob"],
            lambda value: [value],
            PROMPTS,
            SAMPLING,
            "float32",
        )

    try:
        assert gap(start) < 1e-4
        with pytest.raises(UserError, match="differ by"):
            agree(later)  # no sync yet
        for model in (later, start, later):
            sampler.sync(checkpoint_weights(model, model.state_dict().items()))
            assert gap(model) < 1e-4
            assert agree(model) < 1e-4
    finally:
        sampler.close()
