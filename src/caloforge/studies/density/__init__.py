"""Classical density estimators of the observables against the generator: kernel density and histogram."""
