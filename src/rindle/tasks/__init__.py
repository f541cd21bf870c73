"""Applications: data sets, demos, training loop, metrics and decoders. Nothing below imports them."""
