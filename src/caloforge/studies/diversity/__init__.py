"""Whether a generator's showers differ among themselves, and from those that it was trained on."""
