"""Score models in closed form: densities, processes and quadrature, in numpy float64."""
