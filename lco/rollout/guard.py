"""Has a vLLM server ask for its token everywhere. Its own `--api-key` guards generation alone, and not the development routes,
by which whoever reaches the port can call functions of its workers."""

from __future__ import annotations

import hmac
import os
from typing import Any

from lco.addresses import TOKEN


class RequireToken:
    """ASGI middleware: requests without `Authorization: Bearer TOKEN` are answered with 401, whatever they ask for.

    Raises:
        KeyError: the environment has no token. `lco serve` adds this where it has one.
    """

    def __init__(self, app: Any) -> None:
        self.app, self.expected = app, f"Bearer {os.environ[TOKEN]}".encode()

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        given = dict(scope.get("headers", ())).get(b"authorization", b"")
        if scope["type"] == "lifespan" or hmac.compare_digest(given, self.expected):
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await send({"type": "http.response.start", "status": 401, "headers": []})
            await send({"type": "http.response.body", "body": b""})
