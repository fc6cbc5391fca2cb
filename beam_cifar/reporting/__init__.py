"""One HTML page about a data set: what is on it, how its pictures are picked, and how it is written as HTML."""
