"""From a torch module to a float graph: torch.export, registered classes, stacks of recurrent layers."""
