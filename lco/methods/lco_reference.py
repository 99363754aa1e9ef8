"""The three LCO losses as the authors' released code runs them, beside the theory (github.com/homzer/llama-rlhf).

Read for facts; where it departs from the equations:

    KLD        the target is made of π_old's 5 likeliest tokens in float16, all others are excluded (`top_filled`)
    MSE, LCH   the target is the current logit plus A/β, which moves with the policy (`moving`)
    all        A = ±1 on every token without a baseline; β is multiplied by 100 where A < 0
"""

from lco.methods.lco_kld import LCO_KLD
from lco.methods.lco_lch import LCO_LCH
from lco.methods.lco_mse import LCO_MSE

COMMON = {"advantage": "sign_broadcast", "beta_negative_scale": 100.0}

LCO_KLD_REFERENCE = LCO_KLD.variant(
    "lco_kld_reference",
    "LCO-KLD, released code",
    "LCO-KLD with the released code's top-5 target and positive-only advantages.",
    {"support": "top_filled", **COMMON},
)
LCO_MSE_REFERENCE = LCO_MSE.variant(
    "lco_mse_reference",
    "LCO-MSE, released code",
    "LCO-MSE with the released code's moving target and positive-only advantages.",
    {"target_space": "moving", **COMMON},
)
LCO_LCH_REFERENCE = LCO_LCH.variant(
    "lco_lch_reference",
    "LCO-LCH, released code",
    "LCO-LCH with the released code's moving target and positive-only advantages.",
    {"target_space": "moving", **COMMON},
)
