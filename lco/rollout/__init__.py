"""Prompts become rollouts: the Sampler protocol, its two implementations, and the records they return."""

from lco.rollout.records import Batch, Rollouts, Row, Sampler, Sampling, collate

__all__ = ["Batch", "Rollouts", "Row", "Sampler", "Sampling", "collate"]
