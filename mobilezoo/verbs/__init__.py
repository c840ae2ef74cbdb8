"""What the CLI's verbs do: one file per verb, each joining packages that do not know each other."""
