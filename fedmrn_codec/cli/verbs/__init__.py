"""The verbs of the shell, one module each."""
