"""`python -m rlprune`."""

from rlprune.cli.main import main

if __name__ == "__main__":
    main()
