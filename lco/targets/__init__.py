"""LCO's targets π* ∝ π_old exp(c): where the tilt c = A/β of a token comes from (arXiv 2603.00963).

sparse.py    A of the sampled token, from rewards
dense.py     A of every token, from policies that do not learn
ratio.py     the fixed probability ratio of the paper's earlier version

A target is asked by the head, a chunk of tokens at a time (`lco.heads.Target`); its fields are the knobs that it owns.
"""

from lco.targets.dense import LogProbabilityTilt, PreferenceRatioTilt
from lco.targets.ratio import RatioTilt
from lco.targets.sparse import SparseTilt, UnbiasedSparseTilt, tilt

__all__ = ["LogProbabilityTilt", "PreferenceRatioTilt", "RatioTilt", "SparseTilt", "UnbiasedSparseTilt", "tilt"]
