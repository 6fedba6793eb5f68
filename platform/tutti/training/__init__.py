"""Learning: recipe, loop, strategies, checkpoints, and the adapter to Ray Train."""
