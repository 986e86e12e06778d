"""Pictures as numbers: opened, prepared for a model, masked, replaced by a baseline."""
