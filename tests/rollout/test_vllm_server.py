"""What a sampler makes of servers that fail, against a stand-in that fails on demand (real ones: test_vllm_server_long.py)."""

import logging

import pytest
import torch

from lco.addresses import FOLDER, TOKEN, URLS, read_addresses
from lco.errors import UserError
from lco.rollout import serve_command
from lco.rollout.records import Sampling
from lco.rollout.spread import Patience
from lco.rollout.vllm_server import VLLMServerSampler
from tests.rollout.simulated_server import SimulatedServer

PROMPTS = [(f"p{i}", (1, 2 + i % 5)) for i in range(24)]
SAMPLING = Sampling(temperature=1.0, top_p=1.0, top_k=0, max_new_tokens=4, samples=3, stop_token_ids=(2, 5))
SECRET = "a-word-that-nobody-else-knows"


@pytest.fixture
def servers():
    made = [SimulatedServer(), SimulatedServer()]
    yield made
    for server in made:
        server.close()


@pytest.fixture
def make(servers, tmp_path):
    made = []

    def sampler(token=SECRET):
        variables = {URLS: " ".join(server.url for server in servers), FOLDER: str(tmp_path), TOKEN: token}
        patience = Patience(in_flight=2, retry=0.01, give_up=60.0)
        made.append(VLLMServerSampler(read_addresses(variables), "float32", (1, 2, 3), patience=patience))
        return made[-1]

    yield sampler
    for each in made:
        each.close()


def weights(value):
    return iter([("model.embed_tokens.weight", torch.zeros(4)), ("lm_head.weight", torch.full((4,), value))])


def test_rows_are_in_order_carry_their_weights_number_and_do_not_depend_on_who_answers(make, servers):
    sampler, parts = make(), []
    sampler.sync(weights(-2.0))
    both = sampler.sample(PROMPTS, SAMPLING, 7, parts.extend)
    assert both == parts
    assert [row.group for row in both] == [group for group, _ in PROMPTS for _ in range(3)]
    assert {row.version for row in both} == {1}
    assert all(server.routes.count("/inference/v1/generate") > 1 for server in servers)
    servers[0].close()
    assert sampler.sample(PROMPTS, SAMPLING, 7) == both
    assert [row.response_ids for row in sampler.sample(PROMPTS, SAMPLING, 8)] != [row.response_ids for row in both]


def test_weights_are_read_while_nothing_runs_and_before_anything_is_asked(make, servers):
    make().sync(weights(-2.0))
    wanted = [
        "/pause",
        "/collective_rpc",
        "/collective_rpc",
        "/reset_prefix_cache",
        "/update_weight_version",
        "/resume",
    ]
    for server in servers:
        asked = [route for route in server.routes if route != "/health"]  # looked at meanwhile where that takes long
        assert asked[: len(wanted)] == wanted
        assert server.weight == -2.0


def test_a_server_that_was_started_again_gets_the_current_weights_and_none_of_its_own_rows_is_taken(
    make, servers, capsys
):
    sampler = make()
    sampler.sync(weights(-2.0))
    sampler.sync(weights(-3.0))
    servers[1].restart()
    servers[0].close()
    rows = sampler.sample(PROMPTS, SAMPLING, 7)
    assert {value for row in rows for value in row.logprobs} == {-3.0}
    assert {row.version for row in rows} == {2}
    assert servers[1].weight == -3.0
    said = capsys.readouterr().err
    assert "vLLM server 2 of 2 has other weights than the current ones" in said
    assert "vLLM server 2 of 2 is back, with the current weights" in said


def test_a_row_that_was_broken_off_is_sampled_again(make, servers):
    sampler = make()
    sampler.sync(weights(-2.0))
    whole = sampler.sample(PROMPTS, SAMPLING, 7)
    servers[0].aborts = 2
    assert sampler.sample(PROMPTS, SAMPLING, 7) == whole


def test_a_server_that_says_yes_and_keeps_its_weights_is_refused(make, servers):
    servers[1].reloads = False
    with pytest.raises(UserError, match=r"vLLM server \d of 2 and another one differ by 1 a token .*same `lco serve`"):
        make().sync(weights(-2.0))


def test_weights_without_a_head_are_refused(make):
    with pytest.raises(UserError, match=r"lack lm_head\.weight"):
        make().sync(iter([("model.embed_tokens.weight", torch.zeros(4))]))


def test_a_server_that_is_not_there_at_the_start_is_named(make, servers):
    servers[1].close()
    with pytest.raises(UserError, match=r"vLLM server 2 of 2 does not answer .*start it, or leave its address out"):
        make().sync(weights(-2.0))


