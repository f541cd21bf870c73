"""Training under quantization: prepare, the prepared modules, held inputs."""
