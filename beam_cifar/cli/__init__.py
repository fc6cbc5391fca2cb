"""The command line.

One module for each command, with `add(commands)` for its arguments and `run(arguments)` for its work, whose docstring
is the help text; `main` composes them. Only a command's own work imports Beam, Arrow or numpy, so that `--help` is
quick. Nobody else imports this.
"""
