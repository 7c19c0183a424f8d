"""The commands: one module each, named like the command. The only modules that print and exit."""
