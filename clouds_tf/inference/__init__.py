"""What evaluation and serving share: fused models, ensembles, post-processing."""
