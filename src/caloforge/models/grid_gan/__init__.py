"""3DGAN: adversarial networks for showers on a grid with 3-D or 2-D convolutions."""
