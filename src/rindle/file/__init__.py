"""The waist: what a converted model is, and the .rindle file that holds it. docs/format.md."""
