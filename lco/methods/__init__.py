"""The registry: one method, one file, one line here; outside.py finds those that are not the suite's.

Nothing heavy is imported until a method is asked for, so that a typo in a name is answered at once.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, MutableMapping
from typing import TYPE_CHECKING

from lco.errors import UserError, nearest
from lco.methods import outside
from lco.outside import is_place

if TYPE_CHECKING:
    from lco.methods.method import Method
    from lco.methods.outside import Found

REGISTERED = {
    "lco_kld": "lco_kld:LCO_KLD",
    "lco_mse": "lco_mse:LCO_MSE",
    "lco_lch": "lco_lch:LCO_LCH",
    "lco_kld_reference": "lco_reference:LCO_KLD_REFERENCE",
    "lco_mse_reference": "lco_reference:LCO_MSE_REFERENCE",
    "lco_lch_reference": "lco_reference:LCO_LCH_REFERENCE",
    "lco_rkl": "lco_rkl:LCO_RKL",
    "lco_rho": "lco_rho:LCO_RHO",
    "ppo": "ppo:PPO",
    "grpo": "grpo:GRPO",
    "dr_grpo": "dr_grpo:DR_GRPO",
    "dapo": "dapo:DAPO",
    "dapo_refill": "dapo:DAPO_REFILL",
    "gspo": "gspo:GSPO",
    "gspo_token": "gspo:GSPO_TOKEN",
    "cispo": "cispo:CISPO",
    "minpro": "minpro:MINPRO",
    "dppo": "dppo:DPPO",
    "dppo_recompute": "dppo:DPPO_RECOMPUTE",
    "dppo_verl": "dppo:DPPO_VERL",
    "cppo": "cppo:CPPO",
    "cppo_unirl": "cppo:CPPO_UNIRL",
    "bapo": "bapo:BAPO",
    "bapo_code": "bapo:BAPO_CODE",
    "capo": "capo:CAPO",
    "dr_capo": "capo:DR_CAPO",
    "rein_capo": "capo:REIN_CAPO",
    "reinforce": "reinforce:REINFORCE",
    "reinforce_pp": "reinforce_pp:REINFORCE_PP",
    "reinforce_pp_baseline": "reinforce_pp:REINFORCE_PP_BASELINE",
    "rloo": "rloo:RLOO",
    "oblr_po": "oblr_po:OBLR_PO",
    "kimi": "kimi:KIMI",
    "kimi_token": "kimi:KIMI_TOKEN",
    "pmd_mean": "pmd:PMD_MEAN",
    "pmd_partition": "pmd:PMD_PARTITION",
    "rft": "rft:RFT",
    "sft": "sft:SFT",
    "dpo": "dpo:DPO",
    "sage": "sage:SAGE",
    "preference_verifier": "preference_verifier:PREFERENCE_VERIFIER",
}
"""name, as typed on the command line → file in this folder : its Method"""


class Registry(MutableMapping[str, "Method"]):
    """Methods by name, each imported when it is first asked for."""

    def __init__(self, places: dict[str, str]) -> None:
        self._places, self._methods = dict(places), dict[str, "Method"]()

    def __getitem__(self, name: str) -> Method:
        if name not in self._methods:
            file, _, variable = self._places[name].partition(":")
            self._methods[name] = getattr(importlib.import_module(f"lco.methods.{file}"), variable)
        return self._methods[name]

    def __setitem__(self, name: str, method: Method) -> None:
        self._places[name], self._methods[name] = "", method

    def __delitem__(self, name: str) -> None:
        del self._places[name]
        self._methods.pop(name, None)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, name: object) -> bool:
        return name in self._places


METHODS = Registry(REGISTERED)
"""The suite's own; `method_named` knows those from outside too."""


def method_named(name: str) -> Method:
    """A method of the suite, of an installed package, or of a file `path/to/file.py:NAME`.

    Raises:
        UserError: as `check_method` and lco/methods/outside.py say.
    """
    check_method(name)
    return METHODS[name] if name in METHODS else found_outside(name).method


def code_of(name: str) -> dict[str, str]:
    """Hashes of the code of a method from outside, for manifests; of the suite's own the commit tells."""
    return {} if name in METHODS else found_outside(name).code


def found_outside(name: str) -> Found:
    return outside.from_file(name, METHODS) if is_place(name) else outside.from_package(name, METHODS)


def check_method(name: str) -> None:
    """
    Raises:
        UserError: no such method; the message names the nearest one. Nothing is imported to know it.
    """
    if name not in METHODS and not is_place(name) and name not in outside.announced():
        raise UserError(f"there is no method {name!r}{nearest(name, [*METHODS, *outside.announced()])}")
