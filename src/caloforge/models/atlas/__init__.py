"""The ATLAS VAE and WGAN-GP for a list of cells."""
