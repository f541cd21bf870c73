"""What a number is: formats, codes and their arithmetic, tables, the float operations. docs/numerics.md."""
