"""Statistics of arrays: moments, distances, resampling, two-sample tests. Independent of showers and detectors."""
