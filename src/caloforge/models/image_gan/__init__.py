"""The VAE-GAN for small images of showers."""
