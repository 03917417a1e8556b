"""The scale-adaptive family: conditional mean plus residual diffusion, retuned per factor pair."""
