"""The stages: thin modules that read, call the op of the same name, and write."""
