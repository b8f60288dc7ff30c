"""Backbones: from a batch to features, built from `nn` blocks whose sites a method can use."""
