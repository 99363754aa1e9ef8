"""The laboratory: every registered method at single positions, where the optimal target is known exactly."""
