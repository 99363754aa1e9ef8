"""Reproduction suite for reinforcement learning of mathematical reasoning, built around Logits Convex Optimization.

Problems become prompts, prompts become rollouts, rollouts get rewards, rewards become advantages, advantages and token
statistics become a loss, losses become a policy, policies become evaluations, evaluations become tables.
Every subpackage is one of these arrows; data flows in one direction.
"""

__version__ = "0.1.0"
