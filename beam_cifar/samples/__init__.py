"""Sample datasets: drawn images in the genuine layout of CIFAR-10 or CIFAR-100, for tests, benchmarks and demos.

`make` writes the files (`beam_cifar.make_sample`, `beam-cifar make-sample`); `drawing` makes pixels whose PNG files are
as large as those of photos. Nothing here needs Beam or Arrow, and only the command line and the public face import it.
"""
