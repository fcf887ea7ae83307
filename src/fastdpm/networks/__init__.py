"""The network architectures, with the parameter names of the published checkpoints."""
