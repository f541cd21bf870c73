"""How large what a file holds may be: docs/format.md. The core has the same numbers; ``tests/test_stated_limits.py`` compares the three."""

NAME = 256  # bytes of a name
DEPTH = 32  # levels of JSON
SIZE = 2**20  # features, rows, columns; padding and span of a window
ELEMENTS = 2**31  # of one tensor: fewer
NEEDS = 256  # names of features of version 4
PARTS = 64  # models in one file
NODES = 1024
WINDOW = 4096  # size, dilation and stride of a window
OPS = 256  # of a program
TERMS = 64  # of an affine
SEGMENTS = 256  # of a table
PATHS = 2**24  # elements of all paths of a model
GOLDEN = 65536  # frames of the golden vector
