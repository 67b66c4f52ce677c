"""Response to energy and angle at test points, before and after reconstruction."""
