"""`python -m beam_cifar` is `beam-cifar`."""

from beam_cifar.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
