"""Building blocks of the backbones, built with sites."""
