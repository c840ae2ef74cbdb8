"""What each command does, without printing: the work behind the command line and the Python API."""
