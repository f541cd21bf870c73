"""The demonstrations that `rindle demo` runs, on real recordings. An application: it uses both sides of the package."""
