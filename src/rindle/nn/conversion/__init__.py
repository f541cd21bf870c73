"""From a plan to integers: the last place where a float decides anything."""