def test_a_server_that_is_gone_at_a_later_synchronisation_is_named_and_the_others_go_on(make, servers, capsys):
    sampler = make()
    sampler.sync(weights(-2.0))
    servers[0].close()
    sampler.sync(weights(-3.0))
    assert (
        "vLLM server 1 of 2 does not answer (ConnectError); it gets the weights when it is back"
        in capsys.readouterr().err
    )
    assert {value for row in sampler.sample(PROMPTS, SAMPLING, 7) for value in row.logprobs} == {-3.0}


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/pause", 404, "has no /pause to ask; start it with `lco serve`"),
        ("/pause", 401, "asks for another token; put it into LCO_VLLM_TOKEN"),
        ("/collective_rpc", 500, "does not take the weights: .*does it see the folder"),
    ],
)
def test_a_server_that_refuses_weights_is_named_with_the_remedy_and_without_its_address(
    make, servers, path, status, words, caplog
):
    caplog.set_level(logging.DEBUG)
    servers[0].refuses[path] = status
    with pytest.raises(UserError, match=f"vLLM server 1 of 2 {words}") as error:
        make().sync(weights(-2.0))
    for secret in (SECRET, str(servers[0].http.server_port), str(servers[1].http.server_port)):
        assert secret not in str(error.value)
        assert secret not in caplog.text


def test_a_response_that_the_server_cuts_short_of_the_limit_is_no_truncated_one(make, servers):
    sampler = make()
    sampler.sync(weights(-2.0))
    servers[0].longest = servers[1].longest = 3
    with pytest.raises(UserError, match=r"cut a response at 3 of 4 tokens.*--max-model-len"):
        sampler.sample(PROMPTS, SAMPLING, 7)


def test_the_token_goes_to_every_server_and_an_empty_one_to_none(make, servers):
    make().sync(weights(-2.0))
    assert servers[0].authorization == servers[1].authorization == {f"Bearer {SECRET}"}
    servers[0].restart()
    servers[1].restart()
    make(token="").sync(weights(-2.0))
    assert servers[0].authorization == {None}


def test_the_weights_of_the_last_synchronisation_alone_are_kept_and_go_at_the_end(make, tmp_path):
    sampler = make()
    for value in (-2.0, -3.0):
        sampler.sync(weights(value))
        assert len([*tmp_path.glob("*/model-*.safetensors")]) == 1
    sampler.close()
    assert [*tmp_path.iterdir()] == []


def test_printing_addresses_shows_none():
    assert repr(read_addresses({URLS: "http://h:1", TOKEN: SECRET})) == "Addresses()"


@pytest.mark.parametrize(
    ("urls", "words"),
    [
        ("", "no server is named"),
        ("http://h:1 h:2", "address 2 of --vllm-url is none; write http://HOST:PORT"),
        ("http://me:secret@h:1", "address 1 of --vllm-url holds a name or password"),
        ("http://h:1/v1", "address 1 of --vllm-url goes on behind the port"),
        ("http://h:1 http://h:1/", "address 2 of --vllm-url was given before"),
        ("http://h:none", "address 1 of --vllm-url is none"),
    ],
)
def test_an_address_that_is_none_is_named_by_its_number(urls, words):
    with pytest.raises(UserError, match=words) as error:
        read_addresses({URLS: urls})
    assert "secret" not in str(error.value)


def parsed(*given):
    import argparse

    parser = argparse.ArgumentParser()
    serve_command.add_arguments(parser)
    return parser.parse_args(given)


def test_a_server_is_opened_to_other_machines_with_a_token_alone():
    serve_command.check_arguments(parsed("m"), {})
    serve_command.check_arguments(parsed("m", "--host", "0.0.0.0"), {TOKEN: SECRET})
    for host in ("0.0.0.0", "::", "node7"):
        with pytest.raises(UserError, match=f"--host {host} opens the server to other machines.*set {TOKEN}"):
            serve_command.check_arguments(parsed("m", "--host", host), {})


def test_a_model_that_a_server_cannot_read_is_named():
    with pytest.raises(UserError, match=r"vLLM does not read m\.gguf"):
        serve_command.check_arguments(parsed("m.gguf"), {})
    with pytest.raises(UserError, match="--max-model-len is 65, but m reads at most 64 tokens"):
        serve_command.served_tokens(65, 64, "m")
    assert serve_command.served_tokens(None, 64, "m") == 64
    assert serve_command.served_tokens(None, None, "m") == serve_command.READS
