"""Reconstruction: from cell energies to one calibrated cluster with a direction."""
