"""Integers back inside torch: drop-in modules, dynamic quantization, float forms, rivals of the benchmark."""
