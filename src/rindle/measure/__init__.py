"""What a model costs and how good it is: sizes, operations, analysis, scores, times, widths."""
