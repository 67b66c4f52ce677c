"""How many showers of the truth a generated sample is worth: quantile divergences, effective size, amplification."""
