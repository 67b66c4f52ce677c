"""Small images of showers: the VAE-GAN, and a Gaussian copula without a network."""
