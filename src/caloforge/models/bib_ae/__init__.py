"""BIB-AE with post-processor and latent density for showers on a grid."""
