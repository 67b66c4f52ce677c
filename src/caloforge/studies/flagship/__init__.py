"""The study of the flagship: accuracy against steps, weights and showers, and the effect of each choice of its design."""
