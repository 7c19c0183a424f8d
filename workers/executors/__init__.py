"""Who hands out the blocks. An executor receives a callable, or a command, and blocks; it knows no stage."""
