"""What a model is: traced programs, and graphs of nodes that run them."""
