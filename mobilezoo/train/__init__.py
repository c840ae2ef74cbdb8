"""One trainer for every backbone."""
