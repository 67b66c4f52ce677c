"""Every study for every model that it fits, as one site of pages."""
