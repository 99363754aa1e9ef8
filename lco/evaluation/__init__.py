"""Policies become evaluations: lm-eval as a library, on the suite's tasks, with the suite's samplers and verifier."""
