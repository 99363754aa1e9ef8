"""Self-contained HTML pages from the templates beside this file: one stylesheet, no network, light and dark.
A script is a page's own and named in its policy by hash; what is not that script does not run.

Everything that is not markup of the templates is escaped, and characters that act without being seen are spelled out.
"""

from __future__ import annotations

import base64
import re
from functools import cache
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lco.evidence.formats import visible


def page(template: str, **values: Any) -> str:
    """The text of a page; equal values give equal bytes."""
    return environment().get_template(template).render(**values)


@cache
def environment() -> Environment:
    found = Environment(
        loader=PackageLoader("lco.evidence"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=lambda value: value if isinstance(value, Markup) else visible(value, kept="\n\t"),
    )  # fmt: skip
    found.globals["stylesheet"] = Markup(found.loader.get_source(found, "style.css")[0])  # type: ignore[union-attr]
    found.filters |= {"anchor": anchor, "png": png, "address": address}
    return found


def anchor(name: str) -> str:
    """A name as the target of a link."""
    return re.sub(r"\W+", "-", str(name).lower()).strip("-") or "part"


def png(data: bytes) -> str:
    """An image's address that holds the image."""
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def address(path: str) -> str:
    """A relative path as a link: no name in it is a scheme, a query or a fragment."""
    return "/".join(quote(part, safe="") for part in path.split("/"))
