"""What each layer of a calorimeter sees: energies, depth, response, lateral profiles, means and widths."""
