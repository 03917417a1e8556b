"""The field store: how fine fields lie in Zarr, what vouches for them, how they grow."""
