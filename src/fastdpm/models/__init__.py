"""Networks, model folders and the models that come with the package."""
