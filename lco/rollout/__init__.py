"""Prompts become rollouts: the Sampler protocol, its implementations, and the records they return."""

from lco.rollout.records import Batch, Row, Sampler, Sampling, collate

__all__ = ["Batch", "Row", "Sampler", "Sampling", "collate"]
