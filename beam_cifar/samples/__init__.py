"""Sample datasets: drawn images in the original layout of CIFAR-10 or CIFAR-100, for tests, benchmarks and demos.

`make` writes the files (`beam_cifar.make_sample`, `beam-cifar make-sample`); `drawing` draws the images. Neither needs
Beam or Arrow; only the command line and the public API import this package.
"""
