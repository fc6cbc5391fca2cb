#!/usr/bin/env bash
# Converts the dogs of a CIFAR-10 dataset (directory or archive) to a tree of images in ImageNet's layout.
# Usage: examples/dogs.sh cifar-10-python.tar.gz; writes to <name of the dataset>-imagenet in the current directory.
set -eu

beam-cifar convert --input-format cifar --input-path "$1" \
                   --output-format imagenet \
                   --filter '/item[annotation/label="dog"]'
