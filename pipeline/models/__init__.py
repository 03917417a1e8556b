"""Model families: plain torch, no Ray, no MLflow, no file paths."""
