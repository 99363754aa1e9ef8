"""DR-RPO and its baselines on small decision processes whose model is known (arXiv 2510.14246): the tabular cousin of LCO.

model.py         a linear decision process as arrays
planner.py       exact planning and evaluation, robust and regularised
learners.py      LSVI-UCB, DR-LSVI-UCB, DR-RPO: episodes → an optimistic plan → the next episode
environments.py  the simulated linear process, the American put, random processes; and how their tests are perturbed
trial.py         one learner in one environment: regret, bonuses, returns under perturbation
report.py        tables and figures of many trials

All of it is numpy, but for the soft value, which is LCO's log Z (`lco.heads.gibbs`).
"""
