"""What judges generated pictures: a model that is trained by others, frozen, and named beside every figure that it gives."""
