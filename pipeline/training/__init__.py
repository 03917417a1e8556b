"""Training of a model's stages."""
