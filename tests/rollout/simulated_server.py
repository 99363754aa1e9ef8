"""A stand-in for `vllm serve` that fails on demand. Its model is one number: the mean of `lm_head.weight`, by which every token
is that likely. How the real one answers is tested in test_vllm_server_long.py."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from safetensors.torch import load_file


class SimulatedServer:
    """Listens on a port of this machine.

    Attributes:
        routes: paths that it was asked for, in order.
        refuses: path → the status that it answers with instead.
        reloads: whether weights are really read.
        longest: tokens of a response at most; None for as many as asked.
        aborts: how many more rows it breaks off.
    """

    def __init__(self):
        self.routes, self.refuses, self.reloads, self.longest, self.aborts = [], {}, True, None, 0
        self.restart()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_GET(self):
                self.reply()

            do_POST = do_GET  # noqa: N815

            def reply(self):
                size = int(self.headers.get("content-length") or 0)
                path = self.path.partition("?")[0]
                status, body = outer.answer(path, json.loads(self.rfile.read(size) or b"{}"), self.headers)
                text = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.handle_error = lambda *_: None  # a request that was given up
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def restart(self):
        """As if it had been started again: its first weights, and no version."""
        self.version, self.weight, self.authorization = "default", -1.0, set()

    def close(self):
        self.http.shutdown()
        self.http.server_close()

    def answer(self, path, body, headers):
        self.routes.append(path)
        self.authorization.add(headers.get("authorization"))
        if path in self.refuses:
            return self.refuses[path], {"error": {"message": "as it was told to"}}
        return 200, getattr(self, path.strip("/").replace("/", "_"), lambda body: {"success": True})(body)

    def collective_rpc(self, body):
        if body["method"] == "reload_weights" and self.reloads:
            folder = Path(body["kwargs"]["weights_path"])
            tensors = {k: v for file in folder.glob("*.safetensors") for k, v in load_file(file).items()}
            self.weight = float(tensors["lm_head.weight"].mean())
        return {"results": [None]}

    def update_weight_version(self, body):
        self.version = body["new_version"]
        return {"success": True}

    def inference_v1_generate(self, body):
        values = body["sampling_params"]
        if "prompt_logprobs" in values:
            return {"prompt_logprobs": [None, *({str(i): {"logprob": self.weight}} for i in body["token_ids"][1:])]}
        return {"choices": [self.choice(values, i) for i in range(values["n"])]}

    def choice(self, values, index):
        self.aborts -= 1
        ids = [(values["seed"] + index + t) % 50 + 10 for t in range(self.longest or values["max_tokens"])]
        return {
            "index": index,
            "finish_reason": "abort" if self.aborts >= 0 else "length",
            "token_ids": ids,
            "weight_versions": [{"version": self.version, "start": 0, "end": len(ids)}],
            "logprobs": {"content": [{"token_id": i, "logprob": self.weight} for i in ids]},
        }
