"""Every study for every model that it fits, into one site of pages."""
