"""The command line.

One module per command: `add(commands)` declares its arguments and `run(arguments)` does the work; the docstring of
`run` is the help text. `main` puts them together. Beam, Arrow and numpy are imported only inside `run`, to keep
`--help` fast. No other package imports this one.
"""
