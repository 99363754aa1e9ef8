"""A model is loaded whole or refused by name: weights that are missing or foreign, folders that hold something else."""

import json
import math
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from lco import cli, models
from lco.errors import UserError
from lco.models.fit import check_fit
from lco.rollout.transformers import TransformersSampler
from tests.conftest import START, small, tiny_model, train


@pytest.fixture
def folder(tmp_path):
    """A tiny model as its users have it: weights, configuration, tokenizer."""
    return saved(tmp_path / "model")


def saved(folder, **kind):
    tiny_model(**kind).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(START / "llama" / name, folder)
    return folder


def broken(folder, change):
    """The folder with other tensors in its weights file."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})
    return folder


def load(folder):
    return models.load_model(str(folder), "float32", "cpu")


UP = "model.layers.0.mlp.up_proj.weight"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop(UP), rf"lacks the weights {UP}, which would be random"),
        (lambda t: [t.pop(n) for n in sorted(t)[:6]], r"lacks the weights .*, .*, .*, .* and \d more, "),
        (lambda t: t.update({"score.weight": torch.ones(2, 32)}), r"does not read: score\.weight"),
        (
            lambda t: t.update({"model.norm.weight": torch.ones(5)}),
            r"another shape: model\.norm\.weight \(\[5\], not \[32\]\)",
        ),
    ],
)
def test_missing_foreign_and_misshapen_weights_are_named(folder, change, words):
    with pytest.raises(UserError, match=words):
        load(broken(folder, change))


def test_a_missing_head_is_named_where_it_is_not_tied(tmp_path):
    untied = broken(saved(tmp_path / "untied", tied=False), lambda t: t.pop("lm_head.weight"))
    with pytest.raises(UserError, match=r"lacks the weights lm_head\.weight"):
        load(untied)
    tied = broken(saved(tmp_path / "tied"), lambda t: t.pop("model.embed_tokens.weight"))
    with pytest.raises(UserError, match=r"lacks the weights .*model\.embed_tokens\.weight"):
        load(tied)


def test_what_is_rightly_absent_or_superfluous_is_no_fault(tmp_path):
    """A tied head is in no file, an old checkpoint has rotary frequencies in every layer, a large one several files."""
    inverse = "model.layers.0.self_attn.rotary_emb.inv_freq"
    folder = broken(saved(tmp_path / "tied"), lambda t: t.update({inverse: torch.ones(8)}))
    assert load(folder).config.tie_word_embeddings
    network = tiny_model("llama", tied=False)
    network.save_pretrained(tmp_path / "parts", max_shard_size="20KB")
    assert len(list((tmp_path / "parts").glob("*.safetensors"))) > 1
    assert models.weights_sha256(load(tmp_path / "parts")) == models.weights_sha256(network)


def test_a_weight_missing_from_one_of_several_files_is_named(tmp_path):
    tiny_model(tied=False).save_pretrained(tmp_path, max_shard_size="20KB")
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    file = tmp_path / index["weight_map"].pop(UP)
    save_file({n: t for n, t in load_file(file).items() if n != UP}, file, metadata={"format": "pt"})
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=rf"lacks the weights {UP}"):
        load(tmp_path)


def of_several_files(folder, edit=lambda index: None):
    """A model of four layers in several files; its index may be edited."""
    tiny_model("llama", tied=False, layers=4).save_pretrained(folder, max_shard_size="20KB")
    index = folder / "model.safetensors.index.json"
    found = json.loads(index.read_text())
    edit(found["weight_map"])
    index.write_text(json.dumps(found))
    return found["weight_map"]


def without(file, *names):
    save_file({n: t for n, t in load_file(file).items() if n not in names}, file, metadata={"format": "pt"})


def test_what_files_and_index_tell_of_missing_weights_needs_no_loading(tmp_path):
    """`check_local` reads heads alone: a file that the index names, a tensor of it, one that the other layers have."""
    files = of_several_files(tmp_path / "whole")
    models.check_local(str(tmp_path / "whole"))
    of_several_files(tmp_path / "file")
    (tmp_path / "file" / files[UP]).unlink()
    with pytest.raises(UserError, match=rf"lacks {files[UP]}, which its model\.safetensors\.index\.json names"):
        models.check_local(str(tmp_path / "file"))
    of_several_files(tmp_path / "tensor")
    without(tmp_path / "tensor" / files["model.norm.weight"], "model.norm.weight")
    with pytest.raises(UserError, match=r"lacks the weights model\.norm\.weight, which would be random"):
        models.check_local(str(tmp_path / "tensor"))
    of_several_files(tmp_path / "layer", lambda index: index.pop(UP))
    without(tmp_path / "layer" / files[UP], UP)
    with pytest.raises(UserError, match=rf"lacks the weights {UP}, which would be random"):
        models.check_local(str(tmp_path / "layer"))
    of_several_files(tmp_path / "index")
    (tmp_path / "index" / "model.safetensors.index.json").write_text("{")
    with pytest.raises(UserError, match=r"model\.safetensors\.index\.json is damaged"):
        models.check_local(str(tmp_path / "index"))


def test_layers_that_differ_in_kind_are_no_fault(tmp_path):
    """Of a family whose layers are not known to be alike nothing is concluded from the others."""
    of_several_files(tmp_path)
    lacking = next(iter(tmp_path.glob("*00001*")))
    configure(tmp_path, model_type="of-another-kind")
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    gone = [name for name, file in index["weight_map"].items() if file == lacking.name][:1]
    index["weight_map"].pop(gone[0])
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    without(lacking, *gone)
    models.check_local(str(tmp_path))


EVERY_MODEL = {
    "policy": lambda where: {"model": where},
    "reference": lambda where: {"method": "grpo", "hyper": {"beta": 0.1}, "reference_model": where},
    "verifier": lambda where: {"method": "lco_kld", "hyper": {"estimator": "logprob"}, "verifier_model": where},
    "dpo": lambda where: {"method": "lco_kld", "hyper": {"estimator": "dpo_ratio"}, "dpo_model": where},
    "critic": lambda where: {"method": "ppo", "critic": "separate", "critic_model": where},
}


@pytest.mark.parametrize("which", EVERY_MODEL)
def test_every_model_of_a_run_is_loaded_whole(tmp_path, which):
    where = shutil.copytree(START / "llama", tmp_path / "start")
    broken(where, lambda t: t.pop(UP))
    with pytest.raises(UserError, match=rf"start lacks the weights {UP}"):
        train(small(tmp_path / "run", eval_every=0, **EVERY_MODEL[which](str(where))))


def test_an_evaluated_model_is_loaded_whole(tmp_path, capsys):
    where = shutil.copytree(START / "llama", tmp_path / "start")
    broken(where, lambda t: t.pop(UP))
    out = ["--out", str(tmp_path / "results"), "--device", "cpu", "--limit", "1"]
    assert cli.main(["evaluate", "--model", str(where), "--tasks", "lco_miniature", *out]) == 2
    assert f"start lacks the weights {UP}" in capsys.readouterr().err


def test_a_cut_file_is_named(tmp_path):
    tiny_model(tied=False).save_pretrained(tmp_path, max_shard_size="20KB")
    second = sorted(tmp_path.glob("*.safetensors"))[1]
    for size in (second.stat().st_size // 2, 0):
        second.write_bytes(second.read_bytes()[:size])
        with pytest.raises(UserError, match=rf"{second.name} is cut or damaged .*get it again"):
            load(tmp_path)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_no_finite_numbers_are_named(folder, value):
    with pytest.raises(UserError, match=rf"no finite numbers in {UP};"):
        load(broken(folder, lambda t: t[UP][:1].fill_(value)))


def test_a_head_that_the_configuration_ties_away_is_named(tmp_path):
    folder = saved(tmp_path / "model", tied=True)
    embedding = "model.embed_tokens.weight"
    broken(folder, lambda t: t.update({"lm_head.weight": torch.randn_like(t[embedding])}))
    with pytest.raises(UserError, match=r"holds a head of its own, and its config\.json says that it is the embedding"):
        load(folder)
    broken(folder, lambda t: t.update({"lm_head.weight": t[embedding].clone()}))
    load(folder)


def test_pickled_weights_are_not_read(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"pytorch_model\.bin is pickled, which can run code"):
        load(folder)


def configure(folder, **values):
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))
    return folder


@pytest.mark.parametrize("method", ["gptq", "awq", "bitsandbytes", "fp8", "compressed-tensors", "unheard-of"])
def test_quantised_weights_are_refused_before_they_are_read(folder, method):
    (folder / "model.safetensors").unlink()
    configure(folder, quantization_config={"quant_method": method, "bits": 4})
    with pytest.raises(UserError, match=rf"are quantised \({method}\).*give the model that it was made from"):
        load(folder)


def test_an_adapter_beside_the_configuration_is_refused(folder):
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4}))
    with pytest.raises(UserError, match=r"holds an adapter .*merge it into its model"):
        load(folder)


def test_code_of_a_models_own_is_never_run(folder):
    configure(
        folder, model_type="unheard-of", auto_map={"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
    )
    (folder / "own.py").write_text("raise SystemExit('this must not run')")
    with pytest.raises(UserError, match=r"needs code of its own, which is never run"):
        load(folder)


def test_a_run_given_as_model_names_the_model_in_it(tmp_path, capsys):
    run = tmp_path / "runs" / "seed-0"
    (run / "checkpoints" / "step-2").mkdir(parents=True)
    (run / "config.json").write_text('{"method": "grpo"}')
    with pytest.raises(UserError, match=r"seed-0 is the folder of a run; it has no model yet"):
        models.load_config(str(run))
    final = saved(run / "checkpoints" / "final")
    for given in (run, run.parent, run / "checkpoints", run / "checkpoints" / "step-2"):
        with pytest.raises(UserError, match=rf"(its model is in|did you mean) {final}"):
            models.load_tokenizer(str(given))
    assert models.load_config(str(final)).model_type == "qwen2"
    assert cli.main(["evaluate", "--model", str(run), "--tasks", "lco_miniature", "--out", str(tmp_path)]) == 2
    assert f"its model is in {final}" in capsys.readouterr().err


def encoder(**changes):
    from transformers import BertConfig, BertLMHeadModel

    shape = {"num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
    return BertLMHeadModel(BertConfig(vocab_size=64, **shape, **changes)).eval()


def test_an_encoder_is_refused_and_the_same_class_as_decoder_is_not(tmp_path):
    encoder().save_pretrained(tmp_path)
    with pytest.raises(
        UserError, match=r"BertLMHeadModel\) reads later tokens when it predicts one, so it is an encoder"
    ):
        load(tmp_path)
    with pytest.raises(UserError, match=r"changes its logits after the linear head"):  # BERT's head has a layer more
        check_fit(encoder(is_decoder=True), "a decoder")


def test_logits_that_are_not_the_heads_are_refused(tmp_path):
    """Cohere multiplies its logits by a constant; with 1 they are the head's."""
    from transformers import CohereConfig, CohereForCausalLM

    shape = {"num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
    for scale, where in ((0.5, "scaled"), (1.0, "plain")):
        CohereForCausalLM(CohereConfig(vocab_size=64, logit_scale=scale, **shape)).save_pretrained(tmp_path / where)
    with pytest.raises(UserError, match=r"changes its logits after the linear head"):
        load(tmp_path / "scaled")
    assert load(tmp_path / "plain").config.logit_scale == 1


def test_a_recurrent_state_is_refused_by_the_sampler_that_cannot_hold_it():
    from transformers import LlamaConfig, MambaConfig, MambaForCausalLM

    mamba = MambaForCausalLM(MambaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=1, state_size=4))
    with pytest.raises(UserError, match=r"MambaForCausalLM carries a recurrent state.*--rollouts vllm"):
        TransformersSampler(mamba)
    assert TransformersSampler(tiny_model("llama")).model.config.model_type == LlamaConfig.model_type
