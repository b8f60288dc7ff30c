"""Many runs: what they are, what they will take, starting them here or on SLURM, and how they stand."""
