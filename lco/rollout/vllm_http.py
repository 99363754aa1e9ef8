"""What a `vllm serve` process is asked over HTTP, and how its answers are taken. Written from vLLM 0.32's own routes.

Generation is /inference/v1/generate (`--enable-scale-out`): ids in, ids out. Weights, pauses and the prefix cache are its
development routes (VLLM_SERVER_DEV_MODE=1). `lco serve` switches both on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from lco.addresses import TOKEN
from lco.errors import UserError
from lco.rollout.spread import Gone, first_to_end

LOOK_EVERY = 2.0
"""Seconds between two looks at a server that is waited for."""

CONNECT, LOOK = 10.0, 60.0
"""Seconds to reach a server, and for it to say that it is there. What it works on may take as long as it likes."""

logging.getLogger("httpx").setLevel(logging.WARNING)  # it would write every address down
logging.getLogger("httpcore").setLevel(logging.WARNING)


class Door:
    """One server's. Names it by its number; its address is in no message.

    Args:
        number, count: it is server `number` of `count`, from 1.
        url: http://HOST:PORT.
        token: "" where it asks for none.
    """

    def __init__(self, number: int, count: int, url: str, token: str) -> None:
        self.name = f"vLLM server {number} of {count}"
        self.url, self.headers = url, {"Authorization": f"Bearer {token}"} if token else {}
        self.client: httpx.AsyncClient | None = None

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Inside, the server can be asked. No connection is kept from one request to the next: a server closes those that
        rest, which would look like its end. Proxies of the environment are passed by."""
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        timeout = httpx.Timeout(None, connect=CONNECT)
        options: Any = {"base_url": self.url, "headers": self.headers, "limits": limits, "timeout": timeout}
        async with httpx.AsyncClient(trust_env=False, **options) as self.client:
            yield

    async def ask(self, method: str, path: str, timeout: float | None = None, **content: Any) -> Any:
        """The JSON that it answers, None where it answers nothing.

        Raises:
            Gone: it does not answer, or says that it failed.
            UserError: it refuses the request.
        """
        assert self.client is not None
        waiting = httpx.Timeout(timeout, connect=CONNECT)
        try:
            answer = await self.client.request(method, path, timeout=waiting, **content)
        except httpx.TransportError as error:
            raise Gone(f"does not answer ({type(error).__name__})") from None
        said = " ".join(answer.text.split())[:300]
        if answer.status_code >= 500:
            raise Gone(f"answers {path} with {answer.status_code} ({said})")
        if answer.status_code in (401, 403) and "scale-out" not in said:
            raise UserError(f"{self.name} asks for another token; put it into {TOKEN}")
        if answer.status_code in (403, 404, 405):
            raise UserError(f"{self.name} has no {path} to ask; start it with `lco serve`, which switches it on")
        if answer.status_code >= 400:
            raise UserError(f"{self.name} refuses a request to {path}: {said}")
        return answer.json() if answer.content else None

    async def look(self) -> None:
        """
        Raises:
            Gone: nobody is there, or its engine has ended.
        """
        await self.ask("GET", "/health", timeout=LOOK)

    async def watch(self) -> None:
        """Looks again and again; ends by `Gone` alone."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            await self.look()

    async def generate(self, ids: Sequence[int], values: dict[str, Any]) -> Any:
        return await self.ask(
            "POST", "/inference/v1/generate", json={"token_ids": list(ids), "sampling_params": values}
        )

    async def prompt_logprobs(self, ids: Sequence[int]) -> list[float]:
        """log p of each id but the first, given those before it."""
        values = {"temperature": 0.0, "max_tokens": 1, "prompt_logprobs": 0, "detokenize": False}
        found = (await self.generate(ids, values))["prompt_logprobs"]
        return [float(entry[str(token)]["logprob"]) for token, entry in zip(ids[1:], found[1:], strict=True)]

    async def take_weights(self, folder: Path, version: str) -> None:
        """Has it read the weights of a model folder; whatever it is at is broken off.

        Raises:
            Gone: it ended meanwhile.
            UserError: it refuses them.
        """
        await first_to_end(self._take_weights(folder, version), self.watch())

    async def _take_weights(self, folder: Path, version: str) -> None:
        await self.ask("POST", "/pause", params={"mode": "abort"})
        for method, kwargs in (
            ("forget_packed_experts", {}),
            ("reload_weights", {"weights_path": str(folder)}),
        ):
            try:
                await self.ask("POST", "/collective_rpc", json={"method": method, "kwargs": kwargs})
            except Gone as failed:
                await self.look()  # where it has not ended, it has refused
                raise UserError(
                    f"{self.name} does not take the weights: it {failed}. Does it serve the trained model, was it started by "
                    "`lco serve`, and does it see the folder (--vllm-folder, where it is on another machine)?"
                ) from None
        if not (await self.ask("POST", "/reset_prefix_cache"))["success"]:
            raise UserError(
                f"{self.name} does not forget its cached prefixes, which are of older weights; start it again"
            )
        await self.ask("POST", "/update_weight_version", json={"new_version": version})
        await self.ask("POST", "/resume")
