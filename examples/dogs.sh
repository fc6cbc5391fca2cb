#!/usr/bin/env bash
# Converts the dogs of a CIFAR-10 dataset, a directory or an archive, to a tree of images in the layout of ImageNet.
# Usage: examples/dogs.sh cifar-10-python.tar.gz; writes to <name of the dataset>-imagenet in the current directory.
set -eu

beam-cifar convert --input-format cifar --input-path "$1" \
                   --output-format imagenet \
                   --filter '/item[annotation/label="dog"]'
