"""Statistics of arrays: two-sample tests with classifiers. Nothing here knows showers or detectors."""
