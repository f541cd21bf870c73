"""What runs a converted model without torch: the reference, real values, and the C++ runtime."""
