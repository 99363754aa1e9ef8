"""Whether the hub answers and lets us read, asked once: the libraries behind it would retry for a minute in silence."""

from __future__ import annotations

import os
from functools import lru_cache

from lco.errors import UserError


@lru_cache(maxsize=64)
def answers(name: str, kind: str = "model") -> bool:
    """Whether the hub answers a question about this id. False also where HF_HUB_OFFLINE forbids to ask.

    Args:
        kind: "model" or "dataset".

    Raises:
        UserError: the hub knows no such id, or its licence was not accepted with the token that is set.
    """
    # Imported here, because `lco problems` lists sets without the packages of training.
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    api = HfApi()
    page = f"{api.endpoint}/{'datasets/' if kind == 'dataset' else ''}{name}"
    try:
        api.auth_check(name, repo_type=kind)
    except GatedRepoError:
        raise UserError(
            f"the {kind} {name} is gated: accept its licence at {page} and set HF_TOKEN to an access token of that account"
        ) from None
    except RepositoryNotFoundError:
        raise UserError(
            f"the hub knows no {kind} {name}, or it is private; check the id at {page}, or set HF_TOKEN"
        ) from None
    except HfHubHTTPError:
        return True  # it answered; a mirror of the hub need not know this question
    except Exception:
        # What a lost connection raises depends on the HTTP library below; none of it is an answer.
        return False
    return True


def silence(name: str) -> str:
    """Why an id cannot be asked for, and what to do: the middle of a message."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "TRUE", "YES", "ON"}:
        return f"HF_HUB_OFFLINE is set and {name} is not in the cache (HF_HOME); unset it"
    return (
        f"the hub does not answer and {name} is not in the cache (HF_HOME); check the network (HF_ENDPOINT names a mirror, "
        "HF_TOKEN opens gated ids, HF_HUB_OFFLINE=1 asks the cache alone)"
    )
