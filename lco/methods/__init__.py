"""The registry: one method, one file, one line here."""

from lco.errors import UserError, nearest
from lco.methods.grpo import GRPO
from lco.methods.lco_kld import LCO_KLD
from lco.methods.lco_lch import LCO_LCH
from lco.methods.lco_mse import LCO_MSE
from lco.methods.method import Hyper, Hyperparameter, Method, Needs, Signal
from lco.methods.ppo import PPO
from lco.methods.reinforce import REINFORCE
from lco.methods.rft import RFT
from lco.methods.sft import SFT

METHODS: dict[str, Method] = {
    method.name: method for method in (LCO_KLD, LCO_MSE, LCO_LCH, PPO, GRPO, REINFORCE, RFT, SFT)
}


def method_named(name: str) -> Method:
    """The registered method.

    Raises:
        UserError: no such method; the message names the nearest one.
    """
    if name not in METHODS:
        raise UserError(f"there is no method {name!r}{nearest(name, METHODS)}")
    return METHODS[name]


__all__ = ["METHODS", "Hyper", "Hyperparameter", "Method", "Needs", "Signal", "method_named"]
