"""Training of the built-in models: diffusion models and the classifiers behind the metrics."""
