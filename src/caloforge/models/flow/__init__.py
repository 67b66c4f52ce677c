"""Conditional flow matching: the flagship, its distilled form and its students."""
