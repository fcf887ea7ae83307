"""The networks, with the parameter names of what was published."""
