"""Which path has which format: rules, what is known of paths without data, presets, quantizers."""
