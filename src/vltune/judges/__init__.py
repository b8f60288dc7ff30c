"""What judges generated pictures: a model, frozen, and named beside every figure that it gives."""
