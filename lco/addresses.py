"""Where a run's vLLM servers are. This is no knob: addresses and the token stand in no configuration, record or log.

They travel in environment variables, which the ranks of a run inherit. Messages call a server by its number in the list.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from lco.errors import UserError

URLS, FOLDER, TOKEN = "LCO_VLLM_URLS", "LCO_VLLM_FOLDER", "LCO_VLLM_TOKEN"
"""Environment variables: addresses with blanks between them; the folder that weights go through; the servers' token."""


@dataclass(frozen=True)
class Addresses:
    """What `--vllm-url`, `--vllm-folder` and the token in the environment say. Printing one shows none of it.

    Attributes:
        urls: http://HOST:PORT or https://HOST:PORT, without a slash at the end.
        folder: a folder that trainer and servers see under the same name; "" takes shared memory, on one machine.
        token: "" where the servers ask for none.
    """

    urls: tuple[str, ...] = field(repr=False)
    folder: str = field(repr=False)
    token: str = field(repr=False)


def read_addresses(variables: Mapping[str, str]) -> Addresses:
    """
    Raises:
        UserError: there is no address, one of them is none, or the folder is not there. Names it by its number.
    """
    urls = tuple(url.rstrip("/") for url in variables.get(URLS, "").split())
    if not urls:
        raise UserError(
            "rollouts is 'vllm-server', but no server is named; start one with `lco serve MODEL` and give its address with "
            "--vllm-url http://HOST:PORT (also on a resume: no configuration keeps it)"
        )
    for number, url in enumerate(urls, 1):
        check_address(number, url, urls)
    folder = variables.get(FOLDER, "")
    if folder and not Path(folder).is_dir():
        raise UserError("--vllm-folder is no folder; make it, or name one that trainer and servers both see")
    return Addresses(urls, folder, variables.get(TOKEN, ""))


def check_address(number: int, url: str, urls: tuple[str, ...]) -> None:
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        sound = False
    if not sound:
        raise UserError(f"address {number} of --vllm-url is none; write http://HOST:PORT")
    if "@" in parts.netloc:
        raise UserError(f"address {number} of --vllm-url holds a name or password; put the token into {TOKEN} instead")
    if parts.path or parts.query or parts.fragment:
        raise UserError(f"address {number} of --vllm-url goes on behind the port; write http://HOST:PORT alone")
    if urls.index(url) != number - 1:
        raise UserError(f"address {number} of --vllm-url was given before; name each server once")
