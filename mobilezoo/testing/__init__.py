"""Checks that users of the zoo can run on families, targets and devices of their own."""
