"""From a float graph, a scheme and data to a plan: every format and every step."""
