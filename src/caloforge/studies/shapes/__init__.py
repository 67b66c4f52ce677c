"""Shower shapes, core cells and speed of generators, after the comparison of Conv2D and Conv3D."""
