"""The registry: one method, one file, one line here."""

from lco.errors import UserError, nearest
from lco.methods.cispo import CISPO
from lco.methods.dapo import DAPO, DAPO_REFILL
from lco.methods.dpo import DPO
from lco.methods.dr_grpo import DR_GRPO
from lco.methods.grpo import GRPO
from lco.methods.gspo import GSPO, GSPO_TOKEN
from lco.methods.kimi import KIMI, KIMI_TOKEN
from lco.methods.lco_kld import LCO_KLD
from lco.methods.lco_lch import LCO_LCH
from lco.methods.lco_mse import LCO_MSE
from lco.methods.lco_reference import LCO_KLD_REFERENCE, LCO_LCH_REFERENCE, LCO_MSE_REFERENCE
from lco.methods.lco_rho import LCO_RHO
from lco.methods.lco_rkl import LCO_RKL
from lco.methods.method import Hyper, Hyperparameter, Method, Needs, Prepare, Preset, Signal
from lco.methods.pmd import PMD_MEAN, PMD_PARTITION
from lco.methods.ppo import PPO
from lco.methods.preference_verifier import PREFERENCE_VERIFIER
from lco.methods.reinforce import REINFORCE
from lco.methods.reinforce_pp import REINFORCE_PP, REINFORCE_PP_BASELINE
from lco.methods.rft import RFT
from lco.methods.rloo import RLOO
from lco.methods.sft import SFT

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        LCO_KLD,
        LCO_MSE,
        LCO_LCH,
        LCO_KLD_REFERENCE,
        LCO_MSE_REFERENCE,
        LCO_LCH_REFERENCE,
        LCO_RKL,
        LCO_RHO,
        PPO,
        GRPO,
        DR_GRPO,
        DAPO,
        DAPO_REFILL,
        GSPO,
        GSPO_TOKEN,
        CISPO,
        REINFORCE,
        REINFORCE_PP,
        REINFORCE_PP_BASELINE,
        RLOO,
        KIMI,
        KIMI_TOKEN,
        PMD_MEAN,
        PMD_PARTITION,
        RFT,
        SFT,
        DPO,
        PREFERENCE_VERIFIER,
    )
}


def method_named(name: str) -> Method:
    """The registered method.

    Raises:
        UserError: no such method; the message names the nearest one.
    """
    if name not in METHODS:
        raise UserError(f"there is no method {name!r}{nearest(name, METHODS)}")
    return METHODS[name]


__all__ = ["METHODS", "Hyper", "Hyperparameter", "Method", "Needs", "Prepare", "Preset", "Signal", "method_named"]
