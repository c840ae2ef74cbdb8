"""`python -m mobilezoo`: the command line, also under `torchrun -m`."""

from mobilezoo.cli.main import main

if __name__ == "__main__":
    main()
