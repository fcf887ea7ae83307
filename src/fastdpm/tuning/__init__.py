"""Plans learned for one network, from its own many-step trajectories."""
